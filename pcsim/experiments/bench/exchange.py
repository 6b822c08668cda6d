"""How far two processors are from each other: how long a line of the cache takes to the other and back.

Threads that share a training step hand activities to each other. Cores with a common cache do it in less than
100 nanoseconds, others take three times as long, and the host of a virtual machine may move its processors
from the one case to the other between two rounds.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import numpy as np

from pcsim.kernels.mail import Mail, compiled, read, write

ANSWER, GONE = 0, 16  # words; not 0 in the second: who asks has given up
TURNS, TRIALS = 2000, 10  # exchanges of a trial; the quickest trial counts
SPINS = 10**7  # looks at the word, some ten milliseconds, until whoever asks gives up


@compiled
def ask(mail: Mail, turns: int) -> bool:
    """Write odd numbers and wait for the even ones that follow; return whether all have come."""
    start = read(mail, ANSWER)
    for turn in range(turns):
        write(mail, ANSWER, start + 2 * turn + 1)
        spins = 0
        while read(mail, ANSWER) != start + 2 * turn + 2:
            spins += 1
            if spins == SPINS:
                write(mail, GONE, 1)
                return False
    return True


@compiled
def answer(mail: Mail) -> None:
    """Make every odd number even, until whoever asks is gone."""
    while read(mail, GONE) == 0:
        number = read(mail, ANSWER)
        if number & 1 == 1:
            write(mail, ANSWER, number + 1)


def exchange_nanoseconds(one: int, other: int) -> float | None:
    """Measure how long a line of the cache takes from one processor to another and back, in ns.

    Args:
        one: number of a processor.
        other: number of another one.

    Returns:
        The shortest time of some trials, or None: this system binds no threads, or one of the two processors
        has other things to do all the time.
    """
    if not hasattr(os, "sched_setaffinity") or one == other:
        return None
    _compile()
    mail, times = np.zeros(GONE + 1, np.int64), list[float]()

    def reply() -> None:
        os.sched_setaffinity(0, {other})  # of this thread alone
        answer(mail)

    def measure() -> None:
        try:
            os.sched_setaffinity(0, {one})
            times.extend(_trials(mail))
        finally:
            mail[GONE] = 1

    threads = [threading.Thread(target=target) for target in (reply, measure)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return min(times, default=None)


def _trials(mail: Mail) -> Iterator[float]:
    """Yield the nanoseconds of an exchange, trial by trial, until one fails."""
    for _ in range(TRIALS):
        start = time.perf_counter()
        if not ask(mail, TURNS):
            return
        yield (time.perf_counter() - start) / TURNS * 1e9


def _compile() -> None:
    """Compile both, or load them from disk, before anybody waits for the other."""
    mail = np.zeros(GONE + 1, np.int64)
    ask(mail, 0)
    mail[GONE] = 1
    answer(mail)
