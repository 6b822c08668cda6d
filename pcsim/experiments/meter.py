"""Counts, while a network runs, the work that is about numbers that are not zero."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from pcsim.engine.totals import Event
from pcsim.experiments.sending import with_values
from pcsim.hardware.charge import Done
from pcsim.hardware.work import Used
from pcsim.kernels import Array, reference
from pcsim.network.layer import Layer, MessageKind
from pcsim.network.network import Network
from pcsim.schedule.channel import Channels
from pcsim.schedule.operation import Operation, Place

Action = Callable[[Layer], Array | None]


class Meter:
    """Looks at the numbers of each operation just before and after it is done."""

    def __init__(self, network: Network, batch: int) -> None:
        self._network, self._batch = network, batch
        self._done: list[tuple[int, Operation, Used]] = []
        self._latest: dict[int, Operation] = {}
        self._counted: dict[tuple[int, int], tuple[Action, Action]] = {}
        self.rates = self.active = 0

    def watch(self, operation: Operation, place: int = 0) -> Operation:
        """Return the operation that does the same and is counted; `place` is its index in a program."""
        return replace(operation, action=partial(self._perform, operation, place))

    def watch_next(self, operation: Operation) -> Operation:
        """Return the same for the next operation of a layer that reacts to messages.

        What would only repeat itself is told by its action's identity, so equal actions stay equal.
        """
        self._latest[operation.layer] = operation
        key = operation.layer, id(operation.action)
        if key not in self._counted:  # keeps the original, too, so that its id stays its own
            counted = partial(self._perform_latest, operation.layer)
            self._counted[key] = operation.action, counted
        return replace(operation, action=self._counted[key][1])

    def take(self) -> Done:
        """Return what was done since the last time, by place, and forget it."""
        done, self._done = self._done, []
        return tuple((operation, used) for _, operation, used in sorted(done, key=lambda one: one[0]))

    def _perform_latest(self, layer: int, unit: Layer) -> Array | None:
        return self._perform(self._latest[layer], 0, unit)

    def _perform(self, operation: Operation, place: int, unit: Layer) -> Array | None:
        products, weights = self._products(operation, unit)
        payload = operation.action(unit)
        values = 0 if operation.sends is None or payload is None else np.count_nonzero(payload)
        self._done.append((place, operation, Used(products, weights, int(values))))
        return payload

    def _products(self, operation: Operation, unit: Layer) -> tuple[int, int]:
        """Count products whose factors are not zero, and the weights that they are about."""
        if not operation.multiplications:
            return 0, 0
        everything = Used.all_of(operation, self._network, self._batch)
        if operation.sends is MessageKind.PREDICTION:
            rates = _rates(unit)
            self.rates += rates.size
            self.active += int(np.count_nonzero(rates))
            outputs = everything.products / rates.size
            return round(np.count_nonzero(rates) * outputs), _columns(rates) * len(unit.weight)
        if Place(operation.layer, "inbox.error") not in operation.reads:
            return int(everything.products), int(everything.weights)
        delta, rates = _factors(unit)
        if Place(operation.layer, "weight") in operation.writes:
            return _pairs(delta, rates)
        return int(np.count_nonzero(delta)) * rates.shape[1], _columns(delta) * rates.shape[1]


def as_sent(done: Done, timeline: Sequence[Event], network: Network, channels: Channels) -> Done:
    """Return the same operations with what an event-driven link carries of their messages.

    These are the entries that pass a threshold, else the values that are not zero once they are rounded. A
    link carries messages in the order of sending, so its n-th message is its sender's n-th.
    """
    sent: dict[tuple[int, int], deque[Event]] = defaultdict(deque)
    for event in timeline:
        if event.kind == "message":
            sent[event.layer, event.target].append(event)
    told = []
    for operation, used in done:
        if operation.sends is not None:
            event = sent[operation.layer, operation.target].popleft()
            used = with_values(operation, used, event.nonzero_values, network, channels)
        told.append((operation, used))
    return told


def _rates(unit: Layer) -> Array:
    """Return f(ĥ_l) as the products with W_l take it, a row a sample or window."""
    nothing = np.zeros_like(unit.outgoing)
    _, rates, activation = unit.synapses.operands(nothing, unit.activity)
    return reference.activate(activation, rates)


def _factors(unit: Layer) -> tuple[Array, Array]:
    """Return δ and f(ĥ_l), whose outer products are learnt from; a row a sample or window."""
    delta, rates, activation = unit.synapses.operands(unit.inbox[MessageKind.ERROR], unit.activity)
    return delta, reference.activate(activation, rates)


def _columns(factors: Array) -> int:
    """Count the columns in which at least one row is not zero."""
    return int(np.count_nonzero(factors.any(axis=0)))


def _pairs(delta: Array, rates: Array) -> tuple[int, int]:
    """Count pairs of non-zero factors in the same row, and the weights between them."""
    errors, inputs = (delta != 0), (rates != 0)
    products = int(np.dot(errors.sum(axis=1, dtype=np.int64), inputs.sum(axis=1, dtype=np.int64)))
    shared = errors.T.astype(np.float32) @ inputs.astype(np.float32)
    return products, int(np.count_nonzero(shared))
