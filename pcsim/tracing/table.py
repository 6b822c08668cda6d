"""One table of a trace that is being written: checks rows, gathers them, hands them on to the file."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pcsim.errors import TraceError, nearest
from pcsim.tracing.checks import size_only
from pcsim.tracing.column import ColumnFile
from pcsim.tracing.compression import filters
from pcsim.tracing.interrupts import interrupt_afterwards
from pcsim.tracing.limits import code_limits
from pcsim.tracing.schema import (
    CHUNK_BYTES,
    SIZE_ONLY,
    UNLIMITED_ATTRIBUTE,
    Column,
    Coordinate,
    chunk_shape,
    flags_of,
)

BUFFER_BYTES = 2**20
GATHERED_ROWS = 64  # that are made into arrays together


@dataclass(frozen=True)
class Storage:
    """How a table's columns lie in the file.

    Attributes:
        compression: none, gzip, lzf or zstd.
        chunk_bytes: of a chunk at most.
    """

    compression: str = "none"
    chunk_bytes: int = CHUNK_BYTES


@dataclass(frozen=True)
class Batch:
    """Rows on their way to the file.

    Attributes:
        columns: pieces of each column, which follow each other.
        rows: how many rows; a piece may have more after them, which do not count.
        bytes: of all pieces.
    """

    columns: Mapping[str, Sequence[NDArray[Any]]]
    rows: int
    bytes: int


class TableFile:
    """The side of a table that touches the file; once rows come, only the writer's thread calls it."""

    def __init__(self, group: h5py.Group) -> None:
        self._unlimited = str(group.attrs[UNLIMITED_ATTRIBUTE])
        growing = {name: item for name, item in group.items() if item.maxshape[:1] == (None,)}
        scale = growing.get(self._unlimited)
        self._size_scale = scale if scale is not None and size_only(scale) else None
        self.columns = {name: ColumnFile(item) for name, item in growing.items() if not size_only(item)}
        self.rows = min(column.rows for column in self.columns.values())

    def write(self, batch: Batch) -> None:
        """Append rows; they are safe only when the file is flushed."""
        self.rows += batch.rows
        if self._size_scale is not None:
            self._size_scale.resize(self.rows, axis=0)
        for name, column in self.columns.items():
            pieces = batch.columns[name]
            rows = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
            column.append(rows[: batch.rows])

    def flush(self) -> None:
        """Write what is not yet a whole chunk."""
        for column in self.columns.values():
            column.flush()


class Table:
    """A table of a trace that is being written; made by `TraceWriter.table`.

    Attributes:
        name: its name in the file.
    """

    def __init__(
        self,
        name: str,
        columns: Mapping[str, Column],
        shapes: Mapping[str, tuple[int, ...]],
        rows: int = 0,
    ) -> None:
        self.name = name
        # The writer hangs itself in here: is the file good, take these rows, is a flush due.
        self.before_writing: Callable[[], None] = lambda: None
        self.hand_over: Callable[[Batch], None] = lambda batch: None
        self.after_append: Callable[[], None] = lambda: None
        self._columns, self._shapes = dict(columns), dict(shapes)
        self._row_bytes = sum(
            np.dtype(column.dtype).itemsize * prod(shapes[name]) for name, column in columns.items()
        )
        self._arranged_rows, self._rows_handed_over = rows, rows
        self._bytes_taken = 0
        self._buffers: dict[str, list[NDArray[Any]]] = {name: [] for name in self._columns}
        # Rows that were gathered lie side by side, as C would have them.
        self._layout = np.dtype([(name, one.dtype, shapes[name]) for name, one in columns.items()])
        codes = (f"{prod(shapes[name])}{np.dtype(one.dtype).char}" for name, one in columns.items())
        self._line = struct.Struct("=" + "".join(codes).replace("l", "q").replace("L", "Q"))
        assert self._line.size == self._layout.itemsize
        self._room = min(max(BUFFER_BYTES // (8 * self._row_bytes), 1), GATHERED_ROWS)
        self._gathered, self._gathered_rows = bytearray(self._room * self._line.size), 0

    @property
    def rows(self) -> int:
        """How many were appended so far, those of the run before included."""
        return self._arranged_rows + self._gathered_rows

    @property
    def buffered_bytes(self) -> int:
        """Bytes held in memory that are not yet handed on: below 1 MiB after each append."""
        return self._bytes_taken + self._gathered_rows * self._row_bytes

    def append(self, **row: ArrayLike) -> None:
        """Append one row; arrays are copied.

        Args:
            row: a value for each column, of the shape of its fixed dimensions.

        Raises:
            TraceError: a column is missing or unknown, a shape or type does not fit, or the disk is full.
        """
        self._add({name: np.asarray(value)[np.newaxis] for name, value in row.items()}, copy=True)

    def gather(self, *numbers: float) -> None:
        """Append one row, number by number, which is made into arrays later, but before any flush.

        This is for those who append when caches are full of weights: every function that is called then, and
        every object that is made, costs several times what it costs in a loop.

        Args:
            numbers: of all columns in their order, of each in the order of memory.

        Raises:
            TraceError: another number of them, an integer was expected, or the disk is full.
        """
        try:
            self._line.pack_into(self._gathered, self._gathered_rows * self._line.size, *numbers)
        except (struct.error, OverflowError) as error:
            raise TraceError(f"table '{self.name}': cannot take a row of {len(numbers)}: {error}") from error
        self._gathered_rows += 1
        if self._gathered_rows == self._room:
            self._arrange()
            self._hand_over_if_full()
        self.after_append()

    def take(self, **row: ArrayLike) -> None:
        """Append one row, and take its arrays over: nobody may change them any more, which saves a copy.

        Args:
            row: as for `append`.

        Raises:
            TraceError: as `append`.
        """
        self._add({name: np.asarray(value)[np.newaxis] for name, value in row.items()}, copy=False)

    def extend(self, **columns: ArrayLike) -> None:
        """Append many rows; arrays are copied.

        Args:
            columns: an array for each column, its first axis the rows.

        Raises:
            TraceError: a column is missing or unknown, a shape or type does not fit, or the disk is full.
        """
        self._add(columns, copy=True)

    @interrupt_afterwards()
    def write_out(self) -> None:
        """Hand the buffered rows on; they are safe only after `TraceWriter.flush`."""
        self.before_writing()
        self._arrange()
        new = self._arranged_rows - self._rows_handed_over
        if new == 0:
            return
        self.hand_over(Batch(self._buffers, new, self._bytes_taken))
        self._rows_handed_over = self._arranged_rows
        self._buffers = {name: [] for name in self._columns}
        self._bytes_taken = 0

    def _arrange(self) -> None:
        """Make arrays of the rows that were gathered."""
        if self._gathered_rows:
            rows = np.frombuffer(self._gathered, self._layout, self._gathered_rows)
            self._gathered_rows = 0
            self._put({name: rows[name] for name in self._columns}, copy=True)

    def _check_names(self, given: Mapping[str, ArrayLike]) -> None:
        if given.keys() != self._columns.keys():
            raise TraceError(f"table '{self.name}': {_difference(given, self._columns)}")

    def _add(self, columns: Mapping[str, ArrayLike], *, copy: bool) -> None:
        self._check_names(columns)
        self._arrange()
        self._put(columns, copy)
        self._hand_over_if_full()
        self.after_append()

    def _put(self, columns: Mapping[str, ArrayLike], copy: bool) -> None:
        """Put rows behind those that are there."""
        arrays = {name: self._converted(name, values, copy) for name, values in columns.items()}
        if len(lengths := {len(array) for array in arrays.values()}) > 1:
            raise TraceError(
                f"table '{self.name}': columns of {sorted(lengths)} rows: expected as many in each"
            )
        for name, array in arrays.items():
            self._buffers[name].append(array)
            self._bytes_taken += array.nbytes
        self._arranged_rows += lengths.pop()

    def _hand_over_if_full(self) -> None:
        if self._bytes_taken + self._room * self._row_bytes >= BUFFER_BYTES:
            self.write_out()

    def _converted(self, name: str, values: ArrayLike, copy: bool) -> NDArray[Any]:
        """Bring one column's rows into its type, and check their shape, and that codes mean something."""
        array, dtype = np.asarray(values), self._columns[name].dtype
        where = f"table '{self.name}', column '{name}'"
        if array.shape[1:] != self._shapes[name] or array.ndim == 0:
            raise TraceError(f"{where}: expected shape {self._shapes[name]} a row, got {array.shape[1:]}")
        limits = code_limits(self._columns[name].flags)
        try:
            if limits is not None and (bad := limits.beyond(array)) is not None:
                raise TraceError(f"{where}: {bad}, expected {limits}")
            return array.astype(dtype, order="C", casting="same_kind", copy=copy)
        except TypeError as error:
            raise TraceError(f"{where}: expected {dtype}, got {array.dtype}") from error


def create_table(
    group: h5py.Group,
    unlimited: str,
    columns: Mapping[str, Column],
    coordinates: Mapping[str, Coordinate],
    expected_rows: int | None,
    storage: Storage,
) -> dict[str, tuple[int, ...]]:
    """Write an empty table into its group; return the shape of one row of each column."""
    group.attrs[UNLIMITED_ATTRIBUTE] = unlimited
    scales = {name: _fixed_scale(group, name, values) for name, values in coordinates.items()}
    shapes = {name: tuple(len(scales[dim]) for dim in column.dims) for name, column in columns.items()}
    datasets = {
        name: _dataset(group, name, column, shapes[name], expected_rows, storage)
        for name, column in columns.items()
    }
    if unlimited in datasets:
        scales[unlimited] = datasets[unlimited]
        scales[unlimited].make_scale(unlimited)
    else:
        scales[unlimited] = _size_scale(group, unlimited, 0)
    for name, column in columns.items():
        if name != unlimited:
            for axis, dim in enumerate((unlimited, *column.dims)):
                datasets[name].dims[axis].attach_scale(scales[dim])
    return shapes


def check_existing(
    path: Path,
    group: h5py.Group,
    unlimited: str,
    columns: Mapping[str, Column],
    coordinates: Mapping[str, Coordinate],
) -> dict[str, tuple[int, ...]]:
    """Return the shape of one row of each column of a table that is in the file.

    Raises:
        TraceError: it has other columns, shapes or types, or another unlimited dimension.
    """
    name = group.name.strip("/")
    where = f"{path}: table '{name}' of the trace"
    there = {title: column.dataset for title, column in TableFile(group).columns.items()}
    if group.attrs[UNLIMITED_ATTRIBUTE] != unlimited or there.keys() != columns.keys():
        raise TraceError(f"{where} has other columns: expected those of this run; write a new trace")
    for title, column in columns.items():
        shape = tuple(_size_of(coordinates[dim]) for dim in column.dims)
        given = there[title].shape[1:], there[title].dtype.name
        if given != (shape, column.dtype):
            raise TraceError(
                f"{where}, column '{title}' has rows of {given[1]} {given[0]}: "
                f"expected {column.dtype} {shape} as in this run; write a new trace"
            )
        if column.flags != flags_of(there[title].attrs):
            raise TraceError(f"{where}, column '{title}' has other codes: write a new trace")
    return {title: dataset.shape[1:] for title, dataset in there.items()}


def cut_table(group: h5py.Group, rows: int) -> None:
    """Shorten a table to its first rows, all columns alike."""
    for item in group.values():
        if item.maxshape[:1] == (None,):
            item.resize(rows, axis=0)


def _size_of(values: Coordinate) -> int:
    return values if isinstance(values, int) else len(np.asarray(values))


def _dataset(
    group: h5py.Group,
    name: str,
    column: Column,
    shape: tuple[int, ...],
    expected_rows: int | None,
    storage: Storage,
) -> h5py.Dataset:
    packing = filters(storage.compression)
    chunks = chunk_shape(
        shape, column.dtype, expected_rows, chunk_bytes=storage.chunk_bytes, compressed=bool(packing)
    )
    dataset = group.create_dataset(
        name, shape=(0, *shape), maxshape=(None, *shape), chunks=chunks, dtype=column.dtype, **packing
    )
    dataset.attrs.update(column.attributes())
    return dataset


def _fixed_scale(group: h5py.Group, name: str, values: Coordinate) -> h5py.Dataset:
    """Write a fixed dimension: its values, or only its size."""
    if isinstance(values, int):
        return _size_scale(group, name, values)
    array = np.asarray(values)
    dtype = h5py.string_dtype() if array.dtype.kind == "U" else array.dtype
    scale = group.create_dataset(
        name, data=array.astype(object) if array.dtype.kind == "U" else array, dtype=dtype
    )
    scale.make_scale(name)
    return scale


def _size_scale(group: h5py.Group, name: str, size: int) -> h5py.Dataset:
    """Write a dimension that has a size but no values; no number of it is ever stored."""
    growing = size == 0
    scale = group.create_dataset(
        name,
        shape=(size,),
        maxshape=(None,) if growing else (size,),
        chunks=(1024,) if growing else None,
        dtype="f4",
    )
    scale.make_scale(f"{SIZE_ONLY}{size:10d}")
    return scale


def _difference(given: Mapping[str, object], columns: Mapping[str, object]) -> str:
    """Say which column is unknown or missing."""
    if unknown := sorted(given.keys() - columns.keys()):
        return f"no column '{unknown[0]}': {nearest(unknown[0], columns)}"
    return f"no value for column '{min(columns.keys() - given.keys())}': expected one for each"
