"""Traffic and work by layer, from the table `events` of the event engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pcsim.analysis.stream import (
    Described,
    NotRecordedError,
    Progress,
    TraceLike,
    dataset,
    is_backprop,
    opened,
    pieces,
    watched,
)
from pcsim.tracing.reader import TraceReader
from pcsim.tracing.table_reader import TableReader

if TYPE_CHECKING:
    import xarray

AMOUNTS = {
    "multiplications": ("multiplications of operations, whole mini-batch", "1"),
    "values": ("numbers in messages, zeros included", "1"),
    "nonzero_values": ("numbers in messages that are not zero; with a threshold, those sent", "1"),
    "bytes": ("size of messages", "B"),
}
ROW_BYTES = 64  # of the columns that are read
# A key packs name, layer and target; each part is below this.
PART = 2**20


def event_counts(trace: TraceLike, *, progress: Progress | None = None) -> xarray.Dataset:
    """Return how many operations and messages each layer makes, and what they amount to.

    Variables over (event, layer): `count`, `multiplications`, `values`, `nonzero_values`, `bytes`, `time`
    (sum of end − start) and `density` (nonzero_values / values; NaN without values); over (source, target),
    messages only: `link_messages`, `link_values`, `link_nonzero_values`, `link_bytes`. The coordinate `kind`
    says of each event whether it is an operation or a message. All are sums over recorded training steps,
    whose number is in the attribute `recorded_steps`.

    Args:
        trace: an open trace, or the path of one.
        progress: is told how far this has come.

    Raises:
        TraceError: the trace has no events, or cannot be read.
    """
    with opened(trace) as reader:
        events = recorded_events(reader)
        found, recorded = _sums(events, progress)
        names, kinds = events.flags("name"), events.flags("kind")
        layers = max(max(layer, target) for _, layer, target in found) + 1
        by_layer = np.zeros((len(names), layers, 2 + len(AMOUNTS)))
        links = np.zeros((layers, layers, 2 + len(AMOUNTS)))
        is_message = np.zeros(len(names), dtype=bool)
        for (name, layer, target), sums in found.items():
            by_layer[name, layer] += sums
            if target >= 0:
                is_message[name] = True
                links[layer, target] += sums
        return dataset(
            reader,
            "event counts",
            _variables(by_layer, links),
            {
                "event": (("event",), np.array(names), "operation, or kind of message", "1"),
                "kind": (("event",), np.array(kinds)[is_message.astype(int)], "operation or message", "1"),
                "layer": (("layer",), np.arange(layers), "layer that acts or sends", "1"),
                "source": (("source",), np.arange(layers), "layer that sends", "1"),
                "target": (("target",), np.arange(layers), "layer that receives", "1"),
            },
            recorded_steps=recorded,
        )


def recorded_events(trace: TraceReader) -> TableReader:
    """Return the table of events.

    Raises:
        NotRecordedError: there is none, or it is empty.
    """
    if "events" in trace.tables and (events := trace.table("events")).rows:
        return events
    if is_backprop(trace):
        raise NotRecordedError(f"{trace.path} has no events: backprop sends no messages")
    raise NotRecordedError(
        f"{trace.path} has no recorded events: run the model with --engine event and trace.events = true"
    )


def _sums(
    events: TableReader, progress: Progress | None
) -> tuple[dict[tuple[int, int, int], npt.NDArray[np.float64]], int]:
    """Return count, time and amounts by (name, layer, target), and the number of training steps."""
    found: dict[tuple[int, int, int], npt.NDArray[np.float64]] = {}
    recorded, last = 0, -1
    for (rows,) in watched(
        list(pieces((events.rows,), ROW_BYTES, events.column("name").chunk_rows)), "events", progress
    ):
        read = {
            name: events.read(name, rows)
            for name in ("step", "name", "layer", "target", "start", "end", *AMOUNTS)
        }
        # An event's row follows those of its own step, so a new step shows as a change.
        recorded += int((np.diff(read["step"], prepend=last) != 0).sum())
        last = int(read["step"][-1])
        keys = (read["name"].astype(np.int64) * PART + read["layer"] + 1) * PART + read["target"] + 1
        kinds, inverse = np.unique(keys, return_inverse=True)
        weights = [np.ones(len(keys)), read["end"] - read["start"], *(read[name] for name in AMOUNTS)]
        # Sums of a block are whole numbers below 2^53, which float64 holds exactly.
        sums = np.stack([np.bincount(inverse, weight, len(kinds)) for weight in weights], axis=1)
        for key, values in zip(kinds.tolist(), sums, strict=True):
            place = (key // PART**2, key // PART % PART - 1, key % PART - 1)
            found[place] = found.get(place, 0) + values
    return found, recorded


def _variables(by_layer: npt.NDArray[np.float64], links: npt.NDArray[np.float64]) -> dict[str, Described]:
    dims, ends = ("event", "layer"), ("source", "target")
    variables: dict[str, Described] = {
        "count": (dims, by_layer[..., 0].astype(np.int64), "operations done or messages sent", "1"),
        "time": (dims, by_layer[..., 1], "sum of durations", "hardware time units"),
        "link_messages": (ends, links[..., 0].astype(np.int64), "messages from layer to layer", "1"),
    }
    for column, (name, (words, units)) in enumerate(AMOUNTS.items(), start=2):
        variables[name] = (dims, by_layer[..., column].astype(np.int64), words, units)
        if name != "multiplications":
            variables[f"link_{name}"] = (ends, links[..., column].astype(np.int64), words, units)
    values, nonzero = variables["values"][1], variables["nonzero_values"][1]
    density = np.divide(nonzero, values, out=np.full(values.shape, np.nan), where=values > 0)
    return variables | {
        "density": (dims, density, "share of values that are not zero; with a threshold, of those sent", "1")
    }
