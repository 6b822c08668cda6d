"""Who is alive: each process says so in a shared store, and notes how long the others have been silent."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any

Store = Any  # torch.distributed's key-value store, which this module does not import


class Pulse(threading.Thread):
    """Beats while its process runs, and listens to the others; a stopped process beats no more.

    A worker that hears nothing of rank 0, which keeps the store, leaves by itself: nobody else would end it.

    Args:
        store: a connection of its own.
        rank: of this process.
        world: number of processes.
        timeout: seconds of silence after which a process counts as lost.
    """

    def __init__(self, store: Store, rank: int, world: int, timeout: float) -> None:
        super().__init__(name="pulse", daemon=True)
        self._store, self._rank, self._timeout = store, rank, timeout
        self._interval = min(1.0, timeout / 5)
        self._keys = [f"pulse/{one}" for one in range(world)]
        self._heard = {one: (b"", time.monotonic()) for one in range(world)}
        self._over = threading.Event()
        store.set(self._keys[rank], "0")

    def run(self) -> None:
        """Beat and listen until told to stop; then let the connection go."""
        beats = 0
        while not self._over.wait(self._interval):
            beats += 1
            try:
                self._store.set(self._keys[self._rank], str(beats))
                self._listen(self._store.multi_get(self._keys))
            except RuntimeError:  # the store is out of reach, and with it rank 0
                if not self._over.is_set() and self._rank:
                    self._leave()
                break
            if self._rank and self.silence()[0] > self._timeout:
                self._leave()
        self._store = None

    def stop(self) -> None:
        """Stop beating; what happens to the others is no longer of interest."""
        self._over.set()

    def silence(self) -> dict[int, float]:
        """Return for how many seconds each rank has been silent."""
        now = time.monotonic()
        return {rank: now - since for rank, (_, since) in self._heard.items() if rank != self._rank}

    def _listen(self, counts: list[bytes]) -> None:
        now = time.monotonic()
        for rank, count in enumerate(counts):
            if count != self._heard[rank][0]:
                self._heard[rank] = (count, now)

    def _leave(self) -> None:
        """End this process, whose main thread may wait for rank 0 where nothing can wake it."""
        if self._over.is_set():
            return
        print(f"error: rank {self._rank}: rank 0 does not answer, expected it within {self._timeout:g} s",
              file=sys.stderr, flush=True)  # fmt: skip
        os._exit(2)


def die_with(parent: int) -> None:
    """End this process when its parent has ended, however that was: also before it has met the others."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(2)

    threading.Thread(target=watch, name="parent", daemon=True).start()
