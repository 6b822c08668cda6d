"""Two traces side by side: which columns are equal, where they first differ, and by how much."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pcsim.analysis.differences import Differences, Tolerance
from pcsim.analysis.places import place_of
from pcsim.analysis.stream import Piece, Progress, TraceLike, opened, pieces
from pcsim.analysis.verdict import NOT_COUNTED_COLUMNS, ColumnComparison, Comparison, Verdict
from pcsim.errors import ConfigurationError, TraceError, nearest
from pcsim.tracing.column_reader import ColumnReader
from pcsim.tracing.reader import TraceReader
from pcsim.tracing.table_reader import TableReader


def compare(
    trace_a: TraceLike,
    trace_b: TraceLike,
    *,
    tolerance: float = 0.0,
    absolute: float = 0.0,
    tables: Sequence[str] = (),
    progress: Progress | None = None,
) -> Comparison:
    """Compare two traces number by number, row by row as they stand.

    Numbers are equal within the tolerance if |a − b| ≤ absolute + tolerance · max(|a|, |b|); two NaN are
    equal, and so are infinities of one sign.

    Args:
        trace_a: an open trace, or the path of one.
        trace_b: the other.
        tolerance: relative.
        absolute: absolute.
        tables: which to compare, and no attributes; `probes` means all probes. Everything if empty.
        progress: is told how far this has come.

    Raises:
        TraceError: a file is missing, damaged, or not a trace; neither has such a table.
        ConfigurationError: a tolerance below 0.
    """
    for name, value in (("tolerance", tolerance), ("absolute", absolute)):
        if not (math.isfinite(value) and value >= 0):
            raise ConfigurationError(f"{name} = {value:g}: expected a number from 0")
    with opened(trace_a) as a, opened(trace_b) as b:
        found = [column for table in _chosen(a, b, tables) for column in _matched(a, b, table)]
        if progress is not None:
            progress.begin("compare", sum(len(one.pieces) for one in found if isinstance(one, _Pair)))
        bound = Tolerance(tolerance, absolute)
        columns = [one.compare(bound, progress) if isinstance(one, _Pair) else one for one in found]
        attributes = {} if tables else _compare_attributes(a, b)
        return Comparison(str(a.path), str(b.path), tuple(columns), attributes)


def _chosen(a: TraceReader, b: TraceReader, tables: Sequence[str]) -> list[str]:
    """Return the names of the tables that are compared."""
    names = sorted({*a.tables, *b.tables})
    for table in tables:
        if not any(f"{name}/".startswith(f"{table}/") for name in names):
            raise TraceError(f"{a.path} and {b.path} have no table '{table}': {nearest(table, names)}")
    return [
        name for name in names if not tables or any(f"{name}/".startswith(f"{table}/") for table in tables)
    ]


def _compare_attributes(a: TraceReader, b: TraceReader) -> dict[str, tuple[Any, Any]]:
    names = sorted({*a.attributes, *b.attributes})
    pairs = {name: (a.attributes.get(name), b.attributes.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


@dataclass(frozen=True)
class _Pair:
    """Two columns of one name and with the same dimensions, rows apart."""

    name: str
    a: TableReader
    b: TableReader

    @cached_property
    def pieces(self) -> list[Piece]:
        """What is read one after the other."""
        one, other = self.a.column(self.name), self.b.column(self.name)
        rows = min(len(one), len(other))
        itemsize = max(one.dtype.itemsize, other.dtype.itemsize)
        return list(pieces((rows, *one.shape[1:]), itemsize, one.chunk_rows))

    def compare(self, tolerance: Tolerance, progress: Progress | None) -> ColumnComparison:
        """Read both and say how they compare."""
        name, one, other = self.name, self.a.column(self.name), self.b.column(self.name)
        words = self.a.flags(name) != self.b.flags(name)  # the same code may mean something else
        found = Differences(tolerance)
        for piece in self.pieces:
            origin = tuple(part.start for part in piece)
            if words:
                found.add(self.a.decode(name, piece[0]), self.b.decode(name, piece[0]), origin)
            else:
                found.add(one[piece], other[piece], origin)
            if progress is not None:
                progress.step()
        return self._outcome(found, one, other)

    def _outcome(self, found: Differences, one: ColumnReader, other: ColumnReader) -> ColumnComparison:
        """Put into words what was found."""
        rows = len(one), len(other)
        notes = []
        if one.dtype != other.dtype:
            notes.append(f"{one.dtype} and {other.dtype}")
        if rows[0] != rows[1]:
            notes.append(f"{rows[0]:,} and {rows[1]:,} rows")
        if found.nonfinite:
            notes.append(f"{found.nonfinite:,} not finite in A or B")
        first = found.first_differing or found.first_unequal
        return ColumnComparison(
            self.a.name,
            self.name,
            _verdict(found, rows),
            _counts(self.a.name, self.name),
            rows,
            differing=found.differing,
            compared=found.compared,
            max_absolute=found.max_absolute,
            max_relative=found.max_relative,
            max_ulps=found.max_ulps if one.dtype.kind == other.dtype.kind == "f" else None,
            first=None if first is None else place_of(self.a, self.b, self.name, first),
            note=", ".join(notes),
            nonfinite=found.nonfinite,
        )


def _verdict(found: Differences, rows: tuple[int, int]) -> Verdict:
    if found.differing:
        return "differ"
    if rows[0] != rows[1]:
        return "rows differ"
    return "equal within tolerance" if found.unequal_bits else "equal bits"


def _matched(a: TraceReader, b: TraceReader, table: str) -> Iterator[_Pair | ColumnComparison]:
    """Yield all columns of a table: pairs that are to be read, and the verdict where there is no pair."""
    both = [reader.table(table) if table in reader.tables else None for reader in (a, b)]
    for name in sorted({name for side in both if side is not None for name in side.columns}):
        one, other = (side if side is not None and name in side.columns else None for side in both)
        if one is not None and other is not None and _fit(one, other, name):
            yield _Pair(name, one, other)
        else:
            yield _unmatched(table, name, one, other)


def _fit(a: TableReader, b: TableReader, name: str) -> bool:
    """Whether both columns have the same dimensions, rows apart."""
    return a.column(name).shape[1:] == b.column(name).shape[1:] and a.dims(name) == b.dims(name)


def _unmatched(table: str, name: str, a: TableReader | None, b: TableReader | None) -> ColumnComparison:
    """Say why two columns of one name are no pair; None where there is no such column."""
    rows = (-1 if a is None else a.rows, -1 if b is None else b.rows)
    counted = _counts(table, name)
    if a is None or b is None:
        return ColumnComparison(table, name, "only in A" if b is None else "only in B", counted, rows)
    note = f"{_shape(a, name)} and {_shape(b, name)}"
    return ColumnComparison(table, name, "shapes differ", counted, rows, note=note)


def _counts(table: str, column: str) -> bool:
    """Whether a column counts for the whole comparison."""
    return f"{table}/{column}" not in NOT_COUNTED_COLUMNS


def _shape(table: TableReader, name: str) -> str:
    """Name dimensions with their sizes: iteration 4, layer 3."""
    sizes = table.column(name).shape[1:]
    named = zip(table.dims(name)[1:], sizes, strict=True)
    return ", ".join(f"{dim} {size}" for dim, size in named) or "single numbers"
