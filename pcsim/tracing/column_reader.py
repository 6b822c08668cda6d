"""One column of a trace, read where it is sliced."""

from __future__ import annotations

import math
from types import EllipsisType
from typing import Any, TypeAlias

import h5py
import numpy as np
from numpy.typing import NDArray

from pcsim.errors import TraceError
from pcsim.tracing.checks import attributes_of
from pcsim.tracing.damage import OTHERS
from pcsim.tracing.limits import Limits, code_limits
from pcsim.tracing.live_file import LiveFile
from pcsim.tracing.schema import flags_of

# What one axis of a column can be asked for.
Index: TypeAlias = int | slice | EllipsisType | NDArray[Any]


class ColumnReader:
    """A column, read where it is sliced, as an h5py dataset is.

    Codes, and all columns of `events`, are checked as they are read: whoever uses them as an index may.

    Attributes:
        shape: (rows, *fixed dimensions).
        dtype: type of its numbers.
        attributes: `long_name`, `units`, `flag_meanings`, ….
        flags: meanings of its codes 0, 1, 2, …; empty if it holds no codes.
    """

    def __init__(
        self, file: LiveFile, table: str, name: str, rows: int, limits: Limits | None = None
    ) -> None:
        self.path, self._file, self._table, self._name = file.path, file, table, name
        self._place = f"{table}/{name}"

        self._opening = -1

        def described(opened: h5py.File) -> tuple[tuple[int, ...], np.dtype[Any], int, dict[str, Any]]:
            dataset = self._dataset(opened)
            chunk_rows = int(dataset.chunks[0]) if dataset.chunks else 1
            return (rows, *dataset.shape[1:]), dataset.dtype, chunk_rows, attributes_of(dataset)

        self.shape: tuple[int, ...]
        self.dtype: np.dtype[Any]
        self.attributes: dict[str, Any]
        self.shape, self.dtype, self._chunk_rows, self.attributes = file.read(described, *OTHERS)
        self.flags = flags_of(self.attributes)
        self._limits = code_limits(self.flags) or limits

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in memory."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def chunk_rows(self) -> int:
        """Rows of one chunk in the file."""
        return self._chunk_rows

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Index | tuple[Index, ...]) -> NDArray[Any]:
        """Read a part; rows that not all columns have are out of reach.

        Raises:
            TraceError: the file is damaged, or holds a number that cannot be in this column.
            IndexError: there is no such row.
        """
        first, *others = key if isinstance(key, tuple) else (key,)
        if isinstance(first, EllipsisType):
            first, others = slice(None), [..., *others]
        if isinstance(first, slice):
            first = slice(*first.indices(self.shape[0]))
        elif isinstance(first, int | np.integer):
            first = range(self.shape[0])[int(first)]
        values = self._file.read(lambda opened: np.asarray(self._dataset(opened)[(first, *others)]))
        if self._limits is not None and (bad := self._limits.beyond(values)) is not None:
            where = f"{self.path}: table '{self._table}', column '{self._name}'"
            raise TraceError(f"{where}: {bad}, expected {self._limits}")
        return values

    def _dataset(self, opened: h5py.File) -> h5py.Dataset:
        """Return the dataset of this opening; to find one takes longer than to read a row."""
        if self._opening != self._file.opening:
            self._found, self._opening = opened[self._place], self._file.opening
        return self._found
