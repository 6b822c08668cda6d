"""Numbers against numbers: how many differ, by how much, and which is the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pcsim.analysis.bits import most_ulps, unequal_bits


@dataclass(frozen=True)
class Tolerance:
    """Numbers are equal within it if |a − b| ≤ absolute + relative · max(|a|, |b|)."""

    relative: float
    absolute: float


class Differences:
    """What two columns turn out to be, block by block."""

    def __init__(self, tolerance: Tolerance) -> None:
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


def _first(where: npt.NDArray[np.bool_], origin: tuple[int, ...]) -> tuple[int, ...]:
    """Return the index of the first true element in the whole column."""
    inside = np.unravel_index(int(where.argmax()), where.shape)
    starts = (*origin, *(0,) * (where.ndim - len(origin)))
    return tuple(int(start + offset) for start, offset in zip(starts, inside, strict=True))
