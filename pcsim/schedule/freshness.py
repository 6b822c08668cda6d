"""The rule of event-driven work: do, and send, only what has changed."""

from __future__ import annotations

from collections import Counter

from pcsim.schedule.operation import Operation, Place

Versions = tuple[tuple[Place, int], ...]


class Freshness:
    """Remembers what each operation last saw, to tell whether doing it again could change anything.

    An operation is stale if the same action has run before, nothing that it reads has changed since, and
    nobody else has changed what it wrote or replaced what it sent. Relaxing and learning change what they
    read, so they are never stale; nor is a user's own action that is made anew each time.
    """

    def __init__(self) -> None:
        self._versions: Counter[Place] = Counter()
        self._writer: dict[Place, Operation] = {}
        self._seen: dict[tuple[str, int], tuple[Operation, Versions]] = {}

    def is_stale(self, operation: Operation) -> bool:
        """Return whether the operation would only repeat what it did last time."""
        last = self._seen.get(self._key(operation))
        if last is None or last[0].action is not operation.action or last[1] != self._look(operation):
            return False
        if operation.sends not in (None, last[0].sends):  # it is up to date, but has told nobody
            return False
        return all(self._writer.get(place) is last[0] for place in operation.changes)

    def note(self, operation: Operation) -> None:
        """Record that the operation runs now: what it sees, then what it changes at its own layer."""
        self._seen[self._key(operation)] = (operation, self._look(operation))
        for place in operation.changes:
            self._writer[place] = operation
        for place in operation.writes:
            self._versions[place] += 1

    def note_arrival(self, place: Place) -> None:
        """Record that a message has reached this place in an inbox."""
        self._versions[place] += 1

    def _look(self, operation: Operation) -> Versions:
        return tuple((place, self._versions[place]) for place in sorted(operation.reads))

    @staticmethod
    def _key(operation: Operation) -> tuple[str, int]:
        return operation.name, operation.layer
