"""Trains an experiment on an engine and leaves a trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol, get_args

from pcsim.engine.event import EventEngine, Totals
from pcsim.engine.fast import FastEngine
from pcsim.engine.observer import Observer, Statistics
from pcsim.engine.threads import suited_threads
from pcsim.errors import ConfigurationError, NonFiniteError, nearest
from pcsim.experiments.experiment import Experiment
from pcsim.kernels import Kernels
from pcsim.kernels.backends import make_kernels
from pcsim.network.layer import Layer
from pcsim.schedule import locality
from pcsim.schedule.program import Program, Reaction
from pcsim.tracing.recorder import Recorder
from pcsim.tracing.writer import TraceWriter
from pcsim.training.loop import Engine, Epoch, check_fit, train

EngineName = Literal["fast", "event"]
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

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary fit for JSON."""
        return asdict(self)


class ProgramMeter:
    """Totals of a program that runs on the fast engine: known beforehand, so not counted while it runs."""

    def __init__(self, program: Program, experiment: Experiment) -> None:
        clock = EventEngine(program, None, experiment.hardware, experiment.batch)
        clock.simulate()
        self._step = clock.totals
        if experiment.hardware.links.jitter:
            self._step.simulated_time = float("nan")

    def totals(self, steps: int) -> Totals:
        """Return the totals of so many mini-batches."""
        once = asdict(self._step) | {"nonzero_values": UNCOUNTED}
        return Totals(**{k: n if n == UNCOUNTED else n * steps for k, n in once.items()})


def run(
    experiment: Experiment,
    *,
    engine: EngineName = "fast",
    kernels: Kernels | None = None,
    trace: str | PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> RunSummary:
    """Train the experiment's network, recording as it says.

    Args:
        experiment: what is trained.
        engine: "fast", or "event" to simulate time and messages.
        kernels: who does the arithmetic (`pcsim.make_kernels`); the fast CPU kernels if not given.
        trace: HDF5 file to write; none if not given.
        overwrite: replace an existing trace.
        progress: is told how far the run has come.

    Raises:
        ConfigurationError: an order that the engine cannot run.
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
    threads = suited_threads(experiment.network, experiment.batch)
    with threads:
        kernels = kernels or make_kernels("cpu", experiment.network.dtype.name)
        with _open(experiment, engine, kernels, trace, overwrite) as writer:
            return _run(experiment, plan, engine, kernels, writer, progress)


def _open(
    experiment: Experiment,
    engine: EngineName,
    kernels: Kernels,
    trace: str | PathLike[str] | None,
    overwrite: bool,
) -> AbstractContextManager[TraceWriter | None]:
    if trace is None:
        return nullcontext()
    attributes = {
        "name": experiment.name,
        "engine": engine,
        "order": experiment.schedule.name,
        "iterations": experiment.schedule.iterations,
        "layers": list(experiment.network.sizes),
        "batch": experiment.batch,
        "seed": experiment.seed,
        "hardware": asdict(experiment.hardware) | {"links": _links(experiment)},
        "experiment": experiment.describe(),
        "kernels": type(kernels).__name__ if not isinstance(kernels, ModuleType) else kernels.__name__,
        "configuration": dict(experiment.configuration),
    }
    return TraceWriter(Path(trace), attributes, overwrite=overwrite, flush_seconds=experiment.flush_seconds)


def _links(experiment: Experiment) -> dict[str, Any]:
    links = experiment.hardware.links
    names = {f"{source}-{target}": time for (source, target), time in links.link_latency.items()}
    return asdict(links) | {"link_latency": names}


def _run(
    experiment: Experiment,
    plan: Program | Reaction,
    engine_name: EngineName,
    kernels: Kernels,
    writer: TraceWriter | None,
    progress: Progress | None,
) -> RunSummary:
    network = experiment.network
    units = network.layers(experiment.batch, experiment.rule, kernels)
    if isinstance(plan, Program) and experiment.schedule.own:
        plan.check_locality(units if locality.is_small(network) else None)  # ours are proven in the tests
    statistics = Statistics(plan.iterations, network.top)
    recorder = None if writer is None else _recorder(experiment, plan, writer, units, statistics)
    observers: list[Observer] = [statistics] if recorder is None else [statistics, recorder]
    engine, totals = _engine(engine_name, experiment, plan, observers, units)
    if progress is not None:
        progress.begin(f"{experiment.name} {experiment.schedule.name}", experiment.training_steps)

    def after_step(step: int) -> None:
        if recorder is not None and experiment.events and isinstance(engine, EventEngine):
            recorder.record_timeline(engine.timeline)
        if progress is not None:
            progress.step()

    def after_epoch(epoch: Epoch) -> None:
        if recorder is not None:
            recorder.record_epoch(**asdict(epoch), **_counted(totals(epoch.training_steps)))
        if progress is not None:
            progress.epoch(epoch)

    try:
        epochs = train(
            network,
            experiment.dataset,
            engine,
            statistics,
            batch=experiment.batch,
            epochs=experiment.epochs,
            seed=experiment.seed,
            shuffle=experiment.shuffle,
            after_step=after_step,
            after_epoch=after_epoch,
        )
    except NonFiniteError:
        if recorder is not None:
            recorder.record_summary()
        raise
    return _summary(experiment, engine_name, epochs[-1] if epochs else None, totals, writer)


def _recorder(
    experiment: Experiment,
    plan: Program | Reaction,
    writer: TraceWriter,
    units: Sequence[Layer],
    statistics: Statistics,
) -> Recorder:
    """Return what writes the trace."""
    return Recorder(
        writer,
        experiment.network,
        units,
        statistics,
        plan.iterations,
        experiment.probes,
        experiment.record_every,
        experiment.training_steps,
        names=[one.name for one in plan.operations] if isinstance(plan, Program) else (),
    )


def _engine(
    name: EngineName,
    experiment: Experiment,
    plan: Program | Reaction,
    observers: Sequence[Observer],
    units: Sequence[Layer],
) -> tuple[Engine, Callable[[int], Totals]]:
    """Return the engine and what tells its totals after so many training steps."""
    if name == "event":
        engine = EventEngine(plan, units, experiment.hardware, experiment.batch, observers)
        return engine, lambda steps: engine.totals
    assert isinstance(plan, Program)
    return FastEngine(plan, units, observers), ProgramMeter(plan, experiment).totals


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
        order=experiment.schedule.name,
        iterations=experiment.schedule.iterations,
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
    )
