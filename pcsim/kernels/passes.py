"""Passes over the weights of a dense connection, line by line, for a single sample.

A line is what one neuron sends to all others. Each pass is cut into `BLOCKS` ranges of neurons, which threads
share; see `pcsim.kernels.mail`. What blocks send to the same neurons is summed up in the order of the blocks,
so that results do not depend on who has done them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcsim.kernels import Array, Relaxation
from pcsim.kernels.loops import absolute_sum, compiled, in_order, least, relaxed
from pcsim.kernels.mail import Mail, address_of, block_function, do_blocks, new_mail

Indices = NDArray[np.int64]

BLOCKS = 4  # a few threads read memory as fast as it goes


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
    cost, factor, lowest = number(constants.activity_decay), number(leak), least(activity, leak)
    into, count = begin(bias, parts, out, block), 0
    sending, four = np.empty(4, np.int64), np.empty(4, activity.dtype)
    first, last = edges(len(activity), block)
    for neuron in range(first, last):
        value, back = activity[neuron], number(0)
        if value > opens:
            back = above * receive(lines[neuron], error_above)
        value = relaxed(value, error[neuron], back, k, own, cost, factor, lowest)
        activity[neuron] = value
        rate = value if value > 0 else factor * (lowest if value < lowest else value)
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
    number, lowest = senders.dtype.type, least(senders, leak)
    for neuron in range(len(senders)):
        value = activity[neuron]
        senders[neuron] = value if value > 0 else number(leak) * (lowest if value < lowest else value)
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
