"""Backpropagation as a program of local operations, so that it can be counted and scheduled like the others.

It is no predictive coding: one sweep up, one down, one update. What it shares with inference learning is the
vocabulary of products: p_{l+1} = W_l f(ĥ_l) on the way up, f'(ĥ_l) ⊙ W_lᵀ e_{l+1} on the way down, and
e_{l+1} f(ĥ_l)ᵀ for the gradient. Training by it is the business of `pcsim.engine.backprop`; the tests hold
the two together.
"""

from __future__ import annotations

from collections.abc import Iterator

from pcsim.kernels import Array
from pcsim.network.layer import Layer, MessageKind
from pcsim.schedule.operation import Operation, Operations, Place


def backpropagation(ops: Operations) -> Iterator[Operation]:
    """Sweep up, clamp the output, send the gradient down, learn; the gradient of the input is not formed.

    With a hard clamp every update is that of gradient descent on the loss; a soft clamp scales it by 1 − m.
    """
    for operation in ops.forward_sweep():
        if operation.name != "compare" or operation.layer == ops.top:
            yield operation
    for layer in reversed(ops.hidden):
        yield send_back(ops, layer)
    yield from ops.learning_phase()


def send_back(ops: Operations, layer: int) -> Operation:
    """Return the operation that forms e_l = f'(ĥ_l) ⊙ W_lᵀ e_{l+1} and sends it down."""
    relax = ops.relax(layer, 1)
    return Operation(
        "send_back",
        layer,
        1,
        relax.reads - {Place(layer, "error")},
        frozenset({Place(layer, "error")}),
        MessageKind.ERROR,
        relax.multiplications,
        ops.network.sizes[layer],
        action=_send_back,
    )


def _send_back(unit: Layer) -> Array:
    """Form the gradient as a relaxation by a whole step would move a layer without an error of its own."""
    before = unit.activity.copy()
    unit.error[...] = 0
    unit.relax(1.0)
    unit.error[...] = unit.activity - before
    unit.activity[...] = before
    return unit.error
