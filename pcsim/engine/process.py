"""What each layer does next, once the event engine says that it is free.

A process hands out one operation at a time to each layer, or None while the layer has to wait for a
message. It also decides when a message that has arrived is put into the inbox.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from pcsim.errors import ProgramError
from pcsim.kernels import Array
from pcsim.network.layer import Layer, MessageKind
from pcsim.schedule.freshness import Freshness
from pcsim.schedule.message import Fate, Hear, Message
from pcsim.schedule.operation import Operation, Operations, Place
from pcsim.schedule.orders import ReactiveOrder

LONGEST_LIFE = 1000  # operations that a layer may yield in a mini-batch, for each iteration and the sweep

Door = tuple[int, MessageKind]  # a layer and the kind of message that comes in there
Agendas = Mapping[int, Sequence[tuple[Operation, tuple[tuple[Door, int], ...]]]]  # by layer


class Process(Protocol):
    """Decides what layers do; the engine decides when."""

    def next_operation(self, layer: int) -> Operation | None:
        """Return what the layer does now, or None if it waits for a message or is done."""
        ...

    def receive(self, message: Message) -> None:
        """Take a message that has arrived."""
        ...


def deliver(message: Message, units: Sequence[Layer] | None, hearers: Sequence[Hear] = ()) -> None:
    """Put a message into the inbox, where it replaces the one of the same kind before it.

    If it brings some entries only, the others stay as they are; all of them if it is missing. Who hears of it
    is told what the inbox holds then.
    """
    if units is None:
        return
    inbox = units[message.target].inbox
    if message.payload is not None:
        inbox[message.kind] = _brought_up_to_date(inbox, message, message.payload)
    for hear in hearers:
        hear(replace(message, payload=inbox[message.kind], entries=None))


def _brought_up_to_date(inbox: Mapping[MessageKind, Array], message: Message, payload: Array) -> Array:
    """Return what a message makes of what lies in the inbox."""
    if message.entries is None:
        return payload
    merged = inbox[message.kind].copy(order="K")
    np.copyto(merged, payload, where=message.entries)
    return merged


def write_agendas(operations: Iterable[Operation]) -> Agendas:
    """Split a list among its layers; note for each operation which messages must have come by then.

    It must find the very messages that it would find if the list ran from top to bottom: the number is
    how many of that kind have been sent to the layer before it in the list.
    """
    agendas: dict[int, list[tuple[Operation, tuple[tuple[Door, int], ...]]]] = defaultdict(list)
    sent: dict[Door, int] = defaultdict(int)
    for operation in operations:
        doors = [(operation.layer, kind) for kind in MessageKind]
        needed = tuple(
            (door, sent[door]) for door in doors if sent[door] and Place.inbox(*door) in operation.reads
        )
        agendas[operation.layer].append((operation, needed))
        if operation.sends is not None:
            sent[operation.target, operation.sends] += 1
    return {layer: tuple(agenda) for layer, agenda in agendas.items()}


@dataclass(slots=True)
class _LetterBox:
    """What has come in through a door.

    Attributes:
        waiting: messages that nobody has needed yet.
        come: how many have come, copies not counted.
        read: how many of those have been put into the inbox.
    """

    waiting: deque[Message] = field(default_factory=deque)
    come: int = 0
    read: int = 0


def check_letters(operation: Operation, unit: Layer) -> None:
    """Refuse an operation that reads a message of a kind that has never come.

    Raises:
        ProgramError: it does.
    """
    for kind in MessageKind:
        if Place.inbox(operation.layer, kind) in operation.reads and kind not in unit.inbox:
            raise ProgramError(
                f"{operation} reads its inbox, where no {kind} has come yet: "
                "expected an order that sends it first; yield None to wait for a message"
            )


class InOrder:
    """Every layer works through its own part of a fixed list, waiting for the messages that it needs.

    A message that comes early waits at the door until the ones before it have served. So the numbers do
    not depend on how long anything takes. A message that is missing counts as one that has come: the layer
    goes on with the one before. A second copy does not count.
    """

    def __init__(self, agendas: Agendas, units: Sequence[Layer] | None, hearers: Sequence[Hear] = ()) -> None:
        self._units, self._hearers = units, hearers
        self._agendas = agendas
        self._done: dict[int, int] = dict.fromkeys(agendas, 0)
        self._boxes: dict[Door, _LetterBox] = defaultdict(_LetterBox)

    def next_operation(self, layer: int) -> Operation | None:
        """Return the layer's next operation if its messages are there."""
        agenda = self._agendas.get(layer, ())
        done = self._done.get(layer, 0)
        if done == len(agenda):
            return None
        operation, needed = agenda[done]
        for door, number in needed:
            if self._boxes[door].come < number:
                return None
        for door, number in needed:
            box = self._boxes[door]
            while box.read < number:
                message = box.waiting.popleft()
                deliver(message, self._units, self._hearers)
                box.read += message.fate is not Fate.COPY
        self._done[layer] = done + 1
        return operation

    def receive(self, message: Message) -> None:
        """Keep a message at the door."""
        box = self._boxes[message.target, message.kind]
        box.waiting.append(message)
        box.come += message.fate is not Fate.COPY


class Reacting:
    """Every layer acts on whatever is in its inbox whenever something arrives: no barrier, no list.

    Raises:
        ProgramError: here or later, an order that yields no operations of the layer, or has no end.
    """

    def __init__(
        self,
        order: ReactiveOrder,
        ops: Operations,
        units: Sequence[Layer] | None,
        hearers: Sequence[Hear] = (),
    ) -> None:
        self._units, self._hearers = units, hearers
        self._freshness = Freshness()
        self._name = getattr(order, "__name__", repr(order))
        self._life = [self._begin(order, ops, layer) for layer in range(ops.top + 1)]
        self._limit, self._yielded = LONGEST_LIFE * (len(ops.step_sizes) + 1), [0] * (ops.top + 1)
        self._news = [False] * (ops.top + 1)
        self._waits = [False] * (ops.top + 1)

    def next_operation(self, layer: int) -> Operation | None:
        """Return the layer's next operation that would change something."""
        while True:
            if self._waits[layer]:
                if not self._news[layer]:
                    return None
                self._waits[layer] = self._news[layer] = False
            operation = next(self._life[layer], None)
            if operation is None:
                self._waits[layer] = True
                continue
            self._check(layer, operation)
            if not self._freshness.is_stale(operation):
                self._freshness.note(operation)
                return operation

    def _begin(self, order: ReactiveOrder, ops: Operations, layer: int) -> Iterator[Operation | None]:
        """Return what will yield a layer's operations."""
        try:
            life = order(ops, layer)
        except TypeError as error:
            raise ProgramError(
                f"order '{self._name}': {error}: expected a function of operations and layer"
            ) from error
        if not isinstance(life, Iterator):
            raise ProgramError(
                f"order '{self._name}' returns {life!r}: write it as a generator of operations"
            )
        return life

    def _check(self, layer: int, operation: Operation) -> None:
        """Refuse what no layer can do, and a life without an end."""
        if not isinstance(operation, Operation):
            raise ProgramError(
                f"order '{self._name}' yields {operation!r} for layer {layer}: expected operations, "
                "or None to wait"
            )
        if operation.layer != layer:
            raise ProgramError(f"order '{self._name}' yields {operation} for layer {layer}: expected its own")
        if self._units is not None:
            check_letters(operation, self._units[layer])
        self._yielded[layer] += 1
        if self._yielded[layer] > self._limit:
            raise ProgramError(
                f"order '{self._name}': layer {layer} has yielded {self._limit} operations in one mini-batch "
                "and goes on: expected an order that ends, as after T relaxations"
            )

    def receive(self, message: Message) -> None:
        """Put a message straight into the inbox and wake the layer; one that is missing only wakes it."""
        deliver(message, self._units, self._hearers)
        if message.arrives:
            self._freshness.note_arrival(Place.inbox(message.target, message.kind))
        self._news[message.target] = True
