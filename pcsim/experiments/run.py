"""Trains an experiment on an engine and leaves a trace."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from os import PathLike
from pathlib import Path

from pcsim.engine.distributed.plan import Distribution
from pcsim.engine.threads import suited_threads
from pcsim.errors import check_kind, refuse_unless
from pcsim.experiments.alone import alone
from pcsim.experiments.checkpoint import Bookmark
from pcsim.experiments.engines import set_up
from pcsim.experiments.experiment import Experiment
from pcsim.experiments.recording import open_writer
from pcsim.experiments.session import Progress, Session
from pcsim.experiments.summary import RunSummary
from pcsim.experiments.task import EngineName, Task
from pcsim.kernels import Kernels
from pcsim.kernels.backends import make_kernels

PATIENCE = 5.0  # seconds to wait for a run that is just leaving the checkpoint folder


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

    An order that never learns is run as it is, for what happens on the way, with a warning.

    Args:
        experiment: what is trained; `Experiment.from_model` makes one of a model file.
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
        ConfigurationError: no experiment; an order that the engine cannot run; resume without a checkpoint
            folder.
        CheckpointError: a folder with a checkpoint, but no resume; one that is damaged or another run's.
        PcsimError: another run keeps its checkpoints in that folder.
        ShapeError: data and network do not fit.
        TraceError: the trace cannot be written.
        LocalityError: a user's own order touches something foreign.
        NonFiniteError: activities or energy became infinite or NaN; the trace is kept.
    """
    check_kind("experiment", experiment, Experiment)
    refuse_unless(
        kernels is None or hasattr(kernels, "mini_batch"),
        "kernels",
        kernels,
        "kernels, as in pcsim.make_kernels('cpu', 'float32')",
    )
    task = Task.build(experiment, engine, distribution)
    if not task.learns:
        warnings.warn(
            f"order '{task.order}' never learns, weights stay as they are: to learn, end it with "
            "`yield from ops.learning_phase()`",
            stacklevel=2,
        )
    here = nullcontext() if checkpoint is None else alone(Path(checkpoint), PATIENCE)
    with here, suited_threads(experiment.network, experiment.batch):
        bookmark = Bookmark.open(checkpoint, resume, task.describe())
        kernels = kernels or make_kernels("cpu", experiment.network.dtype.name)
        with (
            open_writer(task, kernels, trace, overwrite, bookmark) as writer,
            set_up(task, kernels, writer) as setup,
        ):
            session = Session(task, setup, writer, bookmark, progress)
            return session.train(experiment.epochs if until is None else min(until, experiment.epochs))
