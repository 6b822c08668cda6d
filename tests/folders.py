"""Folders that another process has taken."""

import fcntl
from contextlib import contextmanager

from pcsim.experiments.alone import FILE


@contextmanager
def somebody_in(folder):
    """Hold a folder as another process would that trains there."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
