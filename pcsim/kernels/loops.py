"""Compiled loops for what is not a matrix product: one pass over memory each.

Numba compiles them on first use and keeps the result on disk, so that a machine waits once.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np

from pcsim.kernels import Array
from pcsim.kernels.compiler import Function, jit

Number: TypeAlias = Any  # of an array, in its own precision

# Sums may be reordered for vector instructions; NaN and infinity keep their meaning: runs look for them.
FAST = {"reassoc", "contract", "arcp", "nsz"}
BLOCK = 128  # neurons that are turned over together: their rows stay in the first-level cache


def compiled(function: Function) -> Function:
    """Compile a loop, cached on disk."""
    return jit(function, fastmath=FAST, error_model="numpy")


def in_order(function: Function) -> Function:
    """Compile a loop whose sums keep their order: no bit depends on how it came to be called."""
    return jit(function, fastmath={"contract"}, error_model="numpy")


@compiled
def update(weight: Array, total: Array, scale: float) -> np.floating[Any]:
    """Add scale · total to a block of the weight; return Σ|total|."""
    norm = weight.dtype.type(0)
    factor = weight.dtype.type(scale)
    for row in range(weight.shape[0]):
        for column in range(weight.shape[1]):
            change = total[row, column]
            norm += abs(change)
            weight[row, column] += factor * change
    return norm


@compiled
def update_bias(bias: Array, error: Array, scale: float) -> np.floating[Any]:
    """Add scale · (sum of (m, batch) over the batch) to the bias; return the sum of its absolute values."""
    norm = bias.dtype.type(0)
    factor = bias.dtype.type(scale)
    for row in range(error.shape[0]):
        change = error[row].sum()
        norm += abs(change)
        bias[row] += factor * change
    return norm


@compiled
def absolute_sum(values: Array) -> np.floating[Any]:
    """Return Σ|x| of a flat array."""
    total = values.dtype.type(0)
    for i in range(values.size):
        total += abs(values[i])
    return total


@compiled
def add_scaled(out: Array, values: Array, scale: float) -> None:
    """Out += scale · values, flat arrays."""
    factor = out.dtype.type(scale)
    for i in range(out.size):
        out[i] += factor * values[i]


@compiled
def sum_samples(error: Array, out: Array) -> None:
    """Out = sum over the batch; (m, batch) → (m,)."""
    for row in range(error.shape[0]):
        out[row] = error[row].sum()


class AdamConstants(NamedTuple):
    """What a step of Adam needs besides arrays.

    Attributes:
        mean: 1 / batch.
        rate: learning rate.
        beta1: of the first moment.
        beta2: of the second moment.
        correction1: 1 / (1 − β₁ᵗ).
        correction2: 1 / (1 − β₂ᵗ).
        epsilon: added to the root of the second moment.
    """

    mean: float
    rate: float
    beta1: float
    beta2: float
    correction1: float
    correction2: float
    epsilon: float


@compiled
def adam(
    weight: Array, total: Array, first: Array, second: Array, constants: AdamConstants
) -> np.floating[Any]:
    """One Adam step on flat arrays, moments and weights in one pass; return Σ|Δ|."""
    number = weight.dtype.type
    mean, rate, beta1, beta2, correction1, correction2, epsilon = constants
    norm = number(0)
    for i in range(weight.size):
        gradient = number(mean) * total[i]
        first[i] += number(1 - beta1) * (gradient - first[i])
        second[i] += number(1 - beta2) * (gradient * gradient - second[i])
        root = np.sqrt(second[i] * number(correction2)) + number(epsilon)
        change = number(rate) * first[i] * number(correction1) / root
        norm += abs(change)
        weight[i] += change
    return norm


@compiled
def turn_over(values: Array, out: Array, begin: int, end: int) -> None:
    """Out = valuesᵀ for some neurons; (batch, n) → (n, batch), by blocks in cache, four samples at a time."""
    batch = len(values)
    whole = batch - batch % 4
    for first in range(begin, end, BLOCK):
        last = min(first + BLOCK, end)
        for sample in range(0, whole, 4):
            one, two, three, four = (
                values[sample],
                values[sample + 1],
                values[sample + 2],
                values[sample + 3],
            )
            for neuron in range(first, last):
                row = out[neuron, sample : sample + 4]
                row[0], row[1], row[2], row[3] = one[neuron], two[neuron], three[neuron], four[neuron]
        for sample in range(whole, batch):
            for neuron in range(first, last):
                out[neuron, sample] = values[sample, neuron]


@compiled
def copy_and_count(values: Array, out: Array) -> int:
    """Out = values, flat arrays; return how many are not zero."""
    count = 0
    for i in range(out.size):
        value = values[i]
        out[i] = value
        count += value != 0
    return count


@compiled
def scaled_copy(values: Array, factor: float, out: Array) -> None:
    """Out = factor · values, flat arrays."""
    number = out.dtype.type(factor)
    for i in range(out.size):
        out[i] = number * values[i]


@compiled
def squared_norm(values: Array) -> np.floating[Any]:
    """Return the sum of squares of a flat array."""
    total = values.dtype.type(0)
    for i in range(values.size):
        total += values[i] * values[i]
    return total


@compiled
def compare(activity: Array, prediction: Array, out: Array) -> np.floating[Any]:
    """E = ĥ − p, element by element, flat arrays; return the sum of its squares."""
    for i in range(out.size):
        out[i] = activity[i] - prediction[i]
    return squared_norm(out)


@compiled
def least(values: Array, leak: float) -> np.floating[Any]:
    """Return what anything less is taken for below 0: where f is 0 there, −∞ must not make it NaN."""
    return values.dtype.type(-np.inf) if leak != 0 else np.finfo(values.dtype).min


@compiled
def rectify(values: Array, leak: float, out: Array) -> None:
    """Out = values where positive, else leak · values; flat arrays."""
    factor, lowest = values.dtype.type(leak), least(values, leak)
    for i in range(values.size):
        value = values[i]
        out[i] = value if value > 0 else factor * (lowest if value < lowest else value)


class Descent(NamedTuple):
    """What equation (2) needs besides arrays, where f is linear on either side of 0.

    Attributes:
        step: k.
        precision: γ_l.
        activity_decay: γ_l^decay.
        leak: slope of f below 0.
    """

    step: float
    precision: float
    activity_decay: float
    leak: float


@compiled
def relaxed(
    value: Number,
    error: Number,
    feedback: Number,
    k: Number,
    own: Number,
    cost: Number,
    leak: Number,
    lowest: Number,
) -> Number:
    """Return the new activity of one neuron, equation (2); all are of one type.

    Args:
        value: ĥ.
        error: e.
        feedback: what comes back from above, times γ_{l+1}.
        k: step size.
        own: γ_l.
        cost: γ_l^decay.
        leak: slope of f below 0.
        lowest: see `least`.
    """
    slope = type(value)(1) if value > 0 else leak
    drive = slope * (feedback - cost * slope * (lowest if value < lowest else value))
    return value + k * (drive - own * error)


@compiled
def relax(activity: Array, error: Array, feedback: Array, descent: Descent) -> None:
    """Equation (2) in one pass over flat arrays."""
    number = activity.dtype.type
    step, precision, decay, leak = descent
    k, own, cost, factor = number(step), number(precision), number(decay), number(leak)
    lowest = least(activity, leak)
    for i in range(activity.size):
        activity[i] = relaxed(activity[i], error[i], feedback[i], k, own, cost, factor, lowest)


@compiled
def relax_and_compare(
    activity: Array, error: Array, feedback: Array, prediction: Array, descent: Descent
) -> np.floating[Any]:
    """`relax`, then `compare`: errors are read and written once."""
    number = activity.dtype.type
    step, precision, decay, leak = descent
    k, own, cost, factor = number(step), number(precision), number(decay), number(leak)
    lowest = least(activity, leak)
    for i in range(activity.size):
        activity[i] = relaxed(activity[i], error[i], feedback[i], k, own, cost, factor, lowest)
        error[i] = activity[i] - prediction[i]
    return squared_norm(error)


@compiled
def softmax(prediction: Array, out: Array) -> None:
    """Out = softmax over neurons; (n, batch)."""
    neurons, batch = prediction.shape
    for sample in range(batch):
        largest = prediction[:, sample].max()
        for neuron in range(neurons):
            out[neuron, sample] = np.exp(prediction[neuron, sample] - largest)
        total = out[:, sample].sum()
        for neuron in range(neurons):
            out[neuron, sample] /= total


@compiled
def soft_clamp(target: Array, output: Array, mix: float, out: Array) -> None:
    """Out = (1 − mix) · target + mix · output, flat arrays."""
    share, rest = out.dtype.type(mix), out.dtype.type(1 - mix)
    for i in range(out.size):
        out[i] = rest * target[i] + share * output[i]


@compiled
def clamp_and_compare(
    target: Array, output: Array, mix: float, activity: Array, error: Array
) -> np.floating[Any]:
    """`soft_clamp`, then `compare` with the output, flat arrays; return the sum of the error's squares."""
    share, rest = activity.dtype.type(mix), activity.dtype.type(1 - mix)
    for i in range(activity.size):
        value = rest * target[i] + share * output[i]
        activity[i] = value
        error[i] = value - output[i]
    return squared_norm(error)


@compiled
def softmax_energy(target: Array, activity: Array, prediction: Array, precision: float) -> float:
    """Return the sum of precision · cross-entropy(ĥ, softmax p) + relative entropy(y, ĥ), in float64.

    Args:
        target: y, (batch, n), as it lies.
        activity: ĥ, (batch, n), as it lies.
        prediction: p, (batch, n), as it lies.
        precision: γ_L.
    """
    batch, neurons = activity.shape
    tiny = np.float64(np.finfo(activity.dtype).tiny)  # keeps log finite, as in the reference
    total = 0.0
    for sample in range(batch):
        largest = prediction[sample, 0]
        for neuron in range(1, neurons):
            largest = max(largest, prediction[sample, neuron])
        partition, mass, inner, loss = 0.0, 0.0, 0.0, 0.0
        for neuron in range(neurons):
            here, wanted = activity[sample, neuron], target[sample, neuron]
            partition += np.exp(np.float64(prediction[sample, neuron] - largest))
            mass += here
            inner += here * (prediction[sample, neuron] - largest)
            if wanted > 0:
                loss += wanted * (np.log(np.float64(wanted)) - np.log(max(np.float64(here), tiny)))
        total += precision * (mass * np.log(partition) - inner) + loss
    return total


def compile_all(dtype: str) -> None:
    """Compile, or load from disk, every loop for one type of numbers, by calling it on tiny arrays.

    What comes in as a message may be read-only, which Numba takes for another type.
    """
    table, row, number = np.ones((2, 2), dtype), np.ones(2, dtype), 1.0
    for writeable in (True, False):
        sent, sent_row = table.copy(), row.copy()
        sent.flags.writeable = sent_row.flags.writeable = writeable
        update_bias(row, sent, number)
        add_scaled(row, sent_row, number)
        sum_samples(sent, row)
        copy_and_count(sent_row, row.copy())
        soft_clamp(row, sent_row, number, row.copy())
        clamp_and_compare(sent_row, row.copy(), number, row.copy(), row.copy())
        squared_norm(sent_row)
        absolute_sum(sent_row)
        softmax(sent, table.copy())
        by_neuron, sent_by_neuron = table.copy("F"), table.copy("F")
        sent_by_neuron.flags.writeable = writeable
        for target in (table, by_neuron):
            softmax_energy(target, table, sent, number)  # of a single sample
            softmax_energy(target, by_neuron, sent_by_neuron, number)
    update(table, table.copy(), number)
    adam(row, row.copy(), row.copy(), row.copy(), AdamConstants(*(number,) * 7))
    scaled_copy(row, number, row)
