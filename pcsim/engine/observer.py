"""How others look on while an engine runs: statistics, recorders, progress."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pcsim.errors import NonFiniteError
from pcsim.network.layer import Layer
from pcsim.schedule.operation import Operation

Statistic = npt.NDArray[np.float64]


class Observer(Protocol):
    """Is told of every operation that leaves an activity or an error as an iteration ends.

    Under a reactive order nobody knows which one will be the last, so it is told of all of them, and what
    comes later in the same iteration of a layer replaces what came before.
    """

    def begin_step(self, step: int) -> None:
        """Learn that a mini-batch begins."""
        ...

    def observe(self, operation: Operation, unit: Layer) -> None:
        """Look at the layer that has just acted; its arrays will change: copy what is to be kept."""
        ...

    def end_step(self) -> None:
        """Learn that the mini-batch is over, learning included."""
        ...


class Statistics:
    """Energy of every layer after every iteration of the current mini-batch, and a check that it is finite.

    Row n of each array is the state after n iterations (row 0: after the forward sweep and the clamp);
    column l − 1 is layer l. Where a layer did nothing in an iteration its row repeats the one before.

    Attributes:
        squared_error: ½‖e_l‖², batch mean; shape (T + 1, L).
        free_energy: the layer's share of equation (1), batch mean; shape (T + 1, L).
    """

    def __init__(self, iterations: int, top: int) -> None:
        self.squared_error: Statistic = np.zeros((iterations + 1, top))
        self.free_energy: Statistic = np.zeros((iterations + 1, top))
        self._known = np.zeros((iterations + 1, top), dtype=bool)
        self._filled = b"", np.zeros((iterations + 1, top), dtype=np.intp)
        self._units: dict[int, Layer] = {}
        self._step = 0

    def begin_step(self, step: int) -> None:
        """Forget the mini-batch before."""
        self._step = step
        self._known[:] = False
        self.squared_error[0] = self.free_energy[0] = 0  # where nobody forms an error there is none

    def observe(self, operation: Operation, unit: Layer) -> None:
        """Note the energy of a layer that has formed its error."""
        self._units[operation.layer] = unit
        if not operation.forms_error:
            return
        squared_error = unit.squared_error()
        self.note(operation.iteration, operation.layer, squared_error, unit.free_energy(squared_error))

    def note(self, iteration: int, layer: int, squared_error: float, free_energy: float) -> None:
        """Note the energy of a layer."""
        cell = iteration, layer - 1
        self.squared_error[cell], self.free_energy[cell] = squared_error, free_energy
        self._known[cell] = True

    def end_step(self) -> None:
        """Fill in what did not change."""
        latest, columns = self._latest(), np.arange(self._known.shape[1])
        self.squared_error[:] = self.squared_error[latest, columns]
        self.free_energy[:] = self.free_energy[latest, columns]

    def _latest(self) -> npt.NDArray[np.intp]:
        """Return for each cell the row in which its layer was last known; a program always fills the same."""
        pattern = self._known.tobytes()
        if pattern != self._filled[0]:
            rows = np.where(self._known, np.arange(len(self._known))[:, np.newaxis], 0)
            self._filled = pattern, np.maximum.accumulate(rows, axis=0)
        return self._filled[1]

    def check_finite(self) -> None:
        """Look for infinities and NaN in the mini-batch that has ended, learning included.

        Raises:
            NonFiniteError: names the step and the first iteration and layer that went wrong.
        """
        finite = np.isfinite(self.free_energy)
        if not finite.all():
            iteration, column = np.argwhere(~finite)[0]
            raise NonFiniteError("free energy", self._step, int(column) + 1, int(iteration))
        for unit in self._units.values():
            if not math.isfinite(unit.update_magnitude):
                raise NonFiniteError("weight update", self._step, unit.traits.index, len(finite) - 1)
