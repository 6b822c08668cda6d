"""Passes over the activities of a layer, number by number, that threads share.

All arrays are flat and lie neuron by sample. They are cut into blocks, as many for one thread as for several:
sums do not depend on how many there are. A thread's share of them is what it has computed in the product
before, and still has in its cache; see `pcsim.kernels.mail`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pcsim.kernels import Array, loops
from pcsim.kernels.crew import Crew
from pcsim.kernels.loops import Descent, compiled
from pcsim.kernels.mail import Mail, address_of, block_function, do_blocks, new_mail

BLOCK, MOST_BLOCKS = 8192, 64  # numbers that are worth to be handed over, and blocks of a pass
WORK = 8  # multiplications of a product that take as long as a number of a pass over memory


def number_of_blocks(size: int) -> int:
    """Return into how many blocks to cut a pass over so many numbers."""
    return min(max(size // BLOCK, 1), MOST_BLOCKS)


@dataclass(frozen=True)
class Pass:
    """One pass over flat arrays, with a norm or without.

    Attributes:
        whole: does it in one piece; returns the norm.
        shared: does it by blocks; the first of the norms that come last gets the sum of all.
    """

    whole: Callable[..., Any]
    shared: Callable[..., bool]

    def __call__(self, crew: Crew, values: Array, *operands: object) -> float:
        """Do it; return the norm, or 0.

        Args:
            crew: whose threads share it.
            values: the first operand, flat.
            operands: the others.
        """
        if values.size < 2 * BLOCK:
            return float(self.whole(values, *operands) or 0)
        norms = np.zeros(number_of_blocks(values.size))
        crew.share(self.shared, values.size * WORK, values, *operands, norms)
        return norms.item(0)


@compiled
def edges(size: int, blocks: int, block: int) -> tuple[int, int]:
    """Return the first number of a block, and the first that is none of it: whole lines of the cache."""
    first, last = size * block // blocks, size * (block + 1) // blocks
    return first - first % 16, last - last % 16 if block + 1 < blocks else size


@compiled
def sum_up(norms: Array) -> None:
    """Let the first have the sum of all, which takes NumPy longer than the pass."""
    for block in range(1, len(norms)):
        norms[0] += norms[block]


@compiled
def compare(mail: Mail, activity: Array, prediction: Array, out: Array, norms: Array) -> bool:
    """E = ĥ − p, with the squared norm."""
    operands = activity, prediction, out, norms
    helped = do_blocks(mail, block_function(compare_block, operands), address_of(operands), len(norms))
    sum_up(norms)
    return helped


@compiled
def compare_block(operands: tuple[Any, ...], block: int) -> None:
    """Compare some."""
    activity, prediction, out, norms = operands
    first, last = edges(out.size, len(norms), block)
    norms[block] = loops.compare(activity[first:last], prediction[first:last], out[first:last])


@compiled
def rectify(mail: Mail, values: Array, leak: float, out: Array, norms: Array) -> bool:
    """Out = values where positive, else leak · values; there is no norm."""
    operands = values, leak, out, norms
    return do_blocks(mail, block_function(rectify_block, operands), address_of(operands), len(norms))


@compiled
def rectify_block(operands: tuple[Any, ...], block: int) -> None:
    """Rectify some."""
    values, leak, out, norms = operands
    first, last = edges(out.size, len(norms), block)
    loops.rectify(values[first:last], leak, out[first:last])


@compiled
def relax(mail: Mail, activity: Array, error: Array, feedback: Array, descent: Descent, norms: Array) -> bool:
    """Equation (2); there is no norm."""
    operands = activity, error, feedback, descent, norms
    return do_blocks(mail, block_function(relax_block, operands), address_of(operands), len(norms))


@compiled
def relax_block(operands: tuple[Any, ...], block: int) -> None:
    """Let some relax."""
    activity, error, feedback, descent, norms = operands
    first, last = edges(activity.size, len(norms), block)
    loops.relax(activity[first:last], error[first:last], feedback[first:last], descent)


@compiled
def relax_and_compare(
    mail: Mail,
    activity: Array,
    error: Array,
    feedback: Array,
    prediction: Array,
    descent: Descent,
    norms: Array,
) -> bool:
    """`relax`, then `compare`: errors are read and written once; with the squared norm."""
    operands = activity, error, feedback, prediction, descent, norms
    function = block_function(relax_and_compare_block, operands)
    helped = do_blocks(mail, function, address_of(operands), len(norms))
    sum_up(norms)
    return helped


@compiled
def relax_and_compare_block(operands: tuple[Any, ...], block: int) -> None:
    """Let some relax, and compare them."""
    activity, error, feedback, prediction, descent, norms = operands
    first, last = edges(activity.size, len(norms), block)
    moved, wrong = activity[first:last], error[first:last]
    back, expected = feedback[first:last], prediction[first:last]
    norms[block] = loops.relax_and_compare(moved, wrong, back, expected, descent)


@compiled
def turn_over(mail: Mail, values: Array, out: Array, blocks: int) -> bool:
    """Out = valuesᵀ; (batch, n) → (n, batch)."""
    operands = values, out, blocks
    return do_blocks(mail, block_function(turn_over_block, operands), address_of(operands), blocks)


@compiled
def turn_over_block(operands: tuple[Any, ...], block: int) -> None:
    """Turn over what belongs to some of the neurons."""
    values, out, blocks = operands
    first, last = edges(len(out), blocks, block)
    loops.turn_over(values, out, first, last)


COMPARE = Pass(loops.compare, compare)
RECTIFY = Pass(loops.rectify, rectify)
RELAX = Pass(loops.relax, relax)
RELAX_AND_COMPARE = Pass(loops.relax_and_compare, relax_and_compare)


def compile_all(dtype: str) -> None:
    """Compile, or load from disk, everything here for one type of numbers, by calling it on tiny arrays.

    What comes in as a message may be read-only, which Numba takes for another type.
    """
    mail, number = new_mail(), 1.0
    descent = Descent(*(number,) * 4)

    def run(one: Pass, *operands: object) -> None:
        one.whole(*operands)
        one.shared(mail, *operands, np.empty(1))

    row, table = np.ones(2, dtype), np.ones((2, 2), dtype)
    for writeable in (True, False):
        sent, sent_table = row.copy(), table.copy()
        sent.flags.writeable = sent_table.flags.writeable = writeable
        run(COMPARE, row, sent, row.copy())
        run(RELAX_AND_COMPARE, row.copy(), row.copy(), row.copy(), sent, descent)
        turn_over(mail, sent_table, table.copy(), 1)
    run(RECTIFY, row, number, row.copy())
    run(RELAX, row, row.copy(), row.copy(), descent)
