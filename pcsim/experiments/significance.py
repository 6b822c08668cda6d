"""Means, deviations and tests of a few numbers, one a seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def mean_sd(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard deviation (n − 1) of some numbers; NaN where there are too few."""
    mean = float(np.mean(values)) if values else math.nan
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def welch(values: Sequence[float], others: Sequence[float]) -> float | None:
    """Return p of Welch's two-sided t-test; None with fewer than two numbers, or without any spread."""
    if min(len(values), len(others)) < 2 or np.ptp(values) == np.ptp(others) == 0:
        return None
    from scipy.stats import ttest_ind_from_stats

    sides = (number for one in (values, others) for number in (*mean_sd(one), len(one)))
    return float(ttest_ind_from_stats(*sides, equal_var=False).pvalue)
