"""The processes of a distributed run: started here or by torchrun, told what to do, ended with the run."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from enum import IntEnum
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from pcsim.engine.distributed.plan import Distribution
from pcsim.engine.distributed.wire import START, Inlet, Lane, Outlet, Wire
from pcsim.errors import ConfigurationError, PcsimError, PeerError

LEAVE = 5.0  # s that it may take to leave
WORKER = [sys.executable, "-m", "pcsim.engine.distributed.worker"]


class Command(IntEnum):
    """What rank 0 tells the others to do."""

    PART = 0
    STEP = 1
    FETCH = 2
    RESTORE = 3
    TIMES = 4
    FINISH = 5
    STOP = 6


def launched() -> Mapping[str, str] | None:
    """Return the environment if torchrun, or the like, has started this process as one of several."""
    known = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= set(os.environ)
    return os.environ if known else None


class Team:
    """All processes of a run, as rank 0 sees them; ends those that it has started.

    Attributes:
        distribution: with the number of processes filled in.
        wire: to all others.
    """

    def __init__(
        self, distribution: Distribution, wire: Wire, workers: Sequence[subprocess.Popen[bytes]]
    ) -> None:
        self.distribution, self.wire, self._workers = distribution, wire, list(workers)
        wire.fate = self._fate
        self._headers = {
            rank: Outlet(wire, lambda: np.zeros((1, 2), np.int64), rank, Lane.COMMAND) for rank in self.others
        }

    @classmethod
    def start(cls, distribution: Distribution) -> Self:
        """Join the processes that torchrun has started, or start workers on this machine.

        Raises:
            ConfigurationError: torchrun has started another number of processes.
            PeerError: a process does not start.
        """
        environment = launched()
        if environment is not None:
            world = int(environment["WORLD_SIZE"])
            processes = distribution.processes or max(1, world // distribution.replicas)
            if processes * distribution.replicas != world:
                raise ConfigurationError(
                    f"{processes} processes in {distribution.replicas} replicas, but {world} were started: "
                    "expected as many; change --processes, --replicas or torchrun's --nproc-per-node"
                )
            return cls(replace(distribution, processes=processes), join(distribution.timeout), [])
        distribution = replace(distribution, processes=distribution.processes or 2)
        assert distribution.processes is not None
        world = distribution.processes * distribution.replicas
        workers: list[subprocess.Popen[bytes]] = []
        gc.collect()  # the layers of an earlier run refer to each other, so their arrays are still there
        try:
            return cls(distribution, _launch(world, distribution.timeout, workers), workers)
        except BaseException:
            _kill(workers)
            raise

    @property
    def others(self) -> range:
        """All ranks but this one."""
        return range(1, self.wire.world)

    def tell(self, rank: int, command: Command, argument: int = 0) -> None:
        """Send a command to one worker."""
        self._headers[rank].send([command, argument])

    def tell_all(self, command: Command, argument: int = 0) -> None:
        """Send a command to all workers."""
        for rank in self.others:
            self.tell(rank, command, argument)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            # After an interrupt, or without a peer, there is no good order to leave in.
            if error is None or (isinstance(error, PcsimError) and not isinstance(error, PeerError)):
                self._dismiss()
        finally:
            _kill(self._workers)
            self.wire.leave()

    def _dismiss(self) -> None:
        with suppress(PeerError, subprocess.TimeoutExpired):
            self.tell_all(Command.STOP)
            for header in self._headers.values():
                header.flush()
            for worker in self._workers:
                worker.wait(LEAVE)

    def _fate(self, rank: int) -> str | None:
        """Say how a worker has ended, if it was started here and has ended."""
        if not 1 <= rank <= len(self._workers):
            return None
        code = self._workers[rank - 1].poll()
        if code is None:
            return None
        return (
            f"was killed by {signal.Signals(-code).name}" if code < 0 else f"has ended with exit code {code}"
        )


def join(timeout: float) -> Wire:
    """Meet the other processes as the environment says; see `Distribution.timeout`.

    Raises:
        PeerError: they cannot be met.
    """
    try:
        store, rank, world = next(rendezvous("env://", timeout=timedelta(seconds=START)))
        return Wire(store, rank, world, timeout)
    except (RuntimeError, ValueError) as error:
        first = str(error).split("\n", 1)[0]
        raise PeerError(f"cannot meet the other processes: {first}") from error


def _launch(world: int, timeout: float, workers: list[subprocess.Popen[bytes]]) -> Wire:
    """Start workers on this machine and meet them there, on addresses that no other machine reaches."""
    limit = timedelta(seconds=timeout)
    make = dist.TCPStore  # type: ignore[attr-defined]
    # Debian's torch has no libuv, and nothing here needs it: few processes meet, once.
    how = {"is_master": True, "wait_for_workers": False, "use_libuv": False}
    store = make("127.0.0.1", 0, world, timeout=limit, **how)
    here = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    os.environ.update(here | dict(os.environ))
    told = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(world),
        "USE_LIBUV": "0",
    }
    paths = os.pathsep.join(path for path in sys.path if path)  # modules with a user's own orders
    ours = {"PYTHONPATH": paths, "PCSIM_TIMEOUT": str(timeout), "PCSIM_PARENT": str(os.getpid())}
    environment = dict(os.environ) | told | ours
    workers += (  # one by one, so that the caller can end those that there are
        subprocess.Popen(WORKER, env=environment | {"RANK": str(rank)}, stdin=subprocess.DEVNULL)
        for rank in range(1, world)
    )
    _await_start(store, workers)
    return Wire(store, 0, world, timeout)


def _await_start(store: Any, workers: Sequence[subprocess.Popen[bytes]]) -> None:  # noqa: ANN401
    """Wait until each worker has said that it is there."""
    end = time.monotonic() + START
    for rank, worker in enumerate(workers, 1):
        while not store.check([f"here/{rank}"]):
            if worker.poll() is not None or time.monotonic() > end:
                code = worker.poll()
                what = "does not start" if code is None else f"has ended with exit code {code}"
                raise PeerError(f"rank {rank} {what}: expected it within {START:g} s; see its output above")
            time.sleep(0.02)


def _kill(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.kill()
        worker.wait()


def header_inlet(wire: Wire) -> Inlet:
    """Return where a worker receives its commands."""
    return Inlet(wire, lambda: np.zeros((1, 2), np.int64), 0, Lane.COMMAND)
