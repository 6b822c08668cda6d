"""Writing a trace: tables of rows, buffered; killed at any moment, it leaves its last flush readable."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py

from pcsim.errors import TraceError
from pcsim.places import taken
from pcsim.tracing.attributes import set_attributes
from pcsim.tracing.backlog import Backlog
from pcsim.tracing.interrupts import interrupt_afterwards
from pcsim.tracing.ordered_file import OrderedFile
from pcsim.tracing.schema import Column, Coordinate, check_table, encode, first_attributes
from pcsim.tracing.table import Storage, Table, TableFile, check_existing, create_table, cut_table
from pcsim.tracing.target import check_target, rows_to_keep, unwritable

WAITING_BYTES = 2**26

# Index nodes (2 to 4 KiB) each on a memory page of their own: a kill can cut a write between pages only.
_PAGE = 4096
_INDEX_NODE = 2048


class TraceWriter:
    """A trace file that is being written, by a thread of its own.

    The file appears under its name at the first flush, which the first appended row brings about at the
    latest; an overwritten trace stays until then. Rows reach the file when it is flushed. Of two writers that
    have begun one new trace, the first to flush gets the name, and the other's flush raises.

    Args:
        path: the file; a missing folder is created.
        attributes: root attributes; mappings and lists become JSON text, of any length.
        overwrite: replace an existing trace.
        flush_seconds: longest time between flushes; looked at when a row is appended.
        buffer_bytes: rows that wait to be written take no more (a single larger row waits until it is alone);
            whoever appends then waits too. 0 writes at once, without a thread.
        storage: of tables that are added without one of their own.

    Raises:
        TraceError: the path exists and may not be overwritten, or cannot be written.
    """

    def __init__(
        self,
        path: Path,
        attributes: Mapping[str, object],
        *,
        overwrite: bool = False,
        flush_seconds: float = 1.0,
        buffer_bytes: int = WAITING_BYTES,
        storage: Storage | None = None,
    ) -> None:
        encoded = first_attributes(attributes)
        check_target(Path(path), overwrite)
        self._begin(Path(path), flush_seconds, buffer_bytes, storage, overwrite, resumed=False)
        set_attributes(self._file, encoded)

    @classmethod
    def append(
        cls,
        path: Path,
        attributes: Mapping[str, object],
        *,
        steps_done: int,
        flush_seconds: float = 1.0,
        buffer_bytes: int = WAITING_BYTES,
        storage: Storage | None = None,
    ) -> Self:
        """Open a trace to go on with it, where a run is resumed from a checkpoint.

        The tables are then added as to a new trace; those that are there go on, with their chunks and
        compression as they are. Work goes on in a copy (which shares its blocks with the trace where the
        file system can do that), and the trace stays as it is until the first flush.

        Args:
            path: the trace; complete, interrupted, failed or killed.
            attributes: root attributes; those that the trace has must be the same, others are added.
            steps_done: training steps that the run has behind it. Rows of later ones, which the run
                repeats, are cut: those whose `step` is `steps_done` or more, or, in a table without a
                step, whose `training_steps` is more than `steps_done`.
            flush_seconds: as in a new trace.
            buffer_bytes: as in a new trace.
            storage: of tables that are new.

        Raises:
            TraceError: the trace cannot be read or written, is another experiment's, or of another version.
        """
        path = Path(path)
        kept = rows_to_keep(path, attributes, steps_done)
        self = cls.__new__(cls)
        self._begin(path, flush_seconds, buffer_bytes, storage, overwrite=True, resumed=True)
        try:
            self._cut(kept)
            new = {
                name: encode(name, value)
                for name, value in attributes.items()
                if name not in self._file.attrs
            }
            set_attributes(self._file, new | {"state": "running"})
        except BaseException:
            self._abandon()
            raise
        return self

    @interrupt_afterwards()
    def _begin(
        self,
        path: Path,
        flush_seconds: float,
        buffer_bytes: int,
        storage: Storage | None,
        overwrite: bool,
        *,
        resumed: bool,
    ) -> None:
        self.path = path
        self._flush_seconds, self.storage = flush_seconds, storage or Storage()
        self._next_flush = time.monotonic()
        self._flush_waits = False
        self._tables: dict[str, Table] = {}
        self._files: dict[str, TableFile] = {}
        self._resumed: frozenset[str] = frozenset()
        self._closed = False
        self._backlog = Backlog(buffer_bytes)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._bytes = OrderedFile(path, start_from=path if resumed else None, replace=overwrite)
        except OSError as error:
            raise unwritable(path, error) from error
        # "earliest" is the one format that stays open to plain readers when its writer was killed. Columns
        # hand HDF5 whole chunks: a cache would only keep them from the file.
        self._file = h5py.File(
            self._bytes,
            "r+" if resumed else "w",
            libver="earliest",
            rdcc_nbytes=0,
            alignment_threshold=_INDEX_NODE,
            alignment_interval=_PAGE,
        )

    @interrupt_afterwards()
    def table(
        self,
        name: str,
        unlimited: str,
        columns: Mapping[str, Column],
        coordinates: Mapping[str, Coordinate] | None = None,
        *,
        expected_rows: int | None = None,
        storage: Storage | None = None,
    ) -> Table:
        """Add an empty table, or go on with one of a resumed trace; only before the first row or flush.

        A new table changes the index of groups in several places, which no order of writes makes safe
        against a kill. Before the first flush nobody can see the file yet.

        Args:
            name: its group in the file; may be nested, `"probes/hidden"`, but not in another table.
            unlimited: the dimension that its rows extend. A column of that name is its coordinate.
            columns: by name.
            coordinates: each fixed dimension's values, or only its size.
            expected_rows: about how many rows will come, if that is known: makes for better chunks.
            storage: compression and chunks; the writer's if not given.

        Raises:
            TraceError: the name is taken, columns and coordinates do not fit, or it is too late.
        """
        self._check_open()
        if self._bytes.committed:
            raise TraceError(f"table '{name}' comes too late: add all tables before the first row or flush")
        check_table(name, unlimited, columns, coordinates or {})
        for other in (self._resumed - {name}) | self._tables.keys():
            if f"{name}/".startswith(f"{other}/") or other.startswith(f"{name}/"):
                raise TraceError(f"table '{name}': '{other}' exists: expected a name that is not in its way")
        if name in self._resumed:
            shapes = check_existing(self.path, self._file[name], unlimited, columns, coordinates or {})
        else:
            shapes = create_table(
                self._file.create_group(name),
                unlimited,
                columns,
                coordinates or {},
                expected_rows,
                storage or self.storage,
            )
            self._files[name] = TableFile(self._file[name])
        write = self._files[name].write
        table = Table(name, columns, shapes, self._files[name].rows)
        table.hand_over = lambda batch: self._backlog.put(lambda: write(batch), batch.bytes)
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
        encoded = {name: encode(name, value) for name, value in attributes.items()}
        self._backlog.put(lambda: set_attributes(self._file, encoded))
        self._backlog.drain()

    @interrupt_afterwards()
    def flush(self) -> None:
        """Write out all rows and make them the file's state, before this returns.

        Raises:
            TraceError: the file cannot be written (disk full, say); it keeps the state of the last flush.
        """
        self._begin_flush()
        self._backlog.drain()

    @interrupt_afterwards()
    def close(self, state: str = "complete") -> None:
        """Flush, set the root attribute `state` and close; closing twice does nothing.

        Raises:
            TraceError: the file cannot be written; it keeps the state of the last flush.
        """
        if self._closed:
            return
        try:
            self._begin_flush()
            self._backlog.put(lambda: set_attributes(self._file, {"state": state}))
            self._backlog.drain()
        finally:
            self._closed = True
            self._backlog.close()
            with contextlib.suppress(OSError, RuntimeError):
                self._file.close()
            try:
                self._commit()
            finally:
                self._bytes.close()
                self._tables.clear()  # they refer back to here, and would keep their buffers for long
                self._files.clear()

    def _begin_flush(self) -> None:
        """Hand all rows over, and the order to flush; it is carried out behind what waits already."""
        self._check_open()
        for table in self._tables.values():
            table.write_out()
        self._flush_waits = True
        self._backlog.put(self._flush_file)
        self._next_flush = time.monotonic() + self._flush_seconds

    def _flush_file(self) -> None:
        for table in self._files.values():
            table.flush()
        self._file.flush()
        self._commit()
        self._flush_waits = False

    def _flush_if_due(self) -> None:
        """Flush from time to time, beside whoever appends; but the file is there when its first row is."""
        if time.monotonic() < self._next_flush:
            return
        if not self._bytes.committed:
            self.flush()
        elif not self._flush_waits:
            self._begin_flush()

    def _cut(self, kept: Mapping[str, int]) -> None:
        """Shorten the tables of a resumed trace; nobody sees the copy yet, so the order does not matter."""
        self._resumed = frozenset(kept)
        for name, rows in kept.items():
            cut_table(self._file[name], rows)
            self._files[name] = TableFile(self._file[name])

    def _abandon(self) -> None:
        """Leave a resumed trace as it was."""
        self._closed = True
        with contextlib.suppress(OSError, RuntimeError):
            self._file.close()
        self._bytes.close()

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
        except FileExistsError as error:
            raise TraceError(taken(self.path)) from error
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _check_open(self) -> None:
        if self._closed:
            raise TraceError(f"{self.path} is closed: nothing more can be written to it")
        if self._bytes.failure is not None:
            raise unwritable(self.path, self._bytes.failure)
        self._backlog.check()
