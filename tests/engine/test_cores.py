"""Layers that share a core: turns, makespan, and numbers that do not depend on it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import ORDERS, RULES, cases

from pcsim.engine.event import EventEngine
from pcsim.errors import ConfigurationError
from pcsim.hardware.clock import Hardware, Links, unit
from pcsim.network.network import Network
from pcsim.schedule.program import Program, Schedule

EVERY_ORDER = (*ORDERS, "asynchronous")


def engine(sizes, schedule: Schedule, hardware: Hardware, cores) -> EventEngine:
    """An engine after one mini-batch in which only time passed."""
    made = EventEngine(schedule.plan(Network.dense(sizes)), None, hardware, 2, cores=cores)
    made.simulate()
    return made


@pytest.mark.parametrize("order", EVERY_ORDER)
@pytest.mark.parametrize("iterations", [0, 1, 4])
def test_one_core_takes_the_total_work(order, iterations):
    """Nothing runs beside anything else and nobody waits, so the makespan is the sum of the durations."""
    hardware = Hardware(time_per_operation=1.0, time_per_multiplication=0.25)
    made = engine((3, 4, 5, 4, 2), Schedule(order, iterations), hardware, [7] * 5)
    work = sum(event.end - event.start for event in made.timeline if event.kind == "operation")
    assert made.totals.simulated_time == work > 0


@settings(max_examples=60)
@given(
    st.sampled_from(EVERY_ORDER),
    st.integers(2, 6).flatmap(lambda n: st.lists(st.integers(0, 3), min_size=n, max_size=n)),
    st.sampled_from([0.0, 3.0]),
    st.integers(0, 4),
)
def test_a_core_does_one_thing_at_a_time(order, cores, latency, iterations):
    """Operations on one core never overlap; the makespan is at least the work of the fullest core."""
    made = engine((3,) * len(cores), Schedule(order, iterations), unit(Links(latency)), cores)
    busy: Counter[int] = Counter()
    free: dict[int, float] = {}
    for event in made.timeline:
        if event.kind == "operation":
            core = cores[event.layer]
            assert event.start >= free.get(core, 0.0)
            free[core] = event.end
            busy[core] += event.end - event.start
    assert made.totals.simulated_time >= max(busy.values())


@settings(max_examples=40)
@given(cases(steps=2), st.integers(1, 3))
def test_cores_never_change_the_numbers_of_a_static_order(case, number):
    """Whoever has to wait for a core reads the same messages later."""
    results = []
    for cores in (None, [layer % number for layer in range(case.top + 1)]):
        network = case.network()
        units = network.layers(case.batch, RULES[case.rule])
        made = EventEngine(case.schedule().plan(network), units, unit(), case.batch, cores=cores)
        for inputs, targets in case.data():
            made.step(inputs, targets)
        network.gather(units)
        results.append([array.tobytes() for pair in network.parameters for array in pair])
    assert results[0] == results[1]


def test_a_core_of_its_own_each_is_the_default():
    """The names of the cores do not matter, only who shares one."""
    runs = [
        engine((3, 4, 5, 2), Schedule("simultaneous", 3), unit(), cores) for cores in (None, (9, -2, 4, 0))
    ]
    assert runs[0].timeline == runs[1].timeline


def test_layers_take_turns():
    """3-4-5-2 on one core: layers relax one after the other, and there is never a pause."""
    made = engine((3, 4, 5, 2), Schedule("simultaneous", 1, step_decay="none"), unit(), [0, 0, 0, 0])
    acting = [event.layer for event in made.timeline if event.name == "relax"]
    assert acting == [1, 2]
    learning = [event.layer for event in made.timeline if event.name == "learn"]
    assert sorted(learning) == [0, 1, 2]
    starts = [event.start for event in made.timeline if event.kind == "operation"]
    assert starts == list(np.arange(len(starts), dtype=float))


def test_fewer_cores_are_never_faster_here():
    """Red-black on 1, 2, 4, 8 cores: makespans fall towards that of a core a layer."""
    sizes = (4,) * 9
    schedule = Schedule("red-black", 4)
    spans = [
        engine(sizes, schedule, unit(), [layer % number for layer in range(9)]).totals.simulated_time
        for number in (1, 2, 3, 9)
    ]
    assert spans == sorted(spans, reverse=True)
    assert spans[0] == len(Program.build(Network.dense(sizes), schedule).operations)


@pytest.mark.parametrize("cores", [(0, 1), (0, 1, 2, 3, 4), (0, 1.5, 2, 3)])
def test_cores_that_do_not_fit(cores):
    """One whole number a layer, said in one line."""
    with pytest.raises(ConfigurationError, match=r"cores = .*: expected 4 whole numbers"):
        engine((3, 4, 5, 2), Schedule(), unit(), cores)
