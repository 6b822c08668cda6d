"""Training on Dask's workers: processes of this machine, those of a running scheduler, or SLURM's jobs.

Dask is imported here and nowhere else. A worker that dies gives its run back to the scheduler; whoever gets
it goes on from the last epoch. A run that has killed four workers has failed.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcsim.errors import ConfigurationError, StudyError
from pcsim.experiments.sweep.file import SlurmConfig
from pcsim.experiments.sweep.job import Job, Outcome, Tell, train
from pcsim.experiments.workers import one_line, thread_variables

if TYPE_CHECKING:
    from dask_jobqueue.slurm import SLURMCluster
    from distributed import Client, Future

TOPIC = "pcsim-sweep"
SECONDS = 30.0  # to wait for a scheduler
SILENT = {"DASK_LOGGING__DISTRIBUTED": "critical"}  # of a worker here: what it says would go to the terminal
REMEDY = "install it with pip install 'pcsim[sweep]', or leave --workers, --scheduler and --slurm out"


class OnDask:
    """A runner that hands jobs to Dask's workers."""

    def __init__(self, client: Client, tell: Tell) -> None:
        self._client, self._tell = client, tell

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Train all jobs; what is ready first comes first.

        Raises:
            StudyError: the scheduler is lost, or it has given up the runs.
        """
        from distributed import as_completed

        self._client.subscribe_topic(TOPIC, self._hear)
        stamp = time.time_ns()  # a failed job must not be answered from the scheduler's memory
        futures = {
            self._client.submit(train_on_worker, job, key=f"{job.run}-{job.until}-{stamp}", pure=False): job
            for job in jobs
        }
        try:
            for future in as_completed(futures, loop=self._client.loop):
                yield _outcome(future, futures[future])
                future.release()
        finally:
            with suppress(Exception):  # of a cluster that is gone
                self._client.cancel(list(futures), force=True)
            with suppress(Exception):
                self._client.unsubscribe_topic(TOPIC)

    def _hear(self, event: tuple[float, Any]) -> None:
        """Pass on what a worker tells; the topic is everybody's, so strange news are dropped."""
        news = event[1]
        if isinstance(news, Mapping) and {"run", "epochs", "news"} <= news.keys():
            self._tell(str(news["run"]), float(news["epochs"]), str(news["news"]))


def train_on_worker(job: Job) -> Outcome:
    """Train in a worker process, which tells the scheduler how it goes, and stops when the worker does."""
    from distributed import Reschedule, Status, get_worker

    worker = get_worker()

    def tell(run: str, epochs: float, news: str) -> None:
        if worker.status in (Status.closing, Status.closed, Status.failed):
            raise KeyboardInterrupt  # as if Ctrl-C had been pressed there: the trace will say so
        worker.log_event(TOPIC, {"run": run, "epochs": epochs, "news": news})

    try:
        return train(job, tell)
    except KeyboardInterrupt:
        raise Reschedule from None


def _outcome(future: Future[Outcome], job: Job) -> Outcome:
    """Return what became of a job, also if its workers died of it."""
    from distributed import KilledWorker

    if future.status == "finished":
        result: Outcome = future.result()
        return result
    if future.status == "error":
        error = future.exception()
        if isinstance(error, KilledWorker):
            times = error.allowed_failures + 1
            return Outcome(job.run, "failed", error=f"its worker died, {times} times: too little memory?")
        return Outcome(job.run, "failed", error=one_line(error))
    raise StudyError("the scheduler is lost or was told to stop; run it again to go on")


@contextmanager
def local_workers(workers: int, threads: int) -> Iterator[Client]:
    """Start worker processes on this machine, each with so many threads for BLAS and Numba.

    A worker that dies is replaced. Workers end when this process does, however it ends: they are deaf to the
    Ctrl-C that a terminal sends to all.
    """
    _need("distributed")
    import dask.config
    from distributed import Client, LocalCluster

    environment = {**thread_variables(threads), **SILENT}
    settings = {
        "distributed.nanny.pre-spawn-environ": environment,
        # A worker that dies is started again; one that takes longer than this for it would be given up.
        "distributed.deploy.lost-worker-timeout": "1 day",
    }
    with _quiet(), _put_back(environment), dask.config.set(settings):
        with _deaf_children():
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,  # a run at a time; its threads are its own
                processes=True,
                memory_limit=0,  # the machine's; a pause at some share of it would be for good
                scheduler_kwargs={
                    "dashboard": False,
                    "dashboard_address": "127.0.0.1:0",
                },  # any port: 8787 is often taken
                silence_logs=False,
            )
        with cluster, Client(cluster) as client:
            yield client


@contextmanager
def scheduler_workers(address: str) -> Iterator[Client]:
    """Use the workers of a scheduler that runs already.

    Raises:
        StudyError: nobody answers there.
    """
    _need("distributed")
    from distributed import Client

    try:
        client = Client(address, timeout=SECONDS)
    except (OSError, ValueError, TimeoutError) as error:
        raise StudyError(
            f"--scheduler {address}: {one_line(error)}: expected the address that `dask scheduler` prints, "
            "such as tcp://node1:8786"
        ) from None
    with _quiet(), client:
        yield client


@contextmanager
def slurm_workers(slurm: SlurmConfig, workers: int, threads: int, logs: Path) -> Iterator[Client]:
    """Let SLURM start workers, a job each; a job that ends before the sweep is replaced.

    Raises:
        StudyError: this machine cannot submit jobs.
    """
    if shutil.which("sbatch") is None:
        raise StudyError(
            "--slurm: there is no sbatch here: expected a login node of a SLURM cluster; "
            "--dry-run prints the job script"
        )
    from distributed import Client

    logs.mkdir(parents=True, exist_ok=True)
    with _quiet(), _slurm(slurm, threads, logs) as cluster, Client(cluster) as client:
        cluster.adapt(minimum_jobs=workers, maximum_jobs=workers)
        yield client


def job_script(slurm: SlurmConfig, threads: int, logs: Path) -> str:
    """Return the script that each job of SLURM would be."""
    with _slurm(slurm, threads, logs) as cluster:
        return str(cluster.job_script())


def _slurm(slurm: SlurmConfig, threads: int, logs: Path) -> SLURMCluster:
    _need("dask_jobqueue")
    interrupted = signal.getsignal(signal.SIGINT)
    from dask_jobqueue.slurm import SLURMCluster

    signal.signal(signal.SIGINT, interrupted)  # its import would end the program silently at Ctrl-C
    exports = [f"export {name}={number}" for name, number in thread_variables(threads).items()]
    try:
        return SLURMCluster(
            queue=slurm.queue,
            account=slurm.account,
            walltime=slurm.walltime,
            memory=slurm.memory,
            cores=1,  # a run at a time
            job_cpu=threads,
            processes=1,
            interface=slurm.interface,
            job_extra_directives=[f"--output={logs}/%j.log", *slurm.directives],
            job_script_prologue=[*exports, *slurm.prologue],
            scheduler_options={"dashboard": False, "dashboard_address": ":0"},
            silence_logs=logging.CRITICAL,
        )
    except (ValueError, RuntimeError, OSError) as error:
        raise ConfigurationError(f"slurm: {one_line(error)}: expected settings that SLURM takes") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Dask logs off the terminal: our own lines say what matters."""
    import distributed  # noqa: F401 - sets its logging up

    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]
    handlers = {handler for name in names for handler in logging.getLogger(name).handlers}
    before = {handler: handler.level for handler in handlers}
    for handler in handlers:
        handler.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for handler, level in before.items():
            handler.setLevel(level)


@contextmanager
def _put_back(names: Iterable[str]) -> Iterator[None]:
    """Restore variables: Dask sets in this process what its children are to have, and leaves it so."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Have threads that are started meanwhile, and all processes that these ever start, not hear Ctrl-C.

    It comes to all processes of a terminal at once. A worker would print a traceback and be gone before it is
    told to stop; the mask of signals is what a process inherits, also one that replaces a dead worker.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # multiprocessing lets go of the mask where it starts that
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _need(package: str) -> None:
    """Refuse to go on without Dask.

    Raises:
        StudyError: it is not installed.
    """
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise StudyError(f"the package {package} is missing: {REMEDY}")
