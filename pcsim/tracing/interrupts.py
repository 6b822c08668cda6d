"""Ctrl-C while HDF5 is at work: noted, and raised when it is done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupt_afterwards() -> Iterator[None]:
    """Put off SIGINT until the block has ended.

    HDF5 calls back into Python to write. A KeyboardInterrupt raised there would be swallowed by h5py, or
    would end an HDF5 call half-way. Does nothing outside the main thread, which alone receives signals.
    """
    main = threading.current_thread() is threading.main_thread()
    previous = signal.getsignal(signal.SIGINT)
    if not main or previous is None:
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if came:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def remembered() -> Iterator[Callable[[], None]]:
    """Give a check that raises KeyboardInterrupt if Ctrl-C came and was lost.

    Python drops what is raised in a finalizer or in a callback of a C library, and the program would go on.
    """
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield lambda: None
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        previous(number, frame)

    def check() -> None:
        if came:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, previous)
