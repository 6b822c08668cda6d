"""How kernels are started: arrays, scratch kept by shape, blocks and grids, the stream."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from pcsim.kernels import ActivationName, Array, cuda_local, cuda_simulator
from pcsim.kernels.cuda_arrays import DeviceArray, HostProducts, Products, TorchProducts
from pcsim.kernels.cuda_device import WARP, Kernel, Number, View

Argument = Any  # what a kernel takes: a view or a number


class DeviceScalar:
    """A number that stays on the device until it is converted to float, which waits for the device.

    It is the place, not the value: the next step of the same connection overwrites it.
    """

    def __init__(self, array: DeviceArray) -> None:
        self.array = array

    def __float__(self) -> float:
        return float(np.asarray(self.array)[0])


class Launcher:
    """Allocates once by shape and launches on the stream of the products.

    Args:
        products: where arrays live and who multiplies; torch's GPU if not given, NumPy in the simulator.
    """

    def __init__(self, products: Products | None = None) -> None:
        if cuda_simulator.simulated():
            cuda_simulator.complete()
        self.products = products or (HostProducts() if cuda_simulator.simulated() else TorchProducts())
        self._kept: dict[tuple[str, tuple[int, ...], str], DeviceArray] = {}

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """Return a new array of zeros on the device."""
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

    def launch(
        self, kernel: Kernel, grid: int | tuple[int, int], block: int | tuple[int, int], *arguments: Argument
    ) -> None:
        """Start a kernel; returns at once."""
        kernel[grid, block, self.products.stream()](*arguments)

    def launch_each(self, kernel: Kernel, arrays: Iterable[DeviceArray], *constants: float) -> None:
        """Start an element-wise kernel with one thread for each element of the first array."""
        views = [array.flat for array in arrays]
        block = min(cuda_local.THREADS, -(-views[0].size // WARP) * WARP)
        self.launch(kernel, -(-views[0].size // block), block, *views, *constants)

    def launch_squared_norm(self, values: DeviceArray, activation: ActivationName, out: DeviceArray) -> None:
        """Write ‖f(values)‖² to `out`, float64, shape (1,)."""
        kernel = cuda_local.squared_norm_kernel(activation, number_of(values))
        block = min(cuda_local.THREADS, -(-values.size // WARP) * WARP)
        self.launch(kernel, 1, block, values.flat, out.view)


def number_of(array: DeviceArray) -> Number:
    """Return np.float32 or np.float64, the constant by which kernels are compiled."""
    return array.dtype.type


def views(*arrays: DeviceArray) -> list[View]:
    """Return what kernels get."""
    return [array.view for array in arrays]
