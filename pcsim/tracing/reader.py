"""Reading a trace: finished, still being written, or left by a killed process."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import h5py
import numpy as np
from numpy.typing import NDArray

from pcsim.errors import TraceError, nearest
from pcsim.tracing.checks import (
    attributes_of,
    check_dimension,
    check_hdf5,
    check_numbers,
    check_schema,
    dimension_names,
    groups_below,
    items_of,
    size_only,
)
from pcsim.tracing.compression import name_of, require_filters
from pcsim.tracing.schema import UNLIMITED_ATTRIBUTE

if TYPE_CHECKING:
    import xarray

# What one axis of a column can be asked for.
Index: TypeAlias = int | slice | EllipsisType | NDArray[Any]
BLOCK_BYTES = 2**26
# Smallest and largest number that a column may hold.
Limits: TypeAlias = tuple[float, float]
_HUGE = float(np.finfo(np.float64).max)
MOST_LAYERS = 1024  # of a trace that does not say how many layers there were
_OPENING = (TypeError, ValueError, OverflowError)


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


def open_trace(path: Path) -> TraceReader:
    """Open a trace for reading.

    Raises:
        TraceError: there is no such file, or it is not HDF5, damaged, not a trace, or of a newer schema.
    """
    path = Path(path)
    check_hdf5(path)
    with _reading(path, *_OPENING):
        file = h5py.File(path, "r")
    try:
        with _reading(path, *_OPENING):
            return TraceReader(path, file)
    except TraceError:
        file.close()
        raise


class TraceReader:
    """A trace opened for reading; made by `open_trace`, closed on leaving its context.

    Attributes:
        path: the file.
        attributes: root attributes as given to the writer, JSON decoded.
        tables: names of all tables, sorted.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self._file = file
        self.attributes: dict[str, Any] = attributes_of(file)
        check_schema(path, self.attributes)
        tables = (name for name, group in groups_below(file) if UNLIMITED_ATTRIBUTE in group.attrs)
        self.tables: tuple[str, ...] = tuple(sorted(tables))

    @property
    def state(self) -> str:
        """`running`, `complete`, `interrupted` or `failed: …`; `running` also for good if it was killed."""
        return str(self.attributes.get("state", "unknown"))

    def table(self, name: str) -> TableReader:
        """Return a table, which reads nothing but its columns' names and sizes yet.

        Raises:
            TraceError: there is no such table, or the file is damaged.
        """
        if name not in self.tables:
            raise TraceError(f"{self.path} has no table '{name}': {nearest(name, self.tables)}")
        with _reading(self.path, *_OPENING):
            return TableReader(self.path, self._file[name], self.attributes)

    def summary(self) -> dict[str, TableSummary]:
        """Return what each table holds, by name.

        Raises:
            TraceError: the file is damaged.
        """
        return {name: self.table(name).summary() for name in self.tables}

    def dataset(self, name: str) -> xarray.Dataset:
        """Return a table as an xarray dataset that reads numbers only when they are asked for.

        It has the file open for itself: close it, or use it in a `with` block.

        Raises:
            TraceError: there is no such table, or the file is damaged.
        """
        table = self.table(name)
        for column in table.columns:
            table.column(column)  # which loads what decompresses it
        import xarray

        with _reading(self.path):
            whole = xarray.open_dataset(self.path, group=name, engine="h5netcdf")
        return whole.isel({table.unlimited: slice(table.rows)})

    def verify(self) -> None:
        """Read everything once.

        Raises:
            TraceError: something cannot be read.
        """
        for name in self.tables:
            table = self.table(name)
            for column in table.columns:
                for first in range(0, table.rows, 65_536):
                    table.read(column, slice(first, first + 65_536))

    def close(self) -> None:
        """Close the file; columns cannot be read any more."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


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
        self._limits: dict[str, Limits] = _event_limits(run) if self.name == "events" else {}

    def dims(self, column: str) -> tuple[str, ...]:
        """Return the names of a column's dimensions, the unlimited one first.

        Raises:
            TraceError: there is no such column, or the file is damaged.
        """
        dataset = self._dataset(column)
        if column == self.unlimited and dataset.ndim == 1:
            return (self.unlimited,)
        with _reading(self.path, *_OPENING):
            return dimension_names(dataset)

    def coordinate(self, dim: str) -> NDArray[Any]:
        """Return a dimension's values; 0, 1, 2, … for one that has only a size.

        Raises:
            TraceError: there is no such dimension, or the file is damaged.
        """
        if dim == self.unlimited:
            return self.read(dim) if dim in self.columns else np.arange(self.rows)
        with _reading(self.path, *_OPENING):
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
        with _reading(self.path):
            datasets = [self._group[name] for name in self.columns]
            stored = sum(dataset.id.get_storage_size() for dataset in datasets)
            packing = ", ".join(sorted({name_of(dataset) for dataset in datasets}))
        numbers = self.rows * sum(self.column(name).row_bytes for name in self.columns)
        return TableSummary(self.rows, self.unlimited, sizes, columns, stored, numbers, packing or "none")

    def _dataset(self, name: str) -> h5py.Dataset:
        if name not in self.columns:
            where = f"{self.path}: table '{self.name}' has no column"
            raise TraceError(f"{where} '{name}': {nearest(name, self.columns)}")
        with _reading(self.path):
            dataset = self._group[name]
            require_filters(self.path, dataset)
            return dataset


class ColumnReader:
    """A column, read where it is sliced, as an h5py dataset is.

    Codes, and all columns of `events`, are checked as they are read: whoever uses them as an index may.

    Attributes:
        shape: (rows, *fixed dimensions).
        dtype: type of its numbers.
        attributes: `long_name`, `units`, `flag_meanings`, ….
    """

    def __init__(self, path: Path, dataset: h5py.Dataset, rows: int, limits: Limits | None = None) -> None:
        self.path = path
        self._dataset = dataset
        self.shape: tuple[int, ...] = (rows, *dataset.shape[1:])
        self.dtype: np.dtype[Any] = dataset.dtype
        with _reading(path, *_OPENING):
            self.attributes: dict[str, Any] = attributes_of(dataset)
        meanings = str(self.attributes.get("flag_meanings", "")).split()
        self._limits: Limits | None = (0, len(meanings) - 1) if meanings else limits

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in memory."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def chunk_rows(self) -> int:
        """Rows of one chunk in the file."""
        return int(self._dataset.chunks[0]) if self._dataset.chunks else 1

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
        with _reading(self.path):
            values = np.asarray(self._dataset[(first, *others)])
        if self._limits is not None and values.size:
            self._check(values, *self._limits)
        return values

    def _check(self, values: NDArray[Any], lowest: float, highest: float) -> None:
        """Refuse what nothing may be indexed by, such as a layer that the network does not have."""
        smallest, largest = values.min(), values.max()
        if lowest <= smallest and largest <= highest:  # false for NaN
            return
        bad = smallest if not lowest <= smallest else largest
        table, _, column = self._dataset.name.strip("/").rpartition("/")
        expected = f"{lowest:g} to {highest:g}" if highest < _HUGE else f"a finite number from {lowest:g}"
        raise TraceError(f"{self.path}: table '{table}', column '{column}': {bad}, expected {expected}")


def _event_limits(run: Mapping[str, Any]) -> dict[str, Limits]:
    """Return what the columns of the table of events may hold, as far as the trace says."""
    layers, iterations = run.get("layers"), run.get("iterations")
    top = len(layers) - 1 if isinstance(layers, list) and layers else MOST_LAYERS
    last = iterations if isinstance(iterations, int) else _HUGE
    amounts = ("step", "start", "end", "multiplications", "values", "nonzero_values", "bytes")
    limits: dict[str, Limits] = {"layer": (0, top), "target": (-1, top), "iteration": (0, last)}
    return limits | dict.fromkeys(amounts, (0, _HUGE))


def _grows(dataset: h5py.Dataset) -> bool:
    return bool(dataset.maxshape) and dataset.maxshape[0] is None


@contextmanager
def _reading(path: Path, *more: type[Exception]) -> Iterator[None]:
    """Turn what h5py raises on a damaged file into one line; `more` where no caller's index can be wrong."""
    damage: tuple[type[Exception], ...] = (
        OSError,
        RuntimeError,
        KeyError,
        AttributeError,
        UnicodeDecodeError,
    )
    try:
        yield
    except damage + more as error:
        cause = " ".join(str(error).strip("'\"").split())[:200] or type(error).__name__
        raise TraceError(f"{path} is truncated or damaged: {cause}") from error
