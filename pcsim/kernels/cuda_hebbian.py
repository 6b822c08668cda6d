"""Kernels that learn: a tile of G_l = mean of e_{l+1} f(ĥ_l)ᵀ is formed in registers and used there.

One block owns a tile of W_l. It walks through the batch in slices (`cuda_blocks`), and each thread sums a
small rectangle of G_l in its registers. W_l is read, changed and written, once. No gradient is ever stored.

What is read of the weight is asked for all at once, since a thread that waits for one number after the other
waits for memory most of the time. The block that is done last keeps the books: v_l, and what the update was.

Arrays are flat: weight (m, n), bias (m,), error (batch, m), activity (batch, n).
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np

from pcsim.kernels import ActivationName
from pcsim.kernels.cuda_blocks import Operand, Tile, block_product, shared_size
from pcsim.kernels.cuda_device import (
    Kernel,
    Number,
    Value,
    View,
    activation_functions,
    block_sum,
    cuda,
    unsigned,
)

SHORT_WALK = 8  # slices that a block gets through in about the time of two launches; an estimate
MANY_ROWS = Tile(across=16, down=16, columns_each=4, rows_each=4, depth=16)
FEW_ROWS = Tile(across=16, down=4, columns_each=2, rows_each=4, depth=32)
ONE_SAMPLE_THREADS, ONE_SAMPLE_ROWS = 256, 16  # of a block of `one_sample_kernel`: columns, and rows of each


class Books(NamedTuple):
    """What a connection's updates need to know of each other; arrays are float64.

    Attributes:
        mean_gradient: v, (1,).
        updates: n, (1,).
        total: Σ|step| so far and how many blocks are done, (2,): 0 and 0 between updates.
        elements: of weight and bias.
        rate: α, of s = α/(v + r) + α_min.
        minimum_rate: α_min.
        r: of the same.
        decay: ρ.
        numbers: gets the mean |Δ|.
        first: where.
    """

    mean_gradient: View
    updates: View
    total: View
    elements: int
    rate: float
    minimum_rate: float
    r: float
    decay: float
    numbers: View
    first: int


def tile_for(rows: int) -> Tile:
    """Return the tile of the learning kernels for a weight with so many rows."""
    return FEW_ROWS if rows <= FEW_ROWS.rows else MANY_ROWS


def walks_far(tile: Tile, batch: int, rows: int, columns: int) -> bool:
    """Return whether a product is to form G_l of a weight (rows, columns), not the blocks of its tiles.

    Each block goes through the whole mini-batch, so that a small weight keeps few blocks busy for long
    and the rest of a GPU idle: a convolution 3 → 32 of 64 CIFAR images has one tile and 3600 slices. A
    library's product cuts the mini-batch up, too. Writing and reading G_l then costs little beside so
    much arithmetic: slices must outnumber tiles. And it takes two more launches, too long to save a
    short walk.
    """
    across, down = tile.grid(rows, columns)
    return -(-batch // tile.depth) > max(across * down, SHORT_WALK)


@cache
def close_books() -> Kernel:
    """Return the device function by which a block adds Σ|step| of its own; the last one settles.

    (8) v ← ρ_n v + (1 − ρ_n) mean|[G, g]|, ρ_n = min(n/(n + 1), ρ); the mean |Δ| is s · mean. One thread of
    each block calls. Nothing that changes from step to step comes from the host, so that a CUDA graph can
    hold it; nobody waits, and who comes last sees what all others have added.
    """

    def close(norm: float, books: Books) -> None:
        total, v, n = books.total, books.mean_gradient, books.updates
        cuda.atomic.add(total, 0, norm)
        cuda.threadfence()  # who sees that this block is done sees what it has added
        done = cuda.atomic.add(total, 1, 1.0)
        if done + 1.0 < np.float64(cuda.gridDim.x * cuda.gridDim.y):
            return
        # To add nothing reads what all have added; a plain read may be of this multiprocessor's cache.
        mean = cuda.atomic.add(total, 0, 0.0) / books.elements
        books.numbers[books.first] = (books.rate / (v[0] + books.r) + books.minimum_rate) * mean
        n[0] += 1
        kept = n[0] / (n[0] + 1)
        if kept > books.decay:  # min() of two numbers does not compile for CUDA in Numba 0.68
            kept = books.decay
        if kept < 1.0:  # else v stays as it is, and 0 · ∞ must not make it NaN
            v[0] = kept * v[0] + (1 - kept) * mean
        total[0] = total[1] = 0

    return cuda.jit(close, device=True)


@cache
def step_size(number: Number) -> Kernel:
    """Return the device function of s = rate/(v + r) + minimum_rate, in the kernel's own numbers."""

    def size(books: Books) -> Value:
        v, r = number(books.mean_gradient[0]), number(books.r)
        return number(books.rate) / (v + r) + number(books.minimum_rate)

    return cuda.jit(size, device=True)


@cache
def hebbian_kernel(activation: ActivationName, number: Number, tile: Tile) -> Kernel:
    """(4), (7) W_l += s G_l, b_l += s g_l with s = rate/(v + r) + minimum_rate, then (8).

    Arguments: weight, bias, error, activity, batch, n, books. It is MQ's step with its v_l; SGD's with
    rate = 0, minimum_rate = α; NLMS's with v = ‖f(ĥ_l)‖², r = 1 and rate = 1. Grid and block:
    `tile.grid(m, n)`, `tile.threads`.
    """
    operands = Operand(False), Operand(False, activation)
    accumulate, size = block_product(*operands, number, tile), shared_size(*operands, tile)
    add_up, close, step_of = block_sum(number), close_books(), step_size(number)
    rows_each, columns_each = tile.rows_each, tile.columns_each
    across, down = unsigned(tile.across), unsigned(tile.down)
    rows, columns = tile.rows, tile.columns

    def hebbian(
        weight: View, bias: View, error: View, activity: View, batch: int, below: int, books: Books
    ) -> None:
        shared = cuda.shared.array(size, number)
        sums = cuda.local.array((rows_each, columns_each), number)
        old = cuda.local.array((rows_each, columns_each), number)
        height, width = unsigned(bias.size), unsigned(below)
        last_row, last_column = unsigned(height - unsigned(1)), unsigned(width - unsigned(1))
        first_row, first_column = unsigned(cuda.blockIdx.y * rows), unsigned(cuda.blockIdx.x * columns)
        x, y = unsigned(first_column + cuda.threadIdx.x), unsigned(first_row + cuda.threadIdx.y)
        for i in range(rows_each):
            row = unsigned(y + down * unsigned(i))
            row = row if row < last_row else last_row  # any number does for what is not there
            for j in range(columns_each):
                column = unsigned(x + across * unsigned(j))
                column = column if column < last_column else last_column
                sums[i, j], old[i, j] = number(0), weight[unsigned(row * width + column)]
        row_sum = accumulate(
            error, activity, height, width, unsigned(batch), first_row, first_column, shared, sums
        )
        scale, mean, norm = step_of(books), number(1) / number(batch), number(0)
        for i in range(rows_each):
            row = unsigned(y + down * unsigned(i))
            for j in range(columns_each):
                column = unsigned(x + across * unsigned(j))
                if row < height and column < width:
                    gradient = mean * sums[i, j]
                    norm += abs(gradient)
                    weight[unsigned(row * width + column)] = old[i, j] + scale * gradient
        thread = unsigned(cuda.threadIdx.y * across + cuda.threadIdx.x)
        row = unsigned(first_row + thread)
        if first_column == 0 and thread < unsigned(rows) and row < height:
            gradient = mean * row_sum
            norm += abs(gradient)
            bias[row] += scale * gradient
        norm = add_up(norm)
        if thread == 0:
            close(np.float64(norm), books)

    return cuda.jit(hebbian)


@cache
def one_sample_kernel(activation: ActivationName, number: Number) -> Kernel:
    """Return the kernel of the same step for a mini-batch of one, whose G_l is a product of two vectors.

    Arguments as for `hebbian_kernel`. A thread owns a piece of a column. Grid: `one_sample_grid`.
    """
    function, _ = activation_functions(activation, number)
    add_up, close, step_of = block_sum(number), close_books(), step_size(number)
    rows_each, threads = ONE_SAMPLE_ROWS, ONE_SAMPLE_THREADS

    def one_sample(
        weight: View, bias: View, error: View, activity: View, batch: int, below: int, books: Books
    ) -> None:
        old, errors = cuda.local.array(rows_each, number), cuda.local.array(rows_each, number)
        height, width = unsigned(bias.size), unsigned(below)
        last_row, last_column = unsigned(height - unsigned(1)), unsigned(width - unsigned(1))
        thread, first_row = unsigned(cuda.threadIdx.x), unsigned(cuda.blockIdx.x * rows_each)
        column = unsigned(cuda.blockIdx.y * threads + thread)
        own = column if column < last_column else last_column  # any number does for what is not there
        for i in range(rows_each):
            row = unsigned(first_row + unsigned(i))
            row = row if row < last_row else last_row
            errors[i], old[i] = error[row], weight[unsigned(row * width + own)]
        scale, came, norm = step_of(books), function(activity[own]), number(0)
        for i in range(rows_each):
            row = unsigned(first_row + unsigned(i))
            if row < height and column < width:
                gradient = errors[i] * came
                norm += abs(gradient)
                weight[unsigned(row * width + column)] = old[i] + scale * gradient
        row = unsigned(first_row + thread)
        if cuda.blockIdx.y == 0 and thread < unsigned(rows_each) and row < height:
            gradient = error[row]
            norm += abs(gradient)
            bias[row] += scale * gradient
        norm = add_up(norm)
        if thread == 0:
            close(np.float64(norm), books)

    return cuda.jit(one_sample)


def one_sample_grid(rows: int, columns: int) -> tuple[int, int]:
    """Return how many blocks of `one_sample_kernel` cover a weight of (rows, columns).

    Rows are counted along x, where a grid may have more than 65535 blocks.
    """
    return -(-rows // ONE_SAMPLE_ROWS), -(-columns // ONE_SAMPLE_THREADS)


@cache
def adam_change(number: Number) -> Kernel:
    """Return the device function of both new moments and of m̂/(√v̂ + ε)."""

    def change(
        one: Value,
        two: Value,
        gradient: Value,
        keep1: Value,
        keep2: Value,
        correction1: Value,
        correction2: Value,
        epsilon: Value,
    ) -> tuple[Value, Value, Value]:
        one += keep1 * (gradient - one)
        two += keep2 * (gradient * gradient - two)
        return one, two, one * correction1 / (number(math.sqrt(two * correction2)) + epsilon)

    return cuda.jit(change, device=True)


@cache
def adam_kernel(activation: ActivationName, number: Number, tile: Tile) -> Kernel:
    """Adam on −G_l with moments read and written once; its Σ|step| is one before the rate.

    Arguments: weight, bias, error, activity, batch, n, then the first and second moments of weight and of
    bias, corrections (2,) = 1/(1 − β₁ⁿ), 1/(1 − β₂ⁿ), float64, rate, beta1, beta2, epsilon, books. Grid and
    block as in `hebbian_kernel`.
    """
    operands = Operand(False), Operand(False, activation)
    accumulate, size = block_product(*operands, number, tile), shared_size(*operands, tile)
    add_up, close, change = block_sum(number), close_books(), adam_change(number)
    rows_each, columns_each = tile.rows_each, tile.columns_each
    across, down = unsigned(tile.across), unsigned(tile.down)
    rows, columns = tile.rows, tile.columns

    def adam(
        weight: View,
        bias: View,
        error: View,
        activity: View,
        batch: int,
        below: int,
        first: View,
        second: View,
        bias_first: View,
        bias_second: View,
        corrections: View,
        rate: float,
        beta1: float,
        beta2: float,
        epsilon: float,
        books: Books,
    ) -> None:
        shared = cuda.shared.array(size, number)
        sums = cuda.local.array((rows_each, columns_each), number)
        for i in range(rows_each):
            for j in range(columns_each):
                sums[i, j] = number(0)
        old = cuda.local.array(columns_each, number)  # of one row: of all there would be too many registers
        ones = cuda.local.array(columns_each, number)
        twos = cuda.local.array(columns_each, number)
        height, width = unsigned(bias.size), unsigned(below)
        last_row, last_column = unsigned(height - unsigned(1)), unsigned(width - unsigned(1))
        first_row, first_column = unsigned(cuda.blockIdx.y * rows), unsigned(cuda.blockIdx.x * columns)
        x, y = unsigned(first_column + cuda.threadIdx.x), unsigned(first_row + cuda.threadIdx.y)
        row_sum = accumulate(
            error, activity, height, width, unsigned(batch), first_row, first_column, shared, sums
        )
        mean, norm = number(1) / number(batch), number(0)
        alpha, keep1, keep2 = number(rate), number(1 - beta1), number(1 - beta2)
        c1, c2, small = number(corrections[0]), number(corrections[1]), number(epsilon)
        for i in range(rows_each):
            row = unsigned(y + down * unsigned(i))
            held = row if row < last_row else last_row  # any number does for what is not there
            for j in range(columns_each):
                column = unsigned(x + across * unsigned(j))
                place = unsigned(held * width + (column if column < last_column else last_column))
                old[j], ones[j], twos[j] = weight[place], first[place], second[place]
            for j in range(columns_each):
                column = unsigned(x + across * unsigned(j))
                if row < height and column < width:
                    place, gradient = unsigned(row * width + column), mean * sums[i, j]
                    one, two, step = change(ones[j], twos[j], gradient, keep1, keep2, c1, c2, small)
                    norm += abs(step)
                    first[place], second[place], weight[place] = one, two, old[j] + alpha * step
        thread = unsigned(cuda.threadIdx.y * across + cuda.threadIdx.x)
        row = unsigned(first_row + thread)
        if first_column == 0 and thread < unsigned(rows) and row < height:
            one, two, gradient = bias_first[row], bias_second[row], mean * row_sum
            one, two, step = change(one, two, gradient, keep1, keep2, c1, c2, small)
            norm += abs(step)
            bias_first[row], bias_second[row] = one, two
            bias[row] += alpha * step
        norm = add_up(norm)
        if thread == 0:
            close(np.float64(norm), books)

    return cuda.jit(adam)


@cache
def corrections_kernel() -> Kernel:
    """Count an update of Adam and write 1/(1 − β₁ⁿ), 1/(1 − β₂ⁿ); one thread, before `adam_kernel`.

    Arguments: n (1,), counted up here, corrections (2,), both float64, beta1, beta2.
    """

    def correct(updates: View, corrections: View, beta1: float, beta2: float) -> None:
        updates[0] += 1
        corrections[0] = 1 / (1 - beta1 ** updates[0])
        corrections[1] = 1 / (1 - beta2 ** updates[0])

    return cuda.jit(correct)
