"""A convolutional connection in plain NumPy: p_{l+1} = pool(f(z)), z = conv(ĥ_l; W_l) + b_l.

The non-linearity follows the weights, so errors come back through the map's vector-Jacobian product:
δ = f'(z) ⊙ unpool(e_{l+1}) reaches ĥ_l through the transposed convolution, and W_l learns from δ and the
patches of ĥ_l. Images lie in a layer's neurons channel by channel, then row by row.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from pcsim.architecture import ConvLayer
from pcsim.kernels import ActivationName, Array
from pcsim.kernels.reference import activate, derivative


class ReferenceConvolution:
    """One convolutional connection with mini-batches of one size.

    Attributes:
        memory: z of the last prediction, (batch, channels · rows · columns).
    """

    def __init__(
        self, layer: ConvLayer, activation: ActivationName, batch: int, dtype: np.dtype[np.floating]
    ) -> None:
        self._layer, self._activation, self._batch = layer, activation, batch
        self._z = np.zeros((batch, layer.channels, layer.rows, layer.columns), dtype)
        self.memory: tuple[Array, ...] = (self._z.reshape(batch, -1),)

    def place(self, weight: Array) -> Array:
        """Return the weight as it is."""
        return weight

    def settled(self, weight: Array) -> Array:
        """See `Synapses`."""
        return weight

    def predict(self, activity: Array, weight: Array, bias: Array, out: Array) -> None:
        """p_{l+1} = pool(f(conv(ĥ_l; W_l) + b_l)); weight (channels, terms)."""
        flat = self._patches(activity) @ weight.T + bias
        self._z[...] = flat.reshape(self._batch, self._layer.rows, self._layer.columns, -1).transpose(
            0, 3, 1, 2
        )
        out[...] = self._pool(activate(self._activation, self._z)).reshape(out.shape)

    def feedback(
        self, activity: Array, error_above: Array, weight: Array, precision_above: float, out: Array
    ) -> None:
        """γ_{l+1} convᵀ(δ): what each pixel gave to all windows that saw it, put back there."""
        layer = self._layer
        channels, height, width = layer.image
        shares = (precision_above * self._delta(error_above)) @ weight
        shares = shares.reshape(self._batch, layer.rows, layer.columns, channels, layer.kernel, layer.kernel)
        image = np.zeros((self._batch, channels, height, width), out.dtype)
        down, across = layer.stride * layer.rows, layer.stride * layer.columns
        for i in range(layer.kernel):
            for j in range(layer.kernel):
                seen = image[:, :, i : i + down : layer.stride, j : j + across : layer.stride]
                seen += shares[..., i, j].transpose(0, 3, 1, 2)
        out[...] = image.reshape(out.shape)

    def operands(self, error_above: Array, activity: Array) -> tuple[Array, Array, ActivationName]:
        """Return δ and the patches, (batch · positions, channels) and (…, terms), and no non-linearity.

        A learning rule takes means over rows; W_l is to get the mean over samples and the sum over
        positions, so δ comes times the number of positions.
        """
        return self._layer.positions * self._delta(error_above), self._patches(activity), "identity"

    def _patches(self, activity: Array) -> Array:
        """Return what each window sees, (batch · positions, terms)."""
        layer = self._layer
        image = activity.reshape(self._batch, *layer.image)
        windows = sliding_window_view(image, (layer.kernel, layer.kernel), axis=(2, 3))
        seen = windows[:, :, :: layer.stride, :: layer.stride]
        return seen.transpose(0, 2, 3, 1, 4, 5).reshape(-1, layer.terms)

    def _delta(self, error_above: Array) -> Array:
        """Return δ = f'(z) ⊙ unpool(e_{l+1}), (batch · positions, channels)."""
        layer = self._layer
        spread = self._unpool(error_above.reshape(self._batch, *layer.result))
        return (
            (derivative(self._activation, self._z) * spread).transpose(0, 2, 3, 1).reshape(-1, layer.channels)
        )

    def _windows(self, values: Array) -> Array:
        """Return the pooled windows of (batch, channels, rows, columns), each in a row of its own."""
        (_, rows, columns), size = self._layer.result, self._layer.pool_size
        whole = values[:, :, : rows * size, : columns * size]
        split = whole.reshape(self._batch, -1, rows, size, columns, size)
        return split.transpose(0, 1, 2, 4, 3, 5).reshape(self._batch, -1, rows, columns, size * size)

    def _pool(self, rates: Array) -> Array:
        if self._layer.pool == "none":
            return rates
        windows = self._windows(rates)
        return np.asarray(windows.max(axis=-1) if self._layer.pool == "max" else windows.mean(axis=-1))

    def _unpool(self, error: Array) -> Array:
        """Give each error to the winner of its window, the first one among equals, or to all alike."""
        layer, size = self._layer, self._layer.pool_size
        if layer.pool == "none":
            return error
        if layer.pool == "average":
            shares = np.broadcast_to(error[..., np.newaxis] / size**2, (*error.shape, size**2))
        else:
            winners = self._windows(activate(self._activation, self._z)).argmax(axis=-1)
            shares = (np.arange(size**2) == winners[..., np.newaxis]) * error[..., np.newaxis]
        _, rows, columns = layer.result
        spread = np.zeros_like(self._z)
        split = shares.reshape(*error.shape, size, size).transpose(0, 1, 2, 4, 3, 5)
        spread[:, :, : rows * size, : columns * size] = split.reshape(
            self._batch, layer.channels, rows * size, columns * size
        )
        return spread
