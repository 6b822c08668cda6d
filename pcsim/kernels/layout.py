"""How arrays lie in memory on a CPU; which activations are linear but for a kink.

Mini-batches lie neuron by sample. What is large begins where a huge page does: on small ones, which lie
scattered, the whole process would be fast or slow by a tenth, as chance has it. What is small begins where a
line of the cache does: else every other vector would be read in two halves.
"""

from __future__ import annotations

from math import prod
from typing import Literal

import numpy as np
import numpy.typing as npt

from pcsim.kernels import ActivationName, Array, reference

LEAKS: dict[ActivationName, float] = {"relu": 0.0, "leaky_relu": reference.LEAK, "identity": 1.0}


HUGE_PAGE = 2**21  # bytes, on x86 and mostly on ARM
CACHE_LINE = 64  # bytes, as wide as the widest vectors


def roomy(shape: tuple[int, ...], dtype: npt.DTypeLike, order: Literal["C", "F"] = "C") -> Array:
    """Return an array of whatever was there, which begins where a huge page does, or at least a cache line.

    NumPy asks Linux for huge pages, but lets an array begin anywhere, so that its ends would get small ones.
    """
    number = np.dtype(dtype)
    size = prod(shape) * number.itemsize
    boundary = HUGE_PAGE if size >= HUGE_PAGE else CACHE_LINE
    room = np.empty(size + boundary, np.uint8)
    return np.ndarray(shape, number, room, -room.ctypes.data % boundary, order=order)


def roomy_copy(array: Array, dtype: npt.DTypeLike | None = None, order: Literal["C", "F"] = "C") -> Array:
    """Return a copy in an array of this order, made by `roomy`."""
    copy = roomy(array.shape, array.dtype if dtype is None else dtype, order)
    copy[...] = array
    return copy


def roomy_zeros(like: Array) -> Array:
    """Return zeros in the shape and order of another array, made by `roomy`."""
    zeros = roomy(like.shape, like.dtype, "C" if like.flags.c_contiguous else "F")
    zeros[...] = 0
    return zeros


def by_neuron(array: Array) -> Array:
    """Return (n, batch) for (batch, n): a view if it lies so in memory, else a copy."""
    return np.ascontiguousarray(array.T)


def flat(array: Array) -> Array:
    """Return all elements in the order of memory of `by_neuron`; of a single sample this is a view."""
    return array[0] if len(array) == 1 else by_neuron(array).ravel()


def neuron_by_neuron(array: Array) -> bool:
    """Return whether (batch, n) lies in memory neuron by neuron."""
    return array.T.flags.c_contiguous


def put_back(by_neurons: Array, array: Array) -> None:
    """Write to the array what was computed in a copy of it, flat or not; nothing to do for a view."""
    if not neuron_by_neuron(array):
        array[...] = by_neurons.reshape(array.shape[::-1]).T
