"""The compiled queue tells the same story as the readable event engine, event by event and bit by bit."""

from __future__ import annotations

import heapq
import tracemalloc
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import ORDERS

from pcsim.engine import timing_kernels
from pcsim.engine.event import EventEngine, Turn
from pcsim.engine.timing import compile_queue, simulate_timing, timing_totals
from pcsim.engine.timing_kernels import Heap, drop_first, push
from pcsim.engine.totals import Event
from pcsim.errors import ConfigurationError, ProgramError
from pcsim.hardware.clock import Hardware, Links, unit
from pcsim.network.layer import Layer, MessageKind
from pcsim.network.network import Network
from pcsim.schedule.operation import Operation, Operations, Place
from pcsim.schedule.program import Program, Schedule

COLUMNS = ("layer", "target", "iteration", "start", "end", "multiplications", "values", "bytes")
MACHINES = {
    "unit": unit(),
    "everything at once": Hardware(),
    "free operations": Hardware(time_per_message=1.0),
    "parametric": Hardware(0.7, 1e-3, 0.1, 1e-2),
    "values": Hardware(0.7, 1e-3, 0.1, 1e-2, time_per_value=3e-2),
    "latency": Hardware(1.0, 0.3, 0.1, 0.01, Links(latency=4.0)),
    "single links": unit(Links(0.5, {(1, 2): 50.0, (1, 0): 20.0, (0, 1): 7.0})),
    "jitter": unit(Links(jitter=3.0, seed=7)),
    "all of it": Hardware(0.1, 1e-3, 0.2, 1e-2, Links(0.3, {(2, 1): 9.0}, jitter=5.0, seed=11)),
}

links = st.builds(
    Links,
    latency=st.sampled_from([0.0, 0.1, 1.0, 30.0]),
    link_latency=st.dictionaries(
        st.sampled_from([(0, 1), (1, 0), (1, 2), (2, 1), (3, 2), (5, 6)]),
        st.sampled_from([0.0, 0.3, 7.0, 50.0]),
    ),
    jitter=st.sampled_from([0.0, 0.0, 0.5, 20.0]),
    seed=st.integers(0, 2**32),
)
times = st.sampled_from([0.0, 1.0, 0.1, 1e-3])
machines = st.builds(Hardware, times, times, times, times, links, times)
programs = st.builds(
    lambda sizes, order, iterations, dtype: Program.build(
        Network.dense(sizes, dtype=dtype), Schedule(order, iterations)
    ),
    st.lists(st.integers(1, 9), min_size=2, max_size=12),
    st.sampled_from(ORDERS),
    st.integers(0, 4),
    st.sampled_from(["float32", "float64"]),
)


@st.composite
def lists(draw) -> Program:
    """Any operations at all: some never wait for a reply, so that messages queue up on links."""
    network = Network.dense(draw(st.lists(st.integers(1, 9), min_size=2, max_size=5)))
    inboxes = [Place.inbox(layer, kind) for layer in range(len(network.sizes)) for kind in MessageKind]
    operations = []
    for number in range(draw(st.integers(0, 40))):
        layer = draw(st.integers(0, network.top))
        ways = [None] + [MessageKind.PREDICTION] * (layer < network.top) + [MessageKind.ERROR] * (layer > 0)
        reads = draw(st.frozensets(st.sampled_from(inboxes), max_size=2))
        multiplications = draw(st.sampled_from([0, 0, 1, 5, 40]))
        operations.append(
            Operation(
                f"work {number}",
                layer,
                number,
                reads,
                frozenset(),
                draw(st.sampled_from(ways)),
                multiplications,
                action=Layer.clamp,
            )
        )
    return Program(network, tuple(operations), 0)


def program_of(order: str = "sequential", *, layers: int = 5, iterations: int = 3) -> Program:
    """A small program whose layers differ in width."""
    sizes = [3 + 2 * layer % 7 for layer in range(layers)]
    return Program.build(Network.dense(sizes), Schedule(order, iterations))


def told(program: Program, hardware: Hardware, batch: int, mini_batches: int = 1) -> EventEngine:
    """The readable engine after so many mini-batches."""
    engine = EventEngine(program, None, hardware, batch)
    for _ in range(mini_batches):
        engine.simulate()
    return engine


def assert_same(program: Program, hardware: Hardware, batch: int, mini_batches: int = 1) -> None:
    """Both tell the same events in the same order, with times equal in every bit, and the same totals."""
    engine = told(program, hardware, batch, mini_batches)
    timing = simulate_timing(program, hardware, batch, mini_batches=mini_batches)
    assert timing.events() == engine.timeline
    for name in ("start", "end"):
        expected = np.array([getattr(event, name) for event in engine.timeline], np.float64)
        assert getattr(timing, name).tobytes() == expected.tobytes(), name
    assert timing.totals == engine.totals
    assert timing_totals(program, hardware, batch, mini_batches=mini_batches) == engine.totals


# ------------------------------------------------------------------------------- against the readable one


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("order", ORDERS)
def test_every_order_on_every_kind_of_machine(order, machine):
    """A network deep enough that errors and predictions cross: each kind of delay must be felt alike."""
    assert_same(program_of(order, layers=12, iterations=4), MACHINES[machine], batch=7)


@settings(max_examples=1000)
@given(programs, machines, st.sampled_from([1, 7]), st.integers(1, 3))
@example(program_of(layers=2, iterations=0), Hardware(), 1, 1)
def test_same_events_as_the_readable_engine(program, hardware, batch, mini_batches):
    """The compiled queue is worth nothing unless nobody can tell it from the one that people can read."""
    assert_same(program, hardware, batch, mini_batches)


@settings(max_examples=100)
@given(programs, machines, st.integers(0, 2**20))
def test_same_events_in_any_linear_extension(program, hardware, seed):
    """Needed messages are counted from the list, so lists that no order writes must be read alike, too."""
    assert_same(program.reordered(np.random.default_rng(seed)), hardware, 2)


@settings(max_examples=300)
@given(lists(), machines, st.sampled_from([1, 7]))
def test_same_events_of_any_list(program, hardware, batch):
    """In all orders neighbours wait for replies, so that no link is ever busy; a user's own need not."""
    assert_same(program, hardware, batch, 2)


def test_links_are_serial():
    """Three messages at once, each two time units under way, arrive one after the other."""
    network = Network.dense([2, 2])
    burst = Operations(network, ()).predict(0)
    timing = simulate_timing(Program(network, (burst,) * 3, 0), Hardware(links=Links(latency=2.0)), 1)
    assert timing.start[timing.is_message].tolist() == [0.0, 2.0, 4.0]
    assert_same(Program(network, (burst,) * 3, 0), MACHINES["latency"], 1)


@pytest.mark.parametrize("machine", MACHINES)
def test_same_events_if_the_list_goes_on(machine):
    """Counts of messages and free times of links carry on past the learning phase of a longer list."""
    once = program_of("incremental")
    assert_same(replace(once, operations=once.operations * 5), MACHINES[machine], 1)


@pytest.mark.parametrize("seed", range(5))
def test_jitter_goes_on_from_one_mini_batch_to_the_next(seed):
    """Draws of a second mini-batch are not those of the first, and not those of a fresh generator."""
    program, hardware = program_of(), unit(Links(jitter=3.0, seed=seed))
    ends = [simulate_timing(program, hardware, 1, mini_batches=n).end.tobytes() for n in (1, 2, 3)]
    assert len(set(ends)) == 3
    assert_same(program, hardware, 1, mini_batches=4)


# ------------------------------------------------------------------------------------- in its own right


def test_two_layers_by_hand():
    """A story that no engine has written: operations of one time unit each, messages of two."""
    program = Program.build(Network.dense([2, 1]), Schedule(iterations=0))
    timing = simulate_timing(program, unit(Links(latency=2.0)), 1)
    story = [(e.name, e.layer, e.start, e.end) for e in timing.events()]
    assert story == [
        ("clamp", 0, 0.0, 1.0),
        ("predict", 0, 1.0, 2.0),
        ("prediction", 0, 2.0, 4.0),
        ("clamp", 1, 4.0, 5.0),
        ("compare", 1, 5.0, 6.0),
        ("error", 1, 6.0, 8.0),
        ("learn", 0, 8.0, 9.0),
    ]
    assert timing.totals.simulated_time == 9.0


@settings(max_examples=100)
@given(programs, machines)
def test_nobody_does_two_things_at_once(program, hardware):
    """Layers and links are serial: what they do follows one after the other, in the program's order."""
    timing = simulate_timing(program, hardware, 1)
    busy = defaultdict(list)
    for is_message, index, event in zip(timing.is_message, timing.operation, timing.events()):
        busy[bool(is_message), event.layer, event.target].append((index, event.start, event.end))
    for events in busy.values():
        for (before, _, end), (after, start, _) in pairwise(events):
            assert before < after
            assert end <= start


@settings(max_examples=100)
@given(programs, st.integers(1, 9), st.integers(1, 3))
def test_totals_are_what_the_program_costs(program, batch, mini_batches):
    """What is counted without running must be what has happened while running: here, over the columns."""
    timing, cost = simulate_timing(program, unit(), batch, mini_batches=mini_batches), program.cost(batch)
    counted = (timing.multiplications.sum(), timing.is_message.sum(), timing.values.sum())
    assert counted == (cost.multiplications, cost.messages, cost.values)
    totals = timing.totals
    assert totals.multiplications == mini_batches * cost.multiplications
    assert (totals.messages, totals.values) == (mini_batches * cost.messages, mini_batches * cost.values)
    assert totals.operations + totals.messages == mini_batches * len(timing)


def test_columns_are_the_events():
    """Readers of columns and readers of events must see the same numbers."""
    timing = simulate_timing(program_of(), MACHINES["all of it"], 7)
    for row, event in enumerate(timing.events()):
        assert isinstance(event, Event)
        assert event.kind == ("message" if timing.is_message[row] else "operation")
        assert {getattr(timing, name)[row] == getattr(event, name) for name in COLUMNS} == {True}
        assert timing.program.operations[timing.operation[row]].layer == event.layer


def test_two_runs_are_the_same():
    """Nothing depends on addresses, on what memory held before, or on what was simulated before."""
    program, hardware = program_of(layers=9), MACHINES["all of it"]
    once, again = (simulate_timing(program, hardware, 3, mini_batches=2) for _ in range(2))
    for name in (*COLUMNS, "is_message", "operation"):
        assert getattr(once, name).tobytes() == getattr(again, name).tobytes(), name
    assert once.totals == again.totals


def test_memory_does_not_grow_with_mini_batches():
    """Long runs for totals must not keep their events: a hundred mini-batches in the memory of two."""
    program, hardware, peaks = program_of(layers=20), MACHINES["all of it"], []
    compile_queue()
    for mini_batches in (2, 2, 200):  # the first run pays for what stays
        tracemalloc.start()
        timing_totals(program, hardware, 1, mini_batches=mini_batches)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] <= peaks[1] + 4096


def test_compiling_comes_once():
    """Whoever has said that it compiles must not wait again: all simulations share one machine code."""
    assert compile_queue() >= 0
    simulate_timing(program_of(), MACHINES["unit"], 1)
    simulate_timing(program_of("red-black"), MACHINES["all of it"], 7, mini_batches=2)
    assert len(timing_kernels.run.signatures) == 1
    assert compile_queue() < 0.1


def test_what_cannot_be_simulated_is_named():
    """No mini-batch has no events to show; a message to nowhere would be written over other memory."""
    program = program_of(layers=3)
    with pytest.raises(ConfigurationError, match=r"mini_batches = 0: expected 1 or more"):
        simulate_timing(program, unit(), 1, mini_batches=0)
    sender = next(operation for operation in program.operations if operation.sends == "error")
    for foreign, words in (
        (replace(sender, layer=0), r"compare\(layer 0\) sends to layer -1"),
        (replace(sender.silent(), layer=3), r"compare\(layer 3\) cannot act"),
    ):
        lost = replace(program, operations=(*program.operations, foreign))
        with pytest.raises(ProgramError, match=words + ": the network has layers 0 to 2"):
            timing_totals(lost, unit(), 1)


# ------------------------------------------------------------------------------------------------ the heap


def test_turns_come_in_the_engine_s_order():
    """The compiled queue packs turns into the tie: they must be those of the readable engine."""
    packed = (timing_kernels.FINISH, timing_kernels.ARRIVE, timing_kernels.ACT)
    assert [tie >> timing_kernels.SERIAL_BITS for tie in packed] == [Turn.FINISH, Turn.ARRIVE, Turn.ACT]


@settings(max_examples=60)
@given(st.lists(st.none() | st.tuples(st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.integers(0, 2)), max_size=60))
def test_the_heap_is_a_heap(requests):
    """Against the standard library's, with many ties: None takes the first entry, others are put in."""
    heap = Heap(np.empty(60), np.empty(60, np.int64), np.empty(60, np.int64))
    expected = []
    for serial, request in enumerate(requests):
        if request is not None:
            entry = (request[0], (request[1] << timing_kernels.SERIAL_BITS) + serial, serial)
            push(heap, len(expected), *entry)
            heapq.heappush(expected, entry)
        elif expected:
            assert (heap.time[0], heap.tie[0], heap.item[0]) == expected[0]
            drop_first(heap, len(expected))
            heapq.heappop(expected)
