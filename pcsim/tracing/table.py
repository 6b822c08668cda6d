"""One table of a trace that is being written: checks rows, gathers them, hands them to HDF5."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pcsim.errors import TraceError, nearest
from pcsim.tracing.interrupts import interrupt_afterwards
from pcsim.tracing.schema import SIZE_ONLY, UNLIMITED_ATTRIBUTE, Column, Coordinate, chunk_shape

BUFFER_BYTES = 2**20


class Table:
    """A table of a trace that is being written; made by `TraceWriter.table`."""

    def __init__(
        self,
        group: h5py.Group,
        unlimited: str,
        columns: Mapping[str, Column],
        coordinates: Mapping[str, Coordinate],
        expected_rows: int | None,
    ) -> None:
        self.name = group.name.strip("/")
        self.rows = 0
        # The writer hangs its own checks in here: is the file good, is a flush due.
        self.before_writing: Callable[[], None] = lambda: None
        self.after_append: Callable[[], None] = lambda: None
        self._columns = dict(columns)
        self._rows_in_file = 0
        self._buffered_bytes = 0
        group.attrs[UNLIMITED_ATTRIBUTE] = unlimited
        scales = {name: _fixed_scale(group, name, values) for name, values in coordinates.items()}
        self._shapes = {
            name: tuple(len(scales[dim]) for dim in column.dims) for name, column in self._columns.items()
        }
        self._datasets: dict[str, h5py.Dataset] = {}
        for name, column in self._columns.items():
            self._datasets[name] = _dataset(group, name, column, self._shapes[name], expected_rows)
        if unlimited in self._datasets:
            self._size_scale = None
            scales[unlimited] = self._datasets[unlimited]
            scales[unlimited].make_scale(unlimited)
        else:
            self._size_scale = scales[unlimited] = _size_scale(group, unlimited, 0)
        for name, column in self._columns.items():
            if name != unlimited:
                for axis, dim in enumerate((unlimited, *column.dims)):
                    self._datasets[name].dims[axis].attach_scale(scales[dim])
        self._buffers: dict[str, list[NDArray[Any]]] = {name: [] for name in self._columns}

    @property
    def buffered_bytes(self) -> int:
        """Bytes held in memory that are not yet handed to HDF5: below 1 MiB after each append."""
        return self._buffered_bytes

    def append(self, **row: ArrayLike) -> None:
        """Append one row; arrays are copied.

        Args:
            row: a value for each column, of the shape of its fixed dimensions.

        Raises:
            TraceError: a column is missing or unknown, a shape or type does not fit, or the disk is full.
        """
        self.extend(**{name: np.asarray(value)[np.newaxis] for name, value in row.items()})

    def extend(self, **columns: ArrayLike) -> None:
        """Append many rows; arrays are copied.

        Args:
            columns: an array for each column, its first axis the rows.

        Raises:
            TraceError: a column is missing or unknown, a shape or type does not fit, or the disk is full.
        """
        if columns.keys() != self._columns.keys():
            raise TraceError(f"table '{self.name}': {_difference(columns, self._columns)}")
        arrays = {name: self._converted(name, values) for name, values in columns.items()}
        if len(lengths := {len(array) for array in arrays.values()}) > 1:
            raise TraceError(
                f"table '{self.name}': columns of {sorted(lengths)} rows: expected as many in each"
            )
        for name, array in arrays.items():
            self._buffers[name].append(array)
            self._buffered_bytes += array.nbytes
        self.rows += lengths.pop()
        if self._buffered_bytes >= BUFFER_BYTES:
            self.write_out()
        self.after_append()

    @interrupt_afterwards()
    def write_out(self) -> None:
        """Hand the buffered rows to HDF5; they are safe only after `TraceWriter.flush`."""
        self.before_writing()
        if self.rows == self._rows_in_file:
            return
        if self._size_scale is not None:
            self._size_scale.resize(self.rows, axis=0)
        # Ctrl-C can come at any line here or in extend; the close that follows writes the same rows again.
        new = self.rows - self._rows_in_file
        for name, dataset in self._datasets.items():
            dataset.resize(self.rows, axis=0)
            dataset[self._rows_in_file :] = np.concatenate(self._buffers[name])[:new]
        self._rows_in_file = self.rows
        self._buffers = {name: [] for name in self._columns}
        self._buffered_bytes = 0

    def _converted(self, name: str, values: ArrayLike) -> NDArray[Any]:
        """Copy one column's rows into its type, and check their shape."""
        array, dtype = np.asarray(values), self._columns[name].dtype
        where = f"table '{self.name}', column '{name}'"
        if array.shape[1:] != self._shapes[name] or array.ndim == 0:
            raise TraceError(f"{where}: expected shape {self._shapes[name]} a row, got {array.shape[1:]}")
        try:
            return array.astype(dtype, casting="same_kind")
        except TypeError as error:
            raise TraceError(f"{where}: expected {dtype}, got {array.dtype}") from error


def _dataset(
    group: h5py.Group, name: str, column: Column, shape: tuple[int, ...], expected_rows: int | None
) -> h5py.Dataset:
    dataset = group.create_dataset(
        name,
        shape=(0, *shape),
        maxshape=(None, *shape),
        chunks=chunk_shape(shape, column.dtype, expected_rows),
        dtype=column.dtype,
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
