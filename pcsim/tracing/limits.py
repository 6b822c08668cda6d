"""Which numbers a column may hold: whoever uses them as an index, or adds them up, need not look again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

HUGE = float(np.finfo(np.float64).max)
MOST_LAYERS = 1024  # of a trace that does not say how many layers there were
AMOUNTS = ("step", "start", "end", "multiplications", "values", "nonzero_values", "bytes")


@dataclass(frozen=True)
class Limits:
    """Smallest and largest number that a column may hold."""

    lowest: float
    highest: float = HUGE

    def beyond(self, values: NDArray[Any]) -> np.generic | None:
        """Return a number that lies beyond; None if there is none."""
        if not values.size:
            return None
        smallest, largest = values.min(), values.max()
        if self.lowest <= smallest and largest <= self.highest:  # false for NaN
            return None
        bad: np.generic = largest if self.lowest <= smallest else smallest
        return bad

    def __str__(self) -> str:
        if self.highest < HUGE:
            return f"{self.lowest:g} to {self.highest:g}"
        return f"a finite number from {self.lowest:g}"


def code_limits(flags: Sequence[str]) -> Limits | None:
    """Return what a column may hold whose codes have these meanings; None if it has no codes."""
    return Limits(0, len(flags) - 1) if flags else None


def event_limits(run: Mapping[str, Any]) -> dict[str, Limits]:
    """Return what the columns of the table of events may hold, as far as the trace's attributes say."""
    layers, iterations = run.get("layers"), run.get("iterations")
    top = len(layers) - 1 if isinstance(layers, list) and layers else MOST_LAYERS
    last = iterations if isinstance(iterations, int) else HUGE
    limits = {"layer": Limits(0, top), "target": Limits(-1, top), "iteration": Limits(0, last)}
    return limits | dict.fromkeys(AMOUNTS, Limits(0))
