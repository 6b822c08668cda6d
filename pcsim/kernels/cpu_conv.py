"""A convolutional connection on a CPU: windows are laid out as a matrix, and the products are those of `cpu`.

A mini-batch lies in memory neuron by sample. What the windows see, (terms, positions · batch), then consists
of runs of `batch` numbers, and its product with the weight lies in memory just as the next layer wants it.
Nothing of the size of all windows ever exists: they are laid out some places and some channels at a time, in
scratch arrays that all layers share, and their products are added up. See `pcsim.kernels.reference_conv` for
the equations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from pcsim.architecture import ConvLayer
from pcsim.kernels import ActivationName, Array, Relaxation, conv_loops, loops, reference
from pcsim.kernels.conv_steps import ConvolutionSteps
from pcsim.kernels.layout import LEAKS, by_neuron, flat, put_back

if TYPE_CHECKING:
    from pcsim.kernels.cpu import CpuKernels
    from pcsim.kernels.scratch import Scratch

PANEL_BYTES = 2**19  # of windows that are laid out at once: they stay in the second-level cache
LEAST_COLUMNS, MOST_COLUMNS = 64, 256  # of such a panel: fewer serve a product badly, more the address cache
PART_BYTES = 2**19  # of what comes back to some channels of an image, and of their Hebbian product

Columns = Callable[[int, int], Array]  # first and last place → δ there, (channels, places · batch)


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
        memory: z of the last prediction, (batch, channels · rows · columns), neuron by neuron in memory;
            where f is linear on either side of 0 and nothing is pooled its sign: 1 where z > 0, else 0.
        steps: what a learning rule uses in the kernels' place, with e_{l+1} and ĥ_l as they are.
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
        self._sizes, self._batch, self._dtype = conv_loops.Sizes.of(layer), batch, dtype
        self._leak = LEAKS.get(activation) if layer.pool == "none" else None
        kept = dtype if self._leak is None else np.dtype(conv_loops.SIGN)
        self._z = np.zeros((layer.channels * layer.positions, batch), kept)
        self._places = _places_at_once(layer, batch, dtype.itemsize)
        self.memory: tuple[Array, ...] = (self._z.T,)
        self.steps = ConvolutionSteps(self, layer.kernel**2)

    @property
    def width(self) -> int:
        """Columns of the products that a provider is looked for; learning always takes our own."""
        return self._places * self._batch

    def place(self, weight: Array) -> Array:
        """Return the weight as it is."""
        return weight

    def settled(self, weight: Array) -> Array:
        """See `Synapses`."""
        return weight

    def predict(self, activity: Array, weight: Array, bias: Array, out: Array) -> None:
        """p_{l+1} = pool(f(conv(ĥ_l; W_l) + b_l)); weight (channels, terms)."""
        layer, batch, into = self._layer, self._batch, by_neuron(out)
        z = (self._z if self._leak is None else into).reshape(layer.channels, -1)
        provider, image = self._kernels.provider("predict", self.width, weight), flat(activity)

        def part(first: int, last: int) -> None:
            for place, until in self._blocks(first, last, self._places):
                seen = self._patches(image, place, until, 0, layer.image[0])
                provider.predict(seen, weight, bias, z[:, place * batch : until * batch])

        self._kernels.crew.split(part, layer.positions, z.shape[1] * weight.size)
        if self._leak is not None:
            conv_loops.fire(into.ravel(), self._leak, self._z.ravel())
        elif layer.pool == "none":
            into[...] = reference.activate(self._activation, self._z)
        else:
            pool = conv_loops.max_pool if layer.pool == "max" else conv_loops.average_pool
            pool(self._rates(), self._sizes, batch, into.ravel())
        put_back(into, out)

    def feedback(
        self, activity: Array, error_above: Array, weight: Array, precision_above: float, out: Array
    ) -> None:
        """γ_{l+1} convᵀ(δ)."""
        into = by_neuron(out)

        def keep(pixels: slice, came: Array) -> None:
            into[pixels] = came

        self._bring_back(error_above, weight, precision_above, keep)
        put_back(into, out)

    def relax(
        self, activity: Array, error: Array, error_above: Array, weight: Array, constants: Relaxation
    ) -> None:
        """Move ĥ_l by equation (2), some channels at a time; its own f is the identity."""
        into, own = by_neuron(activity), by_neuron(error)
        descent = loops.Descent(constants.step, constants.precision, constants.activity_decay, 1.0)

        def move(pixels: slice, came: Array) -> None:
            here, wrong = into[pixels].ravel(), own[pixels].ravel()
            loops.relax(here, wrong, came.ravel(), descent)

        self._bring_back(error_above, weight, constants.precision_above, move)
        put_back(into, activity)

    def operands(self, error_above: Array, activity: Array) -> tuple[Array, Array, ActivationName]:
        """Return δ times the number of positions, all windows, and no non-linearity; see the reference.

        They are large, and made anew: this is for those who want to look at them.
        """
        layer = self._layer
        delta = self._delta(error_above, layer.positions)
        windows = np.empty((layer.terms, layer.positions * self._batch), self._dtype)
        conv_loops.patches(flat(activity), self._sizes, self._batch, 0, 0, windows)
        return delta(0, layer.positions).copy().T, windows.T, "identity"

    def hebbian(
        self, error_above: Array, activity: Array, use: Callable[[int, Array], Array]
    ) -> tuple[Array, Array]:
        """Form the sums of δ times what each term of a window sees, some channels of the image at a time.

        Args:
            error_above: e_{l+1}, (batch, n_{l+1}).
            activity: ĥ_l, (batch, n_l).
            use: takes the first of some terms and their sums over positions and samples, (terms, channels),
                and returns a number a channel of the image; it is called by several threads.

        Returns:
            All that `use` has returned, channel by channel, and the sum of δ, (channels,).
        """
        layer, image = self._layer, flat(activity)
        area, products = layer.kernel**2, self._kernels.choices.provider("pcsim")
        at_once = self._channels_at_once(layer.channels * area)
        lines = self._channels_at_once(MOST_COLUMNS * area, PANEL_BYTES)

        def part(first: int, last: int) -> list[Array]:
            found, delta = [], self._delta(error_above, 1.0)
            for start in range(first, last, at_once):
                end = min(start + at_once, last)
                total = self._room("total", (end - start) * area, layer.channels)
                total[:] = 0
                for place, until in self._blocks(0, layer.positions, MOST_COLUMNS // self._batch):
                    arranged = products.arrange(delta(place, until))
                    for channel in range(start, end, lines):
                        seen = self._patches(image, place, until, channel, min(channel + lines, end))
                        rows = slice((channel - start) * area, (channel - start) * area + len(seen))
                        products.update(seen, arranged, total[rows], 1.0)
                found.append(use(start * area, total))
            return found

        work = layer.positions * self._batch * layer.channels * layer.terms
        parts = self._kernels.crew.split(part, layer.image[0], work)
        return np.concatenate([one for found in parts for one in found]), self._sums(error_above)

    def _bring_back(
        self, error_above: Array, weight: Array, scale: float, use: Callable[[slice, Array], None]
    ) -> None:
        """Let `use` have scale · convᵀ(δ), some channels of the image at a time: (pixels, batch), and which.

        Threads share it by channels, for windows overlap.
        """
        layer, area = self._layer, self._layer.kernel**2
        provider = self._kernels.provider("feedback", self.width, weight)
        pixels = layer.image[1] * layer.image[2]
        at_once = self._channels_at_once(pixels * self._batch)

        def part(first: int, last: int) -> None:
            delta = self._delta(error_above, scale)
            for start in range(first, last, at_once):
                channels = min(at_once, last - start)
                image = self._room("image", channels * pixels, self._batch)
                image[:] = 0
                for place, until in self._blocks(0, layer.positions, self._places):
                    shares = self._room("shares", channels * area, (until - place) * self._batch)
                    provider.feedback(delta(place, until), weight, shares, start * area)
                    conv_loops.fold(shares, self._sizes, self._batch, place, image.ravel())
                use(slice(start * pixels, (start + channels) * pixels), image)

        work = layer.positions * self._batch * weight.size
        self._kernels.crew.split(part, layer.image[0], work)

    def _sums(self, error_above: Array) -> Array:
        """Return the sums of δ over positions and samples, (channels,)."""
        delta, total = self._delta(error_above, 1.0), np.zeros(self._layer.channels, self._dtype)
        for block in self._blocks(0, self._layer.positions, MOST_COLUMNS // self._batch):
            total += delta(*block).sum(axis=1)
        return total

    @staticmethod
    def _blocks(first: int, last: int, places: int) -> Iterator[tuple[int, int]]:
        """Cut a range of places into blocks."""
        step = max(1, places)
        for place in range(first, last, step):
            yield place, min(place + step, last)

    def _channels_at_once(self, numbers: int, limit: int = PART_BYTES) -> int:
        """Return how many channels fit, of so many numbers each."""
        return max(1, limit // (numbers * self._dtype.itemsize))

    def _room(self, use: str, rows: int, columns: int) -> Array:
        """Return scratch of a shape: the beginning of one of a few sizes, which shapes and layers share."""
        size, room = rows * columns, PANEL_BYTES // self._dtype.itemsize
        while room < size:
            room *= 2
        return self._scratch(use, (room,), self._dtype)[:size].reshape(rows, columns)

    def _patches(self, image: Array, first: int, last: int, channel: int, end: int) -> Array:
        """Return what the windows at some places see of some channels, (terms, places · batch); scratch."""
        out = self._room("windows", (end - channel) * self._layer.kernel**2, (last - first) * self._batch)
        conv_loops.patches(image, self._sizes, self._batch, first, channel, out)
        return out

    def _delta(self, error_above: Array, scale: float) -> Columns:
        """Return what gives scale · f'(z) ⊙ unpool(e_{l+1}) at some places; scratch."""
        layer, batch, error = self._layer, self._batch, flat(error_above)
        spread, leak = self._unpool(error), LEAKS.get(self._activation)
        curved = reference.derivative(self._activation, self._z) if leak is None else None
        signs = self._z.ravel()

        def columns(first: int, last: int) -> Array:
            out = self._room("delta", layer.channels, (last - first) * batch)
            if curved is not None:
                there = slice(first * batch, last * batch)
                slopes, errors = (one.reshape(layer.channels, -1)[:, there] for one in (curved, spread))
                np.multiply(slopes, errors * out.dtype.type(scale), out=out)
            else:
                assert leak is not None
                conv_loops.gate(signs, spread, leak, scale, first * batch, out)
            return out

        return columns

    def _unpool(self, error: Array) -> Array:
        """Return the errors where they came from, flat."""
        if self._layer.pool == "none":
            return error
        spread = self._scratch("spread", self._z.shape, self._dtype).ravel()
        if self._layer.pool == "max":
            conv_loops.max_unpool(error, self._rates(), self._sizes, self._batch, spread)
        else:
            conv_loops.average_unpool(error, self._sizes, self._batch, spread)
        return spread

    def _rates(self) -> Array:
        """Return f(z), flat; scratch."""
        rates = self._scratch("fired", self._z.shape, self._dtype)
        leak = LEAKS.get(self._activation)
        if leak is None:
            rates[...] = reference.activate(self._activation, self._z)
        else:
            loops.rectify(self._z.ravel(), leak, rates.ravel())
        return rates.ravel()


def _places_at_once(layer: ConvLayer, batch: int, itemsize: int) -> int:
    """Return of how many places the windows are laid out at once."""
    columns = PANEL_BYTES // (layer.terms * itemsize)
    return max(1, min(max(columns, LEAST_COLUMNS), MOST_COLUMNS) // batch)
