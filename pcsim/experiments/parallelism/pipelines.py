"""Mini-batches in a pipeline: how often one ends, exactly or with weights a few mini-batches old."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pcsim.experiments.parallelism.study import Row, written
from pcsim.schedule.pipeline import interval
from pcsim.theory.parallelism import BACKPROP, STATIC, counts

WINDOWS = (1, 2, 4, 8)
DEEPEST = 16  # hidden layers
EXACT, STALE = 4, 16  # mini-batches in each half of a measurement; stale pipelines take longer to fill


@dataclass(frozen=True)
class Pipeline:
    """One order at one depth, with a core a neuron: whole layers, one product a time.

    Attributes:
        order: of the schedule, or "backprop".
        hidden: number of hidden layers.
        iterations: T; 0 for backprop.
        basis: where T comes from; see `pcsim.experiments.parallelism.study.Row`.
        span: of a single mini-batch, in products one after the other.
        least: products of a mini-batch over layers: no pipeline is faster on these cores.
        intervals: from one mini-batch's end to the next one's, in products one after the other, by window;
            the first is exact. None where a window has no meaning (incremental learns in every iteration).
    """

    order: str
    hidden: int
    iterations: int
    basis: str
    span: int
    least: float
    intervals: tuple[float | None, ...]


def eligible(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that a pipeline is made of: static orders at their smallest T, down to `DEEPEST`."""
    first: dict[tuple[int, str], Row] = {}
    for row in rows:
        if row.order in (*STATIC, BACKPROP) and row.iterations is not None and row.hidden <= DEEPEST:
            first.setdefault((row.hidden, row.order), row)
    return list(first.values())


def pipelines(rows: Sequence[Row], advance: Callable[[], None] = lambda: None) -> list[Pipeline]:
    """Measure the pipelines of `eligible` rows; `advance` is called after each."""
    result = []
    for row in eligible(rows):
        result.append(_pipeline(row))
        advance()
    return result


def _pipeline(row: Row) -> Pipeline:
    """Measure with one neuron a layer: with a core a neuron, time does not depend on how many there are."""
    assert row.iterations is not None
    depth = row.hidden + 1
    program, form = (
        written(row.order, depth, row.iterations, 1),
        counts(row.order, depth, row.iterations or 1),
    )
    windows = WINDOWS[:1] if row.order == "incremental" else WINDOWS
    measured = [
        interval(program, depth, window=window, mini_batches=EXACT if window == 1 else STALE)
        for window in windows
    ]
    blank: list[float | None] = [None] * (len(WINDOWS) - len(windows))
    return Pipeline(
        *(row.order, row.hidden, row.iterations, row.basis),
        span=form.span,
        least=form.products / depth,
        intervals=(*measured, *blank),
    )
