"""A lock on an open file, which other processes see, on file systems in a network, too."""

from __future__ import annotations

import fcntl


def lock(descriptor: int) -> bool:
    """Try to lock a file until it is closed, in any way; say whether nobody else has it.

    A file system without locks does without.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # there are no locks here
        return True
    return True
