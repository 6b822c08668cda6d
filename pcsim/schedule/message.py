"""What travels between layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from pcsim.kernels import Array
from pcsim.network.layer import MessageKind


class Fate(StrEnum):
    """What becomes of a message."""

    ARRIVES = "arrives"
    """It reaches its receiver."""
    DELAYED = "delayed"
    """It reaches its receiver late, and those behind it on the link wait."""
    REORDERED = "reordered"
    """It steps aside and reaches its receiver late; those behind it may overtake it."""
    COPY = "copy"
    """It reaches its receiver a second time, which tells it nothing new."""
    LOST = "lost"
    """It was sent and does not arrive; its receiver notices when it should have come."""
    UNSENT = "unsent"
    """Its sender has died and sends nothing; its receiver notices that too."""


@dataclass(frozen=True)
class Message:
    """A prediction sent up or an error sent down; immutable once sent.

    Attributes:
        kind: what it says.
        source: the layer that sent it.
        target: the neighbour that receives it.
        iteration: inference iterations begun at the source when it was sent.
        payload: (batch, n) values, read-only; None where only time is simulated, or nothing arrives.
        entries: (batch, n), which of the values are sent; None if all are. The others mean nothing.
        fate: what becomes of it.
    """

    kind: MessageKind
    source: int
    target: int
    iteration: int
    payload: Array | None
    entries: npt.NDArray[np.bool_] | None = None
    fate: Fate = Fate.ARRIVES

    @property
    def arrives(self) -> bool:
        """Whether its receiver gets it."""
        return self.fate not in (Fate.LOST, Fate.UNSENT)


Hear = Callable[[Message], None]  # is told of messages; payloads will change: copy what is to be kept
