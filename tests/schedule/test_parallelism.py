"""Work, span and makespan: bounds, closed forms by hand, and independence from order."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcsim.errors import ConfigurationError
from pcsim.network.network import Network
from pcsim.schedule.parallelism import Graph, duration, list_schedule, makespan
from pcsim.schedule.program import Program, Schedule

ORDERS = ("simultaneous", "sequential", "red-black", "bottom-up", "incremental")


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Random graphs of up to 24 operations, some without work."""
    number = draw(st.integers(1, 24))
    work = draw(st.lists(st.integers(0, 40), min_size=number, max_size=number))
    width = draw(st.lists(st.integers(1, 12), min_size=number, max_size=number))
    before = [
        draw(st.frozensets(st.integers(0, index - 1), max_size=3)) if index else frozenset()
        for index in range(number)
    ]
    return Graph(tuple(work), tuple(width), tuple(before))


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Programs of random networks, widths and orders."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=3, max_size=7))
    return Program.build(
        Network.dense(sizes), Schedule(draw(st.sampled_from(ORDERS)), draw(st.integers(1, 4)))
    )


@given(graphs(), st.integers(1, 40))
@settings(max_examples=150)
def test_a_schedule_keeps_its_promises(graph, cores):
    """Nobody starts before what it waits for, no core does two things, and no bound is broken."""
    slots = {slot.operation: slot for slot in list_schedule(graph, cores)}
    assert sorted(slots) == list(range(len(graph.work)))
    for index, slot in slots.items():
        assert all(slots[before].end <= slot.start for before in graph.before[index])
        assert slot.cores <= min(graph.width[index], cores)
        assert slot.end - slot.start == (duration(graph.work[index], slot.cores) if slot.cores else 0)
        assert (slot.cores == 0) == (graph.work[index] == 0)
    for start in {slot.start for slot in slots.values()}:
        assert sum(slot.cores for slot in slots.values() if slot.start <= start < slot.end) <= cores
    time = makespan(graph, cores)
    assert time >= graph.span
    assert time * cores >= graph.total


@given(graphs())
@settings(max_examples=100)
def test_the_ends_of_the_scale(graph):
    """One core does exactly the total work; with a core for everybody only the span is left."""
    assert makespan(graph, 1) == graph.total
    assert makespan(graph, max(1, sum(graph.width))) == graph.span


@given(programs(), st.integers(1, 64))
@settings(max_examples=40)
def test_programs_keep_the_bounds(program, cores):
    """What holds for graphs must hold for the programs that they are made from, by either measure."""
    for graph in (Graph.of_multiplications(program), Graph.of_operations(program)):
        time = makespan(graph, cores)
        assert max(graph.span, graph.total / cores) <= time <= graph.total
        assert makespan(graph, 1) == graph.total
        assert makespan(graph, sum(graph.width)) == graph.span
    assert Graph.of_multiplications(program).total == program.cost(1).multiplications


@given(graphs(), st.integers(1, 16), st.randoms())
@settings(max_examples=60)
def test_nothing_depends_on_the_order_of_a_set(graph, cores, rng):
    """Dependencies written down in another order, as sets built otherwise, must give the same slots."""
    shuffled = []
    for before in graph.before:
        members = list(before)
        rng.shuffle(members)
        big = set(range(1000, 1100))  # a set that has been larger iterates in another order
        big.update(members)
        big.difference_update(range(1000, 1100))
        shuffled.append(frozenset(big))
    assert list_schedule(Graph(graph.work, graph.width, tuple(shuffled)), cores) == list_schedule(
        graph, cores
    )


def test_a_product_is_shared_by_neurons():
    """20 multiplications of 4 neurons: 20 on one core, ⌈20/3⌉ = 7 on three, 5 on four and on a hundred."""
    graph = Graph((20,), (4,), (frozenset(),))
    assert [makespan(graph, cores) for cores in (1, 3, 4, 100)] == [20, 7, 5, 5]


def test_the_longest_way_goes_first():
    """One core, a long chain and a short one: the chain's head starts although its index is larger."""
    graph = Graph((3, 2, 4), (1, 1, 1), (frozenset(), frozenset(), frozenset({1})))
    assert [slot.operation for slot in list_schedule(graph, 2)] == [1, 0, 2]
    assert makespan(graph, 2) == 6


def test_patience_pays():
    """Two products of 64 on 65 cores: the second waits a moment for 64 cores, and does not crawl on one."""
    graph = Graph((4096, 4096), (64, 64), (frozenset(), frozenset()))
    assert makespan(graph, 65) == 128
    assert makespan(graph, 100) == 4096 // 36 + 1  # 36 free cores end at 114, before 128


def test_makespans_are_near_the_bound():
    """The schedule must not be so poor that it says more of the scheduler than of the program."""
    for order in ORDERS:
        graph = Graph.of_multiplications(Program.build(Network.dense([16] * 12), Schedule(order, 4)))
        for cores, most in ((2, 1.01), (8, 1.01), (16, 1.05), (64, 1.2), (128, 1.2), (23, 1.5), (100, 1.5)):
            bound = max(graph.span, graph.total / cores)
            assert makespan(graph, cores) <= most * bound, (order, cores)


def test_the_same_program_in_another_order_has_the_same_span():
    """Work and span belong to the graph, not to the list that it was written down in."""
    program = Program.build(Network.dense([5, 7, 6, 4, 3]), Schedule("red-black", 3))
    graph = Graph.of_multiplications(program)
    for seed in range(5):
        other = Graph.of_multiplications(program.reordered(np.random.default_rng(seed)))
        assert (other.total, other.span) == (graph.total, graph.span)


def test_bad_graphs_are_refused():
    """A dependency on what comes later could never be met; no core could never do anything."""
    with pytest.raises(ConfigurationError):
        Graph((1, 1), (1, 1), (frozenset({1}), frozenset()))
    with pytest.raises(ConfigurationError):
        Graph((1,), (1, 1), (frozenset(),))
    with pytest.raises(ConfigurationError):
        makespan(Graph((1,), (1,), (frozenset(),)), 0)


def test_the_hash_seed_does_not_matter():
    """Python gives sets of names another order in each process: schedules must not follow it."""
    code = (
        "from pcsim.network.network import Network\n"
        "from pcsim.schedule.parallelism import Graph, list_schedule\n"
        "from pcsim.schedule.program import Program, Schedule\n"
        "program = Program.build(Network.dense([8] * 6), Schedule('red-black', 2))\n"
        "print([list_schedule(Graph.of_multiplications(program), cores) for cores in (1, 3, 20)])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
    assert "Slot" in said.pop()
