"""One table of a trace: what it holds, and its columns whole, in blocks, or as words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pcsim.errors import TraceError, nearest
from pcsim.tracing.checks import (
    attributes_of,
    check_dimension,
    check_numbers,
    dimension_names,
    items_of,
    size_only,
)
from pcsim.tracing.column_reader import ColumnReader
from pcsim.tracing.compression import name_of, require_filters
from pcsim.tracing.damage import OTHERS
from pcsim.tracing.limits import Limits, event_limits
from pcsim.tracing.live_file import LiveFile
from pcsim.tracing.schema import UNLIMITED_ATTRIBUTE

BLOCK_BYTES = 2**26


@dataclass(frozen=True)
class TableSummary:
    """What a table holds.

    Attributes:
        rows: number of rows, the same for all columns.
        unlimited: the dimension that the rows extend.
        dims: size of each dimension, the unlimited one first.
        columns: dimensions of each column.
        bytes_on_disk: bytes that the columns' data take in the file.
        bytes_of_numbers: bytes that the rows would take uncompressed, side by side.
        compression: of its columns: none, gzip, lzf, zstd, or several of them.
    """

    rows: int
    unlimited: str
    dims: Mapping[str, int]
    columns: Mapping[str, tuple[str, ...]]
    bytes_on_disk: int
    bytes_of_numbers: int
    compression: str


class TableReader:
    """A table of an open trace.

    Attributes:
        name: its name in the file.
        unlimited: the dimension that its rows extend.
        columns: names of its columns, sorted.
        rows: number of rows that all columns have.
    """

    def __init__(self, file: LiveFile, name: str, run: Mapping[str, Any]) -> None:
        self.path, self.name, self._file = file.path, name, file
        self.unlimited: str
        self.columns: tuple[str, ...]
        self.rows: int
        self.unlimited, self.columns, self.rows = file.read(lambda now: _contents(now[name]), *OTHERS)
        self._limits: dict[str, Limits] = event_limits(run) if self.name == "events" else {}

    def dims(self, column: str) -> tuple[str, ...]:
        """Return the names of a column's dimensions, the unlimited one first.

        Raises:
            TraceError: there is no such column, or the file is damaged.
        """

        def names(file: h5py.File) -> tuple[str, ...]:
            dataset = self._dataset(file, column)
            if column == self.unlimited and dataset.ndim == 1:
                return (self.unlimited,)
            return dimension_names(dataset)

        return self._file.read(names, *OTHERS)

    def coordinate(self, dim: str) -> NDArray[Any]:
        """Return a dimension's values; 0, 1, 2, … for one that has only a size.

        Raises:
            TraceError: there is no such dimension, or the file is damaged.
        """
        if dim == self.unlimited:
            return self.read(dim) if dim in self.columns else np.arange(self.rows)

        def values(file: h5py.File) -> NDArray[Any]:
            scale = dict(items_of(file[self.name])).get(dim)
            if not isinstance(scale, h5py.Dataset) or dim in self.columns:
                raise TraceError(f"{self.path}: table '{self.name}' has no dimension '{dim}'")
            check_dimension(scale)
            if size_only(scale):
                return np.arange(len(scale))
            check_numbers(scale)
            text = h5py.check_string_dtype(scale.dtype) is not None
            return np.asarray(scale.asstr()[()], dtype=str) if text else np.asarray(scale[()])

        return self._file.read(values, *OTHERS)

    def column(self, name: str) -> ColumnReader:
        """Return a column to take slices of.

        Raises:
            TraceError: there is no such column.
        """
        self._file.read(lambda file: self._dataset(file, name))
        return ColumnReader(self._file, self.name, name, self.rows, self._limits.get(name))

    def read(self, name: str, rows: slice = slice(None)) -> NDArray[Any]:
        """Return a column's rows, shape (rows, *fixed dimensions).

        Raises:
            TraceError: there is no such column, or the file is damaged.
        """
        return np.asarray(self.column(name)[rows])

    def blocks(
        self, columns: Iterable[str], rows: slice = slice(None), max_bytes: int = BLOCK_BYTES
    ) -> Iterator[tuple[slice, dict[str, NDArray[Any]]]]:
        """Read columns in blocks of consecutive rows, as many at a time as fit a bound of memory.

        Args:
            columns: names of columns.
            rows: which rows; the step must be 1.
            max_bytes: of one block, all columns together; a block has one row at least. Another block may be
                alive while the next one is read, and reading a compressed column takes a chunk more.

        Yields:
            The rows of a block, as a slice with start and stop, and its arrays by column, each of shape
            (rows in the block, *fixed dimensions).

        Raises:
            TraceError: there is no such column, or the file is damaged.
            ValueError: the step of `rows` is not 1.
        """
        readers = {name: self.column(name) for name in columns}
        first, last, step = rows.indices(self.rows)
        if step != 1:
            raise ValueError(f"rows = {rows}: expected a slice of step 1")
        fit = max(1, max_bytes // max(1, sum(reader.row_bytes for reader in readers.values())))
        chunk = max((reader.chunk_rows for reader in readers.values()), default=1)
        while first < last:
            # A block ends where a chunk ends, so that no chunk is read and decompressed twice.
            stop = first + fit if fit < chunk else (first + fit) // chunk * chunk
            block = slice(first, min(stop, last))
            yield block, {name: reader[block] for name, reader in readers.items()}
            first = block.stop

    def flags(self, name: str) -> tuple[str, ...]:
        """Return the meanings of a column's codes 0, 1, 2, …; empty if it holds no codes.

        Raises:
            TraceError: there is no such column.
        """
        return self.column(name).flags

    def decode(self, name: str, rows: slice = slice(None)) -> NDArray[np.str_]:
        """Return a code column's rows as words.

        Raises:
            TraceError: the column holds no codes, or one without a meaning.
        """
        if not (meanings := self.flags(name)):
            raise TraceError(f"{self.path}: table '{self.name}', column '{name}' has codes without a meaning")
        codes = self.read(name, rows)
        if codes.dtype.kind not in "iu":
            raise TraceError(
                f"{self.path}: table '{self.name}', column '{name}' is {codes.dtype}: expected codes"
            )
        words: NDArray[np.str_] = np.asarray(meanings, dtype=str)[codes]
        return words

    def summary(self) -> TableSummary:
        """Return what the table holds.

        Raises:
            TraceError: the file is damaged.
        """
        columns = {name: self.dims(name) for name in self.columns}
        sizes: dict[str, int] = {self.unlimited: self.rows}
        for name, dims in columns.items():
            sizes |= dict(zip(dims[1:], self.column(name).shape[1:], strict=True))

        def stored(file: h5py.File) -> tuple[int, str]:
            datasets = [file[self.name][name] for name in self.columns]
            packing = ", ".join(sorted({name_of(dataset) for dataset in datasets}))
            return sum(dataset.id.get_storage_size() for dataset in datasets), packing

        size, packing = self._file.read(stored)
        numbers = self.rows * sum(self.column(name).row_bytes for name in self.columns)
        return TableSummary(self.rows, self.unlimited, sizes, columns, size, numbers, packing or "none")

    def _dataset(self, file: h5py.File, name: str) -> h5py.Dataset:
        if name not in self.columns:
            where = f"{self.path}: table '{self.name}' has no column"
            raise TraceError(f"{where} '{name}': {nearest(name, self.columns)}")
        dataset = file[self.name][name]
        require_filters(self.path, dataset)
        return dataset


def _contents(group: h5py.Group) -> tuple[str, tuple[str, ...], int]:
    """Return the dimension that a table's rows extend, its columns, and how many rows all of them have."""
    unlimited = str(attributes_of(group)[UNLIMITED_ATTRIBUTE])
    datasets = {name: item for name, item in items_of(group) if isinstance(item, h5py.Dataset)}
    growing = {name: item for name, item in datasets.items() if _grows(item) and not size_only(item)}
    for dataset in growing.values():
        check_numbers(dataset)
    return unlimited, tuple(sorted(growing)), min((len(dataset) for dataset in growing.values()), default=0)


def _grows(dataset: h5py.Dataset) -> bool:
    return bool(dataset.maxshape) and dataset.maxshape[0] is None
