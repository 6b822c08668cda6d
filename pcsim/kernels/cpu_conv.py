"""A convolutional connection on a CPU: windows are laid out as a matrix, and the products are those of `cpu`.

A mini-batch lies in memory neuron by sample. What the windows see, (terms, positions · batch), then consists
of runs of `batch` numbers, and its product with the weight lies in memory just as the next layer wants it.
See `pcsim.kernels.reference_conv` for the equations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pcsim.architecture import ConvLayer
from pcsim.kernels import ActivationName, Array, conv_loops, loops, reference
from pcsim.kernels.layout import LEAKS, by_neuron, flat, put_back

if TYPE_CHECKING:
    from pcsim.kernels.cpu import CpuKernels
    from pcsim.kernels.scratch import Scratch

PANEL_BYTES = 2**19  # of windows that are laid out at once: they stay in the second-level cache
LEAST_COLUMNS, MOST_COLUMNS = 64, 256  # of such a panel: fewer serve a product badly, more the address cache


class CpuConvolution:
    """One convolutional connection with mini-batches of one size.

    Args:
        kernels: which compute the products.
        scratch: arrays for results that live for a moment.
        layer: geometry.
        activation: f, applied to what the convolution makes.
        batch: samples a mini-batch.
        dtype: of all numbers.

    Attributes:
        memory: z of the last prediction, (batch, channels · rows · columns), neuron by neuron in memory.
    """

    def __init__(
        self,
        kernels: CpuKernels,
        scratch: Scratch,
        layer: ConvLayer,
        activation: ActivationName,
        batch: int,
        dtype: np.dtype[np.floating],
    ) -> None:
        self._kernels, self._scratch, self._layer, self._activation = kernels, scratch, layer, activation
        self._sizes, self._batch = conv_loops.Sizes.of(layer), batch
        self._z = np.zeros((layer.channels * layer.positions, batch), dtype)
        self._places = _places_at_once(layer, batch, dtype.itemsize)
        self.memory: tuple[Array, ...] = (self._z.T,)

    @property
    def widths(self) -> tuple[int, int]:
        """Columns of the products: of those in the inference phase, and of the one in the learning phase."""
        return self._places * self._batch, self._layer.positions * self._batch

    def place(self, weight: Array) -> Array:
        """Return the weight as it is."""
        return weight

    def settled(self, weight: Array) -> Array:
        """See `Synapses`."""
        return weight

    def predict(self, activity: Array, weight: Array, bias: Array, out: Array) -> None:
        """p_{l+1} = pool(f(conv(ĥ_l; W_l) + b_l)); weight (channels, terms)."""
        layer, batch = self._layer, self._batch
        z, image = self._z.reshape(layer.channels, -1), flat(activity)
        provider = self._kernels.provider("predict", self.widths[0], weight)

        def part(first: int, last: int) -> None:
            for place in range(first, last, self._places):
                seen = self._patches(image, place, min(place + self._places, last))
                provider.predict(seen, weight, bias, z[:, place * batch : place * batch + seen.shape[1]])

        self._kernels.share(part, layer.positions, z.shape[1] * weight.size)
        into = by_neuron(out)
        if layer.pool == "none":
            self._fire(into)
        else:
            pool = conv_loops.max_pool if layer.pool == "max" else conv_loops.average_pool
            pool(self._rates(), self._sizes, batch, into.ravel())
        put_back(into, out)

    def feedback(
        self, activity: Array, error_above: Array, weight: Array, precision_above: float, out: Array
    ) -> None:
        """γ_{l+1} convᵀ(δ); threads share it by channels, for windows overlap."""
        layer, batch, area = self._layer, self._batch, self._layer.kernel**2
        delta, into = self._delta(error_above, precision_above), by_neuron(out)
        provider, image = self._kernels.provider("feedback", self.widths[0], weight), into.ravel()
        pixels = len(into) // layer.image[0]

        def part(first: int, last: int) -> None:
            into[first * pixels : last * pixels] = 0
            for place in range(0, layer.positions, self._places):
                columns = slice(place * batch, min(place + self._places, layer.positions) * batch)
                shape = (last - first) * area, columns.stop - columns.start
                shares = self._scratch("shares", shape, out.dtype)
                provider.feedback(delta[:, columns], weight, shares, first * area)
                conv_loops.fold(shares, self._sizes, batch, place, first, image)

        self._kernels.share(part, layer.image[0], delta.shape[1] * weight.size)
        put_back(into, out)

    def operands(self, error_above: Array, activity: Array) -> tuple[Array, Array, ActivationName]:
        """Return δ times the number of positions, the patches, and no non-linearity; see the reference."""
        delta = self._delta(error_above, self._layer.positions)
        return delta.T, self._patches(flat(activity), 0, self._layer.positions).T, "identity"

    def _patches(self, image: Array, first: int, last: int) -> Array:
        """Return what the windows at some places see, (terms, places · batch); scratch."""
        out = self._scratch("windows", (self._layer.terms, (last - first) * self._batch), self._z.dtype)
        conv_loops.patches(image, self._sizes, self._batch, first, out)
        return out

    def _delta(self, error_above: Array, scale: float) -> Array:
        """Return scale · f'(z) ⊙ unpool(e_{l+1}), (channels, positions · batch); scratch."""
        spread = self._unpool(flat(error_above))
        out = self._scratch("delta", self._z.shape, self._z.dtype)
        leak = LEAKS.get(self._activation)
        if leak is None:
            np.multiply(reference.derivative(self._activation, self._z), spread.reshape(out.shape), out=out)
            loops.scaled_copy(out.ravel(), scale, out.ravel())
        else:
            conv_loops.gate(self._z.ravel(), spread, leak, scale, out.ravel())
        return out.reshape(self._layer.channels, -1)

    def _unpool(self, error: Array) -> Array:
        """Return the errors where they came from, flat."""
        if self._layer.pool == "none":
            return error
        spread = self._scratch("spread", self._z.shape, self._z.dtype).ravel()
        if self._layer.pool == "max":
            conv_loops.max_unpool(error, self._rates(), self._sizes, self._batch, spread)
        else:
            conv_loops.average_unpool(error, self._sizes, self._batch, spread)
        return spread

    def _rates(self) -> Array:
        """Return f(z), flat; scratch."""
        rates = self._scratch("fired", self._z.shape, self._z.dtype)
        self._fire(rates)
        return rates.ravel()

    def _fire(self, out: Array) -> None:
        """Write f(z) to `out`, an array laid out as z."""
        leak = LEAKS.get(self._activation)
        if leak is None:
            out[...] = reference.activate(self._activation, self._z)
        else:
            loops.rectify(self._z.ravel(), leak, out.ravel())


def _places_at_once(layer: ConvLayer, batch: int, itemsize: int) -> int:
    """Return of how many places the windows are laid out at once."""
    columns = PANEL_BYTES // (layer.terms * itemsize)
    return max(1, min(max(columns, LEAST_COLUMNS), MOST_COLUMNS) // batch)
