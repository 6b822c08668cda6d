"""Our own matrix products: blocks that stay in cache, tiles that stay in registers.

All arrays of a mini-batch are neuron by sample, `(n, batch)`, so that a weight is read as it lies, a single
number of it serves a whole mini-batch, and no operand has to be rearranged. Only the Hebbian product needs
its presynaptic factor the other way round; see `by_panels`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pcsim.kernels import Array, loops
from pcsim.kernels.compiler import VECTOR_BYTES, VECTOR_REGISTERS
from pcsim.kernels.crew import ROWS
from pcsim.kernels.loops import AdamConstants, compiled, in_order
from pcsim.kernels.mail import Mail, address_of, block_function, do_blocks, new_mail
from pcsim.kernels.sparse import AT_ONCE, Indices, active, sparse_tile, worth_listing
from pcsim.kernels.tiles import tile

# Rows by vectors. Four rows need one load a multiplication and leave registers to spare. The twelve of the
# feedback use the better part of a line of the weight, sixteen numbers wide, as soon as it is there. With
# half of the registers tiles are half as large: sums that must wait in memory take twice as long.
WIDE, TALL = (4, 12) if VECTOR_REGISTERS >= 32 else (2, 6)
four_by_wide, one_by_wide = tile(4, WIDE), tile(1, WIDE)
tall_by_two, four_by_two, one_by_two = tile(TALL, 2, ahead=128), tile(4, 2), tile(1, 2)

TOGETHER = 2  # panels that share a row's list of active samples: their sums fill the registers
four_of_active = sparse_tile(4, WIDE, TOGETHER)

TERMS = 128  # of a sum that are taken at once: their part of the right factor stays in the first-level cache
FEEDBACK_TERMS = 64  # fewer: the lines of the weight, 4 KB apart, fall into few sets of that cache


@compiled
def rows_of(rows: int, block: int, blocks: int) -> tuple[int, int]:
    """Return where a block begins and ends; whole `ROWS`, but for the last."""
    first, last = rows * block // blocks, rows * (block + 1) // blocks
    return first - first % ROWS, last - last % ROWS if block + 1 < blocks else rows


@compiled
def predict(mail: Mail, weight: Array, rates: Array, bias: Array, out: Array, blocks: int) -> bool:
    """Out = weight rates + bias; (m, n), (n, batch), (m,) → (m, batch).

    Rates and out may be some columns of wider arrays. Several threads share blocks of rows.
    """
    operands = weight, rates, bias, out, blocks
    return do_blocks(mail, block_function(predict_block, operands), address_of(operands), blocks)


@compiled
def predict_block(operands: tuple[Any, ...], block: int) -> None:
    """Predict some of the neurons."""
    weight, rates, bias, out, blocks = operands
    first, last = rows_of(len(weight), block, blocks)
    predict_rows(weight[first:last], rates, bias[first:last], out[first:last])


@compiled
def predict_rows(weight: Array, rates: Array, bias: Array, out: Array) -> None:
    """See `predict`."""
    outputs, inputs = weight.shape
    batch = rates.shape[1]
    for row in range(outputs):
        out[row] = bias[row]
    w, lanes, one = weight.ravel(), VECTOR_BYTES // out.itemsize, out.dtype.type(1)
    across, down = rates.strides[0] // rates.itemsize, out.strides[0] // out.itemsize
    for term in range(0, inputs, TERMS):
        terms = min(TERMS, inputs - term)
        sample = 0
        while sample < batch:
            columns, right, row = batch - sample, term * across + sample, 0
            left, to = term, sample
            if columns > 2 * lanes:
                while row + 4 <= outputs:
                    four_by_wide(w, left, inputs, 1, rates, right, across, terms, out, to, down, columns, one)
                    row, left, to = row + 4, left + 4 * inputs, to + 4 * down
                while row < outputs:
                    one_by_wide(w, left, inputs, 1, rates, right, across, terms, out, to, down, columns, one)
                    row, left, to = row + 1, left + inputs, to + down
                sample += WIDE * lanes
            else:
                while row + 4 <= outputs:
                    four_by_two(w, left, inputs, 1, rates, right, across, terms, out, to, down, columns, one)
                    row, left, to = row + 4, left + 4 * inputs, to + 4 * down
                while row < outputs:
                    one_by_two(w, left, inputs, 1, rates, right, across, terms, out, to, down, columns, one)
                    row, left, to = row + 1, left + inputs, to + down
                sample += 2 * lanes


@compiled
def feedback(mail: Mail, weight: Array, error: Array, out: Array, first: int, blocks: int) -> bool:
    """Out = (columns of the weight from `first` on)ᵀ error; (m, n), (m, batch) → (as many, batch).

    Error may be some columns of a wider array. Several threads share blocks of rows of out.
    """
    operands = weight, error, out, first, blocks
    return do_blocks(mail, block_function(feedback_block, operands), address_of(operands), blocks)


@compiled
def feedback_block(operands: tuple[Any, ...], block: int) -> None:
    """Send feedback to some of the neurons."""
    weight, error, out, first, blocks = operands
    begin, end = rows_of(len(out), block, blocks)
    feedback_rows(weight, error, out[begin:end], first + begin)


@compiled
def feedback_rows(weight: Array, error: Array, out: Array, first: int) -> None:
    """See `feedback`."""
    outputs, inputs = weight.shape
    batch, rows = error.shape[1], out.shape[0]
    out[:] = 0
    w, o, lanes, one = weight.ravel(), out.ravel(), VECTOR_BYTES // out.itemsize, out.dtype.type(1)
    across = error.strides[0] // error.itemsize
    for term in range(0, outputs, FEEDBACK_TERMS):
        terms = min(FEEDBACK_TERMS, outputs - term)
        for sample in range(0, batch, 2 * lanes):
            columns, right = batch - sample, term * across + sample
            row, left, to = 0, term * inputs + first, sample
            while row + TALL <= rows:
                tall_by_two(w, left, 1, inputs, error, right, across, terms, o, to, batch, columns, one)
                row, left, to = row + TALL, left + TALL, to + TALL * batch
            while row + 4 <= rows:
                four_by_two(w, left, 1, inputs, error, right, across, terms, o, to, batch, columns, one)
                row, left, to = row + 4, left + 4, to + 4 * batch
            while row < rows:
                one_by_two(w, left, 1, inputs, error, right, across, terms, o, to, batch, columns, one)
                row, left, to = row + 1, left + 1, to + batch


def panel_shape(inputs: int, batch: int, itemsize: int) -> tuple[int, int, int]:
    """Return the shape of the rates of `inputs` neurons by panels."""
    width = WIDE * VECTOR_BYTES // itemsize
    return -(-inputs // width), batch, width


@compiled
def by_panels(mail: Mail, rates: Array, panels: Array, blocks: int) -> bool:
    """Rearrange (n, batch) to (n / width, batch, width); what the last panel has too much stays as it is."""
    operands = rates, panels, blocks
    return do_blocks(mail, block_function(panels_block, operands), address_of(operands), blocks)


@compiled
def panels_block(operands: tuple[Any, ...], block: int) -> None:
    """Rearrange some of the panels, four neurons at a time."""
    rates, panels, blocks = operands
    count, batch, width = panels.shape
    for panel in range(count * block // blocks, count * (block + 1) // blocks):
        first = panel * width
        columns = min(width, rates.shape[0] - first)
        whole = columns - columns % 4
        for column in range(0, whole, 4):
            at = first + column
            one, two, three, four = rates[at], rates[at + 1], rates[at + 2], rates[at + 3]
            for sample in range(batch):
                row = panels[panel, sample, column : column + 4]
                row[0], row[1], row[2], row[3] = one[sample], two[sample], three[sample], four[sample]
        for column in range(whole, columns):
            for sample in range(batch):
                panels[panel, sample, column] = rates[first + column, sample]


def room_for_norms(weight: Array) -> Array:
    """Return what `outer` and `adam` need for the norms of each `ROWS` rows."""
    return np.empty(-(-len(weight) // ROWS))


@compiled
def outer(
    mail: Mail, error: Array, panels: Array, scale: float, out: Array, norms: Array, blocks: int
) -> bool:
    """Out += scale · error ratesᵀ; (m, batch), rates by panels → (m, n).

    The product of a tile is in registers only: its absolute values are summed and it is added at once.
    `norms` gets Σ|error ratesᵀ| of each `ROWS` rows: threads that share the rows sum up as one does.
    """
    operands = error, panels, scale, out, norms, blocks
    return do_blocks(mail, block_function(outer_block, operands), address_of(operands), blocks)


@compiled
def outer_block(operands: tuple[Any, ...], block: int) -> None:
    """Add some of the rows."""
    error, panels, scale, out, norms, blocks = operands
    first, last = rows_of(len(out), block, blocks)
    if first < last:
        outer_rows(error[first:last], panels, scale, out[first:last], norms[first // ROWS :])


@compiled
def adam(
    mail: Mail,
    error: Array,
    panels: Array,
    weight: Array,
    first: Array,
    second: Array,
    constants: AdamConstants,
    norms: Array,
    blocks: int,
) -> bool:
    """Let a weight and its moments, (m, n), take a step of Adam with error ratesᵀ, `ROWS` rows at a time.

    `norms` gets Σ|Δ| of each.
    """
    operands = error, panels, weight, first, second, constants, norms, blocks
    return do_blocks(mail, block_function(adam_block, operands), address_of(operands), blocks)


@compiled
def adam_block(operands: tuple[Any, ...], block: int) -> None:
    """Let some of the rows take their step."""
    error, panels, weight, first, second, constants, norms, blocks = operands
    begin, end = rows_of(len(weight), block, blocks)
    total, unused = np.empty((min(ROWS, end - begin), weight.shape[1]), weight.dtype), np.empty(1)
    for start in range(begin, end, ROWS):
        stop = min(start + ROWS, end)
        gradient = total[: stop - start]
        gradient[:] = 0
        outer_rows(error[start:stop], panels, 1.0, gradient, unused)
        norms[start // ROWS] = loops.adam(
            weight[start:stop].ravel(),
            gradient.ravel(),
            first[start:stop].ravel(),
            second[start:stop].ravel(),
            constants,
        )


@compiled
def outer_rows(error: Array, panels: Array, scale: float, out: Array, norms: Array) -> None:
    """See `outer`; where enough of the errors are 0 they are left out, which changes no bit."""
    outputs, inputs = out.shape
    count, batch, width = panels.shape
    whole = inputs // (width * TOGETHER) * TOGETHER
    found = np.empty(count, out.dtype)
    room = min(ROWS, outputs), batch + AT_ONCE
    values, places, counts = np.empty(room, out.dtype), np.empty(room, np.int32), np.empty(room[0], np.int32)
    for start in range(0, outputs, ROWS):
        some, changed = error[start : start + ROWS], out[start : start + ROWS]
        first = 0
        if whole > 0 and worth_listing(some):
            active(some, width, values, places, counts)
            outer_of_active(some, panels, whole, values, places, counts, scale, changed, found)
            first = whole
        outer_tiles(some, panels, first, scale, changed, found)
        norm = 0.0
        for panel in range(count):
            norm += float(found[panel])
        norms[start // ROWS] = norm


@in_order
def outer_tiles(error: Array, panels: Array, first: int, scale: float, out: Array, found: Array) -> None:
    """Add the product of some rows and the panels from `first` on; `found` gets Σ|product| of each panel."""
    outputs, inputs = out.shape
    count, batch, width = panels.shape
    e, r, o = error.ravel(), panels.ravel(), out.ravel()
    factor = out.dtype.type(scale)
    for panel in range(first, count):
        right, columns, row = panel * batch * width, inputs - panel * width, 0
        left, to = 0, panel * width
        part = out.dtype.type(0)
        while row + 4 <= outputs:
            part += four_by_wide(e, left, batch, 1, r, right, width, batch, o, to, inputs, columns, factor)
            row, left, to = row + 4, left + 4 * batch, to + 4 * inputs
        while row < outputs:
            part += one_by_wide(e, left, batch, 1, r, right, width, batch, o, to, inputs, columns, factor)
            row, left, to = row + 1, left + batch, to + inputs
        found[panel] = part


@in_order
def outer_of_active(
    error: Array,
    panels: Array,
    until: int,
    values: Array,
    places: Indices,
    counts: Indices,
    scale: float,
    out: Array,
    found: Array,
) -> None:
    """Do what `outer_tiles` does for the panels before `until`, with the errors that `active` has listed."""
    outputs, inputs = out.shape
    _, batch, width = panels.shape
    e, r, o, v, p = error.ravel(), panels.ravel(), out.ravel(), values.ravel(), places.ravel()
    factor = out.dtype.type(scale)
    size, listed = batch * width, batch + AT_ONCE
    for panel in range(0, until, TOGETHER):
        right, row, to = panel * size, 0, panel * width
        one, two = out.dtype.type(0), out.dtype.type(0)
        while row + 4 <= outputs:
            soon = to + 4 * inputs if row + 8 <= outputs else (panel + TOGETHER) * width
            more = four_of_active(v, p, counts, row, listed, r, right, size, o, to, inputs, soon, factor)
            one, two = one + more[0], two + more[1]
            row, to = row + 4, to + 4 * inputs
        while row < outputs:
            left, other = row * batch, to + width
            one += one_by_wide(e, left, batch, 1, r, right, width, batch, o, to, inputs, width, factor)
            right_two = right + size
            two += one_by_wide(e, left, batch, 1, r, right_two, width, batch, o, other, inputs, width, factor)
            row, to = row + 1, to + inputs
        found[panel], found[panel + 1] = one, two


def compile_all(dtype: str) -> None:
    """Compile, or load from disk, everything here for one type of numbers, by calling it on tiny arrays."""
    table, mail, norms = np.ones((2, 2), dtype), new_mail(), np.empty(1)
    panels = np.ones(panel_shape(2, 2, table.itemsize), dtype)
    part = np.ones((2, 3), dtype)[:, :2]  # some columns of a wider array
    predict(mail, table, table.copy(), np.ones(2, dtype), table.copy(), 1)
    predict(mail, table, table.copy(), np.ones(2, dtype), part, 1)
    feedback(mail, table, part, table.copy(), 0, 1)
    for writeable in (True, False):  # errors come in as messages
        error = table.copy()
        error.flags.writeable = writeable
        feedback(mail, table, error, table.copy(), 0, 1)
        by_panels(mail, error, panels, 1)
        outer(mail, error, panels, 1.0, table.copy(), norms, 1)
        tables = table.copy(), table.copy(), table.copy()
        adam(mail, error, panels, *tables, AdamConstants(*(1.0,) * 7), norms, 1)
