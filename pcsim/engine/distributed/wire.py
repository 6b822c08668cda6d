"""Messages between processes through torch.distributed: gloo for arrays in memory, NCCL for those on GPUs.

Gloo is tested. NCCL is not: the code follows its rules (one group, and so one stream, for each direction,
every send met by one receive in the same order), but has run on CPUs only.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from pcsim.engine.distributed.pulse import Pulse
from pcsim.errors import PeerError
from pcsim.kernels import Array

START = 300.0  # s that a process may take to start, however short the timeout is
FOREVER = 30 * 86_400.0  # s, for a worker that waits to be told what to do
SUSPECT, READY = "suspect", "ready"


class Lane(IntEnum):
    """What a message is about; messages of one lane from one process to another keep their order."""

    UP = 0
    DOWN = 1
    COMMAND = 2
    BODY = 3
    INPUTS = 4
    TARGETS = 5
    ENERGIES = 6
    MAGNITUDES = 7


@dataclass
class Times:
    """Where the time of a process goes, in seconds."""

    compute: float = 0.0
    communication: float = 0.0
    waiting: float = 0.0

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Count what the block takes as compute, but for communication and waiting within."""
        begun, other = time.perf_counter(), self.communication + self.waiting
        yield
        self.compute += time.perf_counter() - begun - (self.communication + self.waiting - other)


@dataclass
class Wire:
    """The connections of one process with all others.

    Attributes:
        rank: of this process.
        world: number of processes.
        timeout: seconds that an answer may take.
        times: what sending and waiting took.
        names: what each rank does, for messages.
        fate: says how a worker has ended, where this process has started it.
    """

    store: Any
    rank: int
    world: int
    timeout: float
    times: Times = field(default_factory=Times)
    names: dict[int, str] = field(default_factory=dict)
    fate: Callable[[int], str | None] = lambda rank: None

    def __post_init__(self) -> None:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        limit = timedelta(seconds=max(START, self.timeout))  # every wait has a shorter limit of its own
        self.store.set(f"here/{self.rank}", "")
        self.pulse = Pulse(self._own_store(), self.rank, self.world, self.timeout)
        try:
            dist.init_process_group(
                backend, store=self.store, rank=self.rank, world_size=self.world, timeout=limit
            )
            # NCCL keeps the order of a group, so up and down need one each.
            self._groups = {lane: dist.new_group(backend=backend) for lane in (Lane.UP, Lane.DOWN)}
        except (RuntimeError, ValueError) as error:
            raise PeerError(f"rank {self.rank} cannot meet the others: {_first_line(error)}") from error
        self._replicas: dict[tuple[int, ...], Any] = {}
        self._ends: list[Outlet | Inlet] = []
        self.pulse.start()

    def _own_store(self) -> Any:  # noqa: ANN401 - torch's store
        """Return a second connection: a thread that waits must not keep the other from asking."""
        store = self.store.clone()
        store.set_timeout(timedelta(seconds=self.timeout))
        return store

    def attach(self, end: Outlet | Inlet) -> None:
        """Take note of what sends or receives here: it is let go with the connections."""
        self._ends.append(end)

    def post(self, tensor: torch.Tensor, peer: int, lane: Lane) -> Any:  # noqa: ANN401 - torch's work
        """Begin to send; the tensor must stay as it is until the work is done."""
        begun = time.perf_counter()
        try:
            return dist.isend(tensor, peer, group=self._groups.get(lane), tag=lane)
        except RuntimeError as error:
            raise self.blame(peer, 0.0) from error
        finally:
            self.times.communication += time.perf_counter() - begun

    def expect(self, tensor: torch.Tensor, peer: int, lane: Lane) -> Any:  # noqa: ANN401 - torch's work
        """Begin to receive."""
        begun = time.perf_counter()
        try:
            return dist.irecv(tensor, peer, group=self._groups.get(lane), tag=lane)
        except RuntimeError as error:
            raise self.blame(peer, 0.0) from error
        finally:
            self.times.communication += time.perf_counter() - begun

    def wait(self, work: Any, peer: int, patience: float | None = None) -> float:  # noqa: ANN401
        """Wait until a message is sent or there; return the seconds that it took.

        Raises:
            PeerError: a process has died or does not answer; names the rank.
        """
        begun = time.perf_counter()
        try:
            work.wait(timedelta(seconds=patience or self.timeout))
        except RuntimeError as error:
            raise self.blame(peer, time.perf_counter() - begun) from error
        return time.perf_counter() - begun

    def begin_sum(self, tensor: torch.Tensor, ranks: tuple[int, ...]) -> Any:  # noqa: ANN401 - torch's work
        """Begin to add up a tensor over some ranks; see `allow_sums`."""
        begun = time.perf_counter()
        try:
            return dist.all_reduce(tensor, group=self._replicas[ranks], async_op=True)
        except RuntimeError as error:
            raise self.blame(next(rank for rank in ranks if rank != self.rank), 0.0) from error
        finally:
            self.times.communication += time.perf_counter() - begun

    def allow_sums(self, groups: list[tuple[int, ...]]) -> None:
        """Make the groups of ranks that add up; all processes must call it with the same groups."""
        for ranks in groups:
            if ranks not in self._replicas:
                self._replicas[ranks] = dist.new_group(list(ranks))

    def send_object(self, value: object, peer: int) -> None:
        """Send anything that pickles to a process of ours, which waits for it with `receive_object`."""
        body = np.frombuffer(pickle.dumps(value, protocol=5), np.uint8)
        size = torch.tensor([len(body)])
        works = [self.post(size, peer, Lane.BODY), self.post(torch.from_numpy(body.copy()), peer, Lane.BODY)]
        for work in works:
            self.times.waiting += self.wait(work, peer)

    def receive_object(self, peer: int) -> Any:  # noqa: ANN401 - whatever was sent
        """Receive what `send_object` sends; only processes of this very run can."""
        size = torch.zeros(1, dtype=torch.int64)
        self.times.waiting += self.wait(self.expect(size, peer, Lane.BODY), peer)
        body = torch.empty(int(size), dtype=torch.uint8)
        self.times.waiting += self.wait(self.expect(body, peer, Lane.BODY), peer)
        return pickle.loads(body.numpy().tobytes())

    def say_ready(self) -> None:
        """Say that this process has prepared its part, which may have taken long: kernels are compiled."""
        self.store.set(f"{READY}/{self.rank}", "")

    def await_ready(self, rank: int) -> None:
        """Wait until another process has said so, however long it takes as long as it lives.

        Raises:
            PeerError: a process has died or is silent for longer than the timeout.
        """
        key = f"{READY}/{rank}"
        while not self.store.check([key]):
            if self.fate(rank) is not None:
                raise self.blame(rank, 0.0)
            if any(age > self.timeout for age in self.pulse.silence().values()):
                raise self.blame(rank, self.timeout)
            if self.store.check([SUSPECT]):
                raise self._sentence(self.note(""))
            time.sleep(0.005)
        self.store.delete_key(key)

    def blame(self, peer: int, waited: float) -> PeerError:
        """Find out who is to blame that a message of a neighbour has not come; tell the others."""
        silent = {rank: age for rank, age in self.pulse.silence().items() if age > max(2.0, self.timeout / 2)}
        if waited < 0.95 * self.timeout:
            self._await_death(peer)
            rank, reason = peer, "has gone"
        elif silent:
            rank = max(silent, key=lambda one: silent[one])
            reason = f"has not been heard of for {silent[rank]:.0f} s"
        else:
            rank, reason = peer, f"has sent nothing for {waited:.0f} s"
        return self._sentence(self.note(f"{rank} {reason}"))

    def _await_death(self, rank: int) -> None:
        """Give a process that has gone the time to be found dead."""
        end = time.monotonic() + 1.0
        while self.rank == 0 and self.fate(rank) is None and time.monotonic() < end:
            time.sleep(0.01)

    def note(self, suspicion: str) -> str:
        """Tell all others whom we suspect, unless somebody was first; return the first suspicion."""
        try:
            return bytes(self.store.compare_set(SUSPECT, "", suspicion)).decode()
        except RuntimeError:  # the store is gone: rank 0 is
            return suspicion

    def _sentence(self, suspicion: str) -> PeerError:
        rank, reason = suspicion.split(" ", 1)
        fate, name = self.fate(int(rank)), self.names.get(int(rank))
        who = f"rank {rank}" + (f" ({name})" if name else "")
        return PeerError(
            f"{who} {fate or reason}: expected an answer of all {self.world} processes within "
            f"{self.timeout:g} s; go on from the last checkpoint with --resume"
        )

    def leave(self) -> None:
        """Leave in good order, when all others do.

        All that holds torch's sockets and threads is let go here. Otherwise they would stay until Python next
        looks for objects that only refer to each other, which a long-lived process seldom does.
        """
        self.pulse.stop()
        for end in self._ends:
            end.let_go()
        self._ends.clear()
        self._groups.clear()
        self._replicas.clear()
        dist.destroy_process_group()
        self.store = None


class Outlet:
    """Sends arrays of one shape on one lane to one process, without waiting for the one before.

    Args:
        wire: of this process.
        make: makes a buffer for them.
        peer: who receives.
        lane: which lane.
    """

    def __init__(self, wire: Wire, make: Callable[[], Array], peer: int, lane: Lane) -> None:
        self._wire, self._peer, self._lane = wire, peer, lane
        self._buffers = [make(), make()]
        self._tensors = [memory(buffer) for buffer in self._buffers]
        self._works: list[Any] = [None, None]
        self._next = 0
        wire.attach(self)

    def send(self, payload: Any) -> None:  # noqa: ANN401 - an array, also on a device
        """Copy the payload and send the copy on its way."""
        slot, wire = self._next, self._wire
        if self._works[slot] is not None:
            wire.times.waiting += wire.wait(self._works[slot], self._peer)
        begun = time.perf_counter()
        self._buffers[slot][...] = payload
        wire.times.communication += time.perf_counter() - begun
        self._works[slot] = wire.post(self._tensors[slot], self._peer, self._lane)
        self._next = 1 - slot

    def flush(self) -> None:
        """Wait until everything has been sent."""
        for slot in (self._next, 1 - self._next):
            if self._works[slot] is not None:
                self._wire.times.waiting += self._wire.wait(self._works[slot], self._peer)
                self._works[slot] = None

    def let_go(self) -> None:
        """Forget what is under way."""
        self._works = [None, None]


class Inlet:
    """Receives arrays of one shape on one lane from one process; the next one always has a place to go to.

    Args:
        wire: of this process.
        make: makes a buffer for them.
        peer: who sends.
        lane: which lane.
    """

    def __init__(self, wire: Wire, make: Callable[[], Array], peer: int, lane: Lane) -> None:
        self._wire, self._peer, self._lane = wire, peer, lane
        self._buffers = [make(), make()]
        self._tensors = [memory(buffer) for buffer in self._buffers]
        self._next = 0
        self._work = wire.expect(self._tensors[0], peer, lane)
        wire.attach(self)

    def take(self) -> Array:
        """Wait for the next array and return it; the one that was returned before is overwritten."""
        self._wire.times.waiting += self._wire.wait(self._work, self._peer)
        return self._turn()

    def take_idly(self) -> Array:
        """As `take`, however long it takes, and it is nobody's fault."""
        self._wire.times.waiting += self._wire.wait(self._work, self._peer, FOREVER)
        return self._turn()

    def drain(self) -> None:
        """Wait for the last array, which only says that there will be no more."""
        self._wire.wait(self._work, self._peer)

    def let_go(self) -> None:
        """Forget what is under way."""
        self._work = None

    def _turn(self) -> Array:
        slot = self._next
        self._next = 1 - slot
        self._work = self._wire.expect(self._tensors[self._next], self._peer, self._lane)
        return self._buffers[slot]


def memory(array: Any) -> torch.Tensor:  # noqa: ANN401 - NumPy's, or an array on a device
    """Return the memory of an array as torch sees it, in whatever order the numbers lie there."""
    tensor = getattr(array, "tensor", None)
    if tensor is not None:
        return tensor  # type: ignore[no-any-return]
    lying = array.T if array.T.flags.c_contiguous else array
    return torch.from_numpy(lying)


def _first_line(error: BaseException) -> str:
    return str(error).split("\n", 1)[0]
