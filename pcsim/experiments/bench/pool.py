"""The parent's side: starts a worker process for each contender and hands out turns."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pcsim
from pcsim.errors import ConfigurationError
from pcsim.experiments.bench.plan import BenchError, Contender, Workload
from pcsim.experiments.bench.worker import CPUS

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
# Settings of the shell that would decide the race; each library is to choose as it does for everybody.
UNWANTED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "XLA_FLAGS", "MKL_DYNAMIC", "OMP_WAIT_POLICY")
REST_LOOK, REST_SHARE, REST_MOST = 0.01, 0.02, 1.0  # seconds, share of a processor, seconds
PATIENCE = 10.0  # seconds for a worker to leave


def processors(threads: int) -> list[int]:
    """Return the numbers of the processors that workers are bound to.

    Raises:
        ConfigurationError: fewer processors than threads.
    """
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(threads))
    if threads > len(cpus):
        raise ConfigurationError(f"threads = {threads}: expected at most {len(cpus)}, the processors here")
    return cpus[-threads:]


def environment(threads: int) -> dict[str, str]:
    """Return a worker's environment: so many threads, on processors of its own choice's number.

    XLA takes no number of threads; it counts the processors that the process may use, so all workers are
    bound to as many as there are threads.

    Raises:
        ConfigurationError: fewer processors than threads.
    """
    cpus = processors(threads)
    chosen = {name: value for name, value in os.environ.items() if name not in UNWANTED}
    chosen |= dict.fromkeys(THREADS, str(threads))
    chosen[CPUS] = ",".join(map(str, cpus))
    chosen["JAX_PLATFORMS"] = "cpu"
    # An interpreter of another environment finds pcsim here; its own packages come from its own folders.
    root = str(Path(pcsim.__file__).parents[1])
    chosen["PYTHONPATH"] = os.pathsep.join(filter(None, (root, chosen.get("PYTHONPATH"))))
    return chosen


class WorkerProcess:
    """A worker, seen from the parent.

    Attributes:
        contender: who works there.
    """

    def __init__(self, contender: Contender, python: str, threads: int) -> None:
        self.contender = contender
        self._complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the worker
        command = [python, "-m", "pcsim.experiments.bench.worker"]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                text=True,
                env=environment(threads),
            )
        except OSError as error:
            raise ConfigurationError(f"cannot start {python}: {error.strerror}") from error

    def ask(self, do: str, **arguments: object) -> dict[str, Any]:
        """Send a request and wait for the reply.

        Raises:
            BenchError: the worker could not do it, or died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps({"do": do, **arguments}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise BenchError(f"its process ended: {self._last_complaint()}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise BenchError(reply["error"])
        return reply

    def rest(self) -> float:
        """Wait until no thread of the worker spins any more; return how long that took, in seconds."""
        start = time.monotonic()
        spent = self.busy_seconds()
        while time.monotonic() - start < REST_MOST:
            time.sleep(REST_LOOK)
            before, spent = spent, self.busy_seconds()
            if spent - before <= REST_SHARE * REST_LOOK:
                break
        return time.monotonic() - start - REST_LOOK

    def busy_seconds(self) -> float:
        """Return the processor time of all threads so far; 0 where the system does not tell."""
        total = 0
        for thread in Path(f"/proc/{self._process.pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError, ValueError, IndexError):  # a thread may end meanwhile
                total += int(thread.read_text().split()[0])
        return total * 1e-9

    def _last_complaint(self) -> str:
        self._complaints.seek(0)
        lines = self._complaints.read().strip().splitlines()
        return lines[-1][:300] if lines else f"exit code {self._process.poll()}"

    def kill(self) -> None:
        """Stop the process in the middle of its work; `close` lets go of it."""
        self._process.kill()

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._complaints.close()


def system_seconds() -> float | None:
    """Return the processor time that all processes have used since the start; None if nobody tells."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _, _, interrupts, soft, stolen = (int(field) for field in fields[:8])
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


class Pool:
    """Workers that are all started first and then work one at a time.

    Attributes:
        workers: those that can still work.
        absent: why the others cannot, by the contender's name.
    """

    def __init__(
        self, contenders: Sequence[Contender], threads: int, interpreters: Mapping[str, str]
    ) -> None:
        environment(threads)  # refuse before anything is started
        self.workers: list[WorkerProcess] = []
        self.absent: dict[str, str] = {}
        try:
            for contender in contenders:
                python = interpreters.get(contender.family, sys.executable)
                self.workers.append(WorkerProcess(contender, python, threads))
        except BaseException:
            self.kill()
            raise

    def ask_all(self, do: str, **arguments: object) -> dict[Contender, dict[str, Any]]:
        """Ask one worker after the other; who fails leaves."""
        replies: dict[Contender, dict[str, Any]] = {}
        for worker in list(self.workers):
            reply = self.ask(worker, do, **arguments)
            if reply is not None:
                replies[worker.contender] = reply
        return replies

    def prepare(self, workload: Workload) -> dict[Contender, dict[str, Any]]:
        """Let every worker build its network, one at a time."""
        replies: dict[Contender, dict[str, Any]] = {}
        for worker in list(self.workers):
            request = {"contender": asdict(worker.contender), "workload": asdict(workload)}
            reply = self.ask(worker, "prepare", **request)
            if reply is not None:
                worker.rest()
                replies[worker.contender] = reply
        return replies

    def ask(self, worker: WorkerProcess, do: str, **arguments: object) -> dict[str, Any] | None:
        """Ask one worker; if it fails it leaves, and its reply is None."""
        try:
            return worker.ask(do, **arguments)
        except BenchError as error:
            self.absent[worker.contender.name] = str(error)
            self.workers.remove(worker)
            worker.close()
            return None

    def foreign_seconds(self) -> float | None:
        """Return the processor time since the start that was neither a worker's nor this process's."""
        everybody = system_seconds()
        if everybody is None:
            return None
        return everybody - sum(worker.busy_seconds() for worker in self.workers) - time.process_time()

    def close(self) -> None:
        """End all workers."""
        while self.workers:
            self.workers.pop().close()

    def kill(self) -> None:
        """End all workers at once, whatever they are at."""
        for worker in self.workers:
            worker.kill()
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.kill()
