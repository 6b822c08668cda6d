"""What travels between layers."""

from __future__ import annotations

from dataclasses import dataclass

from pcsim.kernels import Array
from pcsim.network.layer import MessageKind


@dataclass(frozen=True)
class Message:
    """A prediction sent up or an error sent down; immutable once sent.

    Attributes:
        kind: what it says.
        source: the layer that sent it.
        target: the neighbour that receives it.
        iteration: inference iterations begun at the source when it was sent.
        payload: (batch, n) values, read-only; None where only time is simulated.
    """

    kind: MessageKind
    source: int
    target: int
    iteration: int
    payload: Array | None
