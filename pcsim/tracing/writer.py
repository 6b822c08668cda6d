"""Writing a trace: tables of rows, buffered; killed at any moment, it leaves its last flush readable."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np

from pcsim.errors import TraceError
from pcsim.tracing.interrupts import interrupt_afterwards
from pcsim.tracing.ordered_file import OrderedFile
from pcsim.tracing.reader import open_trace
from pcsim.tracing.schema import Attribute, Column, Coordinate, check_table, encode, first_attributes
from pcsim.tracing.table import Table

__all__ = ["Table", "TraceWriter"]

# Index nodes (2 to 4 KiB) each on a memory page of their own: a kill can cut a write between pages only.
_PAGE = 4096
_INDEX_NODE = 2048
STATE_BYTES = 256
_STATE_TYPE = h5py.string_dtype("utf-8", STATE_BYTES)


class TraceWriter:
    """A trace file that is being written.

    The file appears under its name at the first flush, which the first appended row brings about at the
    latest; an overwritten trace stays until then. Rows reach the file when it is flushed.

    Args:
        path: the file; a missing folder is created.
        attributes: root attributes; mappings and lists become JSON text, of any length.
        overwrite: replace an existing trace.
        flush_seconds: longest time between flushes; looked at when a row is appended.

    Raises:
        TraceError: the path exists and may not be overwritten, or cannot be written.
    """

    @interrupt_afterwards()
    def __init__(
        self,
        path: Path,
        attributes: Mapping[str, object],
        *,
        overwrite: bool = False,
        flush_seconds: float = 1.0,
    ) -> None:
        self.path = Path(path)
        self._flush_seconds = flush_seconds
        self._next_flush = time.monotonic()
        self._tables: dict[str, Table] = {}
        encoded = first_attributes(attributes)
        _check_target(self.path, overwrite)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._bytes = OrderedFile(self.path)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        # "earliest" is the one format that stays open to plain readers when its writer was killed.
        self._file = h5py.File(
            self._bytes,
            "w",
            libver="earliest",
            alignment_threshold=_INDEX_NODE,
            alignment_interval=_PAGE,
        )
        for name, value in encoded.items():
            _set_attribute(self._file.attrs, name, value)

    @interrupt_afterwards()
    def table(
        self,
        name: str,
        unlimited: str,
        columns: Mapping[str, Column],
        coordinates: Mapping[str, Coordinate] | None = None,
        *,
        expected_rows: int | None = None,
    ) -> Table:
        """Add an empty table; only before the first row or flush.

        A new table changes the index of groups in several places, which no order of writes makes safe
        against a kill. Before the first flush nobody can see the file yet.

        Args:
            name: its group in the file; may be nested, `"probes/hidden"`, but not in another table.
            unlimited: the dimension that its rows extend. A column of that name is its coordinate.
            columns: by name.
            coordinates: each fixed dimension's values, or only its size.
            expected_rows: about how many rows will come, if that is known: makes for better chunks.

        Raises:
            TraceError: the name is taken, columns and coordinates do not fit, or it is too late.
        """
        self._check_open()
        if self._bytes.committed:
            raise TraceError(f"table '{name}' comes too late: add all tables before the first row or flush")
        check_table(name, unlimited, columns, coordinates or {})
        for other in self._tables:
            if f"{name}/".startswith(f"{other}/") or other.startswith(f"{name}/"):
                raise TraceError(f"table '{name}': '{other}' exists: expected a name that is not in its way")
        group = self._file.create_group(name)
        table = Table(group, unlimited, columns, coordinates or {}, expected_rows)
        table.before_writing, table.after_append = self._check_open, self._flush_if_due
        self._tables[name] = table
        return table

    @interrupt_afterwards()
    def set(self, **attributes: object) -> None:
        """Set root attributes; they reach the file with the next flush.

        Raises:
            TraceError: a value cannot be written as JSON, or the file is closed.
        """
        self._check_open()
        for name, value in attributes.items():
            _set_attribute(self._file.attrs, name, encode(name, value))

    @interrupt_afterwards()
    def flush(self) -> None:
        """Write out all rows and make them the file's state.

        Raises:
            TraceError: the file cannot be written (disk full, say); it keeps the state of the last flush.
        """
        self._check_open()
        for table in self._tables.values():
            table.write_out()
        self._file.flush()
        self._commit()
        self._next_flush = time.monotonic() + self._flush_seconds

    @interrupt_afterwards()
    def close(self, state: str = "complete") -> None:
        """Flush, set the root attribute `state` and close; closing twice does nothing.

        Raises:
            TraceError: the file cannot be written; it keeps the state of the last flush.
        """
        if not self._file:
            return
        try:
            if self._bytes.failure is None:
                self.flush()
                self.set(state=state)
        finally:
            with contextlib.suppress(OSError, RuntimeError):
                self._file.close()
            try:
                self._commit()
            finally:
                self._bytes.close()

    def _flush_if_due(self) -> None:
        if time.monotonic() >= self._next_flush:
            self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        state = f"failed: {type(error).__name__}: {error}"
        # The error that ends the run is the one to show, not a second one about the trace.
        with contextlib.suppress(TraceError):
            self.close("interrupted" if isinstance(error, KeyboardInterrupt) else state)

    def _commit(self) -> None:
        try:
            self._bytes.commit()
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _check_open(self) -> None:
        if not self._file:
            raise TraceError(f"{self.path} is closed: nothing more can be written to it")
        if self._bytes.failure is not None:
            raise _unwritable(self.path, self._bytes.failure)


def _set_attribute(attributes: h5py.AttributeManager, name: str, value: Attribute) -> None:
    """Set an attribute, in its place where that is one write: numbers of the same type, and `state`.

    Assigning deletes an attribute for a moment, and text of any length lies outside it in the file. `state`
    is changed at every close, so it has a fixed length: a kill then finds the old or the new one.
    """
    new = np.asarray(value)
    if name == "state":
        new = np.asarray(str(value).encode()[:STATE_BYTES].decode(errors="ignore").encode(), _STATE_TYPE)
        if name not in attributes:
            attributes.create(name, new, dtype=_STATE_TYPE)
    if name in attributes and new.dtype.kind != "U":
        identifier = attributes.get_id(name)
        if identifier.shape == () and identifier.dtype == new.dtype:
            identifier.write(new)
            return
    attributes[name] = value


def _check_target(path: Path, overwrite: bool) -> None:
    """Refuse to replace anything but a trace or an empty file, and even these without being told to.

    Raises:
        TraceError: says what is in the way.
    """
    if path.is_symlink():
        raise TraceError(f"{path} is a symbolic link: expected a file's own name, give what it points to")
    try:
        if not path.exists():
            return
        if not path.is_file():
            raise TraceError(f"{path} exists and is not a file: expected the name of a trace file")
        if not overwrite:
            raise TraceError(f"{path} exists; pass --force to overwrite it")
        if path.stat().st_size == 0:
            return
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        open_trace(path).close()
    except TraceError as error:
        raise TraceError(f"{path} is not overwritten, it is no readable pcsim trace: {error}") from error


def _unwritable(path: Path, error: OSError) -> TraceError:
    if isinstance(error, FileExistsError | NotADirectoryError):
        return TraceError(f"cannot write {path}: its folder is a file: expected a folder or nothing there")
    return TraceError(f"cannot write {path}: {error.strerror or error}")
