"""How others look on while an engine runs: statistics, recorders, progress."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pcsim.errors import NonFiniteError
from pcsim.network.layer import Layer
from pcsim.schedule.message import Hear, Message
from pcsim.schedule.operation import Operation

Statistic = npt.NDArray[np.float64]
Onlooker = Callable[[Operation, Layer], None]


class Observer(Protocol):
    """Is told of every operation that leaves an activity or an error as an iteration ends.

    Under a reactive order nobody knows which one will be the last, so it is told of all of them, and what
    comes later in the same iteration of a layer replaces what came before.
    """

    def begin_step(self, step: int) -> None:
        """Learn that a mini-batch begins."""
        ...

    def onlooker(self, operation: Operation) -> Onlooker | None:
        """Return what to call when this operation is done; engines ask when they are made.

        It gets the operation and the layer that has acted, whose arrays will change: copy what is to be kept.
        """
        ...

    def end_step(self) -> None:
        """Learn that the mini-batch is over, learning included."""
        ...


@runtime_checkable
class RepeatableObserver(Observer, Protocol):
    """An observer that keeps numbers and no arrays, and so need not look on when a step is replayed.

    Numbers of a GPU are places: after a replay they hold what was found anew.
    """

    def remember(self) -> object:
        """Return which numbers were noted in the step that is going to be replayed."""
        ...

    def repeat_step(self, step: int, remembered: object) -> None:
        """Learn that a mini-batch begins that goes as the one that is remembered, with nobody looking on."""
        ...


@runtime_checkable
class SelectiveObserver(Observer, Protocol):
    """An observer that looks on in some steps only, and knows beforehand in which."""

    def looks_at(self, step: int) -> bool:
        """Return whether it wants to look on in this step; in others its onlookers need not be called."""
        ...


@runtime_checkable
class Listener(Protocol):
    """An observer that is told what becomes of messages that go through channels."""

    def hear(self, message: Message) -> None:
        """Learn what a receiver has once a message has come, or is missing: the payload is its inbox.

        Of a message that brings some entries, or nothing, the others are those of the messages before it.
        """
        ...


def listeners(observers: Sequence[Observer]) -> tuple[Hear, ...]:
    """Return what to call when a receiver has a message, or knows that it is missing."""
    return tuple(one.hear for one in observers if isinstance(one, Listener))


Watching = tuple[Onlooker, ...]


def onlookers(operation: Operation, observers: Sequence[Observer]) -> Watching:
    """Return what to call when an operation is done."""
    found = (observer.onlooker(operation) for observer in observers)
    return tuple(one for one in found if one is not None)


class Noted(NamedTuple):
    """What `Statistics` knows of a step, row by row.

    Attributes:
        squared_error: ½‖e_l‖².
        free_energy: the layer's share of equation (1).
        known: which of them are of this step.
    """

    squared_error: tuple[float, ...]
    free_energy: tuple[float, ...]
    known: bytes


class Statistics:
    """Energy of every layer after every iteration of the current mini-batch, and a check that it is finite.

    Every training step passes through here, when caches are full of weights: what is not asked for is not
    computed, and numbers are kept in lists until somebody wants arrays.
    """

    def __init__(self, iterations: int, top: int) -> None:
        self._top, cells = top, (iterations + 1) * top
        self._squared_error, self._free_energy = [0.0] * cells, [0.0] * cells  # row by row
        self._known, self._nothing, self._everything = bytearray(cells), bytes(cells), b"\1" * cells
        self._arrays: Statistic | None = None
        self._gaps = b"", np.zeros((iterations + 1, top), dtype=np.intp)
        self._units: dict[int, Layer] = {}
        self._step = 0

    @property
    def squared_error(self) -> Statistic:
        """½‖e_l‖², batch mean; shape (T + 1, L).

        Row n is the state after n iterations (row 0: after the forward sweep and the clamp); column l − 1 is
        layer l. Where a layer did nothing in an iteration its row repeats the one before.
        """
        table: Statistic = self._tables()[0]
        return table

    @property
    def free_energy(self) -> Statistic:
        """The layer's share of equation (1), batch mean; rows and columns as in `squared_error`."""
        table: Statistic = self._tables()[1]
        return table

    @property
    def settled_energy(self) -> float:
        """Free energy of the network after the last iteration, batch mean."""
        if self._known == self._everything:
            return sum(map(float, self._free_energy[-self._top :]))
        return float(self.free_energy[-1].sum())

    def rows(self) -> tuple[Sequence[float], Sequence[float]]:
        """Return `free_energy` and `squared_error` row by row, valid until the next mini-batch.

        On a GPU they become floats when they are converted.
        """
        if self._known == self._everything:
            return self._free_energy, self._squared_error
        return self.free_energy.ravel().tolist(), self.squared_error.ravel().tolist()

    def begin_step(self, step: int) -> None:
        """Forget the mini-batch before."""
        self._step = step
        self._known[:] = self._nothing
        self._arrays = None

    def remember(self) -> Noted:
        """Return what is known and where it lies."""
        return Noted(tuple(self._squared_error), tuple(self._free_energy), bytes(self._known))

    def repeat_step(self, step: int, remembered: object) -> None:
        """Forget what was worked out; what is known, and where it lies, is what is remembered."""
        assert isinstance(remembered, Noted)
        self._step, self._arrays = step, None
        self._squared_error[:], self._free_energy[:] = remembered.squared_error, remembered.free_energy
        self._known[:] = remembered.known

    def onlooker(self, operation: Operation) -> Onlooker | None:
        """Look at errors when they are formed, and at the input, which forms none, to know its layer."""
        if not operation.forms_error:
            return self._meet if operation.layer == 0 else None
        # What a user's own operation has made of the error `compare` has not seen.
        seen = operation.action is Layer.compare
        layer, cell = operation.layer, operation.iteration * self._top + operation.layer - 1
        squared_errors, free_energies, known, units = (
            self._squared_error,
            self._free_energy,
            self._known,
            self._units,
        )

        def look(operation: Operation, unit: Layer) -> None:
            found = unit.compared if seen else None
            squared_error = unit.squared_error() if found is None else found
            squared_errors[cell], free_energies[cell] = squared_error, unit.free_energy(squared_error)
            known[cell], units[layer] = 1, unit

        return look

    def _meet(self, operation: Operation, unit: Layer) -> None:
        self._units[operation.layer] = unit

    def note(self, iteration: int, layer: int, squared_error: float, free_energy: float) -> None:
        """Note the energy of a layer."""
        cell = iteration * self._top + layer - 1
        self._squared_error[cell], self._free_energy[cell] = squared_error, free_energy
        self._known[cell] = 1
        self._arrays = None

    def end_step(self) -> None:
        """Do nothing: tables are made when they are asked for."""

    def check_finite(self) -> None:
        """Look for infinities and NaN in the mini-batch that has ended, learning included.

        Raises:
            NonFiniteError: names the step and the first iteration and layer that went wrong.
        """
        if not math.isfinite(sum(map(float, self._free_energy))):  # numbers of before may be among them
            bad = np.argwhere(~np.isfinite(self.free_energy))
            for iteration, column in bad[:1]:
                raise NonFiniteError("free energy", self._step, int(column) + 1, int(iteration))
        for unit in self._units.values():
            if not math.isfinite(unit.update_magnitude):
                last = len(self._known) // self._top - 1
                raise NonFiniteError("weight update", self._step, unit.traits.index, last)

    def _tables(self) -> Statistic:
        """Return both tables of the current mini-batch, without gaps; shape (2, T + 1, L)."""
        if self._arrays is None:
            noted = np.array((self._squared_error, self._free_energy), np.float64)
            self._arrays = noted.reshape(2, -1, self._top)
            if self._known != self._everything:
                known = np.frombuffer(self._known, np.bool_).reshape(-1, self._top)
                self._arrays[:, 0, ~known[0]] = 0  # where nobody forms an error there is none
                self._arrays[:] = self._arrays[:, self._latest(known), np.arange(self._top)]
        return self._arrays

    def _latest(self, known: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
        """Return for each cell the row in which its layer was last known; a program always fills the same."""
        pattern = known.tobytes()
        if pattern != self._gaps[0]:
            rows = np.where(known, np.arange(len(known))[:, np.newaxis], 0)
            self._gaps = pattern, np.maximum.accumulate(rows, axis=0)
        return self._gaps[1]
