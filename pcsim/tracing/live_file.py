"""A trace's file, opened again where its writer has gone on meanwhile.

HDF5 looks at the length of a file when it opens it, and at the index of a column when that is read. A flush
in between may have put a part of the index behind that length, which HDF5 refuses ("addr overflow"), or what
is read is of two flushes. A file that is opened anew is whole again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import h5py

from pcsim.errors import TraceError
from pcsim.tracing.damage import reading

TRIES = 5

Found = TypeVar("Found")


class LiveFile:
    """An HDF5 file for reading, opened when it is first read.

    Objects of the file end with the opening that they come from.

    Attributes:
        path: of the file.
        opening: number of this opening, or of the next one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: h5py.File | None = None
        self.opening = 0
        self._closed = False
        self._seen = (0, 0, 0)

    def read(self, look: Callable[[h5py.File], Found], *more: type[Exception]) -> Found:
        """Return what somebody finds in the file; if that fails and the file has changed, look again.

        Args:
            look: is given the open file.
            more: what else comes of damage here.

        Raises:
            TraceError: the file is truncated or damaged, or changes all the time.
        """
        for left in reversed(range(TRIES)):
            try:
                with reading(self.path, *more):
                    return look(self._opened())
            except TraceError as error:
                if not self._has_changed():
                    raise
                if not left:
                    raise TraceError(f"{error}; or it is being written: try again") from error
            self._drop()
        raise AssertionError("the last try returns or raises")

    def close(self) -> None:
        """Close it for good."""
        self._closed = True
        self._drop()

    def _opened(self) -> h5py.File:
        if self._closed:
            raise TraceError(f"{self.path} is closed: expected an open trace")
        if self._file is None:
            self._seen = self._look()
            self._file = h5py.File(self.path, "r")
        return self._file

    def _drop(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self.opening += 1

    def _has_changed(self) -> bool:
        """Whether it is still the same file, but not as it was when it was opened."""
        try:
            now = self._look()
        except OSError:
            return False
        return not self._closed and now != self._seen and now[0] == self._seen[0]

    def _look(self) -> tuple[int, int, int]:
        status = os.stat(self.path)
        return status.st_ino, status.st_size, status.st_mtime_ns
