"""Hidden files in which something is written before it appears under its name, and what kills leave of them.

Whatever must be whole or not there at all is written with `replacing`.

Their writer holds a lock on them, which the system takes back when the process ends in any way. A hidden file
that nobody has locked was therefore left by a process that was killed, and whoever next writes the same file
removes it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from pcsim.locks import lock

PATIENCE = 1.0  # seconds to wait for others, who need much less; a stranger may lock a folder for long


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write to that gets its name, in one step, when the block has ended well.

    Whoever reads finds the file before or the new one, whole; if the block fails, the one before stays. Of
    several who write at once, the last to end stays. What killed writers of the same `path` left is removed.

    Args:
        path: the file; its folder must exist.

    Raises:
        OSError: it cannot be written.
    """
    remove_abandoned(path)
    hidden, descriptor = create(path)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
            appear(hidden, descriptor, path, replace=True)
    except BaseException:
        with suppress(OSError):
            hidden.unlink()
        raise


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
        if lock(descriptor) and os.fstat(descriptor).st_nlink:
            return hidden, descriptor
        os.close(descriptor)  # it was taken for abandoned before it was locked, or is just being so


def appear(hidden: Path, descriptor: int, path: Path, *, replace: bool) -> None:
    """Give a hidden file its name in one step, and let go of it: HDF5 would not read a file that is locked.

    Of several processes that want a new name one gets it: a hard link is made only where nothing is. A file
    system without links has the lock on the folder, which at least all that write traces keep.

    Args:
        hidden: the file.
        descriptor: of it, as `create` gave it.
        path: the name.
        replace: what has the name; not for the first trace of that name.

    Raises:
        FileExistsError: the name is taken, and not to be replaced; the file stays hidden.
        OSError: the name cannot be given.
    """
    with _alone_in(path.parent):
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        if replace:
            hidden.replace(path)
            return
        try:
            path.hardlink_to(hidden)
        except FileExistsError:
            raise
        except OSError:
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
            hidden.replace(path)
            return
        with suppress(OSError):
            hidden.unlink()


def remove_abandoned(path: Path) -> None:
    """Remove the hidden files that killed processes have left beside `path`; what cannot be removed stays."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.partial")
    with _alone_in(path.parent), suppress(OSError), os.scandir(path.parent) as entries:
        for name in [entry.name for entry in entries if ours.fullmatch(entry.name)]:
            with suppress(OSError):
                _remove_unless_locked(path.with_name(name))


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep others from naming and removing hidden files in a folder; where that cannot be, do without.

    A file that is about to get its name is not locked, but not abandoned either.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield
        return
    try:
        deadline = time.monotonic() + PATIENCE
        while not lock(descriptor) and time.monotonic() < deadline:
            time.sleep(0.001)
        yield
    finally:
        os.close(descriptor)


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
