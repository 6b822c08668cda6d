"""A convolutional connection as backpropagation sees it: p = pool(f(z)), z = conv(ĥ; W) + b."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from pcsim.analysis.network import Array, activation, slope
from pcsim.tracing.reader import TraceReader


@dataclass(frozen=True)
class Convolution:
    """Geometry and functions of one convolutional connection; images lie in neurons channel by channel.

    Attributes:
        image: (channels, height, width) of what it reads.
        stride: pixels from one window to the next.
        pool: none, max or average.
        pool_size: height, width and stride of the pooled window.
        after: f, applied before pooling.
    """

    image: tuple[int, int, int]
    stride: int
    pool: str
    pool_size: int
    after: str

    @classmethod
    def of(cls, shape: list[int], said: dict[str, Any]) -> Convolution:
        """Return what the attribute `experiment` says of a connection from an image of that shape."""
        channels, height, width = shape
        return cls(
            (channels, height, width), said["stride"], said["pool"], said["pool_size"], said["activation"]
        )

    def drive(self, activity: Array, weight: Array, bias: Array) -> Array:
        """Return z, (batch, channels, rows, columns)."""
        made = np.tensordot(self._windows(activity, weight.shape[-1]), weight, axes=((1, 4, 5), (1, 2, 3)))
        return np.asarray(made.transpose(0, 3, 1, 2) + bias[:, np.newaxis, np.newaxis])

    def prediction(self, drive: Array) -> Array:
        """Return p = pool(f(z)), (batch, neurons)."""
        rates = activation(self.after, drive)
        if self.pool_size > 1:
            blocks = self._blocks(rates)
            rates = blocks.max(axis=-1) if self.pool == "max" else blocks.mean(axis=-1)
        return np.asarray(rates.reshape(len(drive), -1))

    def back(self, sensitivity: Array, drive: Array) -> Array:
        """Return the sensitivity of z from that of p; of equal winners of a max pool the first gets it."""
        delta = np.zeros_like(drive)
        if self.pool_size == 1:
            delta = sensitivity.reshape(drive.shape)
        else:
            rates = self._blocks(activation(self.after, drive))
            shares = np.full(rates.shape, 1 / rates.shape[-1])
            if self.pool == "max":
                shares = (np.arange(rates.shape[-1]) == rates.argmax(axis=-1)[..., np.newaxis]).astype(float)
            shares = shares * sensitivity.reshape(*rates.shape[:-1], 1)
            size, (batch, channels, rows, columns) = self.pool_size, rates.shape[:-1]
            spread = shares.reshape(batch, channels, rows, columns, size, size).swapaxes(3, 4)
            delta[:, :, : rows * size, : columns * size] = spread.reshape(
                batch, channels, rows * size, columns * size
            )
        return np.asarray(delta * slope(self.after, drive))

    def gradient(self, delta: Array, activity: Array, kernel: int) -> Array:
        """Return δ times what each window saw, summed over positions, the mean over the batch."""
        windows = self._windows(activity, kernel)
        return np.tensordot(delta, windows, axes=((0, 2, 3), (0, 2, 3))) / len(delta)

    def below(self, delta: Array, weight: Array) -> Array:
        """Return the sensitivity of ĥ, (batch, n), through the transposed convolution."""
        image = np.zeros((len(delta), *self.image))
        rows, columns = (self.stride * count for count in delta.shape[2:])
        shares = np.tensordot(delta, weight, axes=((1,), (0,)))  # batch, row, column, channel, i, j
        for i in range(weight.shape[2]):
            for j in range(weight.shape[3]):
                seen = image[:, :, i : i + rows : self.stride, j : j + columns : self.stride]
                seen += shares[..., i, j].transpose(0, 3, 1, 2)
        return image.reshape(len(delta), -1)

    def _windows(self, activity: Array, kernel: int) -> Array:
        """Return what each window sees, (batch, channels, rows, columns, kernel, kernel)."""
        images = activity.reshape(-1, *self.image)
        return sliding_window_view(images, (kernel, kernel), axis=(2, 3))[
            :, :, :: self.stride, :: self.stride
        ]

    def _blocks(self, rates: Array) -> Array:
        """Return the numbers of each pooled window, (batch, channels, rows, columns, numbers)."""
        size = self.pool_size
        rows, columns = rates.shape[2] // size, rates.shape[3] // size
        whole = rates[:, :, : rows * size, : columns * size]
        cut = whole.reshape(*rates.shape[:2], rows, size, columns, size).swapaxes(3, 4)
        return np.asarray(cut.reshape(*rates.shape[:2], rows, columns, size * size))


def convolutions(trace: TraceReader) -> dict[int, Convolution]:
    """Return the connections of a trace's network that are convolutions, by layer."""
    network = trace.attributes["experiment"]["network"]
    said = enumerate(network.get("connections", ()))  # absent from traces of before there were any
    return {
        layer: Convolution.of(network["shapes"][layer], one) for layer, one in said if one["kind"] == "conv"
    }
