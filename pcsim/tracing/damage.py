"""What h5py raises on a file that is cut off or damaged, turned into one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pcsim.errors import TraceError

DAMAGE: tuple[type[Exception], ...] = (OSError, RuntimeError, KeyError, AttributeError, UnicodeDecodeError)
# What else comes of damage where no index of a caller is at work, so that every error is the file's.
OTHERS: tuple[type[Exception], ...] = (TypeError, ValueError, OverflowError)


@contextmanager
def reading(path: Path, *more: type[Exception]) -> Iterator[None]:
    """Read what a caller's index asks for: what is wrong with an index is the caller's to see.

    Args:
        path: of the trace.
        more: what else comes of damage here.

    Raises:
        TraceError: the file is truncated or damaged.
    """
    try:
        yield
    except DAMAGE + more as error:
        cause = " ".join(str(error).strip("'\"").split())[:200] or type(error).__name__
        raise TraceError(f"{path} is truncated or damaged: {cause}") from error
