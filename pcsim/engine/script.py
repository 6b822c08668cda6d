"""The way of a mini-batch through the event queue, found once and followed again.

Where nothing is left to chance, a static program takes the same way in every mini-batch: the same operations
and messages at the same times, whatever their numbers. So the queue is needed for the first one only. What
differs from one to the next is counted again: how many numbers of each message are not zero.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pcsim.engine.checks import checked_payload
from pcsim.engine.observer import Watching
from pcsim.engine.process import Agendas, Door
from pcsim.kernels import Array
from pcsim.network.layer import Layer, MessageKind
from pcsim.schedule.operation import Action, Operation

if TYPE_CHECKING:
    from pcsim.engine.totals import Event, Totals

Delivery = tuple[dict[MessageKind, Array], MessageKind, Array]  # an inbox, a kind, and where the message is


@dataclass(frozen=True, slots=True)
class Line:
    """One operation of a script.

    Attributes:
        operation: what is done.
        action: how.
        unit: who does it.
        deliveries: messages that it needs and that are put into the inbox before.
        message: for a copy of what it sends, which nobody else writes to; None if it sends nothing.
        watching: the observers that look on.
    """

    operation: Operation
    action: Action
    unit: Layer
    deliveries: tuple[Delivery, ...]
    message: Array | None
    watching: Watching


def lines_of(
    acted: Sequence[Operation],
    agendas: Agendas,
    units: Sequence[Layer],
    watching: Mapping[int, Watching],
    fused: Mapping[int, Action],
) -> tuple[Line, ...]:
    """Return the script of a mini-batch.

    Messages lie in buffers that are used again when another message has taken their place in the inbox, and
    in the next mini-batch: no program reads a message before it is sent one (see `Program.build`).

    Args:
        acted: its operations in the order in which the queue took them.
        agendas: which messages each operation needs; see `pcsim.engine.process.write_agendas`.
        units: the layers that act.
        watching: the observers that look on, by the identities of the operations that they see.
        fused: what operations do that are fused with another, by their identities.
    """
    coming = {layer: iter(agenda) for layer, agenda in agendas.items()}
    sent: dict[Door, list[Array]] = defaultdict(list)
    delivered: dict[Door, int] = defaultdict(int)
    free: dict[Door, list[Array]] = defaultdict(list)
    lines = []
    for operation in acted:
        deliveries = []
        for door, number in next(coming[operation.layer])[1]:
            before = delivered[door]
            if before < number:  # of several that have come only the last is read
                if before:
                    free[door].append(sent[door][before - 1])
                deliveries.append((units[door[0]].inbox, door[1], _read_only(sent[door][number - 1])))
                delivered[door] = number
        message = None
        if operation.sends is not None:
            door, upper = (operation.target, operation.sends), max(operation.layer, operation.target)
            message = free[door].pop() if free[door] else _buffer(units[upper])
            sent[door].append(message)
        action, seen = fused.get(id(operation), operation.action), watching.get(id(operation), ())
        lines.append(Line(operation, action, units[operation.layer], tuple(deliveries), message, seen))
    return tuple(lines)


def _buffer(upper: Layer) -> Array:
    """Return room for a message between a layer and the one below it: both kinds are about its neurons."""
    return upper.kernels.mini_batch(upper.activity.shape, upper.activity.dtype)


def _read_only(message: Array) -> Array:
    """Return a view that its reader cannot change, where arrays know of such."""
    if isinstance(message, np.ndarray):
        message = message.view()
        message.flags.writeable = False
    return message


class Script:
    """What happens in every mini-batch.

    Args:
        lines: the operations.
        timeline: the events of the first mini-batch, by start.
        once: what one mini-batch adds to each of the totals.
    """

    def __init__(self, lines: Sequence[Line], timeline: Sequence[Event], once: Mapping[str, float]) -> None:
        self._lines, self._timeline = tuple(lines), tuple(timeline)
        self._once = {name: count for name, count in once.items() if name != "nonzero_values"}
        self._nonzero = [0] * sum(event.kind == "message" for event in timeline)
        waiting: dict[tuple[int, int], list[int]] = defaultdict(list)
        sending = (line.operation for line in self._lines if line.message is not None)
        for number, operation in enumerate(sending):
            waiting[operation.layer, operation.target].append(number)
        # A link carries its messages in the order of sending, which is that of their starts.
        links = {link: iter(numbers) for link, numbers in waiting.items()}
        self._numbers = [
            next(links[event.layer, event.target]) if event.kind == "message" else -1 for event in timeline
        ]
        self._latest = list(timeline)

    def follow(self, totals: Totals) -> None:
        """Let a mini-batch pass and add what happens to the totals."""
        number = 0
        for line in self._lines:
            unit, message = line.unit, line.message
            for inbox, kind, delivered in line.deliveries:
                inbox[kind] = delivered
            payload = line.action(unit)
            for observe in line.watching:
                observe(line.operation, unit)
            if message is not None:
                payload = checked_payload(line.operation, payload, message.shape)
                self._nonzero[number] = unit.kernels.copy_and_count(payload, message)
                number += 1
        for name, count in self._once.items():
            setattr(totals, name, getattr(totals, name) + count)
        totals.nonzero_values += sum(self._nonzero)
        self._latest = []

    def timeline(self) -> list[Event]:
        """Return the events of the latest mini-batch, by start."""
        if not self._latest:
            self._latest = [
                event if number < 0 else replace(event, nonzero_values=self._nonzero[number])
                for event, number in zip(self._timeline, self._numbers, strict=True)
            ]
        return self._latest
