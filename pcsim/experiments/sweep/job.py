"""One run of a study, wherever it is trained: in this process or in a worker on another machine."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pcsim.config import model_from_dict
from pcsim.experiments.alone import alone
from pcsim.experiments.experiment import Experiment
from pcsim.experiments.task import EngineName
from pcsim.experiments.workers import TRACE, one_line, train_in
from pcsim.tracing.reader import open_trace
from pcsim.training.loop import Epoch

PATIENCE = 600.0  # seconds to wait for a worker that was given up but is still in the folder
EVERY = 0.5  # seconds between news of training steps
COLUMNS = (
    "epoch",
    "training_steps",
    "validation_accuracy",
    "validation_loss",
    "test_accuracy",
    "test_loss",
    "energy",
    "seconds",
)

Row: TypeAlias = dict[str, float]
Tell: TypeAlias = Callable[[str, float, str], None]  # run, epochs done, news


@dataclass(frozen=True)
class Job:
    """A run and how far it is to come; goes over the network as it is.

    Attributes:
        run: its name in the study.
        folder: for its trace and checkpoint.
        model: the whole model, as `ModelConfig.to_dict` gives it.
        engine: which runs it.
        until: epoch to come to.
        threads: of BLAS, Numba and the kernels.
    """

    run: str
    folder: Path
    model: Mapping[str, Any]
    engine: EngineName
    until: int
    threads: int = 1


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        run: its name in the study.
        state: done, or failed.
        epochs: a row an epoch, all of the run, by `COLUMNS`.
        error: why it failed, in one line.
        worker: machine and process.
        resumed_from: epochs that an earlier process had done.
    """

    run: str
    state: Literal["done", "failed"]
    epochs: tuple[Row, ...] = ()
    error: str = ""
    worker: str = ""
    resumed_from: int = 0


class _Reporter:
    """Tells how far a run has come, now and then."""

    def __init__(self, job: Job, tell: Tell, start: int) -> None:
        self._job, self._tell, self._start = job, tell, start
        self._steps, self._done, self._next, self._news = 1, 0, 0.0, ""

    def begin(self, label: str, steps: int) -> None:
        """Learn how many training steps there are to do."""
        self._steps = max(steps, 1)
        self._send()

    def step(self) -> None:
        """Count one."""
        self._done += 1
        if time.monotonic() >= self._next:
            self._send()

    def epoch(self, epoch: Epoch) -> None:
        """Tell how the epoch went."""
        accurate = epoch.validation_accuracy == epoch.validation_accuracy
        self._news = f"{epoch.validation_accuracy:.2%}" if accurate else f"loss {epoch.validation_loss:.4g}"
        self._send()

    def _send(self) -> None:
        self._next = time.monotonic() + EVERY
        to_do = self._job.until - self._start
        self._tell(self._job.run, self._start + to_do * self._done / self._steps, self._news)


def train(job: Job, tell: Tell) -> Outcome:
    """Bring a run to where it is to come; whatever goes wrong is its outcome.

    A run that is there already is not trained again: its trace is read. One that was killed goes on from its
    last epoch, to the bits of an undisturbed run.
    """
    worker, start = f"{socket.gethostname()}:{os.getpid()}", 0
    try:
        with alone(job.folder, PATIENCE):
            start, whole = _standing(job.folder)
            if not whole or start < job.until:
                _train(job, _Reporter(job, tell, min(start, job.until)))
            return Outcome(job.run, "done", read_epochs(job.folder), "", worker, start)
    except Exception as error:
        return Outcome(job.run, "failed", _what_there_is(job.folder), one_line(error), worker, start)


def _train(job: Job, reporter: _Reporter) -> None:
    """Train on so many threads, whatever the process was started with."""
    import numba
    from threadpoolctl import threadpool_limits

    most = int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    numba.set_num_threads(min(job.threads, most))
    experiment = Experiment.from_model(model_from_dict(job.model, f"run {job.run}"))
    with threadpool_limits(job.threads):
        train_in(
            job.folder,
            experiment,
            engine=job.engine,
            threads=job.threads,
            until=job.until,
            progress=reporter,
        )


def _standing(folder: Path) -> tuple[int, bool]:
    """Return how many epochs a run has behind it, and whether its process came to the end that it was given.

    Raises:
        TraceError: the trace is damaged.
    """
    path = folder / TRACE
    if not path.exists():
        return 0, False
    with open_trace(path) as trace:
        rows = trace.table("learning").rows if "learning" in trace.tables else 0
        return rows, trace.state == "complete"


def read_epochs(folder: Path) -> tuple[Row, ...]:
    """Return the results of all epochs of a run, from its trace.

    Raises:
        TraceError: there is no trace, or it is damaged.
    """
    with open_trace(folder / TRACE) as trace:
        if "learning" not in trace.tables:
            return ()
        table = trace.table("learning")
        columns = {name: table.read(name).tolist() for name in COLUMNS if name in table.columns}
    return tuple(dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


def _what_there_is(folder: Path) -> tuple[Row, ...]:
    try:
        return read_epochs(folder)
    except Exception:  # the run's own error is the one to tell
        return ()
