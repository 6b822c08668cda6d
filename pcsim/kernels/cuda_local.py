"""Kernels for activities and errors: one pass over memory each; no products, no weights.

Element-wise kernels take flat arrays, one thread an element. Row kernels take (batch, n), one block a row.
Those that find a sum on the way end with `numbers`, float64, and `first`: block i writes its part of the sum
to numbers[first + i].
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
    new_block_sum,
)

THREADS = 256  # of a block of an element-wise kernel
ROW_THREADS = 128  # at most, of a block that owns a row


@cache
def relaxed_activity(activation: ActivationName, number: Number) -> Kernel:
    """Return the device function of a neuron's new activity, equation (2)."""
    function, slope = activation_functions(activation, number)

    def relaxed(
        value: Value, error: Value, drive: Value, step: float, precision: float, activity_decay: float
    ) -> Value:
        cost = number(activity_decay)
        if cost != number(0):  # the same for all threads; saves f where it is not needed
            drive -= cost * function(value)
        return value + number(step) * (slope(value) * drive - number(precision) * error)

    return cuda.jit(relaxed, device=True)


@cache
def relax_kernel(activation: ActivationName, number: Number) -> Kernel:
    """(2) ĥ += k (f'(ĥ) ⊙ (feedback − γ^decay f(ĥ)) − γ e).

    Arguments, flat: activity, error, feedback (already times γ_{l+1}), then k, γ_l, γ_l^decay.
    """
    relaxed = relaxed_activity(activation, number)

    def relax(
        activity: View, error: View, feedback: View, step: float, precision: float, activity_decay: float
    ) -> None:
        i = cuda.grid(1)
        if i < activity.size:
            activity[i] = relaxed(activity[i], error[i], feedback[i], step, precision, activity_decay)

    return cuda.jit(relax)


@cache
def relax_and_compare_kernel(activation: ActivationName, number: Number) -> Kernel:
    """Equation (2), then e = ĥ − p and Σ e²: one pass.

    Arguments, flat: activity, error, feedback (already times γ_{l+1}), prediction, then k, γ_l, γ_l^decay,
    numbers, first.
    """
    relaxed, add_up = relaxed_activity(activation, number), block_sum(number)

    def relax_and_compare(
        activity: View,
        error: View,
        feedback: View,
        prediction: View,
        step: float,
        precision: float,
        activity_decay: float,
        numbers: View,
        first: int,
    ) -> None:
        i = cuda.grid(1)
        difference = number(0)
        if i < activity.size:
            value = relaxed(activity[i], error[i], feedback[i], step, precision, activity_decay)
            activity[i] = value
            difference = value - prediction[i]
            error[i] = difference
        square = add_up(difference * difference)
        if cuda.threadIdx.x == 0:
            numbers[first + cuda.blockIdx.x] = np.float64(square)

    return cuda.jit(relax_and_compare)


@cache
def compare_kernel(number: Number) -> Kernel:
    """Return the kernel of e = ĥ − p and Σ e². Arguments, flat: activity, prediction, out; numbers, first."""
    add_up = block_sum(number)

    def compare(activity: View, prediction: View, out: View, numbers: View, first: int) -> None:
        i = cuda.grid(1)
        difference = number(0)
        if i < out.size:
            difference = activity[i] - prediction[i]
            out[i] = difference
        square = add_up(difference * difference)
        if cuda.threadIdx.x == 0:
            numbers[first + cuda.blockIdx.x] = np.float64(square)

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
    """(3) ĥ_L = (1 − m) y + m out(p_L), e_L = ĥ_L − out(p_L) and Σ e_L², in one kernel; one block a row.

    Arguments: target, prediction, activity, error, each (batch, n), then m, numbers, first. m = 0 is the hard
    clamp. target may be activity.
    """
    return _softmax_kernel(number) if name == "softmax" else _pointwise_output_kernel(name, number)


def _softmax_kernel(number: Number) -> Kernel:
    add_up, blend, normaliser = block_sum(number), _blend(number), _softmax_normaliser(number)

    def softmax(
        target: View, prediction: View, activity: View, error: View, mix: float, numbers: View, first: int
    ) -> None:
        row, width = cuda.blockIdx.x, prediction.shape[1]
        top, total = normaliser(prediction, row)
        share, square = number(mix), number(0)
        for column in range(cuda.threadIdx.x, width, cuda.blockDim.x):
            said = number(math.exp(prediction[row, column] - top)) / total
            value = blend(target[row, column], said, share)
            activity[row, column] = value
            error[row, column] = value - said
            square += (value - said) * (value - said)
        square = add_up(square)
        if cuda.threadIdx.x == 0:
            numbers[first + row] = np.float64(square)

    return cuda.jit(softmax)


@cache
def _softmax_normaliser(number: Number) -> Kernel:
    """Return the device function of a row's largest entry and of Σ exp(p − largest), for all its threads.

    It has a sum of its own: shared memory of a function that a kernel reaches in two ways would not link.
    """
    add_up, largest = new_block_sum(number), block_max(number)

    def normaliser(prediction: View, row: int) -> tuple[Value, Value]:
        top, total = number(-np.inf), number(0)
        for column in range(cuda.threadIdx.x, prediction.shape[1], cuda.blockDim.x):
            value = number(prediction[row, column])
            top = value if value > top else top
        top = largest(top)
        for column in range(cuda.threadIdx.x, prediction.shape[1], cuda.blockDim.x):
            total += number(math.exp(number(prediction[row, column]) - top))
        return top, add_up(total)

    return cuda.jit(normaliser, device=True)


def _pointwise_output_kernel(name: ActivationName, number: Number) -> Kernel:
    function, _ = activation_functions(name, number)
    blend, add_up = _blend(number), block_sum(number)

    def output(
        target: View, prediction: View, activity: View, error: View, mix: float, numbers: View, first: int
    ) -> None:
        row, width = cuda.blockIdx.x, prediction.shape[1]
        square = number(0)
        for column in range(cuda.threadIdx.x, width, cuda.blockDim.x):
            said = function(prediction[row, column])
            value = blend(target[row, column], said, number(mix))
            activity[row, column] = value
            error[row, column] = value - said
            square += (value - said) * (value - said)
        square = add_up(square)
        if cuda.threadIdx.x == 0:
            numbers[first + row] = np.float64(square)

    return cuda.jit(output)


@cache
def output_energy_kernel(name: OutputName, number: Number) -> Kernel:
    """(1) The output layer's share of the free energy; see `pcsim.kernels.reference.output_free_energy`.

    Arguments: target, activity, prediction, each (batch, n), then γ_L, numbers, first. It looks on, so it
    takes its time: float64, and one block a row.

    Args:
        name: output function.
        number: type of the arrays, for the least activity whose logarithm counts.
    """
    add_up, normaliser = block_sum(np.float64), _softmax_normaliser(np.float64)
    divergence, loss = _divergence(name), _output_loss(name, number)
    softmax = name == "softmax"

    def energy(
        target: View, activity: View, prediction: View, precision: float, numbers: View, first: int
    ) -> None:
        row, share = cuda.blockIdx.x, np.float64(0)
        log_sum = np.float64(0)
        if softmax:
            top, total = normaliser(prediction, row)
            log_sum = top + math.log(total)
        for column in range(cuda.threadIdx.x, prediction.shape[1], cuda.blockDim.x):
            wanted, value = np.float64(target[row, column]), np.float64(activity[row, column])
            said = np.float64(prediction[row, column])
            share += precision * divergence(value, said, log_sum) + loss(wanted, value)
        share = add_up(share)
        if cuda.threadIdx.x == 0:
            numbers[first + row] = share

    return cuda.jit(energy)


def _divergence(name: OutputName) -> Kernel:
    """Return the device function of one neuron's part of the divergence of ĥ_L from out(p_L).

    Arguments: ĥ, p and, for softmax, log Σ exp(p).
    """

    def softmax(value: float, said: float, log_sum: float) -> float:
        return value * (log_sum - said)

    def sigmoid(value: float, said: float, log_sum: float) -> float:
        return (said if said > 0 else 0.0) + math.log1p(math.exp(-abs(said))) - value * said

    def identity(value: float, said: float, log_sum: float) -> float:
        return 0.5 * (value - said) * (value - said)

    return cuda.jit({"softmax": softmax, "sigmoid": sigmoid, "identity": identity}[name], device=True)


def _output_loss(name: OutputName, number: Number) -> Kernel:
    """Return the device function of how far one neuron's ĥ strays from y. Arguments: y, ĥ."""
    tiny = float(np.finfo(number).tiny)

    def relative(wanted: float, value: float) -> float:
        if wanted == 0.0:
            return 0.0
        return wanted * (math.log(wanted) - math.log(tiny if value < tiny else value))

    one = cuda.jit(relative, device=True)

    def both(wanted: float, value: float) -> Value:
        return one(wanted, value) + one(1.0 - wanted, 1.0 - value)

    def half_square(wanted: float, value: float) -> float:
        return 0.5 * (wanted - value) * (wanted - value)

    return {
        "softmax": one,
        "sigmoid": cuda.jit(both, device=True),
        "identity": cuda.jit(half_square, device=True),
    }[name]


@cache
def squared_norm_kernel(activation: ActivationName, number: Number) -> Kernel:
    """Return the kernel of Σ f(values)². Arguments: values (flat); numbers, first."""
    function, _ = activation_functions(activation, number)
    add_up = block_sum(number)

    def squared_norm(values: View, numbers: View, first: int) -> None:
        i = cuda.grid(1)
        value = number(0)
        if i < values.size:
            value = function(values[i])
        square = add_up(value * value)
        if cuda.threadIdx.x == 0:
            numbers[first + cuda.blockIdx.x] = np.float64(square)

    return cuda.jit(squared_norm)


@cache
def whole_norm_kernel(activation: ActivationName, number: Number) -> Kernel:
    """Return the kernel of out[0] = Σ f(values)². Arguments: values (flat), out (1,) float64.

    One block only, for NLMS: other kernels read the sum, of one sample.
    """
    function, _ = activation_functions(activation, number)
    add_up = block_sum(np.float64)

    def whole_norm(values: View, out: View) -> None:
        total = np.float64(0)
        for i in range(cuda.threadIdx.x, values.size, cuda.blockDim.x):
            value = np.float64(function(values[i]))
            total += value * value
        total = add_up(total)
        if cuda.threadIdx.x == 0:
            out[0] = total

    return cuda.jit(whole_norm)
