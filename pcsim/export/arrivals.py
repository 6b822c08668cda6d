"""Which numbers of which messages have come: what the message columns of probes do not say by themselves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pcsim.export.events import spans
from pcsim.export.recorded import Array, Recording

Sender: TypeAlias = tuple[str, int]  # prediction or error, and the layer that sends it
Arrivals: TypeAlias = Mapping[Sender, set[int]]  # iterations


def arrivals(recording: Recording, step: int) -> Arrivals | None:
    """Return in which iterations messages came, by kind and sender; None without a timeline of the step."""
    trace = recording.trace
    if "events" not in trace.tables or not trace.table("events").rows:
        return None
    rows = next((span.rows for span in spans(trace) if span.step == step), None)
    if rows is None:
        return None
    table, found = trace.table("events"), defaultdict[Sender, set[int]](set)
    message = table.read("kind", rows) == 1
    if "fate" in table.columns:
        message &= table.decode("fate", rows) != "lost"
    senders, iterations = table.read("layer", rows)[message], table.read("iteration", rows)[message]
    for kind, layer, iteration in zip(
        table.decode("name", rows)[message], senders.tolist(), iterations.tolist(), strict=True
    ):
        found[str(kind), layer].add(iteration)
    return dict(found)


def brought(
    recording: Recording,
    column: str,
    step: int,
    array: Array,
    known: Arrivals | None,
) -> npt.NDArray[np.bool_]:
    """Return which numbers of a message column (samples, T + 1, n) have come, of the same shape.

    Args:
        recording: that has the column.
        column: its name.
        step: training step.
        array: the column at that step.
        known: when messages came; without it one came where a row is not that of the iteration before.
    """
    name, _, layer = column.rpartition("_")
    kind, times = name.partition("_")[0], array.shape[1]
    copy = _copy_before(recording, column, step, array)
    partial = not recording.model.channels.brings_all(kind, int(layer))
    if known is None:
        rows = np.concatenate([np.zeros_like(array[:, :1]), array], axis=1)  # zero before the first message
        came = set(np.flatnonzero((rows[:, 1:] != rows[:, :-1]).any(axis=(0, 2))).tolist())
    else:
        came = known.get((kind, int(layer)), set())
    found = np.zeros(array.shape, dtype=bool)
    for time in sorted(came & set(range(times))):
        row = array[:, time]
        if partial and copy is not None:  # −0 in place of 0 was sent too
            found[:, time] = (row != copy) | (np.signbit(row) != np.signbit(copy))
        else:
            found[:, time] = row != 0
        copy = row
    return found


def _copy_before(recording: Recording, column: str, step: int, array: Array) -> Array | None:
    """Return what a receiver had of messages before a training step, (samples, n); None if unknown."""
    if step == 0:
        return np.zeros_like(array[:, 0])
    if not recording.has(column, step - 1):
        return None
    before = recording.states([column], step - 1).arrays[column][-1]
    return before if before.shape == array[:, 0].shape else None


def begins_whole(recording: Recording, column: str, step: int) -> bool:
    """Return whether a message column's first message is all that a receiver had, not only what has come."""
    name, _, layer = column.rpartition("_")
    if recording.model.channels.brings_all(name.partition("_")[0], int(layer)):
        return False
    return step > 0 and not recording.has(column, step - 1)
