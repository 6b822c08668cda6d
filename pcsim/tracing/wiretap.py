"""Hearing what layers send, on any engine: each operation of a plan that sends something also reports it.

Where nothing happens to messages on their way, that is what their receivers get. Channels tell of what they
carry by themselves; see `pcsim.engine.observer.Listener`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from pcsim.network.layer import Layer
from pcsim.schedule.message import Hear, Message
from pcsim.schedule.operation import Operation, Operations
from pcsim.schedule.orders import ReactiveOrder
from pcsim.schedule.program import Program, Reaction


class _Tapped:
    """The action of an operation, which also tells what it sends before that is on its way."""

    def __init__(self, operation: Operation, hear: Hear) -> None:
        self.operation, self.action, self._hear = operation, operation.action, hear

    def __call__(self, unit: Layer) -> NDArray[Any] | None:
        payload = self.action(unit)
        # The engine says what is wrong with an operation that ought to send and does not.
        one = self.operation
        if one.sends is not None and payload is not None:
            self._hear(Message(one.sends, one.layer, one.target, one.iteration, payload))
        return payload


def tap(plan: Program | Reaction, hear: Hear) -> Program | Reaction:
    """Return the same plan, whose operations also report what they send.

    Args:
        plan: a program, or how layers react.
        hear: called with each message, whose payload (batch, n) will change: copy it.
    """
    if isinstance(plan, Reaction):
        return replace(plan, order=_tapped_order(plan.order, hear))
    tapped = (replace(one, action=_Tapped(one, hear)) if one.sends else one for one in plan.operations)
    return replace(plan, operations=tuple(tapped))


def _tapped_order(order: ReactiveOrder, hear: Hear) -> ReactiveOrder:
    def tapped(ops: Operations, layer: int) -> Iterator[Operation | None]:
        latest: dict[str, _Tapped] = {}
        for operation in order(ops, layer):
            if operation is None:
                yield None
                continue
            # An operation is skipped as stale only if its action is that of last time, which may have been
            # one that sent nothing: keep it the same.
            action = latest.get(operation.name)
            if action is None or action.action is not operation.action:
                action = latest[operation.name] = _Tapped(operation, hear)
            action.operation = operation  # it acts, if at all, before the next one is asked for
            yield replace(operation, action=action)

    return tapped
