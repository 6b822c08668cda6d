"""How mini-batches lie in memory on a CPU, neuron by sample; which activations are linear but for a kink."""

from __future__ import annotations

import numpy as np

from pcsim.kernels import ActivationName, Array, reference

LEAKS: dict[ActivationName, float] = {"relu": 0.0, "leaky_relu": reference.LEAK, "identity": 1.0}


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
