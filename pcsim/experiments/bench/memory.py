"""How much memory this process holds, and held at most.

Only anonymous memory is counted as a network's: arrays and what allocators keep, not the pages of program
code that the kernel maps when a library's function is first called.
"""

from __future__ import annotations

import ctypes
import gc
import resource
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def tidy() -> None:
    """Give freed memory back to the system, so that what follows cannot hide in it."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc only
        trim(0)


def held() -> int:
    """Return the anonymous resident bytes; 0 where the system does not tell."""
    return _status().get("RssAnon", 0)


def resident() -> int:
    """Return the resident set, in bytes, program code included."""
    return _status().get("VmRSS", 0)


def peak_resident() -> int:
    """Return the largest resident set since `forget_peak`, in bytes, program code included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def forget_peak() -> bool:
    """Let the kernel's high-water mark start anew; False where it cannot be done."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return True


def peak_held() -> int:
    """Return the largest anonymous resident bytes since `forget_peak`.

    The kernel keeps one mark for all of the resident set. The other parts, mapped files, do not shrink
    while a warmed-up process works, so what they are now is taken off.
    """
    now = _status()
    return now.get("VmHWM", 0) - now.get("RssFile", 0) - now.get("RssShmem", 0)


def _status() -> dict[str, int]:
    """Return the memory lines of the process's status, in bytes."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): int(number) * 1024 for name, number, _ in pairs}
