"""A dense connection with mini-batches of one: driven by events, neuron by neuron.

Weights lie line by line: what one neuron sends to all others is one line, `lines = weight.T`. A rectified
neuron that is silent (ĥ_i ≤ 0, so f(ĥ_i) = 0) sends nothing, its gate f'(ĥ_i) is closed and its weights learn
nothing, so its line is not touched. What is left out is exactly 0, and a step is bound by the memory that it
touches: with half of the neurons silent it takes little more than half the time.

What one sample teaches a weight is an outer product. While samples stream in it may be put off until the next
one is predicted, where the same pass over the lines adds it first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numba
import numpy as np
from numpy.typing import NDArray

from pcsim.kernels import Array, Relaxation
from pcsim.kernels.dense import DenseSynapses
from pcsim.kernels.layout import LEAKS, roomy_copy
from pcsim.kernels.loops import Function, absolute_sum, compiled, scaled_copy
from pcsim.kernels.mail import Mail, address_of, block_function, do_blocks, new_mail

Indices = NDArray[np.int64]

BLOCKS = 4  # of a pass, on any number of threads: sums are in their order; a few exhaust the memory

if TYPE_CHECKING:
    from pcsim.kernels.cpu import CpuKernels


@dataclass(frozen=True, eq=False)
class Update:
    """What one sample teaches a weight: lines += scale · senders receiversᵀ.

    Attributes:
        lines: (n, m).
        senders: (n,).
        receivers: (m,).
        scale: step size.
    """

    lines: Array
    senders: Array
    receivers: Array
    scale: float


class Postponed:
    """Updates that wait for the next prediction through their weight, one for each."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[Array, Update]] = {}
        self.allowed = False

    def put(self, weight: Array, update: Update) -> None:
        """Let an update wait; the one before must have been taken."""
        self._waiting[id(weight)] = weight, update  # kept alive, so that its number stays its own

    def take(self, weight: Array) -> Update | None:
        """Return the update that waits for a weight, which then waits no longer."""
        return self._waiting.pop(id(weight), (weight, None))[1]

    @contextmanager
    def until_the_end(self, apply: Callable[[Update], None]) -> Iterator[None]:
        """Allow updates to wait in this block; what still waits as it ends is applied."""
        self.allowed = True
        try:
            yield
        finally:
            self.allowed = False
            while self._waiting:
                apply(self._waiting.popitem()[1][1])


@dataclass(frozen=True)
class OnlineSynapses(DenseSynapses):
    """One dense connection with mini-batches of one; weights that do not lie by lines go the usual way."""

    kernels: CpuKernels

    def place(self, weight: Array) -> Array:
        """Return the weight line by line: a copy, unless it lies so."""
        return weight if by_lines(weight) else roomy_copy(weight, order="F")

    def settled(self, weight: Array) -> Array:
        """Return the weight after the update that was put off, if there is one."""
        late = self.kernels.postponed.take(weight)
        if late is not None:
            self.kernels.apply(late)
        return weight

    def predict(self, activity: Array, weight: Array, bias: Array, out: Array) -> None:
        """p_{l+1} = W_l f(ĥ_l) + b_l, from the neurons that are not silent."""
        if not by_lines(weight):
            super().predict(activity, weight, bias, out)
            return
        kernels, lines, into = self.kernels, weight.T, out[0]
        rates, parts = kernels.rates(self.activation, activity)[:, 0], kernels.parts(into)
        late = kernels.postponed.take(weight)
        if late is None:
            kernels.crew.share(predict, weight.size, lines, rates, bias, parts, into)
        else:
            update = late.senders, late.receivers, late.scale
            kernels.crew.share(learn_and_predict, weight.size, lines, *update, rates, bias, parts, into)

    def feedback(
        self, activity: Array, error_above: Array, weight: Array, precision_above: float, out: Array
    ) -> None:
        """W_lᵀ γ_{l+1} e_{l+1}, and 0 where the gate is closed."""
        if not by_lines(weight):
            super().feedback(activity, error_above, weight, precision_above, out)
            return
        opens, into = 0.0 if LEAKS.get(self.activation) == 0 else -np.inf, out[0]
        self.kernels.crew.share(feedback, weight.size, weight.T, error_above[0], activity[0], opens, into)
        if precision_above != 1:
            scaled_copy(into, precision_above, into)


@dataclass(frozen=True)
class RectifiedSynapses(OnlineSynapses):
    """The same for what is linear on either side of 0: relaxing and predicting can share a pass."""

    def can_relax_and_predict(self, weight: Array) -> bool:
        """Whether it lies line by line."""
        return by_lines(weight)

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
        rows = weight.T, activity[0], error[0], error_above[0], bias
        parts = self.kernels.parts(out[0])
        self.kernels.crew.share(relax_and_predict, weight.size, *rows, constants, leak, opens, parts, out[0])


def by_lines(weight: Array) -> bool:
    """Return whether a weight lies in memory as `OnlineSynapses` places it."""
    return weight.flags.f_contiguous


def in_order(function: Function) -> Function:
    """Compile a loop whose sums keep their order: the bits do not depend on how many lines it adds."""
    jit = numba.njit(cache=True, fastmath={"contract"}, error_model="numpy", nogil=True)
    return cast("Function", jit(function))


@in_order
def add_line(line: Array, rate: float, into: Array) -> None:
    """Into += rate · line."""
    for target in range(len(into)):
        into[target] += rate * line[target]


@in_order
def add_four(lines: Array, rates: Array, sending: Indices, into: Array) -> None:
    """Do what `add_line` does for four neurons: sums are read and written less often, the bits are the same.

    Args:
        lines: (n, m).
        rates: of the four.
        sending: which neurons they are.
        into: (m,).
    """
    a, b, c, d = rates[0], rates[1], rates[2], rates[3]
    one, two, three, four = lines[sending[0]], lines[sending[1]], lines[sending[2]], lines[sending[3]]
    for target in range(len(into)):
        total = into[target] + a * one[target]
        total += b * two[target]
        total += c * three[target]
        into[target] = total + d * four[target]


@in_order
def add_rest(lines: Array, rates: Array, sending: Indices, count: int, into: Array) -> None:
    """Add the lines of fewer than four neurons."""
    for turn in range(count):
        add_line(lines[sending[turn]], rates[turn], into)


@compiled
def receive(line: Array, error: Array) -> np.floating[Any]:
    """Return the sum of line times error."""
    total = line.dtype.type(0)
    for target in range(len(error)):
        total += line[target] * error[target]
    return total


@compiled
def edges(neurons: int, block: int) -> tuple[int, int]:
    """Return the first neuron of a block, and the first that is none of it."""
    return neurons * block // BLOCKS, neurons * (block + 1) // BLOCKS


@in_order
def begin(bias: Array, parts: Array, out: Array, block: int) -> Array:
    """Return what a block adds its lines to: the first one to the bias, the others to nothing."""
    into: Array = out if block == 0 else parts[block - 1]
    if block == 0:
        into[:] = bias
    else:
        into[:] = 0
    return into


@in_order
def add_parts(parts: Array, out: Array) -> None:
    """Out += what the blocks after the first have found, (`BLOCKS` − 1, m), in their order."""
    for part in range(len(parts)):
        for target in range(len(out)):
            out[target] += parts[part, target]


@compiled
def predict_block(operands: tuple[Any, ...], block: int) -> None:
    """Add the lines of a block of neurons, four at a time."""
    lines, rates, bias, parts, out = operands
    into, count = begin(bias, parts, out, block), 0
    sending, four = np.empty(4, np.int64), np.empty(4, rates.dtype)
    first, last = edges(len(rates), block)
    for neuron in range(first, last):
        if rates[neuron] != 0:
            sending[count], four[count] = neuron, rates[neuron]
            count += 1
        if count == 4:
            add_four(lines, four, sending, into)
            count = 0
    add_rest(lines, four, sending, count, into)


@compiled
def predict(mail: Mail, lines: Array, rates: Array, bias: Array, parts: Array, out: Array) -> bool:
    """Out = linesᵀ rates + bias; (n, m), (n,), (m,) → (m,)."""
    operands = lines, rates, bias, parts, out
    helped = do_blocks(mail, block_function(predict_block, operands), address_of(operands), BLOCKS)
    add_parts(parts, out)
    return helped


@in_order
def learn_and_predict_block(operands: tuple[Any, ...], block: int) -> None:
    """Let the lines of a block of neurons learn, and add them."""
    lines, senders, receivers, scale, rates, bias, parts, out = operands
    into = begin(bias, parts, out, block)
    first, last = edges(len(rates), block)
    for neuron in range(first, last):
        change, rate, line = lines.dtype.type(scale) * senders[neuron], rates[neuron], lines[neuron]
        if change != 0 and rate != 0:
            for target in range(len(into)):
                weight = line[target] + change * receivers[target]
                line[target] = weight
                into[target] += rate * weight
        elif change != 0:
            add_line(receivers, change, line)
        elif rate != 0:
            add_line(line, rate, into)


@compiled
def learn_and_predict(
    mail: Mail,
    lines: Array,
    senders: Array,
    receivers: Array,
    scale: float,
    rates: Array,
    bias: Array,
    parts: Array,
    out: Array,
) -> bool:
    """`learn`, then `predict`: each line is read and written once."""
    operands = lines, senders, receivers, scale, rates, bias, parts, out
    helped = do_blocks(mail, block_function(learn_and_predict_block, operands), address_of(operands), BLOCKS)
    add_parts(parts, out)
    return helped


@compiled
def feedback_block(operands: tuple[Any, ...], block: int) -> None:
    """Give a block of neurons what comes back to them."""
    lines, error, activity, opens, out = operands
    first, last = edges(len(out), block)
    for neuron in range(first, last):
        out[neuron] = receive(lines[neuron], error) if activity[neuron] > opens else out.dtype.type(0)


@compiled
def feedback(mail: Mail, lines: Array, error: Array, activity: Array, opens: float, out: Array) -> bool:
    """Out = lines error for neurons above a threshold, else 0; (n, m), (m,) → (n,)."""
    operands = lines, error, activity, opens, out
    return do_blocks(mail, block_function(feedback_block, operands), address_of(operands), BLOCKS)


@compiled
def relax_and_predict_block(operands: tuple[Any, ...], block: int) -> None:
    """Let a block of neurons relax, and add their lines, four at a time."""
    lines, activity, error, error_above, bias, constants, leak, opens, parts, out = operands
    number = activity.dtype.type
    k, own, above = number(constants.step), number(constants.precision), number(constants.precision_above)
    cost, factor = number(constants.activity_decay), number(leak)
    into, count = begin(bias, parts, out, block), 0
    sending, four = np.empty(4, np.int64), np.empty(4, activity.dtype)
    first, last = edges(len(activity), block)
    for neuron in range(first, last):
        value, back = activity[neuron], number(0)
        if value > opens:
            back = above * receive(lines[neuron], error_above)
        slope = number(1) if value > 0 else factor
        value += k * (slope * (back - cost * slope * value) - own * error[neuron])
        activity[neuron] = value
        rate = value if value > 0 else factor * value
        if rate != 0:
            sending[count], four[count] = neuron, rate
            count += 1
        if count == 4:
            add_four(lines, four, sending, into)
            count = 0
    add_rest(lines, four, sending, count, into)


@compiled
def relax_and_predict(
    mail: Mail,
    lines: Array,
    activity: Array,
    error: Array,
    error_above: Array,
    bias: Array,
    constants: Relaxation,
    leak: float,
    opens: float,
    parts: Array,
    out: Array,
) -> bool:
    """`feedback`, equation (2), f and `predict`, a few neurons at a time: each line is read once.

    Args:
        mail: of the crew that does it.
        lines: (n, m).
        activity: ĥ_l, changed; (n,).
        error: e_l, (n,).
        error_above: e_{l+1}, (m,).
        bias: (m,).
        constants: of equation (2).
        leak: slope of f below 0.
        opens: activity above which feedback counts.
        parts: for sums of blocks, (`BLOCKS` − 1, m).
        out: p_{l+1}, (m,).
    """
    operands = lines, activity, error, error_above, bias, constants, leak, opens, parts, out
    helped = do_blocks(mail, block_function(relax_and_predict_block, operands), address_of(operands), BLOCKS)
    add_parts(parts, out)
    return helped


@compiled
def weigh(
    activity: Array,
    error: Array,
    bias: Array,
    leak: float,
    scale: float,
    senders: Array,
    receivers: Array,
) -> float:
    """Copy both factors of an outer product, let the bias learn; return Σ|[e fᵀ, e]|.

    The norm of an outer product is the product of the norms.

    Args:
        activity: ĥ_l, (n,).
        error: e_{l+1}, (m,).
        bias: changed by scale · error; (m,).
        leak: slope of f below 0.
        scale: step size.
        senders: set to f(ĥ_l), (n,).
        receivers: set to e_{l+1}, (m,).
    """
    number = senders.dtype.type
    for neuron in range(len(senders)):
        value = activity[neuron]
        senders[neuron] = value if value > 0 else number(leak) * value
    for neuron in range(len(receivers)):
        receivers[neuron] = error[neuron]
        bias[neuron] += number(scale) * error[neuron]
    return float(absolute_sum(receivers)) * (float(absolute_sum(senders)) + 1)


@compiled
def learn_block(operands: tuple[Any, ...], block: int) -> None:
    """Let the lines of a block of neurons learn."""
    lines, senders, receivers, scale = operands
    first, last = edges(len(senders), block)
    for neuron in range(first, last):
        change = lines.dtype.type(scale) * senders[neuron]
        if change != 0:
            add_line(receivers, change, lines[neuron])


@compiled
def learn(mail: Mail, lines: Array, senders: Array, receivers: Array, scale: float) -> bool:
    """Lines += scale · senders receiversᵀ, where the sender is not 0; (n, m), (n,), (m,)."""
    operands = lines, senders, receivers, scale
    return do_blocks(mail, block_function(learn_block, operands), address_of(operands), BLOCKS)


def compile_all(dtype: str) -> None:
    """Compile, or load from disk, everything here for one type of numbers, by calling it on tiny arrays.

    What comes in as a message may be read-only, which Numba takes for another type.
    """
    table, row, mail = np.ones((2, 2), dtype), np.ones(2, dtype), new_mail()
    parts = np.ones((BLOCKS - 1, 2), dtype)
    for writeable in (True, False):
        sent = row.copy()
        sent.flags.writeable = writeable
        feedback(mail, table, sent, row, 0.0, row.copy())
        given = table, row.copy(), row, sent, row
        relax_and_predict(mail, *given, Relaxation(1.0, 1.0, 1.0, 1.0), 1.0, 0.0, parts, row.copy())
        weigh(row, sent, row.copy(), 1.0, 1.0, row.copy(), row.copy())
    learn(mail, table, row, row.copy(), 1.0)
    predict(mail, table, row, row, parts, row.copy())
    learn_and_predict(mail, table, row, row.copy(), 1.0, row.copy(), row.copy(), parts, row.copy())
