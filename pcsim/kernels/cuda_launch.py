"""How kernels are started: arrays, scratch kept by shape, blocks and grids, numbers, graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from numba.core import config

from pcsim.errors import ConfigurationError, ShapeError
from pcsim.kernels import ActivationName, Array, cuda_local, cuda_simulator
from pcsim.kernels.cuda_arrays import Argument, DeviceArray, Extent, HostProducts, Products, TorchProducts
from pcsim.kernels.cuda_device import WARP, Kernel, Number, View
from pcsim.kernels.cuda_numbers import CELLS, CELLS_OF_A_STEP, Cells, DeviceNumber

numba_config: Any = config  # its attributes are made when it is imported
LIMIT = 2**32 - 2**12  # numbers in an array: places are counted in 32 bits, also by a tile that hangs over


class Launcher:
    """Allocates once by shape and launches on the stream of the products.

    Args:
        products: where arrays live and who multiplies; torch's GPU if not given, NumPy in the simulator.

    Raises:
        ConfigurationError: no GPU, or nothing that compiles for it.
    """

    def __init__(self, products: Products | None = None) -> None:
        if cuda_simulator.simulated():
            cuda_simulator.complete()
        # Small grids are meant: Numba would warn of each one, and a user could do nothing about it.
        numba_config.CUDA_LOW_OCCUPANCY_WARNINGS = 0
        self.products = products or (HostProducts() if cuda_simulator.simulated() else TorchProducts())
        self._kept: dict[tuple[str, tuple[int, ...], str], DeviceArray] = {}
        self._cells: Cells | None = None
        self._recorded: list[Cells] | None = None  # of a step whose graph is being captured
        if not cuda_simulator.simulated():
            self._try()

    def _try(self) -> None:
        """Compile and run a kernel of no use, to find out what is missing before training begins."""
        one = self.zeros((1,), np.float64)
        try:
            float(self.launch_and_sum(cuda_local.compare_kernel(np.float64), (one, one, one)))
        except Exception as error:  # of Numba, the driver or the compiler, whose kinds have no common parent
            raise ConfigurationError(
                "backend cuda: no kernel can be compiled and run; install pcsim[cuda], which brings the "
                f"compiler ({type(error).__name__}: {str(error).strip().splitlines()[0]})"
            ) from error

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """Return a new array of zeros on the device.

        Raises:
            ShapeError: too many numbers for kernels that count places in 32 bits.
        """
        if prod(shape) >= LIMIT:
            raise ShapeError(
                f"array of shape {shape} on a GPU: {prod(shape)} numbers, expected fewer than {LIMIT}"
            )
        return self.products.zeros(shape, dtype)

    def postponing(self) -> AbstractContextManager[None]:
        """Nothing is put off here; see `Kernels`."""
        return nullcontext()

    def mini_batch(self, shape: tuple[int, int], dtype: npt.DTypeLike) -> DeviceArray:
        """Return zeros for a mini-batch, (batch, n), on the device."""
        return self.zeros(shape, dtype)

    def to_device(self, host: Array | DeviceArray) -> DeviceArray:
        """Return a copy of a host array on the device; what is there already as it is."""
        return host if isinstance(host, DeviceArray) else self.snapshot(host)

    def load(self, host: Array, held: Array | DeviceArray | None) -> DeviceArray:
        """Return x or y on the device: in the array that holds those of the mini-batch before."""
        if isinstance(held, DeviceArray) and (held.shape, held.dtype) == (host.shape, host.dtype):
            self.products.upload(host, held)
            return held
        return self.snapshot(host)

    def snapshot(self, array: Array | DeviceArray) -> DeviceArray:
        """Return a copy on the device."""
        copy = self.zeros(array.shape, array.dtype)
        copy[...] = array
        return copy

    def scratch(self, use: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """Return the array that is kept for this use and shape; its contents are whatever was left there."""
        key = use, shape, np.dtype(dtype).char
        if key not in self._kept:
            self._kept[key] = self.zeros(shape, dtype)
        return self._kept[key]

    def rates(self, activity: DeviceArray, activation: ActivationName) -> DeviceArray:
        """Return f(ĥ_l), in scratch if it is another array than ĥ_l."""
        if activation == "identity":
            return activity
        out = self.scratch("rates", activity.shape, activity.dtype)
        self.launch_each(cuda_local.rates_kernel(activation, number_of(activity)), (activity, out))
        return out

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        """Record a training step as a graph, without doing it; return what replays it.

        Numbers that it finds, such as norms, stay where they are: whoever has one reads the latest value.
        See `Products.capture` for what a step must not do.
        """
        self._cells = Cells(self.zeros((CELLS_OF_A_STEP,), np.float64))
        self._recorded = recorded = [self._cells]
        try:
            replay = self.products.capture(step)
        finally:
            self._cells = self._recorded = None  # nobody else is to write there

        def again() -> None:
            replay()
            for cells in recorded:
                cells.have_changed()

        return again

    def launch(self, kernel: Kernel, grid: Extent, block: Extent, *arguments: Argument) -> None:
        """Start a kernel; returns at once."""
        self.products.launch(kernel, grid, block, arguments)

    def launch_each(self, kernel: Kernel, arrays: Iterable[DeviceArray], *constants: float) -> None:
        """Start an element-wise kernel with one thread for each element of the first array.

        Constants are floats, whatever a user has written: for an int a kernel would be compiled anew.
        """
        views = [array.flat for array in arrays]
        self.launch(kernel, *extent(views[0].size), *views, *map(float, constants))

    def launch_and_sum(
        self, kernel: Kernel, arrays: Iterable[DeviceArray], *constants: float
    ) -> DeviceNumber:
        """Do what `launch_each` does with a kernel whose blocks find parts of a sum; return the sum."""
        views = [array.flat for array in arrays]
        grid, block = extent(views[0].size)
        cells, first = self.take(grid)
        self.launch(kernel, grid, block, *views, *map(float, constants), cells.array.view, first)
        return DeviceNumber(((1.0, cells, first, grid),))

    def launch_rows(self, kernel: Kernel, arrays: Iterable[DeviceArray], *constants: float) -> DeviceNumber:
        """Start a kernel with a block for each row, which writes a part of a sum; return the sum."""
        views = [array.view for array in arrays]
        rows, width = views[0].shape
        cells, first = self.take(rows)
        block = min(-(-width // WARP) * WARP, cuda_local.ROW_THREADS)
        self.launch(kernel, rows, block, *views, *map(float, constants), cells.array.view, first)
        return DeviceNumber(((1.0, cells, first, rows),))

    def take(self, count: int) -> tuple[Cells, int]:
        """Return cells for a number that a kernel will find, and the first of them."""
        if self._cells is None or not self._cells.has_room(count):
            self._cells = Cells(self.zeros((max(count, CELLS),), np.float64))
            if self._recorded is not None:
                self._recorded.append(self._cells)
        return self._cells, self._cells.take(count)


def extent(size: int) -> tuple[int, int]:
    """Return how many blocks of how many threads give each element one."""
    block = min(cuda_local.THREADS, -(-size // WARP) * WARP)
    return -(-size // block), block


def number_of(array: DeviceArray) -> Number:
    """Return np.float32 or np.float64, the constant by which kernels are compiled."""
    return array.dtype.type


def views(*arrays: DeviceArray) -> list[View]:
    """Return what kernels get."""
    return [array.view for array in arrays]


def flat(*arrays: DeviceArray) -> list[View]:
    """Return the same with one axis."""
    return [array.flat for array in arrays]
