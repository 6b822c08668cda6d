"""Trains an experiment on an engine and leaves a trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol, get_args

from pcsim.engine.backprop import BackpropEngine, check_rule
from pcsim.engine.channel import Carried
from pcsim.engine.distributed.plan import Distribution, Share
from pcsim.engine.event import EventEngine, Totals
from pcsim.engine.fast import FastEngine
from pcsim.engine.observer import Observer, Statistics
from pcsim.engine.threads import suited_threads
from pcsim.errors import ConfigurationError, NonFiniteError, nearest
from pcsim.experiments.alone import alone
from pcsim.experiments.checkpoint import Bookmark, ResumableEngine
from pcsim.experiments.distributed import check_distributed, watches_of
from pcsim.experiments.experiment import Experiment, check_channels
from pcsim.hardware.clock import Hardware
from pcsim.kernels import Kernels
from pcsim.kernels.backends import make_kernels
from pcsim.network.layer import Layer
from pcsim.schedule import locality
from pcsim.schedule.program import Program, Reaction
from pcsim.tracing.interrupts import remembered
from pcsim.tracing.probes import Probe
from pcsim.tracing.recorder import ROUNDING_FIELDS, Recorder
from pcsim.tracing.writer import TraceWriter
from pcsim.training.loop import Epoch, Position, check_fit, train

EngineName = Literal["fast", "event", "backprop", "distributed"]
OF_WEIGHTS = {"weight", "update", "bias", "bias_update"}  # what backpropagation has to show
PATIENCE = 5.0  # seconds to wait for a run that is just leaving the checkpoint folder
UNCOUNTED = -1  # of non-zero values, where no engine looked at the messages


class Progress(Protocol):
    """Who wants to know how far a run has come."""

    def begin(self, label: str, steps: int) -> None:
        """Learn that a run of so many training steps begins."""
        ...

    def step(self) -> None:
        """Learn that one training step is done."""
        ...

    def epoch(self, epoch: Epoch) -> None:
        """Learn how an epoch went."""
        ...


@dataclass(frozen=True)
class RunSummary:
    """What a run came to.

    Attributes:
        name: of the experiment.
        order: of its schedule.
        iterations: T.
        engine: which ran it.
        epochs: done.
        training_steps: mini-batches done.
        test_accuracy: after the last epoch; None without classes or without epochs.
        test_loss: after the last epoch; None without epochs.
        messages: sent in training.
        values: numbers in them, zeros included.
        nonzero_values: numbers in them that an event-driven link would carry; None on the fast engine.
        multiplications: in products with weights, in training.
        simulated_time: of all mini-batches, one after the other, in the hardware's time units; None on the
            fast engine where messages have jitter.
        seconds: of wall-clock time.
        trace: path of the trace; None if none was written.
        validation_accuracy: as test_accuracy; None also without a validation set.
        validation_loss: as test_loss; None also without a validation set.
        bytes: of the messages.
        lost: messages that did not arrive, or that a dead core did not send.
        shares: what each process of a distributed run did with its time.
    """

    name: str
    order: str
    iterations: int
    engine: EngineName
    epochs: int
    training_steps: int
    test_accuracy: float | None
    test_loss: float | None
    messages: int
    values: int
    nonzero_values: int | None
    multiplications: int
    simulated_time: float | None
    seconds: float
    trace: str | None
    validation_accuracy: float | None = None
    validation_loss: float | None = None
    bytes: int = 0
    lost: int = 0
    shares: tuple[Share, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary fit for JSON."""
        return asdict(self)


class ProgramMeter:
    """Totals of a program that runs on the fast engine: known beforehand, so not counted while it runs."""

    def __init__(self, program: Program, experiment: Experiment) -> None:
        clock = EventEngine(program, None, experiment.hardware, experiment.batch)
        clock.simulate()
        self._step = clock.totals
        self._counted = experiment.channels.carry
        sized = self._counted and (experiment.hardware.time_per_byte or experiment.channels.faults.dead)
        if experiment.hardware.links.jitter or sized:
            self._step.simulated_time = float("nan")

    def totals(self, steps: int, carried: Carried) -> Totals:
        """Return the totals of so many mini-batches; of the messages, where they go through channels."""
        once = asdict(self._step) | {"nonzero_values": UNCOUNTED}
        total = Totals(**{k: n if n == UNCOUNTED else n * steps for k, n in once.items()})
        return replace(total, **asdict(carried)) if self._counted else total


def run(
    experiment: Experiment,
    *,
    engine: EngineName = "fast",
    kernels: Kernels | None = None,
    trace: str | PathLike[str] | None = None,
    overwrite: bool = False,
    checkpoint: str | PathLike[str] | None = None,
    resume: bool = False,
    until: int | None = None,
    progress: Progress | None = None,
    distribution: Distribution | None = None,
) -> RunSummary:
    """Train the experiment's network, recording as it says.

    Args:
        experiment: what is trained.
        engine: "fast", "event" to simulate time and messages, "distributed" for layers in processes of
            their own, or "backprop", the baseline: no schedule.
        kernels: who does the arithmetic (`pcsim.make_kernels`); the fast CPU kernels if not given.
        trace: HDF5 file to write; none if not given.
        overwrite: replace an existing trace.
        checkpoint: folder for a checkpoint at the end of each epoch; none if not given.
        resume: go on from the checkpoint, if there is one, to the very bits that an undisturbed run has.
        until: epoch after which to pause, to be resumed some day; at the end of the run if not given.
        progress: is told how far the run has come.
        distribution: over how many processes, for the distributed engine.

    Raises:
        PeerError: a process of a distributed run is lost; trace and checkpoint are kept.
        ConfigurationError: an order that the engine cannot run; resume without a checkpoint folder.
        CheckpointError: a folder with a checkpoint, but no resume; one that is damaged or another run's.
        PcsimError: another run keeps its checkpoints in that folder.
        ShapeError: data and network do not fit.
        TraceError: the trace cannot be written.
        LocalityError: a user's own order touches something foreign.
        NonFiniteError: activities or energy became infinite or NaN; the trace is kept.
    """
    if engine not in get_args(EngineName):
        raise ConfigurationError(f"engine '{engine}': {nearest(engine, get_args(EngineName))}")
    plan = experiment.schedule.plan(experiment.network)
    if engine == "fast" and isinstance(plan, Reaction):
        raise ConfigurationError(
            f"order '{experiment.schedule.name}' depends on when messages arrive: use --engine event"
        )
    check_fit(experiment.network, experiment.dataset, experiment.batch)
    check_channels(experiment, engine)
    if engine == "backprop":
        check_rule(experiment.rule)  # before there is a trace that would be in the way of the next try
    distribution = distribution or Distribution()
    identity: dict[str, Any] = {"engine": engine}
    if engine == "distributed":
        check_distributed(experiment, plan, distribution)
        if distribution.replicas > 1:  # they round differently; the number of processes decides nothing
            identity["replicas"] = distribution.replicas
    here = nullcontext() if checkpoint is None else alone(Path(checkpoint), PATIENCE)
    with here, suited_threads(experiment.network, experiment.batch):
        bookmark = Bookmark.open(checkpoint, resume, experiment.describe() | identity)
        kernels = kernels or make_kernels("cpu", experiment.network.dtype.name)
        with _open(experiment, engine, kernels, trace, overwrite, bookmark) as writer:
            until = experiment.epochs if until is None else min(until, experiment.epochs)
            if engine == "distributed":
                assert isinstance(plan, Program)
                return _run_distributed(
                    experiment, plan, distribution, kernels, writer, bookmark, until, progress
                )
            return _run(experiment, plan, engine, kernels, writer, bookmark, until, progress)


def _open(
    experiment: Experiment,
    engine: EngineName,
    kernels: Kernels,
    trace: str | PathLike[str] | None,
    overwrite: bool,
    bookmark: Bookmark,
) -> AbstractContextManager[TraceWriter | None]:
    if trace is None:
        return nullcontext()
    attributes = {
        "name": experiment.name,
        "engine": engine,
        "order": "backprop" if engine == "backprop" else experiment.schedule.name,
        "iterations": 0 if engine == "backprop" else experiment.schedule.iterations,
        "layers": list(experiment.network.sizes),
        "batch": experiment.batch,
        "seed": experiment.seed,
        "hardware": _hardware(experiment.hardware),
        "experiment": experiment.describe(),
        "kernels": type(kernels).__name__ if not isinstance(kernels, ModuleType) else kernels.__name__,
        "configuration": dict(experiment.configuration),
    }
    path = Path(trace)
    how: dict[str, Any] = {
        "flush_seconds": experiment.flush_seconds,
        "buffer_bytes": experiment.buffer_bytes,
        "storage": experiment.storage,
    }
    if bookmark.resume and path.exists():
        return TraceWriter.append(path, attributes, steps_done=bookmark.training_steps, **how)
    return TraceWriter(path, attributes, overwrite=overwrite, **how)


def _hardware(hardware: Hardware) -> dict[str, Any]:
    """Return a clock, fit for JSON: keys are "source-target" of links and "layer name" of operations."""
    links = {f"{source}-{target}": time for (source, target), time in hardware.links.link_latency.items()}
    times = {f"{layer} {name}": time for (name, layer), time in hardware.operation_times.items()}
    return asdict(hardware) | {
        "links": asdict(hardware.links) | {"link_latency": links},
        "operation_times": times,
    }


def _run(
    experiment: Experiment,
    plan: Program | Reaction,
    engine_name: EngineName,
    kernels: Kernels,
    writer: TraceWriter | None,
    bookmark: Bookmark,
    until: int,
    progress: Progress | None,
) -> RunSummary:
    if engine_name == "backprop":
        return _run_backprop(experiment, writer, bookmark, until, progress)
    network = experiment.network
    units = network.layers(experiment.batch, experiment.rule, kernels)
    if isinstance(plan, Program) and experiment.schedule.own:
        plan.check_locality(units if locality.is_small(network) else None)  # ours are proven in the tests
    statistics = Statistics(plan.iterations, network.top)
    recorder = None
    if writer is not None:
        names = [one.name for one in plan.operations] if isinstance(plan, Program) else []
        probes = experiment.probes
        recorder = _recorder(experiment, plan.iterations, names, probes, writer, units, statistics)
    observers: list[Observer] = [statistics] if recorder is None else [statistics, recorder]
    heard = plan if recorder is None else recorder.listening_to(plan)
    engine, totals = _engine(engine_name, experiment, heard, observers, units)
    return _train(
        experiment, engine_name, engine, totals, statistics, recorder, writer, bookmark, until, progress
    )


def _run_backprop(
    experiment: Experiment,
    writer: TraceWriter | None,
    bookmark: Bookmark,
    until: int,
    progress: Progress | None,
) -> RunSummary:
    """Train by backpropagation: no iterations, nothing to tell of activities, errors and messages."""
    network = experiment.network
    statistics = Statistics(0, network.top)
    observers: list[Observer] = [statistics]
    engine = BackpropEngine(network, experiment.rule, experiment.batch, statistics, observers)
    recorder = None
    if writer is not None:
        probes = [probe for probe in experiment.probes if set(probe.record) <= OF_WEIGHTS]
        recorder = _recorder(experiment, 0, (), probes, writer, engine.layers, statistics)
        engine.observers = (*observers, recorder)
    step = 3 * sum(connection.multiplications for connection in network.connections)
    step -= network.connections[0].multiplications  # nobody needs the gradient of the input
    once = experiment.batch * step

    def totals(steps: int) -> Totals:
        return Totals(multiplications=once * steps, nonzero_values=UNCOUNTED, simulated_time=float("nan"))

    return _train(
        experiment, "backprop", engine, totals, statistics, recorder, writer, bookmark, until, progress
    )


def _run_distributed(
    experiment: Experiment,
    plan: Program,
    distribution: Distribution,
    kernels: Kernels,
    writer: TraceWriter | None,
    bookmark: Bookmark,
    until: int,
    progress: Progress | None,
) -> RunSummary:
    """Train in several processes; what looks on sees the layers' echoes."""
    from pcsim.engine.distributed.engine import DistributedEngine
    from pcsim.engine.distributed.team import Team

    network = experiment.network
    if experiment.schedule.own:
        plan.check_locality()
    statistics = Statistics(plan.iterations, network.top)
    probes = experiment.probes if writer is not None else ()
    meter = ProgramMeter(plan, experiment)
    with Team.start(distribution) as team:
        engine = DistributedEngine(
            team, plan, experiment.rule, experiment.batch, kernels, statistics, watches_of(probes, network)
        )
        recorder = None
        if writer is not None:
            names = [one.name for one in plan.operations]
            recorder = _recorder(
                experiment, plan.iterations, names, probes, writer, engine.echoes, statistics
            )
            heard = recorder.listening_to(engine.heard)
            assert isinstance(heard, Program)
            engine.heard, engine.observers = heard, [recorder]
        summary = _train(
            experiment,
            "distributed",
            engine,
            lambda steps: meter.totals(steps, Carried()),
            statistics,
            recorder,
            writer,
            bookmark,
            until,
            progress,
        )
        return replace(summary, shares=tuple(engine.shares()))


def _train(
    experiment: Experiment,
    engine_name: EngineName,
    engine: ResumableEngine,
    totals: Callable[[int], Totals],
    statistics: Statistics,
    recorder: Recorder | None,
    writer: TraceWriter | None,
    bookmark: Bookmark,
    until: int,
    progress: Progress | None,
) -> RunSummary:
    """Train from where the bookmark lies to the end of an epoch, recording and telling."""
    start = bookmark.restore(engine)
    if progress is not None:
        label = f"{experiment.name} {experiment.schedule.name if engine_name != 'backprop' else 'backprop'}"
        steps = experiment.training_steps_until(until) - bookmark.training_steps
        progress.begin(label, max(steps, 0))

    def after_step(step: int) -> None:
        if recorder is not None and experiment.events and isinstance(engine, EventEngine):
            recorder.record_timeline(engine.timeline)
        if progress is not None:
            progress.step()
        check_interrupt()

    def after_epoch(position: Position) -> None:
        epoch = position.epochs[-1]
        if recorder is not None:
            recorder.record_epoch(**_results(epoch, experiment), **_counted(totals(epoch.training_steps)))
        if writer is not None and bookmark.folder is not None:
            writer.flush()  # the trace must never be behind the checkpoint
        bookmark.save(engine, position)
        if progress is not None:
            progress.epoch(epoch)

    try:
        with remembered() as check_interrupt:
            epochs = train(
                experiment.network,
                experiment.dataset,
                engine,
                statistics,
                batch=experiment.batch,
                epochs=until,
                seed=experiment.seed,
                shuffle=experiment.shuffle,
                after_step=after_step,
                after_epoch=after_epoch,
                start=start,
            )
    except NonFiniteError:
        if recorder is not None:
            recorder.record_summary()
        raise
    return _summary(experiment, engine_name, epochs[-1] if epochs else None, totals, writer)


def _recorder(
    experiment: Experiment,
    iterations: int,
    names: Sequence[str],
    probes: Sequence[Probe],
    writer: TraceWriter,
    units: Sequence[Layer],
    statistics: Statistics,
) -> Recorder:
    """Return what writes the trace."""
    every, steps = experiment.record_every, experiment.training_steps
    splits = [split for split in experiment.dataset.splits if split != "train"]
    return Recorder(
        writer,
        experiment.network,
        units,
        statistics,
        iterations,
        probes,
        every,
        steps,
        names,
        splits,
        ROUNDING_FIELDS if experiment.channels.round else {},
    )


def _engine(
    name: EngineName,
    experiment: Experiment,
    plan: Program | Reaction,
    observers: Sequence[Observer],
    units: Sequence[Layer],
) -> tuple[ResumableEngine, Callable[[int], Totals]]:
    """Return the engine and what tells its totals after so many training steps."""
    if name == "event":
        engine = EventEngine(
            plan, units, experiment.hardware, experiment.batch, observers, channels=experiment.channels
        )
        return engine, lambda steps: engine.totals
    assert isinstance(plan, Program)
    fast, meter = (
        FastEngine(plan, units, observers, channels=experiment.channels),
        ProgramMeter(plan, experiment),
    )
    return fast, lambda steps: meter.totals(steps, fast.carried)


def _results(epoch: Epoch, experiment: Experiment) -> dict[str, float]:
    """Return what an epoch came to, on the parts of the data set that there are."""
    splits = experiment.dataset.splits
    return {
        k: n for k, n in asdict(epoch).items() if not k.startswith("validation") or "validation" in splits
    }


def _counted(totals: Totals) -> dict[str, float]:
    names = ("messages", "values", "nonzero_values", "multiplications", "simulated_time")
    return {name: getattr(totals, name) for name in names}


def _summary(
    experiment: Experiment,
    engine: EngineName,
    last: Epoch | None,
    totals: Callable[[int], Totals],
    writer: TraceWriter | None,
) -> RunSummary:
    total = totals(last.training_steps if last else 0)
    simulated = total.simulated_time
    return RunSummary(
        name=experiment.name,
        order="backprop" if engine == "backprop" else experiment.schedule.name,
        iterations=0 if engine == "backprop" else experiment.schedule.iterations,
        engine=engine,
        epochs=last.epoch if last else 0,
        training_steps=last.training_steps if last else 0,
        test_accuracy=last.test_accuracy if last and experiment.dataset.classes else None,
        test_loss=last.test_loss if last else None,
        messages=total.messages,
        values=total.values,
        nonzero_values=None if total.nonzero_values == UNCOUNTED else total.nonzero_values,
        multiplications=total.multiplications,
        simulated_time=simulated if simulated == simulated else None,
        seconds=last.seconds if last else 0.0,
        trace=None if writer is None else str(writer.path),
        validation_accuracy=_known(last.validation_accuracy) if last else None,
        validation_loss=_known(last.validation_loss) if last else None,
        bytes=total.bytes,
        lost=total.lost + total.unsent,
    )


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number
