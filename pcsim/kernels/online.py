"""A dense connection with mini-batches of one: driven by events, neuron by neuron.

Weights lie line by line: what one neuron sends to all others is one line, `lines = weight.T`. A rectified
neuron that is silent (ĥ_i ≤ 0, so f(ĥ_i) = 0) sends nothing, its gate f'(ĥ_i) is closed and its weights learn
nothing, so its line is not touched. What is left out is exactly 0, and a step is bound by the memory that it
touches: with half of the neurons silent it takes little more than half the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcsim.kernels import Array
from pcsim.kernels.dense import DenseSynapses
from pcsim.kernels.layout import LEAKS
from pcsim.kernels.loops import compiled, scaled_copy

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


def by_lines(weight: Array) -> bool:
    """Return whether a weight lies in memory as `OnlineSynapses` places it."""
    return weight.flags.f_contiguous


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
    # Four lines at a time, so that sums are read and written less often.
    part, whole = out[first:last], count - count % 4
    for turn in range(0, whole, 4):
        i, j, k, l = sending[turn], sending[turn + 1], sending[turn + 2], sending[turn + 3]  # noqa: E741
        a, b, c, d = rates[i], rates[j], rates[k], rates[l]
        one, two, three, four = (
            lines[i, first:last],
            lines[j, first:last],
            lines[k, first:last],
            lines[l, first:last],
        )
        for target in range(len(part)):
            part[target] += (a * one[target] + b * two[target]) + (c * three[target] + d * four[target])
    for turn in range(whole, count):
        rate, line = rates[sending[turn]], lines[sending[turn], first:last]
        for target in range(len(part)):
            part[target] += rate * line[target]


@compiled
def feedback(
    lines: Array, error: Array, activity: Array, opens: float, out: Array, first: int, last: int
) -> None:
    """Out = lines error for neurons above a threshold, else 0, from first to last; (n, m), (m,) → (n,)."""
    for neuron in range(first, last):
        total = out.dtype.type(0)
        if activity[neuron] > opens:
            line = lines[neuron]
            for target in range(len(error)):
                total += line[target] * error[target]
        out[neuron] = total


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
        learn(table, sent, row, 1.0)
    predict(table, row, row, row.copy(), 0, 2)
