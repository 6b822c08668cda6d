"""What runs inside a CUDA thread and is shared by all kernels: f, f', and sums over a block.

Every function is a factory: names and dtype are constants of the compiled code, so that no kernel branches on
an activation. All literals go through `number`: a bare 0.5 would be float64, and slow in a float32 kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import cuda as numba_cuda

from pcsim.kernels import ActivationName
from pcsim.kernels.cuda_simulator import as_kernels_see_it
from pcsim.kernels.reference import LEAK

cuda: Any = as_kernels_see_it(numba_cuda)  # untyped: what only exists inside kernels Numba does not declare

View = Any  # a Numba device array, as a kernel sees it
Value = Any  # a number of the kernel's dtype
Number = Any  # np.float32 or np.float64: the dtype, and the conversion to it
Kernel = Any  # what cuda.jit returns
Function = Callable[[Value], Value]

unsigned: Any = np.uint32  # an index that cannot count from the end

WARP = 32
LANES = 0xFFFFFFFF  # all lanes of a warp take part in a shuffle


@cache
def activation_functions(name: ActivationName, number: Number) -> tuple[Kernel, Kernel]:
    """Return f and f' as device functions; equations and kinks are those of `pcsim.kernels.reference`.

    NaN must stay NaN in all of them, since runs look for it: comparisons are written to let it through.
    """
    factories: dict[ActivationName, Callable[[Number], tuple[Function, Function]]] = {
        "relu": _relu,
        "tanh": _tanh,
        "sigmoid": _sigmoid,
        "leaky_relu": _leaky_relu,
        "gelu": _gelu,
        "identity": _identity,
    }
    function, slope = factories[name](number)
    return cuda.jit(function, device=True), cuda.jit(slope, device=True)


def _identity(number: Number) -> tuple[Function, Function]:
    def function(value: Value) -> Value:
        return value

    def slope(value: Value) -> Value:
        return number(1)

    return function, slope


def _relu(number: Number) -> tuple[Function, Function]:
    def function(value: Value) -> Value:
        return number(0) if value < number(0) else value

    def slope(value: Value) -> Value:
        return number(1) if value > number(0) else number(0)

    return function, slope


def _leaky_relu(number: Number) -> tuple[Function, Function]:
    leak = LEAK

    def function(value: Value) -> Value:
        return value if value > number(0) else number(leak) * value

    def slope(value: Value) -> Value:
        return number(1) if value > number(0) else number(leak)

    return function, slope


def _tanh(number: Number) -> tuple[Function, Function]:
    def function(value: Value) -> Value:
        return number(math.tanh(value))

    def slope(value: Value) -> Value:
        rate = number(math.tanh(value))
        return number(1) - rate * rate

    return function, slope


def _sigmoid(number: Number) -> tuple[Function, Function]:
    def function(value: Value) -> Value:
        small = number(math.exp(-abs(value)))  # never overflows
        large = number(1) / (number(1) + small)
        return small * large if value < number(0) else large

    def slope(value: Value) -> Value:
        small = number(math.exp(-abs(value)))
        large = number(1) / (number(1) + small)
        return small * large * large

    return function, slope


def _gelu(number: Number) -> tuple[Function, Function]:
    root_half, density_at_0 = math.sqrt(0.5), 1 / math.sqrt(2 * math.pi)

    def function(value: Value) -> Value:
        return value * number(0.5) * (number(1) + number(math.erf(value * number(root_half))))

    def slope(value: Value) -> Value:
        normal_cdf = number(0.5) * (number(1) + number(math.erf(value * number(root_half))))
        density = number(density_at_0) * number(math.exp(number(-0.5) * value * value))
        return normal_cdf + value * density

    return function, slope


def _add(left: Value, right: Value) -> Value:
    return left + right


def _larger(left: Value, right: Value) -> Value:
    return left if left > right else right


@cache
def block_sum(number: Number) -> Kernel:
    """Return a device function: the sum of a value over all threads of a block, known to each of them."""
    return new_block_sum(number)


def new_block_sum(number: Number) -> Kernel:
    """Return a `block_sum` with shared memory of its own, for a function whose callers sum up, too."""
    return _block_reduction(_add, 0.0, number)


@cache
def block_max(number: Number) -> Kernel:
    """Return a device function: the largest value in a block, known to each of its threads."""
    return _block_reduction(_larger, -np.inf, number)


def _block_reduction(operator: Callable[[Value, Value], Value], neutral: float, number: Number) -> Kernel:
    """Reduce by shuffles in each warp, then by shuffles over the warps' results.

    The block is one-dimensional or (x, y), a multiple of 32 threads and 1024 at most. All threads must call.
    Butterfly shuffles leave the result in every lane, so that nothing has to be broadcast, and every warp
    does the second round itself, which costs no more than waiting for one that does.
    """
    combine = cuda.jit(operator, device=True)

    def reduce(value: Value) -> Value:
        partial = cuda.shared.array(WARP, number)
        thread = cuda.threadIdx.y * cuda.blockDim.x + cuda.threadIdx.x
        lane, warp = thread % WARP, thread // WARP
        distance = WARP // 2
        while distance > 0:
            value = combine(value, cuda.shfl_xor_sync(LANES, value, distance))
            distance //= 2
        if cuda.blockDim.x * cuda.blockDim.y == WARP:
            return value
        if lane == 0:
            partial[warp] = value
        cuda.syncthreads()
        value = partial[lane] if lane * WARP < cuda.blockDim.x * cuda.blockDim.y else number(neutral)
        distance = WARP // 2
        while distance > 0:
            value = combine(value, cuda.shfl_xor_sync(LANES, value, distance))
            distance //= 2
        cuda.syncthreads()  # `partial` may be overwritten by the next call from here on
        return value

    return cuda.jit(reduce, device=True)
