"""Kernels for activities and errors: one pass over memory each; no products, no weights.

Element-wise kernels take flat arrays, one thread an element. Row kernels take (batch, n), one block a row.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from pcsim.kernels import ActivationName, OutputName
from pcsim.kernels.cuda_device import (
    Kernel,
    Number,
    Value,
    View,
    activation_functions,
    block_max,
    block_sum,
    cuda,
)

THREADS = 256  # of a block of an element-wise kernel
ROW_THREADS = 128  # at most, of a block that owns a row


@cache
def relax_kernel(activation: ActivationName, number: Number, *, compares: bool, fires: bool) -> Kernel:
    """(2) ĥ += k (f'(ĥ) ⊙ (feedback − γ^decay f(ĥ)) − γ e); then, on request, what follows from the new ĥ.

    Arguments, flat: activity, error, feedback (already times γ_{l+1}), prediction, message, rates, then k,
    γ_l, γ_l^decay. With `compares` the new error ĥ − p goes to error and to message, the copy that is sent
    (give error again where nothing is sent); with `fires` the new f(ĥ) goes to rates, for the next product.
    Arrays that are not written may be anything. Both are constants of the compiled kernel.
    """
    function, slope = activation_functions(activation, number)

    def relax(
        activity: View,
        error: View,
        feedback: View,
        prediction: View,
        message: View,
        rates: View,
        step: float,
        precision: float,
        activity_decay: float,
    ) -> None:
        i = cuda.grid(1)
        if i < activity.size:
            value = activity[i]
            drive = feedback[i]
            cost = number(activity_decay)
            if cost != number(0):  # the same for all threads; saves f where it is not needed
                drive -= cost * function(value)
            value += number(step) * (slope(value) * drive - number(precision) * error[i])
            activity[i] = value
            if compares:
                difference = value - prediction[i]
                error[i] = difference
                message[i] = difference
            if fires:
                rates[i] = function(value)

    return cuda.jit(relax)


@cache
def compare_kernel() -> Kernel:
    """Return the kernel of e = ĥ − p. Arguments, flat: activity, prediction, out."""

    def compare(activity: View, prediction: View, out: View) -> None:
        i = cuda.grid(1)
        if i < out.size:
            out[i] = activity[i] - prediction[i]

    return cuda.jit(compare)


@cache
def rates_kernel(activation: ActivationName, number: Number) -> Kernel:
    """Return the kernel of f(ĥ). Arguments, flat: activity, out."""
    function, _ = activation_functions(activation, number)

    def fire(activity: View, out: View) -> None:
        i = cuda.grid(1)
        if i < out.size:
            out[i] = function(activity[i])

    return cuda.jit(fire)


@cache
def _blend(number: Number) -> Kernel:
    """Return the device function (1 − m) y + m out(p), exactly y for m = 0 and out(p) for m = 1.

    The ends are branches since 0 · ∞ is NaN: a diverged prediction must not reach a hard clamp.
    """

    def blend(target: Value, said: Value, mix: Value) -> Value:
        if mix == number(0):
            return target
        if mix == number(1):
            return said
        return (number(1) - mix) * target + mix * said

    return cuda.jit(blend, device=True)


@cache
def output_kernel(name: OutputName, number: Number) -> Kernel:
    """(3) ĥ_L = (1 − m) y + m out(p_L) and e_L = ĥ_L − out(p_L), in one kernel.

    Arguments: target, prediction, activity, error, message, each (batch, n), and m. The error is written
    twice: the layer's own and the one that is sent. m = 0 is the hard clamp. target may be activity, and
    message may be error. One block a row, any multiple of 32 threads.
    """
    return _softmax_kernel(number) if name == "softmax" else _pointwise_output_kernel(name, number)


def _softmax_kernel(number: Number) -> Kernel:
    add_up, largest, blend = block_sum(number), block_max(number), _blend(number)

    def softmax(
        target: View, prediction: View, activity: View, error: View, message: View, mix: float
    ) -> None:
        row, width = cuda.blockIdx.x, prediction.shape[1]
        start, stride = cuda.threadIdx.x, cuda.blockDim.x
        top = number(-np.inf)
        for column in range(start, width, stride):
            value = prediction[row, column]
            top = value if value > top else top
        top = largest(top)
        total = number(0)
        for column in range(start, width, stride):
            total += number(math.exp(prediction[row, column] - top))
        total = add_up(total)
        share = number(mix)
        for column in range(start, width, stride):
            said = number(math.exp(prediction[row, column] - top)) / total
            value = blend(target[row, column], said, share)
            activity[row, column] = value
            error[row, column] = value - said
            message[row, column] = value - said

    return cuda.jit(softmax)


def _pointwise_output_kernel(name: ActivationName, number: Number) -> Kernel:
    function, _ = activation_functions(name, number)
    blend = _blend(number)

    def output(
        target: View, prediction: View, activity: View, error: View, message: View, mix: float
    ) -> None:
        row, width = cuda.blockIdx.x, prediction.shape[1]
        for column in range(cuda.threadIdx.x, width, cuda.blockDim.x):
            said = function(prediction[row, column])
            value = blend(target[row, column], said, number(mix))
            activity[row, column] = value
            error[row, column] = value - said
            message[row, column] = value - said

    return cuda.jit(output)


@cache
def squared_norm_kernel(activation: ActivationName, number: Number) -> Kernel:
    """Return the kernel of ‖f(values)‖², summed in float64. Arguments: values (flat), out (1,) float64.

    One block only: it serves observers and NLMS (one sample), where a fixed order of summation is worth more
    than speed.
    """
    function, _ = activation_functions(activation, number)
    add_up = block_sum(np.float64)

    def squared_norm(values: View, out: View) -> None:
        total = np.float64(0)
        for i in range(cuda.threadIdx.x, values.size, cuda.blockDim.x):
            value = np.float64(function(values[i]))
            total += value * value
        total = add_up(total)
        if cuda.threadIdx.x == 0:
            out[0] = total

    return cuda.jit(squared_norm)
