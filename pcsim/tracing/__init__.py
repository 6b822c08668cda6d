"""Traces: HDF5 files that a run writes and that everything after it reads."""

from pcsim.tracing.column_reader import ColumnReader
from pcsim.tracing.reader import TraceReader, open_trace
from pcsim.tracing.schema import FORMAT, SCHEMA_VERSION, Column, Coordinate
from pcsim.tracing.table import Storage, Table
from pcsim.tracing.table_reader import TableReader, TableSummary
from pcsim.tracing.writer import TraceWriter

__all__ = [
    "FORMAT",
    "SCHEMA_VERSION",
    "Column",
    "ColumnReader",
    "Coordinate",
    "Storage",
    "Table",
    "TableReader",
    "TableSummary",
    "TraceReader",
    "TraceWriter",
    "open_trace",
]
