"""Runs that differ only in their seed share a curve: its mean, in a band from the lowest to the highest."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from pcsim.report.numbers import Floats, Ints
from pcsim.report.runs import labels, read_run
from pcsim.tracing.reader import TraceReader

MOST_NAMES = 2  # of runs that share a picture


def seed_groups(traces: Sequence[TraceReader]) -> dict[str, list[TraceReader]]:
    """Return traces by the name of what they repeat, those of its other seeds together."""
    members: dict[str, list[TraceReader]] = {}
    for trace in traces:
        members.setdefault(read_run(trace).family(), []).append(trace)
    names = labels([read_run(group[0]) for group in members.values()])
    return {
        f"{name}, {len(group)} seeds" if len(group) > 1 else name: group
        for name, group in zip(names, members.values(), strict=True)
    }


def distinct(traces: Sequence[TraceReader], key: Callable[[TraceReader], Hashable]) -> dict[str, TraceReader]:
    """Return one trace of those that have the same key, by the names of all of them."""
    alike: dict[Hashable, list[TraceReader]] = {}
    for trace in traces:
        alike.setdefault(key(trace), []).append(trace)
    families = seed_groups(traces)
    own = dict(zip(traces, labels([read_run(trace) for trace in traces]), strict=True))
    found: dict[str, TraceReader] = {}
    for group in alike.values():
        whole = [name for name, members in families.items() if set(members) <= set(group)]
        covered = {member for name in whole for member in families[name]}
        names = [*whole, *(own[trace] for trace in group if trace not in covered)]
        name = "; ".join(names) if len(names) <= MOST_NAMES else f"{len(group)} runs"
        found[name if name not in found else own[group[0]]] = group[0]
    return found


def aligned(places: Sequence[Ints], values: Sequence[Floats]) -> tuple[Ints, Floats]:
    """Return all places of several runs, and the values of each there, NaN where a run has none.

    Args:
        places: of each run, sorted.
        values: of each run, a row a place.
    """
    every = np.unique(np.concatenate(places))
    rows = np.full((len(values), len(every), *values[0].shape[1:]), np.nan)
    for row, at, one in zip(rows, places, values, strict=True):
        row[np.searchsorted(every, at)] = one
    return every, rows


def spread(rows: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the lowest, the mean and the highest of several runs, those without a value left out."""
    known = np.isfinite(rows)
    filled = np.where(known, rows, 0.0)
    with np.errstate(invalid="ignore"):
        mean = filled.sum(axis=0) / known.sum(axis=0)  # NaN where nobody has one
    lowest = np.where(known, rows, np.inf).min(axis=0)
    highest = np.where(known, rows, -np.inf).max(axis=0)
    nobody = ~known.any(axis=0)
    return np.where(nobody, np.nan, lowest), mean, np.where(nobody, np.nan, highest)
