"""One process a folder: who trains in it, or conducts a study there, has it to itself."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pcsim.errors import PcsimError
from pcsim.locks import lock
from pcsim.places import check_new_folder

FILE = ".lock"
EVERY = 0.1  # seconds between looks at a folder that another process is in

_held: set[tuple[int, Path]] = set()  # by thread: a run may go on in the folder that its job has


@contextmanager
def alone(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Keep others out of a folder; a process that ends lets go in any way.

    The lock is on a file in it, which also file systems in a network know; one without locks does without. No
    link is followed, and nothing written. Who has the folder may ask again.

    Args:
        folder: is made if it is not there.
        patience: seconds to wait for another process to leave.

    Raises:
        PcsimError: one is in there, or the folder cannot be written.
    """
    check_new_folder(folder, overwrite=True)
    mine = threading.get_ident(), folder.resolve()
    if mine in _held:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise PcsimError(f"cannot write {folder}: {error.strerror}") from error
    try:
        deadline = time.monotonic() + patience
        while not lock(descriptor):
            if time.monotonic() >= deadline:
                raise PcsimError(
                    f"{folder}: another process trains there: wait for it, or give another folder"
                )
            time.sleep(EVERY)
        _held.add(mine)
        yield
    finally:
        _held.discard(mine)
        os.close(descriptor)
