"""What processes that train have in common: one a folder, so many threads, a trace and a checkpoint there."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pcsim.errors import PcsimError
from pcsim.experiments.experiment import Experiment
from pcsim.experiments.run import EngineName, Progress, RunSummary, run
from pcsim.kernels.backends import make_kernels
from pcsim.tracing.reader import open_trace

TRACE = "trace.h5"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
EVERY = 0.1  # seconds between looks at a folder that another process is in


def thread_variables(threads: int) -> dict[str, str]:
    """Return what gives BLAS, OpenMP and Numba so many threads, in the environment of a process to start."""
    return dict.fromkeys(THREADS, str(threads))


@contextmanager
def alone(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Keep other processes of this kind out of a folder; a process that ends lets go in any way.

    Args:
        folder: is made if it is not there.
        patience: seconds to wait for another process to leave.

    Raises:
        PcsimError: one is in there, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("w")
    except OSError as error:
        raise PcsimError(f"cannot write {folder}: {error.strerror}") from error
    with file:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() >= deadline:
                    raise PcsimError(f"{folder}: another process trains there; wait for it") from error
            time.sleep(EVERY)
        yield


def train_in(
    folder: Path,
    experiment: Experiment,
    *,
    engine: EngineName,
    threads: int,
    until: int | None = None,
    progress: Progress | None = None,
) -> RunSummary:
    """Begin a run in a folder, or go on with it from its checkpoint.

    Args:
        folder: for trace.h5 and the checkpoint.
        experiment: what is trained.
        engine: which runs it.
        threads: of the kernels.
        until: epoch after which to pause; as `run`.
        progress: is told how far the run has come.

    Raises:
        PcsimError: it cannot be done, or activities became infinite or NaN.
    """
    trace = folder / TRACE
    if trace.exists():  # data may lie elsewhere by now; what was recorded of that stays
        with open_trace(trace) as reader:
            begun_as = reader.attributes.get("configuration")
        if isinstance(begun_as, dict):
            experiment = replace(experiment, configuration=begun_as)
    return run(
        experiment,
        engine=engine,
        kernels=make_kernels("cpu", experiment.network.dtype.name, threads),
        trace=trace,
        checkpoint=folder,
        resume=True,
        until=until,
        progress=progress,
    )


def one_line(error: BaseException) -> str:
    """Say in one line what went wrong: our own errors as they are, others with their kind."""
    kind = "" if isinstance(error, PcsimError) else f"{type(error).__name__}: "
    return kind + " ".join(str(error).split())


def environment(threads: int) -> dict[str, str]:
    """Return the environment of a process to start, with so many threads and this pcsim on its path."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return {**os.environ, **thread_variables(threads), "PYTHONPATH": path}
