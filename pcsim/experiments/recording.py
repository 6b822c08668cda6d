"""What a run leaves in its trace: who made it and from what, tables of what happens, a row an epoch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any

from pcsim.engine.observer import Statistics
from pcsim.engine.totals import Totals
from pcsim.experiments.checkpoint import Bookmark
from pcsim.experiments.clocks import describe_clock
from pcsim.experiments.experiment import Experiment
from pcsim.experiments.provenance import computed_by
from pcsim.experiments.task import Task
from pcsim.kernels import Kernels
from pcsim.network.layer import Layer
from pcsim.tracing import provenance
from pcsim.tracing.probes import Probe
from pcsim.tracing.reader import open_trace
from pcsim.tracing.recorder import ROUNDING_FIELDS, Recorder
from pcsim.tracing.writer import TraceWriter
from pcsim.training.loop import Epoch

OF_WEIGHTS = {"weight", "update", "bias", "bias_update"}  # what backpropagation has to show
COUNTED = ("messages", "values", "nonzero_values", "multiplications", "simulated_time")


def open_writer(
    task: Task,
    kernels: Kernels,
    trace: str | PathLike[str] | None,
    overwrite: bool,
    bookmark: Bookmark,
) -> AbstractContextManager[TraceWriter | None]:
    """Return the run's trace, open: a new one, or the one that it goes on with; nothing without a path.

    What computes the numbers may differ from one start of a run to the next: the trace says it of the last.

    Raises:
        TraceError: the path is taken, cannot be written, or is the trace of another run.
    """
    if trace is None:
        return nullcontext()
    path, attributes, experiment = Path(trace), _attributes(task, kernels), task.experiment
    how: dict[str, Any] = {
        "flush_seconds": experiment.flush_seconds,
        "buffer_bytes": experiment.buffer_bytes,
        "storage": experiment.storage,
    }
    facts, changed = computed_by(task, kernels), provenance.Pairs()
    if bookmark.resume and path.exists():
        with open_trace(path) as last:
            changed = provenance.differences(last.attributes.get(provenance.NAME), facts)
        writer = TraceWriter.append(path, attributes, steps_done=bookmark.training_steps, **how)
    else:
        writer = TraceWriter(path, attributes, overwrite=overwrite, **how)
    writer.set(**{provenance.NAME: facts})
    if changed:
        words = "; ".join(f"{name}: {before} before, {now} now" for name, (before, now) in changed.items())
        warnings.warn(f"{path}: its last bits may not be an undisturbed run's: {words}", stacklevel=3)
    return writer


def _attributes(task: Task, kernels: Kernels) -> dict[str, Any]:
    """Return the root attributes of the trace."""
    experiment = task.experiment
    return {
        "name": experiment.name,
        "engine": task.engine,
        "order": task.order,
        "iterations": task.iterations,
        "layers": list(experiment.network.sizes),
        "batch": experiment.batch,
        "seed": experiment.seed,
        "hardware": describe_clock(experiment.hardware),
        "experiment": experiment.describe(),
        "kernels": type(kernels).__name__ if not isinstance(kernels, ModuleType) else kernels.__name__,
        "configuration": dict(experiment.configuration),
    }


def probes_of(task: Task) -> Sequence[Probe]:
    """Return the probes that the engine can feed: backpropagation has no activities, errors and messages."""
    probes = task.experiment.probes
    return probes if task.plan is not None else [one for one in probes if set(one.record) <= OF_WEIGHTS]


def make_recorder(
    task: Task, writer: TraceWriter, units: Sequence[Layer], statistics: Statistics
) -> Recorder:
    """Return what writes the tables of the trace; it looks on behind `statistics`, at the engine's layers."""
    experiment = task.experiment
    return Recorder(
        writer,
        experiment.network,
        units,
        statistics,
        task.iterations,
        probes_of(task),
        every=experiment.record_every,
        training_steps=experiment.training_steps,
        names=() if task.plan is None else task.plan.names,
        splits=[split for split in experiment.dataset.splits if split != "train"],
        rounding=ROUNDING_FIELDS if experiment.channels.round else {},
    )


def epoch_row(experiment: Experiment, epoch: Epoch, totals: Totals) -> dict[str, float]:
    """Return what an epoch came to, on the parts of the data set that there are, and the totals so far."""
    validated = "validation" in experiment.dataset.splits
    results = {k: n for k, n in asdict(epoch).items() if validated or not k.startswith("validation")}
    return results | {name: getattr(totals, name) for name in COUNTED}
