"""The study of parallelism: what each order costs on a number of cores, at equal T or at equal accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from pcsim.engine.event import EventEngine
from pcsim.errors import ConfigurationError, refuse_unless
from pcsim.experiments.parallelism.needs import Need, enough, extrapolated, needs, tried
from pcsim.experiments.parallelism.runs import BATCH, Run
from pcsim.hardware.charge import charge, dense
from pcsim.hardware.clock import Hardware
from pcsim.hardware.machine import Machine
from pcsim.hardware.work import UPDATES, Setting
from pcsim.network.network import Network
from pcsim.schedule.backpropagation import backpropagation
from pcsim.schedule.parallelism import Graph, duration, makespan
from pcsim.schedule.program import Program, Schedule
from pcsim.theory.parallelism import BACKPROP, STATIC, counts

ASYNCHRONOUS = "asynchronous"
ORDERS = (BACKPROP, "sequential", "simultaneous", "red-black", "bottom-up", "incremental", ASYNCHRONOUS)
MOST_PRODUCTS = 10_000  # of a program that is written out and scheduled; larger ones are bounded


@dataclass(frozen=True)
class Row:
    """One order at one depth and T. Times are in multiplications of one core, for one sample.

    Attributes:
        order: of the schedule, or "backprop".
        hidden: number of hidden layers; the network has one connection more.
        iterations: T; 0 for backprop, None where no T is known to be enough.
        basis: where T comes from: "given", "measured", "extrapolated", "never reached" (by any T that was
            tried) or "unknown" (not tried here, and nothing to extrapolate).
        steps: mini-batches to the goal, mean over seeds; where T is extrapolated, as many as backprop needs
            at the nearest depth that was trained; None where there is no goal.
        work: T₁.
        span: T∞; of asynchronous, the time with a core a neuron.
        messages: of a mini-batch.
        makespans: one for each number of cores.
        scheduled: whether these come from a schedule; otherwise they are the bound max(T₁/P, T∞), rounded up.
        energy: pJ of a mini-batch on the machine; None where the program was not written out, or is none.
    """

    order: str
    hidden: int
    iterations: int | None
    basis: str
    steps: float | None
    work: int = 0
    span: int = 0
    messages: int = 0
    makespans: tuple[int, ...] = ()
    scheduled: bool = False
    energy: float | None = None

    @property
    def times(self) -> tuple[float, ...]:
        """Time to the goal on each number of cores, or that of one sample where no accuracy is asked for."""
        return tuple(time * BATCH * self.steps if self.steps else time for time in self.makespans)


@dataclass(frozen=True)
class Study:
    """What was asked and what came out.

    Attributes:
        depths: numbers of hidden layers.
        cores: numbers of cores.
        width: neurons of every layer.
        machine: whose prices the energies are.
        unpriced: what has no price there.
        needs: what the trained runs say; empty if none were given.
        rows: by depth, then by order, then by T where several are enough.
    """

    depths: tuple[int, ...]
    cores: tuple[int, ...]
    width: int
    machine: Machine
    unpriced: tuple[str, ...]
    needs: tuple[Need, ...]
    rows: tuple[Row, ...]

    def at(self, hidden: int) -> list[Row]:
        """Return the rows of one depth that have times."""
        return [row for row in self.rows if row.hidden == hidden and row.makespans]

    def first(self, hidden: int, cores: int) -> list[Row]:
        """Return the static predictive coding orders that are first there, several if they tie."""
        column = self.cores.index(cores)
        rows = [row for row in self.at(hidden) if row.order in STATIC]
        least = min((row.times[column] for row in rows), default=0.0)
        return [row for row in rows if row.times[column] == least]


def study(
    depths: Sequence[int],
    cores: Sequence[int],
    width: int,
    machine: Machine,
    *,
    iterations: int = 3,
    runs: Sequence[Run] = (),
    data: str = "digits",
    advance: Callable[[], None] = lambda: None,
) -> Study:
    """Measure every order at every depth.

    Args:
        depths: numbers of hidden layers.
        cores: numbers of cores.
        width: neurons of every layer, ends included.
        machine: for the energies.
        iterations: T of all orders, if there are no runs.
        runs: trained ones; then T is what each order needs.
        data: which runs count.
        advance: called after each depth and order, `len(depths) * len(ORDERS)` times.

    Raises:
        ConfigurationError: a depth, a width, a T or a number of cores below 1, or no runs of that data set.
    """
    for name, numbers in (("depths", depths), ("cores", cores), ("width", [width]), ("T", [iterations])):
        refuse_unless(len(numbers) > 0 and min(numbers) >= 1, name, list(numbers), "numbers from 1")
    known = [need for need in needs(runs) if need.data == data]
    if runs and not known:
        raise ConfigurationError(f"no finished runs of '{data}': expected another --data or more runs")
    rows: list[Row] = []
    unpriced: tuple[str, ...] = ()
    for hidden in sorted(set(depths)):
        for order in ORDERS:
            for start in _starts(order, hidden, iterations, known):
                row, missing = _measure(start, tuple(cores), width, machine)
                rows.append(row)
                unpriced = missing or unpriced
            advance()
    chosen = tuple(sorted(set(depths)))
    return Study(chosen, tuple(cores), width, machine, unpriced, tuple(known), tuple(rows))


def _starts(order: str, hidden: int, iterations: int, known: Sequence[Need]) -> list[Row]:
    """Return an order's rows at one depth without their costs: one for every T that is enough."""
    if not known:
        return [Row(order, hidden, 0 if order == BACKPROP else iterations, "given", None)]
    found = enough(known, hidden, order)
    if found:
        return [Row(order, hidden, need.iterations, "measured", need.mean_steps) for need in found]
    if tried(known, hidden, order):
        return [Row(order, hidden, None, "never reached", None)]
    guess = 0 if order == BACKPROP else extrapolated(known, hidden, order)
    if guess is None:
        return [Row(order, hidden, None, "unknown", None)]
    return [Row(order, hidden, guess, "extrapolated", _nearest_steps(known, hidden))]


def _nearest_steps(known: Sequence[Need], hidden: int) -> float:
    """Return backprop's mini-batches at the depth that is nearest to one that was not trained."""
    baseline = [row for row in known if row.order == BACKPROP]
    return min(baseline, key=lambda row: (abs(row.hidden - hidden), row.hidden)).mean_steps


def _measure(row: Row, cores: tuple[int, ...], width: int, machine: Machine) -> tuple[Row, tuple[str, ...]]:
    """Return a row with its costs, and what has no price."""
    if row.iterations is None:
        return row, ()
    if row.order == ASYNCHRONOUS:
        return _reactive(row, cores, width), ()
    depth = row.hidden + 1
    form = counts(row.order, depth, max(row.iterations, 1))
    full = replace(row, work=form.products * width**2, span=form.span * width, messages=form.messages)
    if form.products > MOST_PRODUCTS:
        bounds = tuple(max(duration(full.work, count), full.span) for count in cores)
        return replace(full, makespans=bounds), ()
    program = written(row.order, depth, row.iterations, width)
    graph = Graph.of_multiplications(program)
    bill = charge(
        Setting(program.network, BATCH, UPDATES["adam"], machine), [dense(program, BATCH)], ordered=False
    )
    times = tuple(makespan(graph, count) for count in cores)
    return replace(full, makespans=times, scheduled=True, energy=bill.energy), bill.unpriced_energy


def _reactive(row: Row, cores: tuple[int, ...], width: int) -> Row:
    """Simulate an order without a list.

    Cores belong to layers: neighbours share one if there are too few, a layer has several if there are more.
    Which news meet, and so the work itself, depends on their number.
    """
    network = equal_widths(row.hidden + 1, width)
    assert row.iterations is not None
    plan = Schedule(row.order, row.iterations).plan(network)

    def simulate(count: int) -> EventEngine:
        layers = network.top  # the output layer multiplies nothing
        share = max(1, min(count // layers, width))
        placed = [min(layer * min(count, layers) // layers, layers - 1) for layer in range(layers)]
        hardware = Hardware(time_per_multiplication=duration(width**2, share) / width**2)
        engine = EventEngine(plan, None, hardware, 1, cores=[*placed, placed[-1]])
        engine.simulate()
        return engine

    engines = {count: simulate(count) for count in {*cores, 1, width * network.top}}
    times = {count: round(engine.totals.simulated_time) for count, engine in engines.items()}
    return replace(
        row,
        work=engines[1].totals.multiplications,
        span=times[width * network.top],
        messages=engines[width * network.top].totals.messages,
        makespans=tuple(times[count] for count in cores),
        scheduled=True,
    )


@lru_cache(maxsize=2)
def equal_widths(depth: int, width: int) -> Network:
    """Return a network of L connections whose layers all have as many neurons."""
    return Network.dense([width] * (depth + 1))


def written(order: str, depth: int, iterations: int, width: int) -> Program:
    """Return a mini-batch of an order, or of backprop, written out for equal widths."""
    if order == BACKPROP:
        return Program.build(equal_widths(depth, width), Schedule(backpropagation, 1))
    return Program.build(equal_widths(depth, width), Schedule(order, iterations))
