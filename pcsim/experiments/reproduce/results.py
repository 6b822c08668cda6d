"""What runs came to, read from their traces: means, deviations, best epochs, tests against the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pcsim.errors import PcsimError
from pcsim.experiments.reproduce.jobs import Job, failure, look, recorded
from pcsim.experiments.reproduce.plans import Algorithm, Measure, Task
from pcsim.experiments.reproduce.runs import NO_PIXELS, NOT_RUN
from pcsim.experiments.significance import mean_sd, welch
from pcsim.report.numbers import plain, read_learning
from pcsim.tracing.reader import open_trace

Floats = npt.NDArray[np.float64]
BASELINE = "bp"
EARLY = 10  # epochs after which the baseline's accuracy is a mark for the others


@dataclass(frozen=True)
class Curve:
    """How one run went, epoch by epoch.

    Attributes:
        seed: of the run.
        values: test accuracy in percent, or test loss, after each epoch, (E,).
        seconds: of wall clock, in training.
        finished: whether it has all epochs that were asked for.
    """

    seed: int
    values: Floats
    seconds: float
    finished: bool

    def best(self, measure: Measure) -> int:
        """Return the index of the best epoch, the first if several are."""
        return int(self.values.argmax() if measure == "accuracy" else self.values.argmin())


@dataclass(frozen=True)
class Row:
    """What one algorithm came to on one task.

    Attributes:
        task: its name.
        algorithm: its name.
        title: the algorithm in tables.
        rate: α.
        measure: accuracy, in percent, or loss.
        paper: published accuracy in percent; None where there is none.
        seeds: of the runs that count: the finished ones, or, if none is, those under way.
        finished: how many runs have all their epochs.
        wanted: how many runs were asked for.
        epochs: done, a seed.
        best, best_epoch, last: value at the best epoch, that epoch, value at the last epoch, a seed.
        early: epochs until the baseline's mean after its epoch 10 is reached, a seed; None where it is not.
        p: of Welch's two-sided t-test of the best values against the baseline's; None with fewer than two
            seeds on either side.
        hours: of training, all runs together.
        notes: what is missing, and why.
    """

    task: str
    algorithm: str
    title: str
    rate: float
    measure: Measure
    paper: float | None
    seeds: tuple[int, ...]
    finished: int
    wanted: int
    epochs: tuple[int, ...]
    best: tuple[float, ...]
    best_epoch: tuple[int, ...]
    last: tuple[float, ...]
    early: tuple[int | None, ...]
    p: float | None
    hours: float
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary fit for JSON, with means and deviations."""
        spreads = {f"{name}_mean_sd": mean_sd(getattr(self, name)) for name in ("best", "last")}
        return {name: plain(value) for name, value in (asdict(self) | spreads).items()}


@dataclass(frozen=True)
class Results:
    """All runs of a task that there are.

    Attributes:
        task: the task.
        rows: one an algorithm.
        curves: of each algorithm's runs, by its name; finished or not.
    """

    task: Task
    rows: tuple[Row, ...]
    curves: Mapping[str, tuple[Curve, ...]]

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary fit for JSON."""
        curves = {
            name: [
                {"seed": one.seed, "finished": one.finished, "values": plain(one.values)} for one in several
            ]
            for name, several in self.curves.items()
        }
        return {
            "task": self.task.name,
            "title": self.task.title,
            "measure": self.task.measure,
            "source": self.task.source,
            "paper_epochs": self.task.epochs,
            "rows": [row.to_dict() for row in self.rows],
            "curves": curves,
        }


def gather(task: Task, jobs: Mapping[Algorithm, Sequence[Job]], epochs: int | None) -> Results:
    """Read what there is of a task's runs.

    Args:
        task: the task.
        jobs: the runs that are wanted, by algorithm.
        epochs: how many count, and make a run finished; if None, as many as each run was begun with.
    """
    found, notes = {}, {}
    for algorithm, several in jobs.items():
        read = [_read(job, epochs) for job in several]
        found[algorithm.name] = tuple(one for one in read if isinstance(one, Curve))
        reasons = dict.fromkeys(one for one in read if isinstance(one, str))
        if found[algorithm.name]:
            reasons.pop(NOT_RUN, None)  # the column of runs says how many
        notes[algorithm.name] = tuple(reasons)
    counted = {name: _counted(curves) for name, curves in found.items()}
    mark = _mark(counted.get(BASELINE, ()), task.measure)
    base = [curve.values[curve.best(task.measure)] for curve in counted.get(BASELINE, ())]
    rows = tuple(
        _row(task, one, counted[one.name], found[one.name], notes[one.name], len(jobs[one]), mark, base)
        for one in jobs
    )
    return Results(task, rows, found)


def _read(job: Job, epochs: int | None) -> Curve | str:
    """Return a run's curve, or why there is none."""
    try:
        standing = look(job)
        if standing.state == "other":
            return standing.why
        if not standing.epochs:
            return _missing(job)
        return _curve(job, epochs)
    except PcsimError as error:
        return str(error)


def _missing(job: Job) -> str:
    failed = failure(job)
    if failed is not None:
        return f"failed: {failed}"
    return NOT_RUN if job.place.has(job.task.data) else f"{NO_PIXELS}: pcsim data fetch {job.task.data}"


def _curve(job: Job, epochs: int | None) -> Curve:
    with open_trace(job.trace) as trace:
        asked = epochs or recorded(trace)["epochs"]
        learning, table = read_learning(trace), trace.table("learning")
        seconds = float(table.read("seconds", slice(table.rows - 1, table.rows))[0])
    values = learning.test_loss if learning.test_accuracy is None else 100 * learning.test_accuracy
    values = np.asarray(values[:epochs], dtype=float)
    return Curve(job.seed, values, seconds, len(values) >= asked)


def _counted(curves: Sequence[Curve]) -> tuple[Curve, ...]:
    """Return the finished runs, or all of them if none is."""
    finished = tuple(curve for curve in curves if curve.finished)
    return finished or tuple(curves)


def _mark(baseline: Sequence[Curve], measure: Measure) -> float | None:
    """Return the baseline's mean after epoch 10; None if it has not come so far, or for losses."""
    if measure != "accuracy" or not baseline or min(len(one.values) for one in baseline) < EARLY:
        return None
    return float(np.mean([one.values[EARLY - 1] for one in baseline]))


def _row(
    task: Task,
    algorithm: Algorithm,
    counted: Sequence[Curve],
    found: Sequence[Curve],
    notes: tuple[str, ...],
    wanted: int,
    mark: float | None,
    baseline: Sequence[float],
) -> Row:
    best = [curve.best(task.measure) for curve in counted]
    values = tuple(float(curve.values[index]) for curve, index in zip(counted, best, strict=True))
    return Row(
        task=task.name,
        algorithm=algorithm.name,
        title=algorithm.title,
        rate=algorithm.rate,
        measure=task.measure,
        paper=algorithm.paper,
        seeds=tuple(curve.seed for curve in counted),
        finished=sum(curve.finished for curve in found),
        wanted=wanted,
        epochs=tuple(len(curve.values) for curve in counted),
        best=values,
        best_epoch=tuple(index + 1 for index in best),
        last=tuple(float(curve.values[-1]) for curve in counted),
        early=tuple(None if mark is None else _first(curve.values, mark) for curve in counted),
        p=None if algorithm.name == BASELINE else welch(values, baseline),
        hours=sum(curve.seconds for curve in found) / 3600,
        notes=notes,
    )


def _first(values: Floats, mark: float) -> int | None:
    """Return the first epoch that reaches a mark, counted from 1; None if none does."""
    reached = np.flatnonzero(values >= mark)
    return int(reached[0]) + 1 if len(reached) else None
