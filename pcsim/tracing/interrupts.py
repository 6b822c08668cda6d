"""Ctrl-C while HDF5 is at work: noted, and raised when it is done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


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
