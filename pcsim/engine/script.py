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
from pcsim.engine.observer import Observer
from pcsim.engine.process import Agendas, Door
from pcsim.kernels import Array
from pcsim.network.layer import Layer, MessageKind
from pcsim.schedule.operation import Operation

if TYPE_CHECKING:
    from pcsim.engine.event import Event, Totals

Delivery = tuple[dict[MessageKind, Array], MessageKind, int]  # an inbox, a kind, and the message's number


@dataclass(frozen=True, slots=True)
class Line:
    """One operation of a script.

    Attributes:
        operation: what is done.
        unit: who does it.
        deliveries: messages that it needs and that are put into the inbox before.
        shape: of the message that it sends; None if it sends none. Messages are numbered in this order.
        watched: whether observers look on.
    """

    operation: Operation
    unit: Layer
    deliveries: tuple[Delivery, ...]
    shape: tuple[int, ...] | None
    watched: bool


def lines_of(
    acted: Sequence[Operation], agendas: Agendas, units: Sequence[Layer], watched: frozenset[int]
) -> tuple[Line, ...]:
    """Return the script of a mini-batch.

    Args:
        acted: its operations in the order in which the queue took them.
        agendas: which messages each operation needs; see `pcsim.engine.process.write_agendas`.
        units: the layers that act.
        watched: identities of the operations that observers see; none means all.
    """
    coming = {layer: iter(agenda) for layer, agenda in agendas.items()}
    sent: dict[Door, list[int]] = defaultdict(list)
    delivered: dict[Door, int] = defaultdict(int)
    lines, messages = [], 0
    for operation in acted:
        deliveries = []
        for door, number in next(coming[operation.layer])[1]:
            if delivered[door] < number:  # of several that have come only the last is read
                deliveries.append((units[door[0]].inbox, door[1], sent[door][number - 1]))
                delivered[door] = number
        shape = None
        if operation.sends is not None:
            shape = units[max(operation.layer, operation.target)].activity.shape
            sent[operation.target, operation.sends].append(messages)
            messages += 1
        seen = not watched or id(operation) in watched
        lines.append(Line(operation, units[operation.layer], tuple(deliveries), shape, seen))
    return tuple(lines)


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
        sending = (line.operation for line in self._lines if line.shape is not None)
        for number, operation in enumerate(sending):
            waiting[operation.layer, operation.target].append(number)
        # A link carries its messages in the order of sending, which is that of their starts.
        links = {link: iter(numbers) for link, numbers in waiting.items()}
        self._numbers = [
            next(links[event.layer, event.target]) if event.kind == "message" else -1 for event in timeline
        ]
        self._latest = list(timeline)

    def follow(self, observers: Sequence[Observer], totals: Totals) -> None:
        """Let a mini-batch pass and add what happens to the totals."""
        payloads: list[Array] = []
        for line in self._lines:
            for inbox, kind, number in line.deliveries:
                inbox[kind] = payloads[number]
            payload = line.operation.action(line.unit)
            if line.watched:
                for observer in observers:
                    observer.observe(line.operation, line.unit)
            if line.shape is not None:
                copy = line.unit.kernels.snapshot(checked_payload(line.operation, payload, line.shape))
                self._nonzero[len(payloads)] = int(np.count_nonzero(np.asarray(copy)))
                payloads.append(copy)
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
