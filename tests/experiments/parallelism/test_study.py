"""The study of parallelism: rows against closed forms, programs and machines."""

import pytest

from pcsim.engine.event import EventEngine
from pcsim.errors import ConfigurationError
from pcsim.experiments.parallelism.pipelines import eligible, pipelines
from pcsim.experiments.parallelism.runs import BATCH, Case, Run
from pcsim.experiments.parallelism.search import RATES, SEEDS, STEP_SIZES
from pcsim.experiments.parallelism.study import ASYNCHRONOUS, MOST_PRODUCTS, ORDERS, Study, study, written
from pcsim.hardware.clock import Hardware
from pcsim.hardware.machine import load_machine
from pcsim.network.network import Network
from pcsim.schedule.program import Schedule
from pcsim.theory.parallelism import BACKPROP, STATIC, counts

CORES = (1, 3, 4, 8, 4096)
STEPS = 22


def made_up(order: str, hidden: int, iterations: int, epochs: int | None) -> list[Run]:
    """All runs of one search whose settings reach 96 % after so many epochs, or never get beyond 50 %."""
    curve = (0.5,) * 9 if epochs is None else (*(0.5,) * (epochs - 1), *(0.96,) * 3)
    settings = [(0.0, RATES[0])] if order == BACKPROP else [(s, r) for r in RATES for s in STEP_SIZES]
    return [
        Run(Case("digits", hidden, 64, order, iterations, step, rate, seed), curve, STEPS, None, "made up", 0)
        for step, rate in settings
        for seed in SEEDS
    ]


@pytest.fixture(scope="module")
def plain() -> Study:
    """Two depths at T = 3."""
    return study([2, 5], CORES, 4, load_machine("digital-45nm"), iterations=3)


def test_rows_are_within_their_bounds(plain):
    """Every makespan must be at least span and work over cores; one core does exactly the total work."""
    assert [(row.hidden, row.order) for row in plain.rows] == [(h, o) for h in (2, 5) for o in ORDERS]
    for row in plain.rows:
        times = dict(zip(CORES, row.makespans))
        assert times[1] == row.work
        assert times[4096] == row.span
        if row.order != ASYNCHRONOUS:  # its work changes with what meets
            assert all(time >= max(row.span, row.work / cores) for cores, time in times.items())


def test_rows_are_what_programs_cost(plain):
    """The table must show the closed forms and the program's own count, times the width."""
    for row in plain.rows:
        if row.order != ASYNCHRONOUS:
            form = counts(row.order, row.hidden + 1, max(row.iterations, 1))
            cost = written(row.order, row.hidden + 1, row.iterations, 4).cost(1)
            assert (row.work, row.span) == (16 * form.products, 4 * form.span)
            assert (row.work, row.messages) == (cost.multiplications, cost.messages)


def test_energies_are_the_machines(plain):
    """Energy must grow with the products and leave out nobody: a float32 product is 3.7 + 0.9 pJ there."""
    for row in plain.rows:
        if row.order == ASYNCHRONOUS:
            assert row.energy is None
        else:
            assert row.energy > BATCH * row.work * (3.7 + 0.9)
    assert "operation" in plain.unpriced


def test_asynchronous_with_a_core_a_layer_is_the_event_engine(plain):
    """What the study says of asynchronous must be what the simulator takes on the same cores."""
    plan = Schedule(ASYNCHRONOUS, 3).plan(Network.dense([4] * 4))
    engine = EventEngine(plan, None, Hardware(time_per_multiplication=1), 1)
    engine.simulate()
    row = next(row for row in plain.at(2) if row.order == ASYNCHRONOUS)
    assert row.makespans[CORES.index(3)] == engine.totals.simulated_time
    assert row.span == engine.totals.simulated_time / 4


def test_large_programs_are_bounded():
    """A program that is not written out must say so, and show the bound that it cannot beat."""
    result = study([2], (1, 3, 10**6), 2, load_machine("unit"), iterations=MOST_PRODUCTS // 4 + 1)
    row = next(row for row in result.rows if row.order == "simultaneous")
    assert not row.scheduled
    assert row.energy is None
    assert row.makespans == (row.work, max(-(-row.work // 3), row.span), row.span)
    assert next(row for row in result.rows if row.order == BACKPROP).scheduled


def test_runs_decide_the_iterations():
    """T of a depth that was trained comes from the runs, that of others from a line, and the row says so."""
    runs = [run for hidden in (2, 4) for run in made_up(BACKPROP, hidden, 0, 1)]
    for hidden in (2, 4):
        runs += made_up("simultaneous", hidden, hidden, None) + made_up("simultaneous", hidden, hidden + 1, 3)
        runs += made_up("sequential", hidden, 1, 2) + made_up("sequential", hidden, 2, 1)
    runs += made_up("red-black", 2, 2, 2) + made_up("red-black", 4, 4, None)
    result = study([2, 4, 8], (1, 4), 4, load_machine("unit"), runs=runs)

    def said(order: str, hidden: int) -> list[tuple[int | None, str, float | None]]:
        rows = [row for row in result.rows if (row.order, row.hidden) == (order, hidden)]
        return [(row.iterations, row.basis, row.steps) for row in rows]

    assert said("simultaneous", 2) == [(3, "measured", 3 * STEPS)]
    assert said("simultaneous", 8) == [(9, "extrapolated", STEPS)]
    assert said("sequential", 4) == [(1, "measured", 2 * STEPS), (2, "measured", STEPS)]
    assert said("red-black", 4) == [(None, "never reached", None)]
    assert said("red-black", 8) == said("bottom-up", 8) == [(None, "unknown", None)]
    row = result.at(2)[1]
    assert row.times == tuple(time * BATCH * 2 * STEPS for time in row.makespans)


def test_the_first_has_the_shortest_time(plain):
    """The map must name the order with the least time, at the better of its Ts, and ties as ties."""
    runs = [*made_up(BACKPROP, 4, 0, 1), *made_up("simultaneous", 4, 6, 1)]
    runs += [*made_up("sequential", 4, 1, 3), *made_up("sequential", 4, 2, 1)]
    result = study([4], (1, 2, 4096), 4, load_machine("unit"), runs=runs)
    for column, cores in enumerate(result.cores):
        (first,) = result.first(4, cores)
        rows = [row for row in result.at(4) if row.order in STATIC]
        assert first.times[column] == min(row.times[column] for row in rows)
        assert (first.order, first.iterations) == ("sequential", 2)
    assert {row.order for row in plain.first(5, 1)} == {
        "sequential",
        "simultaneous",
        "red-black",
        "bottom-up",
    }
    assert [row.order for row in plain.first(5, 4096)] == ["simultaneous"]


def test_pipelines_of_a_study(plain):
    """One line an order and depth; the exact interval of simultaneous is 2 T + 2."""
    seen = []
    lines = pipelines(plain.rows, lambda: seen.append(1))
    assert len(seen) == len(lines) == len(eligible(plain.rows)) == 2 * (len(STATIC) + 1)
    for line in lines:
        assert line.intervals[0] <= line.span
        if line.order == "simultaneous":
            assert line.intervals[0] == 8
        assert (line.intervals[1] is None) == (line.order == "incremental")


def test_no_pipeline_beats_its_work_over_cores():
    """A pipeline that has not filled yet seems faster than its cores: bottom-up did, 16 layers, w = 4."""
    rows = study([16], [1], 1, load_machine("unit"), iterations=3).rows
    (line,) = pipelines([row for row in rows if row.order == "bottom-up"])
    assert line.least == pytest.approx((2 * 17 + 6 * 16) / 17)
    assert line.intervals[0] == 12
    assert all(0.99 * line.least <= interval <= 1.05 * line.least for interval in line.intervals[1:])


def test_senseless_studies_are_refused():
    """No depth, no core, no width and no runs of that name must be told, not divided by."""
    machine = load_machine("unit")
    for depths, cores, width in (([], [1], 1), ([0], [1], 1), ([1], [0], 1), ([1], [1], 0)):
        with pytest.raises(ConfigurationError):
            study(depths, cores, width, machine)
    with pytest.raises(ConfigurationError, match="fashion"):
        study([2], [1], 1, machine, runs=made_up(BACKPROP, 2, 0, 1), data="fashion-mnist")
