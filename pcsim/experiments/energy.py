"""What training a model costs on machines: mini-batches of its real data, counted and charged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from pcsim.engine.event import EventEngine
from pcsim.engine.mesh.engine import simulate_mesh
from pcsim.engine.mesh.plan import make_plan
from pcsim.engine.mesh.times import chip_of, priced_durations, unpriced_on_mesh
from pcsim.engine.observer import Statistics
from pcsim.errors import ConfigurationError, ShapeError, refuse_unless
from pcsim.experiments.experiment import Experiment
from pcsim.experiments.meter import Meter, as_sent
from pcsim.experiments.pricing import setting_of
from pcsim.experiments.sending import dense_of
from pcsim.hardware.charge import Bill, Done, charge
from pcsim.hardware.machine import Machine
from pcsim.hardware.machine_clock import clock_of
from pcsim.hardware.mapping import Mapping
from pcsim.hardware.placement import check_placed
from pcsim.hardware.traffic import traffic_of
from pcsim.hardware.ways import ways_of
from pcsim.hardware.work import Setting
from pcsim.kernels import reference
from pcsim.network.network import Network
from pcsim.schedule.operation import Operation, Operations
from pcsim.schedule.program import Program, Reaction
from pcsim.training.data import batches
from pcsim.training.loop import check_fit

# Why a bill has no time.
_IN_A_FORMAT = "the mesh is simulated without the messages' own format"
_ON_THE_MESH = "the mesh is simulated with all values sent"
_NOT_ALL_SENT = "the order has no fixed list and was run with thresholds, which sends less"
_WITHOUT_A_LIST = "the order has no fixed list and was run with all products done"


@dataclass(frozen=True)
class Measured:
    """What the first mini-batches of a model's training did.

    Attributes:
        mini_batches: operations in the order of the program (or, without one, in which they were done), with
            what of their work was about numbers that are not zero.
        metrics: of a sample, by the names that NeuroBench 2.3 gives them; see `_metrics`.
        time: of a mini-batch on the experiment's hardware, mean.
    """

    mini_batches: tuple[Done, ...]
    metrics: dict[str, float]
    time: float


@dataclass(frozen=True)
class Bills:
    """What a machine charges for a mini-batch, doing everything and doing only what is not about zeros.

    Attributes:
        dense: every multiplication is done, every value is sent, in the format of the model's messages.
        events: multiplications by zero are left out, and zeros are not sent; of a message with a threshold
            those entries are that pass it, zeros or not.
    """

    dense: Bill
    events: Bill


def check_measurable(experiment: Experiment, mini_batches: int) -> None:
    """Refuse what `measure` could not do, before it begins.

    Raises:
        ConfigurationError: fewer mini-batches than one, or more than an epoch has; messages that go astray.
        ShapeError: data and network do not fit.
    """
    check_fit(experiment.network, experiment.dataset, experiment.batch)
    there = len(experiment.dataset.train_inputs) // experiment.batch
    if not 1 <= mini_batches <= there:
        raise ConfigurationError(f"mini-batches = {mini_batches}: expected 1 to {there}, an epoch's")
    if experiment.channels.faults.active:
        raise ConfigurationError("faults: expected a model without [faults], whose energy is not known")


def check_mapping(experiment: Experiment, machine: Machine, mapping: Mapping) -> None:
    """Refuse a mapping of another network or chip, or one that nobody could build or simulate.

    Raises:
        ConfigurationError: of another chip, a mesh that is too large, a core that would hold too much.
        ShapeError: of another network.
    """
    network, batch = experiment.network, experiment.batch
    mapping.chip.check_simulated(machine.name)
    if mapping.sizes != network.sizes:
        raise ShapeError(
            f"mapping of a network with layers {list(mapping.sizes)}: expected {list(network.sizes)}"
        )
    state = setting_of(network, batch, experiment.rule, machine).update.state
    check_placed(mapping, network, machine.chip or mapping.chip, batch, machine.name, state)


def measure(experiment: Experiment, mini_batches: int, tell: Callable[[], None] = lambda: None) -> Measured:
    """Train a copy of the network on the first mini-batches and count what was done.

    Args:
        experiment: from a model file, for instance.
        mini_batches: how many.
        tell: called after each of them.

    Raises:
        ConfigurationError: fewer than one, or more than an epoch has; or messages that go astray.
        ShapeError: data and network do not fit.
        NonFiniteError: activities or energy became infinite or NaN.
    """
    check_measurable(experiment, mini_batches)
    network, batch, channels = experiment.network.copy(), experiment.batch, experiment.channels
    meter = Meter(network, batch)
    units = network.layers(batch, experiment.rule, reference)
    plan = _watched(experiment.schedule.plan(network, channels), meter)
    statistics = Statistics(plan.iterations, network.top)
    engine = EventEngine(plan, units, experiment.hardware, batch, [statistics], channels=channels)
    rng = np.random.default_rng([experiment.seed, 1])
    pairs = batches(experiment.dataset, batch, rng, experiment.shuffle, network.dtype)
    done = []
    with np.errstate(all="ignore"):  # what overflows is found and named by the check
        for _, (inputs, targets) in zip(range(mini_batches), pairs, strict=False):
            engine.step(inputs, targets)
            statistics.check_finite()
            taken = meter.take()
            done.append(as_sent(taken, engine.timeline, network, channels) if channels.carry else taken)
            tell()
    time = engine.totals.simulated_time / mini_batches
    return Measured(tuple(done), _metrics(network, batch, done, meter), time)


def charge_machines(
    experiment: Experiment,
    machines: Sequence[Machine],
    mini_batches: int,
    tell: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Bills], Measured]:
    """Charge the first mini-batches of training to machines.

    An order without a fixed list does different things on different clocks: it is run once for each machine.

    Args:
        experiment: what is trained; its own network stays as it is.
        machines: whose prices are charged.
        mini_batches: how many are measured; bills are of their mean.
        tell: called after each mini-batch that was run.

    Returns:
        Bills by the machine's name, and what was measured (on the last machine, if they differ).

    Raises:
        ConfigurationError: no machine, two of one name, or as `measure`.
    """
    names = [machine.name for machine in machines]
    refuse_unless(bool(names), "hardware", names, "at least one machine")
    refuse_unless(len(set(names)) == len(names), "hardware", names, "a name of its own for each machine")
    plan = experiment.schedule.plan(experiment.network, experiment.channels)
    bills: dict[str, Bills] = {}
    if isinstance(plan, Program):
        measured = measure(experiment, mini_batches, tell)
        everything = [_dense(experiment, plan.operations)]
        for machine in machines:
            setting = setting_of(experiment.network, experiment.batch, experiment.rule, machine)
            bills[machine.name] = Bills(charge(setting, everything), charge(setting, measured.mini_batches))
        return bills, measured
    for machine in machines:
        setting = setting_of(experiment.network, experiment.batch, experiment.rule, machine)
        clock = clock_of(setting, plan.operations) if machine.prices.time else experiment.hardware
        measured = measure(replace(experiment, hardware=clock), mini_batches, tell)
        bills[machine.name] = _reactive_bills(experiment, setting, measured)
    return bills, measured


def charge_mapped(
    experiment: Experiment,
    machine: Machine,
    mapping: Mapping,
    mini_batches: int,
    tell: Callable[[], None] = lambda: None,
) -> tuple[Bills, Measured]:
    """Charge the first mini-batches of training to a machine on whose cores the network lies.

    Packets travel as the mapping says, part sums included; zeros are left out in the same proportion on each
    way. The dense latency is the makespan on the mesh; how long events would take there is not known.

    Raises:
        ConfigurationError: a mapping for another chip, an order without a fixed list, or as `measure`.
        ShapeError: a mapping of another network.
    """
    network, batch = experiment.network, experiment.batch
    check_mapping(experiment, machine, mapping)
    program = Program.build(network, experiment.schedule, experiment.channels)
    plain = setting_of(network, batch, experiment.rule, machine)
    mapping = replace(mapping, chip=chip_of(machine, network.dtype.itemsize) or mapping.chip)
    plan = make_plan(program, mapping, batch, priced_durations(program, plain))
    setting = replace(plain, ways=ways_of(program, mapping, batch))
    measured = measure(experiment, mini_batches, tell)
    whole = charge(setting, [_dense(experiment, program.operations)], ordered=False)
    events = charge(setting, measured.mini_batches, ordered=False)
    known = bool(machine.prices.time)
    sized = experiment.channels.formatted and machine.passed_bytes is not None
    makespan = simulate_mesh(plan).makespan if known and not sized else None
    unpriced = unpriced_on_mesh(program, plain, mapping.chip, traffic_of(program, mapping, batch))
    dense = replace(
        whole, latency=makespan, unpriced_time=unpriced, untimed=_IN_A_FORMAT if known and sized else None
    )
    events = replace(events, unpriced_time=unpriced, untimed=_ON_THE_MESH if known else None)
    return Bills(dense, events), measured


def _dense(experiment: Experiment, operations: Iterable[Operation]) -> Done:
    return dense_of(operations, experiment.network, experiment.batch, experiment.channels)


def _reactive_bills(experiment: Experiment, setting: Setting, measured: Measured) -> Bills:
    """Charge what an order without a list has done; its latency is the engine's, on the dense clock.

    With thresholds the engine sends less than everything and multiplies all the same: no bill's latency.
    """
    everything = [_dense(experiment, [one for one, _ in done]) for done in measured.mini_batches]
    timed, thresholded = bool(setting.machine.prices.time), experiment.channels.thresholded
    dense, events = (charge(setting, one, ordered=False) for one in (everything, measured.mini_batches))
    return Bills(
        replace(
            dense,
            latency=measured.time if timed and not thresholded else None,
            untimed=_NOT_ALL_SENT if timed and thresholded else None,
        ),
        replace(events, untimed=_WITHOUT_A_LIST if timed else None),
    )


def _metrics(network: Network, batch: int, done: Sequence[Done], meter: Meter) -> dict[str, float]:
    """Return NeuroBench's figures for a training step instead of a forward pass.

    Dense: multiplications with weights a sample. Effective_MACs: those whose factors are not zero.
    Effective_ACs: 0, as no message is binary. ActivationSparsity: share of zeros among the f(ĥ) that
    predictions are formed from. ConnectionSparsity: share of zeros among weights. Footprint: bytes of
    parameters.
    """
    samples, weights = len(done) * batch, [weight for weight, _ in network.parameters]
    listed = sum(operation.multiplications for one in done for operation, _ in one)
    return {
        "Dense": listed / len(done),
        "Effective_MACs": sum(used.products for one in done for _, used in one) / samples,
        "Effective_ACs": 0.0,
        "ActivationSparsity": 1 - meter.active / meter.rates,
        "ConnectionSparsity": 1
        - sum(int(np.count_nonzero(weight)) for weight in weights) / sum(weight.size for weight in weights),
        "Footprint": float(sum(weight.nbytes + bias.nbytes for weight, bias in network.parameters)),
    }


@dataclass(frozen=True, kw_only=True)
class _WatchedOperations(Operations):
    """A vocabulary whose learning phase is counted: the engine adds it to an order without a list."""

    meter: Meter

    def learning_phase(self, iteration: int | None = None) -> Iterator[Operation]:
        """Let every connection learn, and count it."""
        return map(self.meter.watch, super().learning_phase(iteration))


def _watched(plan: Program | Reaction, meter: Meter) -> Program | Reaction:
    """Return the plan with every operation counted."""
    if isinstance(plan, Program):
        return replace(
            plan, operations=tuple(meter.watch(one, place) for place, one in enumerate(plan.operations))
        )
    order, vocabulary = plan.order, plan.operations

    def watched(ops: Operations, layer: int) -> Iterator[Operation | None]:
        for operation in order(ops, layer):
            yield operation if operation is None else meter.watch_next(operation)

    given = {one.name: getattr(vocabulary, one.name) for one in fields(vocabulary)}
    counted = _WatchedOperations(**given, meter=meter)
    return replace(plan, operations=counted, order=watched)
