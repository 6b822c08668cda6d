"""The recorded messages of one training step, as timesteps in which numbers are sent one by one.

A timestep is one sample of one moment of the timeline: messages that start at the same simulated time share
their timesteps, and a mini-batch of B samples takes B of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pcsim.errors import TraceError
from pcsim.export.events import spans, timeline
from pcsim.tracing.reader import TraceReader

Sent: TypeAlias = npt.NDArray[np.bool_]
Port: TypeAlias = tuple[str, int]  # kind of message, layer that sends it


@dataclass(frozen=True)
class Message:
    """A recorded message.

    Attributes:
        kind: prediction (to the layer above) or error (to the layer below).
        source: the layer that sends it.
        moment: which moment of the timeline it starts at.
        numbers: in it, all samples together.
        nonzero: those that are not zero; with a threshold, those sent.
    """

    kind: str
    source: int
    moment: int
    numbers: int
    nonzero: int


@dataclass(frozen=True)
class Traffic:
    """The messages of a training step.

    Attributes:
        step: the training step.
        sizes: neurons of each layer.
        batch: samples.
        moments: distinct times at which messages start.
        messages: in the order of the timeline.
    """

    step: int
    sizes: tuple[int, ...]
    batch: int
    moments: int
    messages: tuple[Message, ...]

    @property
    def timesteps(self) -> int:
        """One a sample and moment, and one more in which the last receivers are updated."""
        return self.moments * self.batch + 1

    @cached_property
    def sent(self) -> Mapping[Port, Sent]:
        """Which numbers a layer sends in which timestep, (timesteps, neurons they are about), by port.

        A trace counts the numbers of a message that are not zero and does not say which they are: they are
        spread evenly over samples and neurons.
        """
        ports: dict[Port, Sent] = {}
        for one in self.messages:
            width = self.sizes[one.source + (one.kind == "prediction")]
            sent = ports.setdefault((one.kind, one.source), np.zeros((self.timesteps, width), dtype=bool))
            rows = slice(one.moment * self.batch, (one.moment + 1) * self.batch)
            sent[rows] = spread(one.nonzero, one.numbers).reshape(self.batch, width)
        return dict(sorted(ports.items()))


def spread(chosen: int, places: int) -> Sent:
    """Choose so many of some places that every stretch of them has its share, less than one off."""
    return np.diff(np.arange(places + 1) * chosen // places).astype(bool)


def read_traffic(trace: TraceReader, sizes: tuple[int, ...], step: int | None) -> Traffic:
    """Read a training step of the timeline, the last one unless it is named.

    Raises:
        TraceError: there is no timeline, or no such step in it, or a message does not fit the network.
    """
    table, span = timeline(trace), spans(trace, step)[-1]
    kinds = table.decode("name", span.rows)
    columns = {
        name: table.read(name, span.rows)
        for name in ("kind", "layer", "target", "start", "values", "nonzero_values")
    }
    rows = np.flatnonzero(columns["kind"] == 1)
    rows = rows[np.argsort(columns["start"][rows], kind="stable")]
    messages, moment, start, busy, batches = list[Message](), -1, -1.0, set[Port](), set[int]()
    for row in rows:
        kind, source, target = str(kinds[row]), int(columns["layer"][row]), int(columns["target"][row])
        numbers, nonzero = int(columns["values"][row]), int(columns["nonzero_values"][row])
        batches.add(_batch(trace, sizes, (kind, source, target), numbers, nonzero))
        if columns["start"][row] != start or (kind, source) in busy:
            moment, start, busy = moment + 1, float(columns["start"][row]), set()
        busy.add((kind, source))
        messages.append(Message(kind, source, moment, numbers, nonzero))
    if len(batches) != 1:
        found = ", ".join(map(str, sorted(batches))) or "no message"
        raise TraceError(
            f"{trace.path}: training step {span.step} has mini-batches of {found}: expected one size"
        )
    return Traffic(span.step, sizes, batches.pop(), moment + 1, tuple(messages))


def _batch(
    trace: TraceReader, sizes: tuple[int, ...], route: tuple[str, int, int], numbers: int, nonzero: int
) -> int:
    """Return how many samples a message is about."""
    kind, source, target = route
    up = {"prediction": 1, "error": -1}.get(kind)
    inside = 0 <= source < len(sizes) and 0 <= target < len(sizes)
    about = max(source, target)
    if not inside or up is None or target - source != up or numbers < 1 or numbers % sizes[about]:
        raise TraceError(
            f"{trace.path}: a {kind} of {numbers} numbers from layer {source} to {target}: expected a "
            "prediction to the next layer or an error to the one before, a number for each neuron and sample"
        )
    if not 0 <= nonzero <= numbers:
        raise TraceError(f"{trace.path}: {nonzero} of {numbers} numbers not zero: expected 0 to {numbers}")
    return numbers // sizes[about]
