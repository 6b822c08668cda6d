"""All tables as one NumPy archive: `numpy.load(PATH)["summary/free_energy"]`, nothing pickled.

Written member by member and block by block, so that an archive may be larger than memory.
"""

from __future__ import annotations

import json
import zipfile
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from pcsim.errors import TraceError
from pcsim.export.options import Options, Outcome, Progress
from pcsim.tracing.reader import TraceReader
from pcsim.tracing.table_reader import TableReader

BLOCK_BYTES = 2**26


def write(trace: TraceReader, out: BinaryIO, options: Options, progress: Progress) -> Outcome:
    """Write `TABLE/COLUMN` for each column and `TABLE/DIM` for each dimension's values.

    `attributes` holds the root attributes and `dims` the dimensions of each column, both as JSON text;
    `TABLE/COLUMN:meanings` holds the words that a column's codes 0, 1, 2, … stand for.

    Raises:
        TraceError: the trace has no rows.
    """
    del options
    tables = [trace.table(name) for name in trace.tables]
    if not any(table.rows for table in tables):
        raise TraceError(f"{trace.path} has no recorded rows: expected at least one")
    dims: dict[str, tuple[str, ...]] = {}
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for done, table in enumerate(tables, 1):
            for column in table.columns:
                dims[f"{table.name}/{column}"] = table.dims(column)
                _stream(archive, table, column)
                if flags := table.flags(column):
                    _whole(archive, f"{table.name}/{column}:meanings", np.asarray(flags, dtype=str))
            for dim in {dim for column in table.columns for dim in table.dims(column)}:
                if dim not in table.columns and dim != table.unlimited:
                    _whole(archive, f"{table.name}/{dim}", table.coordinate(dim))
            progress(done / len(tables))
        attributes = json.dumps(trace.attributes, default=str)
        _whole(archive, "attributes", np.asarray(attributes))
        _whole(archive, "dims", np.asarray(json.dumps(dims)))
    return Outcome()


def _stream(archive: zipfile.ZipFile, table: TableReader, column: str) -> None:
    """Write a column as a member, block by block."""
    reader = table.column(column)
    header = {"descr": np.lib.format.dtype_to_descr(reader.dtype), "fortran_order": False}
    with archive.open(f"{table.name}/{column}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_2_0(member, header | {"shape": reader.shape})
        for _, arrays in table.blocks((column,), max_bytes=BLOCK_BYTES):
            member.write(np.ascontiguousarray(arrays[column]).data)


def _whole(archive: zipfile.ZipFile, name: str, array: npt.NDArray[Any]) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)
