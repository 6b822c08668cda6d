"""Hidden files in which something is written before it appears under its name, and what kills leave of them.

Their writer holds a lock on them, which the system takes back when the process ends in any way. A hidden file
that nobody has locked was therefore left by a process that was killed, and whoever next writes the same file
removes it.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import stat
from contextlib import suppress
from pathlib import Path


def create(path: Path) -> tuple[Path, int]:
    """Create a hidden file beside `path` that is locked until it is closed.

    Its name is one that nobody knows beforehand, and it must be new: nothing that is there is written to, and
    no link followed. A file system without locks does without; nothing is removed there.

    Args:
        path: the file that it is going to be.

    Returns:
        Its name, and a descriptor for reading and writing.

    Raises:
        OSError: it cannot be created.
    """
    while True:
        hidden = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            return hidden, descriptor
        os.close(descriptor)  # it was taken for abandoned before it was locked


def unlock(descriptor: int) -> None:
    """Let go of a hidden file just before it gets its name: HDF5 would not read a file that is locked."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def remove_abandoned(path: Path) -> None:
    """Remove the hidden files that killed processes have left beside `path`; what cannot be removed stays."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.partial")
    with suppress(OSError), os.scandir(path.parent) as entries:
        for name in [entry.name for entry in entries if ours.fullmatch(entry.name)]:
            with suppress(OSError):
                _remove_unless_locked(path.with_name(name))


def _remove_unless_locked(hidden: Path) -> None:
    """Remove a file that no process has locked.

    Raises:
        OSError: it is locked, no file, or cannot be removed.
    """
    descriptor = os.open(hidden, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            hidden.unlink()
    finally:
        os.close(descriptor)
