"""Threads that share products and passes over memory, which take some ten microseconds.

To wake a thread takes an operating system as long as that. So helpers look for the next pass in compiled
code, without Python's lock, and go to sleep only when none has come for a moment; see `pcsim.kernels.mail`.
A library's products take longer, and only Python can call them: they are handed to threads that sleep.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from itertools import pairwise
from typing import Generic, TypeVar

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
        self._alone = mail.new_mail()
        self._begin()
        if threads > 1:
            _begin_in_children(self)

    def _begin(self) -> None:
        """Start without helpers; threads come with the first pass."""
        self._mail, self._calling = mail.new_mail(self.threads), threading.Lock()
        self._called: list[Future[None]] = []
        self._pool = (
            ThreadPoolExecutor(self.threads - 1, initializer=one_thread_a_library)
            if self.threads > 1
            else None
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
            self._call_helpers(self._pool)

    def _call_helpers(self, pool: ThreadPoolExecutor) -> None:
        """Wake the helpers, unless another thread does, or they have hardly gone to sleep."""
        patience, helpers = _patience(), self.threads - 1
        if not self._calling.acquire(blocking=False):
            return
        called: list[Future[None]] = []
        try:
            if not all(call.done() for call in self._called):
                return
            # Nobody but us looks at these now, so whatever an interrupt has left here is put right.
            self._called = called
            self._mail[mail.AWAKE], self._mail[mail.LEAVE] = helpers, 0
            while len(called) < helpers:
                called.append(pool.submit(mail.help_out, self._mail, patience, len(called) + 1))
        except RuntimeError:  # the interpreter shuts down, or there are too many threads: go on alone
            mail.expect(self._mail, len(called) - helpers)
        except BaseException:
            mail.expect(self._mail, len(called) - helpers)
            raise
        finally:
            self._calling.release()

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
        parts = _Parts(part, list(pairwise(bounds)))
        with suppress(RuntimeError):  # the interpreter shuts down: all parts are done here
            for _ in range(self.threads - 1):
                self._pool.submit(parts.help_out)
        return parts.all()


class _Parts(Generic[Result]):
    """The parts of a product: whoever comes takes one after the other, and nobody waits for who does not.

    Args:
        part: function of where a range begins and ends.
        ranges: of the parts.
    """

    def __init__(self, part: Callable[[int, int], Result], ranges: list[tuple[int, int]]) -> None:
        self._part, self._ranges, self._left = part, ranges, deque(range(len(ranges)))
        self._found: dict[int, Result] = {}
        self._errors: list[BaseException] = []
        self._change, self._helping = threading.Condition(), 0

    def all(self) -> list[Result]:
        """Do parts while there are some that nobody has begun, wait for the others; return all results.

        Raises:
            BaseException: of any part, or an interrupt; helpers have ended theirs even then.
        """
        try:
            while (number := self._take()) is not None:
                self._found[number] = self._part(*self._ranges[number])
        finally:
            self._wait()
        if self._errors:
            raise self._errors[0]
        return [self._found[number] for number in range(len(self._ranges))]

    def help_out(self) -> None:
        """Do parts in another thread."""
        while True:
            with self._change:
                number = self._take()
                if number is None:
                    return
                self._helping += 1
            try:
                self._found[number] = self._part(*self._ranges[number])
            except BaseException as error:  # for the thread that wants the results
                self._errors.append(error)
            with self._change:
                self._helping -= 1
                self._change.notify()

    def _take(self) -> int | None:
        """Return the number of a part that nobody has begun; the deque keeps threads apart."""
        try:
            return self._left.popleft()
        except IndexError:
            return None

    def _wait(self) -> None:
        """Wait for helpers: they write to arrays that are used for something else after an error."""
        try:
            with self._change:
                self._left.clear()
                self._change.wait_for(lambda: self._helping == 0)
        except BaseException:  # an interrupt must wait, too
            self._wait()
            raise


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


def _begin_in_children(crew: Crew) -> None:
    """Let a crew begin anew in a forked process: none of its threads are there."""
    known = weakref.ref(crew)

    def begin() -> None:
        there = known()
        if there is not None:
            there._begin()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=begin)


def _whole(rows: int) -> int:
    """Round down to whole `ROWS`."""
    return rows - rows % ROWS if rows >= ROWS else rows
