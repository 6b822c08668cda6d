"""The timeline of a trace: where each training step lies in the table `events`, and how long it took."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from pcsim.errors import TraceError
from pcsim.tracing.reader import TraceReader
from pcsim.tracing.table_reader import TableReader

BLOCK_BYTES = 2**23  # of arrays; the Python objects made of them take about ten times as much


@dataclass
class Span:
    """One recorded training step of the timeline.

    Attributes:
        step: the training step.
        rows: its rows.
        end: simulated time from its start to its last event.
        iteration_ends: (T + 1,) end of the last operation before learning in inference iterations 0 … n.
    """

    step: int
    rows: slice
    end: float
    iteration_ends: npt.NDArray[np.float64]


def timeline(trace: TraceReader) -> TableReader:
    """Return the table of events.

    Raises:
        TraceError: the trace has none.
    """
    rows = trace.table("events").rows if "events" in trace.tables else 0
    if not rows:
        engine = trace.attributes.get("engine", "?")
        raise TraceError(
            f"{trace.path} was recorded by the {engine} engine and has no events: "
            "run the model with --engine event and trace.events = true"
        )
    return trace.table("events")


def spans(trace: TraceReader, step: int | None = None) -> list[Span]:
    """Return the recorded training steps of the timeline in their order, or only one.

    Raises:
        TraceError: there is no timeline, or no such step in it, or it has events that cannot be.
    """
    table, found = timeline(trace), list[Span]()
    iterations = int(trace.attributes.get("iterations", 0))
    learn = table.flags("name").index("learn")
    names = ("step", "start", "end", "kind", "name", "target", "iteration")
    for block, columns in table.blocks(names, max_bytes=BLOCK_BYTES):
        _check(table, block, columns)
        for rows in _runs(columns["step"]):
            number = int(columns["step"][rows.start])
            if not found or found[-1].step != number:
                empty = slice(block.start + rows.start, block.start + rows.start)
                found.append(Span(number, empty, 0.0, np.zeros(iterations + 1)))
            span, ends = found[-1], columns["end"][rows]
            span.rows = slice(span.rows.start, block.start + rows.stop)
            span.end = max(span.end, float(ends.max()))
            inference = (columns["kind"][rows] == 0) & (columns["name"][rows] != learn)
            np.maximum.at(span.iteration_ends, columns["iteration"][rows][inference], ends[inference])
    for span in found:
        np.maximum.accumulate(span.iteration_ends, out=span.iteration_ends)
    if step is None:
        return found
    if not (one := [span for span in found if span.step == step]):
        steps = ", ".join(str(span.step) for span in found[:5]) + (", …" if len(found) > 5 else "")
        raise TraceError(f"{trace.path} has no events of training step {step}: recorded are {steps}")
    return one


def _check(table: TableReader, block: slice, columns: dict[str, npt.NDArray[Any]]) -> None:
    """Refuse what the limits of single columns, which the reader knows, let pass.

    Raises:
        TraceError: names the first bad row.
    """
    for bad, what in (
        (
            (columns["kind"] == 1) != (columns["target"] >= 0),
            "expected a target for messages, -1 for operations",
        ),
        (columns["end"] < columns["start"], "ends before it starts"),
    ):
        if bad.any():
            row = block.start + int(np.flatnonzero(bad)[0])
            raise TraceError(f"{table.path}: table 'events', row {row}: {what}")


def _runs(values: npt.NDArray[np.int64]) -> Iterator[slice]:
    """Yield where equal values follow each other."""
    cuts = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    for first, stop in pairwise(cuts):
        yield slice(first, stop)
