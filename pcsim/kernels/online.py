"""A dense connection with mini-batches of one: driven by events, neuron by neuron.

Weights lie line by line: what one neuron sends to all others is one line, `lines = weight.T`. A rectified
neuron that is silent (ĥ_i ≤ 0, so f(ĥ_i) = 0) sends nothing, its gate f'(ĥ_i) is closed and its weights learn
nothing, so its line is not touched. What is left out is exactly 0, and a step is bound by the memory that it
touches: with half of the neurons silent it takes little more than half the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pcsim.kernels import Array, Relaxation
from pcsim.kernels.dense import DenseSynapses
from pcsim.kernels.layout import LEAKS
from pcsim.kernels.loops import compiled, scaled_copy

Indices = NDArray[np.int64]

if TYPE_CHECKING:
    from pcsim.kernels.cpu import CpuKernels


@dataclass(frozen=True)
class OnlineSynapses(DenseSynapses):
    """One dense connection with mini-batches of one; weights that do not lie by lines go the usual way."""

    kernels: CpuKernels

    def place(self, weight: Array) -> Array:
        """Return the weight line by line: a copy, unless it lies so."""
        return np.asfortranarray(weight)

    def predict(self, activity: Array, weight: Array, bias: Array, out: Array) -> None:
        """p_{l+1} = W_l f(ĥ_l) + b_l, from the neurons that are not silent."""
        if not by_lines(weight):
            super().predict(activity, weight, bias, out)
            return
        rates, lines, into = self.kernels.rates(self.activation, activity)[:, 0], weight.T, out[0]

        def part(first: int, last: int) -> None:
            predict(lines, rates, bias, into, first, last)

        self.kernels.share(part, len(into), weight.size)

    def feedback(
        self, activity: Array, error_above: Array, weight: Array, precision_above: float, out: Array
    ) -> None:
        """W_lᵀ γ_{l+1} e_{l+1}, and 0 where the gate is closed."""
        if not by_lines(weight):
            super().feedback(activity, error_above, weight, precision_above, out)
            return
        lines, error, here, into = weight.T, error_above[0], activity[0], out[0]
        opens = 0.0 if LEAKS.get(self.activation) == 0 else -np.inf

        def part(first: int, last: int) -> None:
            feedback(lines, error, here, opens, into, first, last)

        self.kernels.share(part, len(into), weight.size)
        if precision_above != 1:
            scaled_copy(into, precision_above, into)


@dataclass(frozen=True)
class RectifiedSynapses(OnlineSynapses):
    """The same for what is linear on either side of 0: relaxing and predicting can share a pass."""

    def can_relax_and_predict(self, weight: Array) -> bool:
        """Whether one thread does it: several share a prediction by its targets, feedback by its sources."""
        return by_lines(weight) and not self.kernels.shares(len(weight), weight.size)

    def relax_and_predict(
        self,
        activity: Array,
        error: Array,
        error_above: Array,
        weight: Array,
        bias: Array,
        constants: Relaxation,
        out: Array,
    ) -> None:
        """Equation (2), then p_{l+1} = W_l f(ĥ_l) + b_l."""
        leak = LEAKS[self.activation]
        opens = 0.0 if leak == 0 else -np.inf
        rates = self.kernels.scratch("rates", activity.shape[::-1], activity.dtype)[:, 0]
        rows = (weight.T, activity[0], error[0], error_above[0], bias)
        relax_and_predict(*rows, constants, leak, opens, rates, out[0])


def by_lines(weight: Array) -> bool:
    """Return whether a weight lies in memory as `OnlineSynapses` places it."""
    return weight.flags.f_contiguous


@compiled
def add_four(
    lines: Array, rates: Array, sending: Indices, turn: int, out: Array, first: int, last: int
) -> None:
    """Add rate times line of four neurons at once, so that sums are read and written less often."""
    i, j, k, l = sending[turn], sending[turn + 1], sending[turn + 2], sending[turn + 3]  # noqa: E741
    a, b, c, d = rates[i], rates[j], rates[k], rates[l]
    one, two = lines[i, first:last], lines[j, first:last]
    three, four, into = lines[k, first:last], lines[l, first:last], out[first:last]
    for target in range(len(into)):
        into[target] += (a * one[target] + b * two[target]) + (c * three[target] + d * four[target])


@compiled
def add_one(lines: Array, rate: float, neuron: int, out: Array, first: int, last: int) -> None:
    """Add rate times line of one neuron."""
    line, into = lines[neuron, first:last], out[first:last]
    for target in range(len(into)):
        into[target] += rate * line[target]


@compiled
def receive(line: Array, error: Array) -> np.floating[Any]:
    """Return the sum of line times error."""
    total = line.dtype.type(0)
    for target in range(len(error)):
        total += line[target] * error[target]
    return total


@compiled
def predict(lines: Array, rates: Array, bias: Array, out: Array, first: int, last: int) -> None:
    """Out = linesᵀ rates + bias, for the targets from first to last; (n, m), (n,), (m,) → (m,)."""
    sending = np.empty(len(rates), np.int64)
    count = 0
    for neuron in range(len(rates)):
        sending[count] = neuron
        count += rates[neuron] != 0
    for target in range(first, last):
        out[target] = bias[target]
    whole = count - count % 4
    for turn in range(0, whole, 4):
        add_four(lines, rates, sending, turn, out, first, last)
    for turn in range(whole, count):
        add_one(lines, rates[sending[turn]], sending[turn], out, first, last)


@compiled
def feedback(
    lines: Array, error: Array, activity: Array, opens: float, out: Array, first: int, last: int
) -> None:
    """Out = lines error for neurons above a threshold, else 0, from first to last; (n, m), (m,) → (n,)."""
    for neuron in range(first, last):
        out[neuron] = receive(lines[neuron], error) if activity[neuron] > opens else out.dtype.type(0)


@compiled
def relax_and_predict(
    lines: Array,
    activity: Array,
    error: Array,
    error_above: Array,
    bias: Array,
    constants: Relaxation,
    leak: float,
    opens: float,
    rates: Array,
    out: Array,
) -> None:
    """`feedback`, equation (2), f and `predict`, neuron by neuron: each line is read once.

    Args:
        lines: (n, m).
        activity: ĥ_l, changed; (n,).
        error: e_l, (n,).
        error_above: e_{l+1}, (m,).
        bias: (m,).
        constants: of equation (2).
        leak: slope of f below 0.
        opens: activity above which feedback counts.
        rates: scratch for f(ĥ_l), (n,).
        out: p_{l+1}, (m,).
    """
    number = activity.dtype.type
    k, own, above = number(constants.step), number(constants.precision), number(constants.precision_above)
    cost, factor = number(constants.activity_decay), number(leak)
    sending = np.empty(len(activity), np.int64)
    count = done = 0
    for target in range(len(out)):
        out[target] = bias[target]
    for neuron in range(len(activity)):
        value, back = activity[neuron], number(0)
        if value > opens:
            back = above * receive(lines[neuron], error_above)
        slope = number(1) if value > 0 else factor
        value += k * (slope * (back - cost * slope * value) - own * error[neuron])
        activity[neuron] = value
        rates[neuron] = value if value > 0 else factor * value
        sending[count] = neuron
        count += rates[neuron] != 0
        if count == done + 4:
            add_four(lines, rates, sending, done, out, 0, len(out))
            done = count
    for turn in range(done, count):
        add_one(lines, rates[sending[turn]], sending[turn], out, 0, len(out))


@compiled
def learn(lines: Array, senders: Array, receivers: Array, scale: float) -> None:
    """Lines += scale · senders receiversᵀ, where the sender is not 0; (n, m), (n,), (m,)."""
    for neuron in range(len(senders)):
        change = lines.dtype.type(scale) * senders[neuron]
        if change != 0:
            line = lines[neuron]
            for target in range(len(receivers)):
                line[target] += change * receivers[target]


def compile_all(dtype: str) -> None:
    """Compile, or load from disk, everything here for one type of numbers, by calling it on tiny arrays.

    What comes in as a message may be read-only, which Numba takes for another type.
    """
    table, row = np.ones((2, 2), dtype), np.ones(2, dtype)
    for writeable in (True, False):
        sent = row.copy()
        sent.flags.writeable = writeable
        feedback(table, sent, row, 0.0, row.copy(), 0, 2)
        learn(table, row, sent, 1.0)
        given = table, row.copy(), row, sent, row
        relax_and_predict(*given, Relaxation(1.0, 1.0, 1.0, 1.0), 1.0, 0.0, row.copy(), row.copy())
        learn(table, sent, row, 1.0)
    predict(table, row, row, row.copy(), 0, 2)
