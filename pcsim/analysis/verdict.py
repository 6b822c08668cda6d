"""How two traces compare: what is equal, what counts, and what each column turned out to be."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pcsim.analysis.places import Place, when
from pcsim.tracing import provenance

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
    provenance.NAME,
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
        return min(places, key=when, default=None)

    @property
    def likely_reasons(self) -> provenance.Pairs:
        """Return what differs of what computed them, if numbers do and no attribute that counts does."""
        if self.first is None or self.counted_attributes:
            return {}
        kernels = {name: pair for name, pair in self.attributes.items() if name == "kernels"}
        return kernels | provenance.differences(*self.attributes.get(provenance.NAME, (None, None)))

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
        return asdict(self) | {
            "equal": self.equal,
            "first": None if first is None else asdict(first),
            "likely_reasons": self.likely_reasons,
        }
