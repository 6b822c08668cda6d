"""Time on a mesh: by hand, against the readable queue and the layer-level engine, and what always holds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise
from operator import add

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import ORDERS

from pcsim.engine.event import EventEngine
from pcsim.engine.mesh.engine import InFlight, MeshEngine, MeshTiming, simulate_mesh, span_of
from pcsim.engine.mesh.plan import Plan, make_plan
from pcsim.engine.mesh.times import Durations
from pcsim.errors import ConfigurationError, ShapeError
from pcsim.hardware.chip import Chip
from pcsim.hardware.clock import Hardware, Links
from pcsim.hardware.mapping import Mapping, Tile
from pcsim.hardware.routes import is_horizontal
from pcsim.hardware.traffic import traffic_of
from pcsim.network.network import Network
from pcsim.schedule.operation import Operations
from pcsim.schedule.program import Program, Schedule

times = st.sampled_from([0.0, 0.0, 0.1, 1.0, 1 / 3, 30.0])


@dataclass(frozen=True)
class Case:
    """A program on a mesh."""

    program: Program
    mapping: Mapping
    batch: int
    durations: Durations

    def plan(self) -> Plan:
        return make_plan(self.program, self.mapping, self.batch, self.durations)


@st.composite
def cases(draw, *, one_core=False) -> Case:
    """Any order, or any linear extension of one, of any small network, split anyhow over any small mesh."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=2, max_size=6))
    program = Program.build(
        Network.dense(sizes), Schedule(draw(st.sampled_from(ORDERS)), draw(st.integers(0, 3)))
    )
    if draw(st.booleans()):
        program = program.reordered(np.random.default_rng(draw(st.integers(0, 99))))
    rows, columns = (1, 1) if one_core else draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    width = draw(st.sampled_from([None, 1.0, 4.0, 0.3]))
    chip = Chip(rows, columns, None, None, None, width, draw(times), draw(times))
    tiles = []
    for layer, size in enumerate(sizes):
        cuts = sorted({0, size, *draw(st.lists(st.integers(0, size), max_size=3))})
        cores = st.integers(0, chip.cores - 1)
        tiles += [Tile(layer, first, last, draw(cores)) for first, last in pairwise(cuts)]
    number = len(program.operations)
    fixed, shared = (
        np.array(draw(st.lists(times, min_size=number, max_size=number)), np.float64) for _ in range(2)
    )
    mapping = Mapping("any", chip, tuple(sizes), tuple(tiles), "drawn")
    return Case(program, mapping, draw(st.integers(1, 3)), Durations(fixed, shared, draw(times)))


def told(timing: MeshTiming) -> list[bytes]:
    """Everything that happened, bit by bit."""
    return [column.tobytes() for column in timing.record] + [np.float64(timing.makespan).tobytes()]


def chain(sizes, tiles, chip, *, order="sequential", iterations=2, duration=1.0, batch=1) -> Case:
    """A network with tiles as given, all operations equally long."""
    program = Program.build(Network.dense(sizes), Schedule(order, iterations))
    number = len(program.operations)
    mapping = Mapping("mine", chip, tuple(sizes), tuple(tiles), "mine")
    return Case(program, mapping, batch, Durations(np.full(number, duration), np.zeros(number)))


def on_a_row(order="sequential", *, layers=5, iterations=3, chip=None) -> Case:
    """A layer a core, neighbours side by side."""
    sizes = [3 + 2 * layer % 7 for layer in range(layers)]
    tiles = [Tile(layer, 0, size, layer) for layer, size in enumerate(sizes)]
    return chain(sizes, tiles, chip or Chip(1, layers), order=order, iterations=iterations, batch=2)


# ------------------------------------------------------------------------------------- two engines, one story


@settings(max_examples=300, deadline=None)
@given(cases(), st.sampled_from([float("inf"), float("inf"), 0.0, 3.0, 40.0]))
@example(on_a_row(layers=2, iterations=0), 0.0)
def test_same_events_as_the_readable_queue(case, until):
    """The compiled queue is worth nothing unless nobody can tell it from the one that people can read."""
    plan = case.plan()
    assert told(simulate_mesh(plan, until)) == told(MeshEngine(plan).simulate(until))


@pytest.mark.parametrize("order", ORDERS)
def test_same_times_as_the_layer_level_engine(order):
    """One tile a layer on neighbouring cores is the event engine's machine: starts and ends are equal."""
    hardware = Hardware(1.0, 0.25, 0.0, 0.125, Links(latency=2.0))
    chip = Chip(1, 6, link_bytes_per_ns=8.0, hop_ns_horizontal=2.0)
    case = on_a_row(order, layers=6, chip=chip)
    engine = EventEngine(case.program, None, hardware, case.batch)
    engine.simulate()
    whole = [
        hardware.operation_time(one.name, one.layer, one.multiplications * 2)
        for one in case.program.operations
    ]
    plan = make_plan(case.program, case.mapping, 2, Durations(np.zeros(len(whole)), np.array(whole)))
    timing = simulate_mesh(plan)
    expected = sorted((e.layer, e.start, e.end) for e in engine.timeline if e.kind == "operation")
    job, start = timing.record.job, timing.record.job_start
    assert expected == sorted(zip(plan.job_tile[job], start, start + plan.job_ns[job]))
    arrivals = sorted((e.target, e.end) for e in engine.timeline if e.kind == "message")
    assert arrivals == sorted(zip(plan.edge_door[timing.record.met] // 2, timing.record.met_at))
    assert timing.makespan == engine.totals.simulated_time


# ---------------------------------------------------------------------------------------------------- by hand


def test_one_packet_alone():
    """The closed form: latencies of the hops, and bytes over width.

    2 hops of 3 ns along the row, 1 of 5 ns down the column, 2 values of 4 bytes at 0.5 bytes/ns: a prediction
    leaves at 2 ns (clamp, predict) and is in whole at 2 + 2·3 + 5 + 16 = 29 ns.
    """
    tiles = [Tile(0, 0, 3, 0), Tile(1, 0, 2, 5)]
    case = chain([3, 2], tiles, Chip(2, 3, None, None, None, 0.5, 3.0, 5.0), iterations=0)
    timing = simulate_mesh(case.plan())
    assert timing.record.met_at[0] == 29.0
    assert timing.record.crossed_at[:3].tolist() == [2.0, 5.0, 8.0]
    # clamp and compare at the output; the error, 8 bytes, goes back: 1 down, 2 along, 16; then learn.
    assert timing.makespan == timing.span == 29 + 2 + 27 + 1


def test_two_packets_for_one_link():
    """Tiles 0 and 1 of the input, on cores 0 and 1 of a row of three, send 4 bytes each to core 2 at 2 ns.

    Tile 1's packet asks for link 1→2 at 2 and holds it until 6; tile 0's head crosses 0→1 in 1 ns, asks at 3,
    waits until 6, and its tail is in at 6 + 1 + 4 = 11. The other one's is in at 2 + 1 + 4 = 7.
    """
    tiles = [Tile(0, 0, 1, 0), Tile(0, 1, 2, 1), Tile(1, 0, 1, 2)]
    chip = Chip(1, 3, link_bytes_per_ns=1.0, hop_ns_horizontal=1.0)
    timing = simulate_mesh(chain([2, 1], tiles, chip, iterations=0).plan())
    plan, record = timing.plan, timing.record
    story = list(zip(plan.branch_link[record.crossed], record.asked_at, record.crossed_at))
    assert story[:3] == [(0, 2.0, 2.0), (4, 2.0, 2.0), (4, 3.0, 6.0)]
    assert record.met_at[:2].tolist() == [7.0, 11.0]
    assert timing.waiting == 3.0
    # the output waits for both parts (clamp at 11, compare until 13) and answers with one multicast packet
    assert plan.branch_link[record.crossed[3:]].tolist() == [9, 5]
    assert record.met_at[2:].tolist() == [13 + 1 + 4.0, 13 + 2 + 4.0]
    assert timing.makespan == 20.0
    assert timing.span == 2 + 2 + 4 + 2 + 2 + 4 + 1


def test_part_sums_are_added_up():
    """The first operation that reads a round adds its parts up: here the output's clamp, once.

    Three parts of 2 values for 5 samples: 2 · 2 · 5 = 20 additions of 0.5 ns.
    """
    tiles = [Tile(0, 0, 1, 0), Tile(0, 1, 2, 1), Tile(0, 2, 3, 2), Tile(1, 0, 2, 3)]
    case = chain([3, 2], tiles, Chip(2, 2), iterations=0, batch=5)
    plan = make_plan(case.program, case.mapping, 5, replace(case.durations, addition=0.5))
    named = {case.program.operations[o].name: ns for o, ns in zip(plan.job_operation, plan.job_ns)}
    assert named == {"clamp": 11.0, "predict": 1.0, "compare": 1.0, "learn": 1.0}
    assert traffic_of(case.program, case.mapping, 5).merged_values == 20


def test_a_tile_takes_its_share():
    """Of a layer of 5 neurons, tiles of 3 and 2 take 3/5 and 2/5 of the work, and all of what is fixed."""
    tiles = [Tile(0, 0, 3, 0), Tile(0, 3, 5, 1), Tile(1, 0, 1, 2)]
    case = chain([5, 1], tiles, Chip(1, 3), iterations=0)
    number = len(case.program.operations)
    plan = make_plan(case.program, case.mapping, 1, Durations(np.full(number, 2.0), np.full(number, 10.0)))
    assert plan.job_ns[plan.job_tile == 0].tolist() == [8.0] * 3
    assert plan.job_ns[plan.job_tile == 1].tolist() == [6.0] * 3
    assert plan.job_ns[plan.job_tile == 2].tolist() == [12.0] * 2


def test_rounds_are_counted_by_source():
    """A tile whose two packets come before another's first one must not stand in for it."""
    network = Network.dense([2, 1])
    ops = Operations(network, ())
    program = Program(network, (ops.predict(0), ops.clamp(1), ops.predict(0), ops.compare(1)), 0)
    tiles = (Tile(0, 0, 1, 0), Tile(0, 1, 2, 1), Tile(1, 0, 1, 3))
    chip = Chip(1, 4, hop_ns_horizontal=10.0, link_bytes_per_ns=0.5)  # 8 ns a packet, 30 and 20 ns of hops
    plan = make_plan(program, Mapping("m", chip, (2, 1), tiles, "m"), 1, Durations(np.ones(4), np.zeros(4)))
    timing = simulate_mesh(plan)
    # Far parts: sent at 1 and 2, in at 39 and 47; near parts: sent at 1 and 2, and first on the shared links.
    starts = {int(plan.job_operation[j]): t for j, t in zip(timing.record.job, timing.record.job_start)}
    arrivals = defaultdict(list)
    for edge, time in zip(timing.record.met, timing.record.met_at):
        arrivals[int(edge)].append(float(time))
    assert starts[1] == max(times[0] for times in arrivals.values() if len(times) == 2)
    assert starts[3] == max(times[1] for times in arrivals.values() if len(times) == 2)


# ----------------------------------------------------------------------------------------- what always holds


@settings(max_examples=150, deadline=None)
@given(cases())
def test_bounds(case):
    """No machine is faster than the longest path, nor than its cores sharing the work evenly."""
    timing = simulate_mesh(case.plan())
    cores, slack = len(case.mapping.cores), 1 + 1e-12
    assert timing.makespan * slack >= timing.span
    assert timing.makespan * slack * cores >= timing.plan.work
    assert len(timing.record.job) == len(timing.plan.job_tile)
    assert timing.core_busy.sum() == pytest.approx(timing.plan.work)
    assert timing.core_busy.max() <= timing.makespan * slack
    assert timing.link_busy.max() <= timing.makespan * slack


@settings(max_examples=80, deadline=None)
@given(cases(one_core=True))
def test_one_core_works_all_the_time(case):
    """One core gives exactly the total work: in any order there is always a job that can begin."""
    timing = simulate_mesh(case.plan())
    assert timing.makespan == reduce(add, timing.plan.job_ns[timing.record.job].tolist())
    assert timing.makespan == pytest.approx(timing.plan.work)
    assert len(timing.record.crossed) == 0


@settings(max_examples=150, deadline=None)
@given(cases(), st.sampled_from([float("inf"), 0.0, 1.0, 5.0, 60.0]))
def test_conservation(case, until):
    """Every packet that was sent has come to each of its targets, once, or is named in flight."""
    timing = simulate_mesh(case.plan(), until)
    plan, record = timing.plan, timing.record
    received = Counter(zip(record.meeting.tolist(), (plan.edge_door[record.met] // 2).tolist()))
    missing = Counter((one.packet, one.target) for one in timing.in_flight())
    sent = Counter()
    streams = traffic_of(case.program, case.mapping, case.batch).streams
    for packet, (job, route) in enumerate(zip(record.packet_job, record.packet_route)):
        assert streams[route].source == plan.job_tile[job]
        sent.update((packet, target) for target in streams[route].targets)
    assert received + missing == sent
    if until == float("inf"):
        assert not missing
        assert len(record.packet_job) == sum(stream.rounds for stream in streams)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_traffic_is_what_was_counted_without_running(case):
    """The static count of packets, hops and bytes must be what crosses the links."""
    timing, traffic = simulate_mesh(case.plan()), traffic_of(case.program, case.mapping, case.batch)
    links = timing.plan.branch_link[timing.record.crossed]
    assert np.bincount(links, minlength=timing.plan.links).tolist() == traffic.link_packets.tolist()
    width = case.mapping.chip.link_bytes_per_ns
    if width is not None:
        assert timing.link_busy * width == pytest.approx(traffic.link_bytes)
    assert traffic.hops == len(links)
    assert traffic.hops_horizontal == sum(map(is_horizontal, links.tolist()))
    assert traffic.packets + traffic.local == len(timing.record.packet_job)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_nobody_does_two_things_at_once(case):
    """A core's jobs follow one another, each tile's in the program's order; so do packets on a link."""
    timing = simulate_mesh(case.plan())
    plan, record = timing.plan, timing.record
    jobs, packets = defaultdict(list), defaultdict(list)
    for job, start in zip(record.job.tolist(), record.job_start.tolist()):
        jobs[int(plan.tile_core[plan.job_tile[job]])].append((start, start + plan.job_ns[job], job))
    for branch, start, asked in zip(record.crossed, record.crossed_at, record.asked_at):
        length = plan.route_ns[plan.branch_route[branch]]
        packets[int(plan.branch_link[branch])].append((start, start + length, asked))
    for story in (*jobs.values(), *packets.values()):
        assert all(before[1] <= after[0] for before, after in pairwise(story))
    for story in packets.values():  # in order of request
        assert [asked for _, _, asked in story] == sorted(asked for _, _, asked in story)
    for tile in range(len(plan.tile_core)):
        of_tile = [job for job in record.job.tolist() if plan.job_tile[job] == tile]
        assert of_tile == sorted(of_tile)


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(1, 50))
def test_use_over_time_adds_up(case, bins):
    """The strip in the picture must hold all busy time, and no core can be busier than all the time."""
    timing = simulate_mesh(case.plan())
    for use_of, busy in ((timing.core_use, timing.core_busy), (timing.link_use, timing.link_busy)):
        chosen = np.arange(len(busy))[:: -1 if bins % 2 else -2]  # all, or every second, from the end
        use, busy = use_of(bins, chosen), busy[chosen]
        assert use.shape == (len(busy), bins)
        assert use.sum(axis=1) * timing.makespan / bins == pytest.approx(busy)
        assert use.max(initial=0) <= 1 + 1e-9


@settings(max_examples=60, deadline=None)
@given(cases(), st.randoms())
def test_the_order_of_tiles_does_not_matter(case, random):
    """Whoever writes a mapping by hand may list its tiles in any order."""
    tiles = list(case.mapping.tiles)
    random.shuffle(tiles)
    shuffled = replace(case, mapping=replace(case.mapping, tiles=tuple(tiles)))
    assert told(simulate_mesh(shuffled.plan())) == told(simulate_mesh(case.plan()))


FINGERPRINT = """
import hashlib
import numpy as np
from pcsim.engine.mesh.engine import simulate_mesh
from pcsim.engine.mesh.plan import make_plan
from pcsim.engine.mesh.times import Durations
from pcsim.hardware.chip import Chip
from pcsim.hardware.placement import place
from pcsim.network.network import Network
from pcsim.schedule.program import Program, Schedule
program = Program.build(Network.dense([9, 12, 7, 5]), Schedule("red-black", 2))
mapping = place(program, Chip(3, 4, 4, None, None, 2.0, 1.0, 1.5), 2, "traffic", "mine")
shared = np.array([0.2 * one.multiplications for one in program.operations])
timing = simulate_mesh(make_plan(program, mapping, 2, Durations(np.ones(len(shared)), shared)))
columns = b"".join(column.tobytes() for column in timing.record)
print(len(timing.record.crossed), hashlib.sha256(columns + repr(mapping).encode()).hexdigest())
"""


def test_results_do_not_depend_on_hashing_or_threads():
    """Sets and dictionaries of another process are in another order: its events must be the same."""
    found = set()
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": seed}
        command = [sys.executable, "-c", FINGERPRINT]
        outcome = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found.add(outcome.stdout.strip())
    assert len(found) == 1
    assert int(found.pop().split()[0]) > 0


# --------------------------------------------------------------------------------------------------- refused


def test_what_does_not_fit_together_is_refused():
    """A mapping of another network, durations of another program, a time before the beginning."""
    case = on_a_row()
    with pytest.raises(ShapeError, match=r"mapping of layers \[3, 5, 7, 9, 4\]: expected \[2, 2\]"):
        make_plan(Program.build(Network.dense([2, 2]), Schedule()), case.mapping, 1, case.durations)
    with pytest.raises(ShapeError, match="durations: expected"):
        make_plan(case.program, case.mapping, 1, Durations(np.zeros(1), np.zeros(1)))
    for engine in (simulate_mesh, lambda plan, until: MeshEngine(plan).simulate(until)):
        with pytest.raises(ConfigurationError, match=r"until = -1.0: expected a time of 0 ns or more"):
            engine(case.plan(), -1.0)


def test_in_flight_is_named():
    """A packet stopped on its way is named by sender, receiver and operation."""
    case = on_a_row(layers=2, iterations=0, chip=Chip(1, 2, hop_ns_horizontal=50.0))
    timing = simulate_mesh(case.plan(), 10.0)
    assert timing.in_flight() == [InFlight(packet=0, source=0, target=1, operation=1)]
    assert timing.makespan == 2.0
    assert span_of(case.plan()) == 2 + 50 + 2 + 50 + 1
