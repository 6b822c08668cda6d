"""The engine of a run, made with those who look on while it trains and those who count what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

from pcsim.engine.backprop import BackpropEngine
from pcsim.engine.distributed.plan import Share
from pcsim.engine.event import EventEngine
from pcsim.engine.fast import FastEngine
from pcsim.engine.observer import Observer, Statistics
from pcsim.engine.totals import Totals
from pcsim.experiments.checkpoint import ResumableEngine
from pcsim.experiments.distributed import watches_of
from pcsim.experiments.recording import make_recorder, probes_of
from pcsim.experiments.task import Task
from pcsim.experiments.totals import multiplied, totals_of_backprop, totals_of_program
from pcsim.kernels import Kernels
from pcsim.network.layer import Layer
from pcsim.schedule import locality
from pcsim.schedule.program import Program, Reaction
from pcsim.tracing.recorder import Recorder
from pcsim.tracing.writer import TraceWriter


@dataclass(frozen=True)
class Setup:
    """An engine that is ready to train, and who knows what comes of it.

    Attributes:
        engine: runs mini-batches.
        statistics: an observer of that engine.
        recorder: another, which writes the trace; None if none is written.
        totals: tells what so many training steps have computed and sent.
        shares: tells what each process of a distributed run has done with its time so far.
    """

    engine: ResumableEngine
    statistics: Statistics
    recorder: Recorder | None
    totals: Callable[[int], Totals]
    shares: Callable[[], Sequence[Share]] = lambda: ()


@contextmanager
def set_up(task: Task, kernels: Kernels, writer: TraceWriter | None) -> Iterator[Setup]:
    """Make the engine of a task; a distributed one has its processes until the context is left.

    Raises:
        ConfigurationError: more processes than layers, or kernels that other processes cannot have.
        LocalityError: a user's own order touches something foreign.
        PeerError: a process of a distributed run is lost.
    """
    if task.engine == "distributed":
        with _distributed(task, kernels, writer) as setup:
            yield setup
    elif task.engine == "backprop":
        yield _backprop(task, kernels, writer)
    else:
        yield _in_this_process(task, kernels, writer)


def _in_this_process(task: Task, kernels: Kernels, writer: TraceWriter | None) -> Setup:
    """Set up the fast or the event engine."""
    experiment, plan, network = task.experiment, task.plan, task.experiment.network
    assert plan is not None
    units = network.layers(experiment.batch, experiment.rule, kernels)
    if isinstance(plan, Program) and experiment.schedule.own:
        plan.check_locality(units if locality.is_small(network) else None)  # ours are proven in the tests
    statistics = Statistics(task.iterations, network.top)
    if writer is None:
        engine, totals = _engine(task, plan, units, [statistics])
        return Setup(engine, statistics, None, totals)
    recorder = make_recorder(task, writer, units, statistics)
    # Channels tell what comes of a message; what its sender says is not what its receiver has.
    heard = plan if experiment.channels.carry else recorder.listening_to(plan)
    engine, totals = _engine(task, heard, units, [statistics, recorder])
    return Setup(engine, statistics, recorder, totals)


def _engine(
    task: Task, plan: Program | Reaction, units: Sequence[Layer], observers: Sequence[Observer]
) -> tuple[ResumableEngine, Callable[[int], Totals]]:
    """Return the engine and what tells its totals after so many training steps."""
    experiment, channels = task.experiment, task.experiment.channels
    if task.engine == "event":
        event = EventEngine(plan, units, experiment.hardware, experiment.batch, observers, channels=channels)
        return event, lambda steps: event.totals
    assert isinstance(plan, Program)
    fast, once = FastEngine(plan, units, observers, channels=channels), totals_of_program(plan, experiment)

    def totals(steps: int) -> Totals:
        known = multiplied(once, steps)
        return replace(known, **asdict(fast.carried)) if channels.carry else known

    return fast, totals


def _backprop(task: Task, kernels: Kernels, writer: TraceWriter | None) -> Setup:
    """Set up backpropagation: no iterations, nothing to tell of activities, errors and messages."""
    experiment, network = task.experiment, task.experiment.network
    statistics = Statistics(task.iterations, network.top)
    threads = getattr(kernels, "threads", None)  # who chose them for the kernels means the baseline, too
    engine = BackpropEngine(network, experiment.rule, experiment.batch, statistics, [statistics], threads)
    recorder = None
    if writer is not None:
        recorder = make_recorder(task, writer, engine.layers, statistics)
        engine.observers = (statistics, recorder)
    once = totals_of_backprop(experiment)
    return Setup(engine, statistics, recorder, lambda steps: multiplied(once, steps))


@contextmanager
def _distributed(task: Task, kernels: Kernels, writer: TraceWriter | None) -> Iterator[Setup]:
    """Set up several processes; who looks on sees the layers' echoes."""
    from pcsim.engine.distributed.engine import DistributedEngine
    from pcsim.engine.distributed.team import Team

    experiment, program, network = task.experiment, task.program, task.experiment.network
    if experiment.schedule.own:
        program.check_locality()
    statistics = Statistics(task.iterations, network.top)
    watches = watches_of(probes_of(task) if writer is not None else (), network)
    once = totals_of_program(program, experiment)
    with Team.start(task.distribution) as team:
        engine = DistributedEngine(
            team, program, experiment.rule, experiment.batch, kernels, statistics, watches
        )
        recorder = None
        if writer is not None:
            recorder = make_recorder(task, writer, engine.echoes, statistics)
            heard = recorder.listening_to(engine.heard)
            assert isinstance(heard, Program)
            engine.heard, engine.observers = heard, [recorder]
        yield Setup(engine, statistics, recorder, lambda steps: multiplied(once, steps), engine.shares)
