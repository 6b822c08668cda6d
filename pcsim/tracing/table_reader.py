"""One table of a trace: what it holds, and its columns whole, in blocks, or as words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
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
from pcsim.tracing.damage import opening, reading
from pcsim.tracing.limits import Limits, event_limits
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

    def __init__(self, path: Path, group: h5py.Group, run: Mapping[str, Any]) -> None:
        self.path = path
        self.name: str = group.name.strip("/")
        self.unlimited = str(attributes_of(group)[UNLIMITED_ATTRIBUTE])
        self._group = group
        datasets = {name: item for name, item in items_of(group) if isinstance(item, h5py.Dataset)}
        growing = {name: item for name, item in datasets.items() if _grows(item) and not size_only(item)}
        for dataset in growing.values():
            check_numbers(dataset)
        self.columns: tuple[str, ...] = tuple(sorted(growing))
        self.rows: int = min((len(dataset) for dataset in growing.values()), default=0)
        self._limits: dict[str, Limits] = event_limits(run) if self.name == "events" else {}

    def dims(self, column: str) -> tuple[str, ...]:
        """Return the names of a column's dimensions, the unlimited one first.

        Raises:
            TraceError: there is no such column, or the file is damaged.
        """
        dataset = self._dataset(column)
        if column == self.unlimited and dataset.ndim == 1:
            return (self.unlimited,)
        with opening(self.path):
            return dimension_names(dataset)

    def coordinate(self, dim: str) -> NDArray[Any]:
        """Return a dimension's values; 0, 1, 2, … for one that has only a size.

        Raises:
            TraceError: there is no such dimension, or the file is damaged.
        """
        if dim == self.unlimited:
            return self.read(dim) if dim in self.columns else np.arange(self.rows)
        with opening(self.path):
            scale = dict(items_of(self._group)).get(dim)
            if not isinstance(scale, h5py.Dataset) or dim in self.columns:
                raise TraceError(f"{self.path}: table '{self.name}' has no dimension '{dim}'")
            check_dimension(scale)
            if size_only(scale):
                return np.arange(len(scale))
            check_numbers(scale)
            text = h5py.check_string_dtype(scale.dtype) is not None
            return np.asarray(scale.asstr()[()], dtype=str) if text else np.asarray(scale[()])

    def column(self, name: str) -> ColumnReader:
        """Return a column to take slices of.

        Raises:
            TraceError: there is no such column.
        """
        return ColumnReader(self.path, self._dataset(name), self.rows, self._limits.get(name))

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
        return tuple(str(self.column(name).attributes.get("flag_meanings", "")).split())

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
        with reading(self.path):
            datasets = [self._group[name] for name in self.columns]
            stored = sum(dataset.id.get_storage_size() for dataset in datasets)
            packing = ", ".join(sorted({name_of(dataset) for dataset in datasets}))
        numbers = self.rows * sum(self.column(name).row_bytes for name in self.columns)
        return TableSummary(self.rows, self.unlimited, sizes, columns, stored, numbers, packing or "none")

    def _dataset(self, name: str) -> h5py.Dataset:
        if name not in self.columns:
            where = f"{self.path}: table '{self.name}' has no column"
            raise TraceError(f"{where} '{name}': {nearest(name, self.columns)}")
        with reading(self.path):
            dataset = self._group[name]
            require_filters(self.path, dataset)
            return dataset


def _grows(dataset: h5py.Dataset) -> bool:
    return bool(dataset.maxshape) and dataset.maxshape[0] is None
