"""Test-time prediction: samples go up through all connections; nothing learns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pcsim.errors import misshapen
from pcsim.kernels import Array, Kernels, OutputName
from pcsim.network.connection import Connection, as_matrix

WINDOW_BYTES = 2**27  # of one layer at once; a GPU keeps arrays as large for the next time


class Predictor:
    """A network's forward pass on given kernels, for any number of samples.

    Parameters are placed once, as they are then, so that a GPU gets them once in an evaluation.

    Args:
        connections: one a layer but the last.
        parameters: (W_l, b_l) of each connection.
        output: out.
        kernels: which compute.
    """

    def __init__(
        self,
        connections: Sequence[Connection],
        parameters: Sequence[tuple[Array, Array]],
        output: OutputName,
        kernels: Kernels,
    ) -> None:
        self._connections, self._output, self._kernels = connections, output, kernels
        self._dtype = parameters[0][0].dtype
        self._placed = [
            (kernels.to_device(as_matrix(weight)), kernels.to_device(bias)) for weight, bias in parameters
        ]

    def __call__(self, inputs: Array) -> Array:
        """Return the output for inputs of shape (samples, n_0), (samples, n_L).

        Raises:
            ShapeError: inputs of another width.
        """
        width = self._connections[0].inputs
        if getattr(inputs, "shape", ())[1:] != (width,):
            raise misshapen("inputs", inputs, f"(samples, {width})")
        rows = self._rows(len(inputs))
        starts = range(0, max(len(inputs), 1), rows)
        return np.concatenate([self._predict(inputs[start : start + rows]) for start in starts])

    def _rows(self, samples: int) -> int:
        """Return how many samples go together: all, or parts of one size whose windows have room."""
        most = max(connection.laid_out for connection in self._connections) * self._dtype.itemsize
        parts = -(-samples * most // WINDOW_BYTES)
        return max(1, -(-samples // max(parts, 1)))

    def _predict(self, inputs: Array) -> Array:
        kernels = self._kernels
        activity = kernels.to_device(np.asarray(inputs, self._dtype))
        for connection, (weight, bias) in zip(self._connections, self._placed, strict=True):
            prediction = kernels.mini_batch((len(activity), connection.outputs), self._dtype)
            synapses = connection.synapses(kernels, len(activity), self._dtype)
            synapses.predict(activity, synapses.settled(weight), bias, prediction)
            activity = prediction
        return np.array(kernels.output(self._output, activity))  # what a kernel returns may be scratch
