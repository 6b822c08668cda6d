"""What an event engine tells: each operation and message, from start to end, and all of them together."""

from __future__ import annotations

from dataclasses import dataclass

from pcsim.engine.channel import EXACT, Roundoff
from pcsim.schedule.message import Fate


@dataclass(frozen=True, slots=True)
class Event:
    """One operation or one message, from start to end.

    Attributes:
        kind: "operation" or "message".
        name: of the operation, or the message's kind.
        layer: who acts or sends.
        target: who receives; −1 for an operation.
        iteration: inference iterations begun at that layer.
        start: time of start, in the hardware's time units.
        end: time of end.
        multiplications: done by the operation, whole mini-batch.
        values: numbers in the message, zeros included.
        nonzero_values: those that an event-driven link would carry; all of them if only time is simulated.
            Of a message with a threshold all entries that are sent.
        bytes: size of the message.
        fate: of a message; of an operation unsent, if its core was too dead to send what it says.
        roundoff: of a message, or of the activity that an operation writes.
    """

    kind: str
    name: str
    layer: int
    target: int
    iteration: int
    start: float
    end: float
    multiplications: int = 0
    values: int = 0
    nonzero_values: int = 0
    bytes: int = 0
    fate: Fate = Fate.ARRIVES
    roundoff: Roundoff = EXACT


@dataclass
class Totals:
    """What has happened since the engine was made.

    Attributes:
        operations: done.
        multiplications: done by them.
        messages: sent, copies included; each is received, lost or in flight.
        values: numbers in them, zeros included.
        nonzero_values: numbers in them that an event-driven link would carry.
        bytes: of them.
        received: messages that have reached their receiver.
        lost: messages that were dropped on purpose.
        copies: messages that are a second copy of another.
        unsent: messages that a dead core did not send; they are not among the messages.
        simulated_time: of all mini-batches, one after the other.
    """

    operations: int = 0
    multiplications: int = 0
    messages: int = 0
    values: int = 0
    nonzero_values: int = 0
    bytes: int = 0
    simulated_time: float = 0.0
    received: int = 0
    lost: int = 0
    copies: int = 0
    unsent: int = 0

    @property
    def in_flight(self) -> int:
        """Messages that are still on their way."""
        return self.messages - self.received - self.lost

    def count(self, event: Event) -> None:
        """Add one event; time is added when a mini-batch is over."""
        self.operations += event.kind == "operation"
        self.messages += event.kind == "message"
        self.multiplications += event.multiplications
        self.values += event.values
        self.nonzero_values += event.nonzero_values
        self.bytes += event.bytes
        if event.fate is not Fate.ARRIVES:  # most often it is
            self.copies += event.fate is Fate.COPY

    def count_end(self, fate: Fate) -> None:
        """Add the end of a message's way."""
        self.lost += fate is Fate.LOST
        self.unsent += fate is Fate.UNSENT
        self.received += fate is not Fate.LOST and fate is not Fate.UNSENT
