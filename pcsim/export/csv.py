"""All tables as CSV, one line an element: what pandas, R and spreadsheets call tidy.

Columns of a table that share their dimensions share a file; dimensions come first, then values. Numbers are
written so that reading them back gives the same bits.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pcsim.errors import TraceError
from pcsim.export.options import Options, Outcome, Progress
from pcsim.tracing.reader import TraceReader
from pcsim.tracing.table_reader import TableReader

CELLS = 65_536  # elements that are Python objects at a time
BLOCK_BYTES = 2**25


def write(trace: TraceReader, out: Path, options: Options, progress: Progress) -> Outcome:
    """Write each table: `TABLE.csv`, or `TABLE.DIM-DIM.csv` for columns with further dimensions.

    Raises:
        TraceError: the trace has no rows.
    """
    del options
    tables = [trace.table(name) for name in trace.tables]
    jobs = [(table, dims, names) for table in tables if table.rows for dims, names in _groups(table).items()]
    if not jobs:
        raise TraceError(f"{trace.path} has no recorded rows: expected at least one")
    columns: dict[str, list[str]] = {}
    for done, (table, dims, names) in enumerate(jobs, 1):
        name = ".".join([table.name.replace("/", "-"), *(["-".join(dims)] if dims else [])]) + ".csv"
        columns[name] = [table.unlimited, *dims, *names]
        with (out / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns[name])
            for lines in _lines(table, dims, names):
                writer.writerows(lines)
        progress(done / len(jobs))
    return Outcome((), {"columns": columns})


def _groups(table: TableReader) -> dict[tuple[str, ...], list[str]]:
    """Return the names of columns by their dimensions after the unlimited one, whose own is left out."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in table.columns:
        if name != table.unlimited:
            groups.setdefault(table.dims(name)[1:], []).append(name)
    return groups or {(): []}


def _lines(
    table: TableReader, dims: tuple[str, ...], names: list[str]
) -> Iterator[Iterator[tuple[Any, ...]]]:
    """Yield the lines of one file, so many at a time."""
    coordinates = [table.coordinate(dim) for dim in dims]
    shape = tuple(len(values) for values in coordinates)
    size = math.prod(shape)
    has_step = table.unlimited in table.columns
    asked = [*names, table.unlimited] if has_step else names
    for block, arrays in table.blocks(asked, max_bytes=BLOCK_BYTES):
        rows = arrays[table.unlimited] if has_step else np.arange(block.start, block.stop)
        flat = {name: arrays[name].reshape(-1) for name in names}
        for first in range(0, len(rows) * size, CELLS):
            cells = np.arange(first, min(first + CELLS, len(rows) * size))
            places = np.unravel_index(cells % size, shape) if shape else ()
            fields = [rows[cells // size].tolist()]
            fields += [values[place].tolist() for values, place in zip(coordinates, places, strict=True)]
            fields += [_words(table, name, flat[name][cells]) for name in names]
            yield zip(*fields, strict=True)


def _words(table: TableReader, name: str, values: npt.NDArray[Any]) -> list[Any]:
    """Return what is written: words for codes, the shortest decimals that give the same bits."""
    if flags := table.flags(name):
        return [flags[code] for code in values.tolist()]
    narrow = values.dtype.kind == "f" and values.dtype.itemsize < 8
    words: list[Any] = (values.astype(str) if narrow else values).tolist()
    return words
