"""Reading a trace: finished, still being written, or left by a killed process."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import h5py

from pcsim.errors import TraceError, nearest
from pcsim.tracing.checks import attributes_of, check_hdf5, check_schema, groups_below
from pcsim.tracing.damage import OTHERS, reading
from pcsim.tracing.live_file import LiveFile
from pcsim.tracing.schema import UNLIMITED_ATTRIBUTE, decode
from pcsim.tracing.table_reader import TableReader, TableSummary

if TYPE_CHECKING:
    import xarray


def open_trace(path: Path) -> TraceReader:
    """Open a trace for reading.

    Raises:
        TraceError: there is no such file, or it is not HDF5, damaged, not a trace, or of a newer schema.
    """
    path = Path(path)
    check_hdf5(path)
    file = LiveFile(path)
    try:
        return TraceReader(path, file)
    except TraceError:
        file.close()
        raise


class TraceReader:
    """A trace opened for reading; made by `open_trace`, closed on leaving its context.

    While a run goes on, tables have at least the rows that were there at the opening: open it again for more.

    Attributes:
        path: the file.
        attributes: root attributes as given to the writer, JSON decoded.
        tables: names of all tables, sorted.
    """

    def __init__(self, path: Path, file: LiveFile) -> None:
        self.path = path
        self._file = file
        found = file.read(attributes_of, *OTHERS)
        self.attributes: dict[str, Any] = {name: decode(value) for name, value in found.items()}
        check_schema(path, self.attributes)
        self.tables: tuple[str, ...] = file.read(_tables_of, *OTHERS)

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
        return TableReader(self._file, name, self.attributes)

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

        with reading(self.path):
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


def _tables_of(file: h5py.File) -> tuple[str, ...]:
    return tuple(sorted(name for name, group in groups_below(file) if UNLIMITED_ATTRIBUTE in group.attrs))
