"""Numbers that kernels find on the way, such as norms: they stay on the device until somebody reads them.

A number is a weighted sum of cells, one for each block of threads that had a part in it. Adding up is left to
whoever reads, so that a kernel needs no second pass, no atomic and no order of its blocks. All cells of a
mini-batch are read by one copy.
"""

from __future__ import annotations

from dataclasses import dataclass

from pcsim.kernels import Array
from pcsim.kernels.cuda_arrays import DeviceArray

CELLS = 2**16  # of a piece of memory: it is read as far as it is used
CELLS_OF_A_STEP = 2**18  # of a step that is recorded: all that it needs, as a rule


class Cells:
    """A piece of device memory whose cells are handed out one after the other.

    Args:
        array: float64, one axis.
    """

    def __init__(self, array: DeviceArray) -> None:
        self.array = array
        self._used = 0
        self._copy: Array | None = None

    def has_room(self, count: int) -> bool:
        """Return whether so many are left."""
        return self._used + count <= self.array.size

    def take(self, count: int) -> int:
        """Hand out so many, to be written soon; return the first."""
        first = self._used
        self._used += count
        self.have_changed()
        return first

    def have_changed(self) -> None:
        """Learn that cells are written to."""
        self._copy = None

    def on_host(self) -> Array:
        """Return a copy of what has been handed out; waits for the device if anything has changed."""
        if self._copy is None:
            self._copy = self.array.head(self._used)
        return self._copy


@dataclass(frozen=True, eq=False)
class DeviceNumber:
    """A weighted sum of cells and a constant; `float` works it out and waits for the device.

    It is the place and not the value: when a recorded step is replayed it stands for what is found anew.

    Attributes:
        parts: factor, where, first cell and number of cells.
    """

    parts: tuple[tuple[float, Cells, int, int], ...]

    constant: float = 0.0

    def __float__(self) -> float:
        return self.constant + sum(
            factor * float(cells.on_host()[first : first + count].sum())
            for factor, cells, first, count in self.parts
        )

    def __mul__(self, factor: float) -> DeviceNumber:
        parts = tuple((factor * weight, cells, first, count) for weight, cells, first, count in self.parts)
        return DeviceNumber(parts, factor * self.constant)

    __rmul__ = __mul__

    def __add__(self, other: DeviceNumber | float) -> DeviceNumber:
        if isinstance(other, DeviceNumber):
            return DeviceNumber(self.parts + other.parts, self.constant + other.constant)
        return DeviceNumber(self.parts, self.constant + other)
