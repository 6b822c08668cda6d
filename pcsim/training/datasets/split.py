"""Splitting samples class by class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.intp]


def stratified_split(labels: NDArray[Any], fraction: float, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Return the rows to keep and those of the other part, in rising order.

    Args:
        labels: class of each sample, (samples,).
        fraction: of each class for the other part; at least one sample goes there, and one stays.
        rng: who chooses.
    """
    other = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        other.append(members[: min(max(round(fraction * len(members)), 1), len(members) - 1)])
    chosen = np.sort(np.concatenate(other))
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen
