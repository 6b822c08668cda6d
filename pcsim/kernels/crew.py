"""Threads that share products and passes over memory, which take some ten microseconds.

To wake a thread takes an operating system as long as that. So helpers look for the next pass in compiled
code, without Python's lock, and go to sleep only when none has come for a moment; see `pcsim.kernels.mail`.
A library's products take longer, and only Python can call them: they are handed to threads that sleep.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import TypeVar

from threadpoolctl import threadpool_limits

from pcsim.kernels import mail

WORTH_SHARING = 2**16  # multiplications of a compiled pass, which takes a microsecond or two
WORTH_A_THREAD = 4_000_000  # multiplications of a product below which waking a thread costs too much
PATIENCE = 1e-3  # seconds for which a helper that has nothing to do stays awake
ROWS = 64  # of a weight that go together: threads share whole ones, so that sums do not depend on how many
BLOCKS_A_THREAD = 4  # of a product, so that nobody waits long for the last one

Result = TypeVar("Result")


class Crew:
    """The thread that makes it, and those that help it.

    Args:
        threads: how many they are together.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._alone, self._mail = mail.new_mail(), mail.new_mail()
        self._pool = (
            ThreadPoolExecutor(threads - 1, initializer=one_thread_a_library) if threads > 1 else None
        )

    def blocks(self, rows: int) -> int:
        """Return into how many blocks to cut a product of so many rows."""
        most = min(BLOCKS_A_THREAD * self.threads, mail.MOST_BLOCKS) if self.threads > 1 else 1
        return max(min(rows // ROWS, most), 1)

    def share(self, run: Callable[..., bool], work: int, *operands: object) -> None:
        """Do a compiled pass by blocks, with whoever is awake.

        Args:
            run: compiled; given a mail and the operands it ends with `do_blocks`.
            work: multiplications; a small pass is done alone.
            operands: of the pass.
        """
        if self._pool is None or work < WORTH_SHARING:
            run(self._alone, *operands)
        elif not run(self._mail, *operands):  # helpers come too late for this pass
            self._mail[mail.AWAKE], self._mail[mail.LEAVE] = self.threads - 1, 0
            for _ in range(self.threads - 1):
                self._pool.submit(mail.help_out, self._mail, _patience())

    def split(self, part: Callable[[int, int], Result], size: int, work: int) -> list[Result]:
        """Run a part for each thread over equal ranges of `size`, or all of it on this one.

        Args:
            part: function of where a range begins and ends.
            size: of all ranges together.
            work: multiplications of all parts; a small product is done alone.
        """
        if self._pool is None or work < WORTH_A_THREAD or size < self.threads:
            return [part(0, size)]
        self._mail[mail.LEAVE] = 1
        bounds = [_whole(size * thread // self.threads) for thread in range(self.threads)] + [size]
        others = [self._pool.submit(part, first, last) for first, last in pairwise(bounds[1:])]
        return [part(0, bounds[1]), *(other.result() for other in others)]


ALONE = Crew(1)  # for whoever is one of several threads already


def one_thread_a_library() -> None:
    """Keep the libraries from starting threads of their own; OpenMP wants to be told in every thread."""
    threadpool_limits(1)
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)


@cache
def _patience() -> int:
    return mail.moments(PATIENCE)


def _whole(rows: int) -> int:
    """Round down to whole `ROWS`."""
    return rows - rows % ROWS if rows >= ROWS else rows
