"""A training step as one graph: a GPU is told once what to do, and from then on only to do it again.

To tell it operation by operation takes the host longer than the operations take. A step can be recorded if
nothing in it comes from the host, or goes there, but x and y.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from operator import is_
from typing import SupportsFloat

from pcsim.engine.observer import Observer, RepeatableObserver, SelectiveObserver
from pcsim.kernels import Array, RecordingKernels
from pcsim.network.layer import Layer
from pcsim.network.learner import takes_one_step
from pcsim.schedule.operation import Relax
from pcsim.schedule.program import Program

RECORDABLE = (
    Layer.initialise,
    Layer.clamp,
    Layer.predict,
    Layer.compare,
    Layer.compare_target,
    Layer.learn,
)


class Recording:
    """The training step of one engine, once it has been recorded.

    The first step, and the first with other arrays, goes its usual way: kernels are compiled and scratch
    arrays made. The second one is recorded and replayed. Observers look on while it is recorded, and note
    which numbers they will want. A step in which somebody wants to see arrays goes its usual way, too, and
    the recording is as good afterwards as before.

    Args:
        kernels: that can record.
        layers: whose arrays the step reads and writes.
        observers: who is told of replayed steps.
    """

    def __init__(
        self, kernels: RecordingKernels, layers: Sequence[Layer], observers: Sequence[Observer]
    ) -> None:
        self._kernels, self._layers, self._observers = kernels, layers, observers
        self._again: Callable[[], None] | None = None
        self._acted_with: tuple[Array | None, ...] = ()
        self._impossible = False
        self._remembered: list[object] = []  # by each observer
        self._found: list[tuple[float | None, SupportsFloat]] = []  # at each layer

    @classmethod
    def of(cls, program: Program, layers: Sequence[Layer], observers: Sequence[Observer]) -> Recording | None:
        """Return what records the steps of a program; None where that is impossible or of no use.

        It is where kernels cannot record, where an operation or a learning rule is a user's own and may do
        anything, where precisions are worked out on the host, and where an observer wants to see arrays in
        steps that nobody knows beforehand.
        """
        kernels = layers[0].kernels
        if not isinstance(kernels, RecordingKernels):
            return None
        ours = all(
            isinstance(one.action, Relax) or one.action in RECORDABLE for one in program.operations
        ) and all(takes_one_step(unit.learner) for unit in layers[:-1])
        calm = all(
            isinstance(observer, RepeatableObserver | SelectiveObserver)
            or all(observer.onlooker(operation) is None for operation in program.operations)
            for observer in observers
        )
        return cls(kernels, layers, observers) if ours and calm else None

    def replay(self, step: int, act: Callable[[], None]) -> bool:
        """Do a step as it is recorded, or record it first; return False if the engine has to act itself.

        Args:
            step: its number, for observers.
            act: does all operations, with observers looking on.
        """
        held = self._held()
        same = len(held) == len(self._acted_with) and all(map(is_, held, self._acted_with))
        if self._impossible or not same:
            self._acted_with, self._again = held, None
            return False
        if any(isinstance(one, SelectiveObserver) and one.looks_at(step) for one in self._observers):
            return False
        if self._again is None:
            for observer in self._observers:
                observer.begin_step(step)
            try:
                self._again = self._kernels.capture(act)
            except Exception as error:  # of the driver or of a library: what it was told is not done
                self._impossible = True
                warnings.warn(f"a training step cannot be recorded, so it is slower: {error}", stacklevel=3)
                return False
            self._remembered = [
                observer.remember() if isinstance(observer, RepeatableObserver) else None
                for observer in self._observers
            ]
            self._found = [(unit.compared, unit.magnitude) for unit in self._layers]
        else:
            self._repeat(step)
        self._again()
        return True

    def _repeat(self, step: int) -> None:
        """Say that a step is replayed, and put those numbers back that it finds anew."""
        for observer, remembered in zip(self._observers, self._remembered, strict=True):
            if isinstance(observer, RepeatableObserver):
                observer.repeat_step(step, remembered)
            else:
                observer.begin_step(step)
        for unit, (compared, magnitude) in zip(self._layers, self._found, strict=True):
            unit.compared, unit.magnitude = compared, magnitude

    def _held(self) -> tuple[Array | None, ...]:
        """Return the arrays that the step works on, of those that somebody may have put in others' place."""
        weights = (unit.weight for unit in self._layers[:-1])
        return (self._layers[0].target, self._layers[-1].target, *weights)
