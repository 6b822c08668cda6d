"""Two traces side by side: which columns are equal, where they first differ, and by how much."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pcsim.analysis.bits import most_ulps, unequal_bits
from pcsim.analysis.stream import Piece, Progress, TraceLike, opened, pieces
from pcsim.errors import ConfigurationError, TraceError, nearest
from pcsim.tracing.reader import TraceReader
from pcsim.tracing.table_reader import TableReader

Verdict = Literal[
    "equal bits",
    "equal within tolerance",
    "differ",
    "rows differ",
    "shapes differ",
    "only in A",
    "only in B",
]
UNMATCHED: tuple[Verdict, ...] = ("only in A", "only in B", "shapes differ", "rows differ")
EQUAL: tuple[Verdict, ...] = ("equal bits", "equal within tolerance")

# Wall-clock time says nothing about what was computed.
NOT_COUNTED_COLUMNS = ("learning/seconds",)
# Who made a trace, when and with what; the numbers themselves say whether that made a difference.
NOT_COUNTED_ATTRIBUTES = (
    "configuration",
    "created",
    "engine",
    "kernels",
    "name",
    "pcsim_version",
    "schema_version",
    "state",
)


@dataclass(frozen=True)
class Place:
    """Where two columns differ.

    Attributes:
        table: its name.
        column: its name.
        row: in the table.
        at: what that means: `step`, `iteration`, `layer`, `sample`, `neuron`, …, as far as there are such.
        a: the value there in A.
        b: the value in B.
    """

    table: str
    column: str
    row: int
    at: dict[str, int | str]
    a: float | int | str
    b: float | int | str


@dataclass(frozen=True)
class ColumnComparison:
    """How two columns of one name compare.

    Attributes:
        table: its name.
        column: its name.
        verdict: one of `Verdict`; "rows differ" if all rows that both have are equal.
        counted: whether it counts for the whole comparison.
        rows: in A and B; −1 where there is no such column.
        differing: how many numbers differ beyond the tolerance.
        compared: how many numbers were compared.
        max_absolute: largest |a − b|.
        max_relative: largest |a − b| / max(|a|, |b|).
        max_ulps: most representable numbers from a to b, in the narrower of two types; None for whole
            numbers and words. All three are of finite numbers.
        nonfinite: how many of those that differ are NaN or infinite in A or B.
        first: the first number that differs beyond the tolerance; if there is none, the first that has
            other bits.
        note: what else there is to say, such as two shapes.
    """

    table: str
    column: str
    verdict: Verdict
    counted: bool = True
    rows: tuple[int, int] = (-1, -1)
    differing: int = 0
    compared: int = 0
    max_absolute: float = 0.0
    max_relative: float = 0.0
    max_ulps: int | None = None
    first: Place | None = None
    note: str = ""
    nonfinite: int = 0


@dataclass(frozen=True)
class Comparison:
    """How two traces compare.

    Attributes:
        a: path of the one.
        b: path of the other.
        columns: one a column, by table and name.
        attributes: root attributes that differ, with both values; None where there is none.
    """

    a: str
    b: str
    columns: tuple[ColumnComparison, ...]
    attributes: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def counted_attributes(self) -> list[str]:
        """Return the names of attributes that differ and count."""
        return [name for name in self.attributes if name not in NOT_COUNTED_ATTRIBUTES]

    @property
    def equal(self) -> bool:
        """Whether everything that counts is equal, bit by bit or within the tolerance."""
        bad = (one for one in self.columns if one.counted and one.verdict not in EQUAL)
        return not self.counted_attributes and next(bad, None) is None

    @property
    def first(self) -> Place | None:
        """Return where they first differ beyond the tolerance: earliest step and iteration, lowest layer."""
        places = [
            one.first
            for one in self.columns
            if one.first is not None and one.counted and one.verdict not in EQUAL
        ]
        return min(places, key=_when, default=None)

    @property
    def unmatched(self) -> dict[Verdict, list[str]]:
        """Return the columns that count and have no counterpart, other shapes or other rows, by verdict."""
        found: dict[Verdict, list[str]] = {kind: [] for kind in UNMATCHED}
        for one in self.columns:
            if one.counted and one.verdict in UNMATCHED:
                found[one.verdict].append(f"{one.table}/{one.column}")
        return {kind: names for kind, names in found.items() if names}

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary fit for JSON."""
        first = self.first
        return asdict(self) | {"equal": self.equal, "first": None if first is None else asdict(first)}


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
        pairs = [pair for table in _chosen(a, b, tables) for pair in _pairs(a, b, table)]
        if progress is not None:
            progress.begin("compare", sum(len(pair.pieces) for pair in pairs))
        columns = [pair.compare(_Tolerance(tolerance, absolute), progress) for pair in pairs]
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


@dataclass(frozen=True)
class _Tolerance:
    relative: float
    absolute: float


def _compare_attributes(a: TraceReader, b: TraceReader) -> dict[str, tuple[Any, Any]]:
    names = sorted({*a.attributes, *b.attributes})
    pairs = {name: (a.attributes.get(name), b.attributes.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


@dataclass(frozen=True)
class _Pair:
    """Two columns of one name; a table is None where there is no such column."""

    name: str
    a: TableReader | None
    b: TableReader | None

    @property
    def table(self) -> str:
        """The name of the table."""
        return next(table.name for table in (self.a, self.b) if table is not None)

    @property
    def counted(self) -> bool:
        """Whether it counts for the whole comparison."""
        return f"{self.table}/{self.name}" not in NOT_COUNTED_COLUMNS

    @cached_property
    def pieces(self) -> list[Piece]:
        """What is read one after the other: nothing, where shapes do not fit."""
        if self.a is None or self.b is None or not self.fits:
            return []
        one, other = self.a.column(self.name), self.b.column(self.name)
        rows = min(len(one), len(other))
        itemsize = max(one.dtype.itemsize, other.dtype.itemsize)
        return list(pieces((rows, *one.shape[1:]), itemsize, one.chunk_rows))

    @property
    def fits(self) -> bool:
        """Whether both columns have the same dimensions, rows apart."""
        assert self.a is not None
        assert self.b is not None
        shapes = (table.column(self.name).shape[1:] for table in (self.a, self.b))
        return next(shapes) == next(shapes) and self.a.dims(self.name) == self.b.dims(self.name)

    def compare(self, tolerance: _Tolerance, progress: Progress | None) -> ColumnComparison:
        """Read both and say how they compare."""
        rows = (-1 if self.a is None else self.a.rows, -1 if self.b is None else self.b.rows)
        if self.a is None or self.b is None:
            alone: Verdict = "only in A" if self.b is None else "only in B"
            return ColumnComparison(self.table, self.name, alone, self.counted, rows)
        if not self.fits:
            note = f"{_shape(self.a, self.name)} and {_shape(self.b, self.name)}"
            return ColumnComparison(self.table, self.name, "shapes differ", self.counted, rows, note=note)
        return _compare_columns(self, self.a, self.b, tolerance, progress)


def _pairs(a: TraceReader, b: TraceReader, name: str) -> Iterator[_Pair]:
    """Yield all columns of a table, with who has them."""
    tables = [reader.table(name) if name in reader.tables else None for reader in (a, b)]
    for column in sorted({column for table in tables if table is not None for column in table.columns}):
        yield _Pair(column, *(table if table and column in table.columns else None for table in tables))


class _Differences:
    """What two columns turn out to be, block by block."""

    def __init__(self, tolerance: _Tolerance) -> None:
        self._tolerance = tolerance
        self.compared = self.differing = self.unequal_bits = self.nonfinite = 0
        self.max_absolute, self.max_relative, self.max_ulps = 0.0, 0.0, 0
        self.first_differing: tuple[int, ...] | None = None
        self.first_unequal: tuple[int, ...] | None = None

    def add(self, a: npt.NDArray[Any], b: npt.NDArray[Any], origin: tuple[int, ...]) -> None:
        """Compare a block that begins at `origin`."""
        self.compared += a.size
        unequal = unequal_bits(a, b)
        if not unequal.any():
            return
        self.unequal_bits += int(unequal.sum())
        if self.first_unequal is None:
            self.first_unequal = _first(unequal, origin)
        if a.dtype.kind == "U":
            beyond = unequal
        else:
            beyond = unequal.copy()
            beyond[unequal] = self._measure(a[unequal], b[unequal])
        self.differing += int(beyond.sum())
        if self.first_differing is None and beyond.any():
            self.first_differing = _first(beyond, origin)

    def _measure(self, a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Note the largest differences, and tell which lie beyond the tolerance."""
        x, y = a.astype(np.float64), b.astype(np.float64)
        same = (x == y) | (np.isnan(x) & np.isnan(y))
        if a.dtype.kind in "iu" and b.dtype.kind in "iu":
            same = a == b  # whole numbers beyond 2^53 are not told apart as float64
        finite = np.isfinite(x) & np.isfinite(y)
        with np.errstate(invalid="ignore", over="ignore"):
            distance = np.abs(x - y)
            size = np.maximum(np.abs(x), np.abs(y))
            near = distance <= self._tolerance.absolute + self._tolerance.relative * size
        counted = finite & ~same
        if counted.any():
            self.max_absolute = max(self.max_absolute, float(distance[counted].max()))
            scaled = np.divide(distance, size, out=np.zeros_like(size), where=counted & (size > 0))
            self.max_relative = max(self.max_relative, float(scaled.max()))
        if finite.any() and a.dtype.kind == b.dtype.kind == "f":
            narrow = a.dtype if a.dtype.itemsize <= b.dtype.itemsize else b.dtype
            self.max_ulps = max(self.max_ulps, most_ulps(a[finite].astype(narrow), b[finite].astype(narrow)))
        tolerant = bool(self._tolerance.relative or self._tolerance.absolute)
        self.nonfinite += int((~finite & ~same).sum())
        return np.asarray(~(same | (near & finite & tolerant)))

    def verdict(self, rows: tuple[int, int]) -> Verdict:
        """Say in words what it came to."""
        if self.differing:
            return "differ"
        if rows[0] != rows[1]:
            return "rows differ"
        return "equal within tolerance" if self.unequal_bits else "equal bits"


def _compare_columns(
    pair: _Pair, a: TableReader, b: TableReader, tolerance: _Tolerance, progress: Progress | None
) -> ColumnComparison:
    name, one, other = pair.name, a.column(pair.name), b.column(pair.name)
    rows, counted = (len(one), len(other)), pair.counted
    words = a.flags(name) != b.flags(name)  # the same code may mean something else
    found = _Differences(tolerance)
    for piece in pair.pieces:
        origin = tuple(part.start for part in piece)
        if words:
            found.add(a.decode(name, piece[0]), b.decode(name, piece[0]), origin)
        else:
            found.add(one[piece], other[piece], origin)
        if progress is not None:
            progress.step()
    first = found.first_differing or found.first_unequal
    notes = []
    if one.dtype != other.dtype:
        notes.append(f"{one.dtype} and {other.dtype}")
    if rows[0] != rows[1]:
        notes.append(f"{rows[0]:,} and {rows[1]:,} rows")
    if found.nonfinite:
        notes.append(f"{found.nonfinite:,} not finite in A or B")
    return ColumnComparison(
        a.name,
        name,
        found.verdict(rows),
        counted,
        rows,
        found.differing,
        found.compared,
        found.max_absolute,
        found.max_relative,
        found.max_ulps if one.dtype.kind == other.dtype.kind == "f" else None,
        None if first is None else _place(a, b, name, first),
        ", ".join(notes),
        found.nonfinite,
    )


def _first(where: npt.NDArray[np.bool_], origin: tuple[int, ...]) -> tuple[int, ...]:
    """Return the index of the first true element in the whole column."""
    inside = np.unravel_index(int(where.argmax()), where.shape)
    starts = (*origin, *(0,) * (where.ndim - len(origin)))
    return tuple(int(start + offset) for start, offset in zip(starts, inside, strict=True))


def _place(a: TableReader, b: TableReader, name: str, index: tuple[int, ...]) -> Place:
    """Say what an index means."""
    row, *rest = index
    at: dict[str, int | str] = {}
    for column in ("step", "epoch", "training_steps", "kind", "name", "layer", "target", "iteration"):
        if column in a.columns and column != name and a.dims(column) == (a.unlimited,):
            part = slice(row, row + 1)
            at[column] = (a.decode(column, part) if a.flags(column) else a.read(column, part))[0].item()
    for dim, position in zip(a.dims(name)[1:], rest, strict=True):
        plain = dim.rstrip("0123456789").rstrip("_")  # neuron_2 is a neuron of layer 2
        at[plain] = a.coordinate(dim)[position].item()
    _, _, layer = name.rpartition("_")
    if a.name.startswith("probes/") and layer.isdecimal():
        at["layer"] = int(layer)
    return Place(a.name, name, row, at, _value(a, name, index), _value(b, name, index))


def _value(table: TableReader, name: str, index: tuple[int, ...]) -> float | int | str:
    """Return one number of a column, or the word that a code stands for."""
    if table.flags(name):
        return str(table.decode(name, slice(index[0], index[0] + 1))[0])
    number: float | int = table.column(name)[index].item()
    return number


def _when(place: Place) -> tuple[float, float, float]:
    """Return the order of places in time: step, iteration, layer; what comes after all iterations is last."""

    def number(name: str, otherwise: float) -> float:
        value = place.at.get(name, otherwise)
        return float(value) if isinstance(value, int | float) else otherwise

    step = number("step", number("training_steps", math.inf))
    if place.column == "step":
        step = min(float(place.a), float(place.b))
    layer = number("layer", number("connection", math.inf))
    return step, number("iteration", math.inf), layer


def _shape(table: TableReader, name: str) -> str:
    """Name dimensions with their sizes: iteration 4, layer 3."""
    sizes = table.column(name).shape[1:]
    named = zip(table.dims(name)[1:], sizes, strict=True)
    return ", ".join(f"{dim} {size}" for dim, size in named) or "single numbers"
