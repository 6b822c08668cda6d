"""One process a folder: who trains in it, or conducts a study there, has it to itself."""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pcsim.errors import PcsimError

FILE = ".lock"
EVERY = 0.1  # seconds between looks at a folder that another process is in

_held: set[tuple[int, Path]] = set()  # by thread: a run may go on in the folder that its job has


@contextmanager
def alone(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Keep others out of a folder; a process that ends lets go in any way.

    The lock is on a file in it, which also file systems in a network know. Who has the folder may ask again.

    Args:
        folder: is made if it is not there.
        patience: seconds to wait for another process to leave.

    Raises:
        PcsimError: one is in there, or the folder cannot be written.
    """
    mine = threading.get_ident(), folder.resolve()
    if mine in _held:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / FILE).open("w")
    except OSError as error:
        raise PcsimError(f"cannot write {folder}: {error.strerror}") from error
    with file:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() >= deadline:
                    raise PcsimError(
                        f"{folder}: another process trains there: wait for it, or give another folder"
                    ) from error
            time.sleep(EVERY)
        _held.add(mine)
        try:
            yield
        finally:
            _held.remove(mine)
