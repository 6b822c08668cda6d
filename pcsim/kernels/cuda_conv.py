"""A convolutional connection on a GPU: windows are laid out as a matrix, and the products are torch's.

A mini-batch lies in memory sample by sample there, so what the windows see is (batch · positions, terms), and
z is (batch · positions, channels); a kernel brings it into the order of images while it applies f and pools.
One thread an element; geometry is a constant of the compiled code. Equations: `pcsim.kernels.reference_conv`.

A thread finds its place by dividing. GPUs have no division: by a constant it is a few instructions in 32 bits
without sign, and four times as many in 64 bits with one. So all of that is uint32, and arrays that it could
not address are refused by `CudaConvolution`.
"""

from __future__ import annotations

from functools import cache
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from pcsim.architecture import ConvLayer
from pcsim.errors import ShapeError
from pcsim.kernels import ActivationName, Array
from pcsim.kernels.cuda_arrays import DeviceArray
from pcsim.kernels.cuda_device import Kernel, Number, Value, View, activation_functions, cuda, unsigned
from pcsim.kernels.cuda_launch import number_of

if TYPE_CHECKING:
    from pcsim.kernels.cuda import CudaKernels

LIMIT = 2**31  # numbers in an array: threads count in 32 bits, the idle ones of the last block among them


@cache
def patches_kernel(layer: ConvLayer) -> Kernel:
    """Return the kernel of what each window sees. Arguments, flat: out, image."""
    channels, height, width = map(unsigned, layer.image)
    kernel, stride, columns = map(unsigned, (layer.kernel, layer.stride, layer.columns))
    positions, terms, area = map(unsigned, (layer.positions, layer.terms, layer.kernel**2))

    def patches(out: View, image: View) -> None:
        i = unsigned(cuda.grid(1))
        if i < out.size:
            term, window = i % terms, i // terms
            place, sample = window % positions, window // positions
            x = place % columns * stride + term % kernel
            y = place // columns * stride + term // kernel % kernel
            out[i] = image[((sample * channels + term // area) * height + y) * width + x]

    return cuda.jit(patches)


@cache
def fold_kernel(layer: ConvLayer, number: Number) -> Kernel:
    """Return the kernel that sums up each pixel's share in all windows. Arguments, flat: image, shares."""
    window, (channels, height, width) = layer.kernel, map(unsigned, layer.image)
    kernel, stride, rows, columns = map(unsigned, (window, layer.stride, layer.rows, layer.columns))
    positions, terms = unsigned(layer.positions), unsigned(layer.terms)

    def fold(image: View, shares: View) -> None:
        pixel = unsigned(cuda.grid(1))
        if pixel < image.size:
            x, y = pixel % width, pixel // width % height
            channel, sample = pixel // width // height % channels, pixel // width // height // channels
            total = number(0)
            for up in range(window):
                for left in range(window):
                    i, j = unsigned(up), unsigned(left)
                    if y >= i and x >= j and (y - i) % stride == 0 and (x - j) % stride == 0:
                        row, column = (y - i) // stride, (x - j) // stride
                        if row < rows and column < columns:
                            place = sample * positions + row * columns + column
                            total += shares[place * terms + (channel * kernel + i) * kernel + j]
            image[pixel] = total

    return cuda.jit(fold)


def _exceeds(left: Value, right: Value) -> bool:
    """Return whether a value wins over another one: NaN over every number, as in NumPy's max and argmax."""
    return bool((left > right) | ((left != left) & (right == right)))  # no branches


exceeds: Kernel = cuda.jit(_exceeds, device=True)


@cache
def fire_kernel(layer: ConvLayer, activation: ActivationName, number: Number) -> Kernel:
    """Return the kernel of p = pool(f(z)). Arguments, flat: out, z."""
    function, _ = activation_functions(activation, number)
    made, down, across = map(unsigned, layer.result)
    pool, largest, share = layer.pool_size, layer.pool == "max", 1 / layer.pool_size**2
    size, columns, positions = map(unsigned, (pool, layer.columns, layer.positions))

    def fire(out: View, z: View) -> None:
        at = unsigned(cuda.grid(1))
        if at < out.size:
            column, row = at % across, at // across % down
            channel, sample = at // across // down % made, at // across // down // made
            total, best = number(0), number(-np.inf)
            for i in range(pool):
                for j in range(pool):
                    place = (row * size + unsigned(i)) * columns + column * size + unsigned(j)
                    value = function(z[(sample * positions + place) * made + channel])
                    total += value
                    best = value if exceeds(value, best) else best
            out[at] = best if largest else total * number(share)

    return cuda.jit(fire)


@cache
def delta_kernel(layer: ConvLayer, activation: ActivationName, number: Number) -> Kernel:
    """Return the kernel of δ = scale · f'(z) ⊙ unpool(e). Arguments, flat: out, z, error; scale."""
    function, slope = activation_functions(activation, number)
    made, down, across = map(unsigned, layer.result)
    pool, largest, share = layer.pool_size, layer.pool == "max", 1 / layer.pool_size**2
    size, columns, positions = map(unsigned, (pool, layer.columns, layer.positions))

    def delta(out: View, z: View, error: View, scale: float) -> None:
        at = unsigned(cuda.grid(1))
        if at < out.size:
            channel, place = at % made, at // made % positions
            sample = at // made // positions
            row, column = place // columns // size, place % columns // size  # of the pooled window
            value, wins = z[at], True
            if row >= down or column >= across:
                wins = False  # a border that fills no window
            elif largest:
                own = function(value)
                for i in range(pool):
                    for j in range(pool):
                        other = (row * size + unsigned(i)) * columns + column * size + unsigned(j)
                        rate = function(z[(sample * positions + other) * made + channel])
                        if exceeds(rate, own) | ((other < place) & (not exceeds(own, rate))):
                            wins = False
            came = number(0)
            if wins:
                above = ((sample * made + channel) * down + row) * across + column
                came = number(scale) * (number(1) if largest else number(share)) * error[above]
            out[at] = slope(value) * came  # for those who lose, too: a slope may be NaN

    return cuda.jit(delta)


class CudaConvolution:
    """One convolutional connection with mini-batches of one size.

    Attributes:
        memory: z of the last prediction, (batch · positions, channels).

    Raises:
        ShapeError: a mini-batch with more numbers than 32 bits can count.
    """

    def __init__(
        self,
        kernels: CudaKernels,
        layer: ConvLayer,
        activation: ActivationName,
        batch: int,
        dtype: np.dtype[np.floating],
    ) -> None:
        self._kernels, self._layer, self._activation = kernels, layer, activation
        self._windows, self._dtype = batch * layer.positions, dtype
        most = max(self._windows * max(layer.terms, layer.channels), batch * prod(layer.image))
        if most >= LIMIT:
            raise ShapeError(
                f"convolution of {batch} images {'x'.join(map(str, layer.image))}: {most} numbers in one "
                f"array, expected fewer than {LIMIT}; use a smaller mini-batch"
            )
        self._z = kernels.zeros((self._windows, layer.channels), dtype)
        self.memory = (self._z,)

    def place(self, weight: Array) -> DeviceArray:
        """Return the weight on the GPU."""
        return self._kernels.to_device(weight)

    def settled(self, weight: DeviceArray) -> DeviceArray:
        """See `Synapses`."""
        return weight

    def predict(
        self, activity: DeviceArray, weight: DeviceArray, bias: DeviceArray, out: DeviceArray
    ) -> None:
        """p_{l+1} = pool(f(conv(ĥ_l; W_l) + b_l)); weight (channels, terms)."""
        self._kernels.products.predict(self._patches(activity), weight, bias, self._z)
        kernel = fire_kernel(self._layer, self._activation, number_of(out))
        self._kernels.launch_each(kernel, (out, self._z))

    def feedback(
        self,
        activity: DeviceArray,
        error_above: DeviceArray,
        weight: DeviceArray,
        precision_above: float,
        out: DeviceArray,
    ) -> None:
        """γ_{l+1} convᵀ(δ)."""
        shares = self._kernels.scratch("windows", (self._windows, self._layer.terms), self._dtype)
        self._kernels.products.feedback(self._delta(error_above, precision_above), weight, 1.0, shares)
        self._kernels.launch_each(fold_kernel(self._layer, number_of(out)), (out, shares))

    def operands(
        self, error_above: DeviceArray, activity: DeviceArray
    ) -> tuple[DeviceArray, DeviceArray, ActivationName]:
        """Return δ times the number of positions, the patches, and no non-linearity; see the reference."""
        return self._delta(error_above, self._layer.positions), self._patches(activity), "identity"

    def _patches(self, activity: DeviceArray) -> DeviceArray:
        """Return what each window sees, (batch · positions, terms); scratch."""
        out = self._kernels.scratch("windows", (self._windows, self._layer.terms), self._dtype)
        self._kernels.launch_each(patches_kernel(self._layer), (out, activity))
        return out

    def _delta(self, error_above: DeviceArray, scale: float) -> DeviceArray:
        """Return scale · f'(z) ⊙ unpool(e_{l+1}), (batch · positions, channels); scratch."""
        out = self._kernels.scratch("delta", self._z.shape, self._dtype)
        kernel = delta_kernel(self._layer, self._activation, number_of(out))
        self._kernels.launch_each(kernel, (out, self._z, error_above), scale)
        return out
