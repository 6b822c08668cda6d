"""What processes that train have in common: one a folder, so many threads, a trace and a checkpoint there."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from pcsim.errors import PcsimError
from pcsim.experiments.experiment import Experiment
from pcsim.experiments.run import run
from pcsim.experiments.session import Progress
from pcsim.experiments.summary import RunSummary
from pcsim.experiments.task import EngineName
from pcsim.kernels.backends import make_kernels
from pcsim.tracing.reader import open_trace

TRACE = "trace.h5"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def thread_variables(threads: int) -> dict[str, str]:
    """Return what gives BLAS, OpenMP and Numba so many threads, in the environment of a process to start."""
    return dict.fromkeys(THREADS, str(threads))


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
