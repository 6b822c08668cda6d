"""Kernels that learn: a tile of G_l = mean of e_{l+1} f(ĥ_l)ᵀ is formed in registers and used there.

One block owns a tile of W_l. It walks through the batch in slices: e_{l+1} and f(ĥ_l) of a slice lie in
shared memory, and each thread sums a small rectangle of G_l in its registers. W_l is read, changed and
written, once. No gradient is ever stored.

What is read of the weight is asked for all at once, since a thread that waits for one number after the other
waits for memory most of the time. Shared memory is addressed by unsigned numbers: a signed one might count
from the end, as in Python, and the innermost loop would spend more instructions on that than on its sums.

Shapes: weight (m, n), bias (m,), error (batch, m), activity (batch, n).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from pcsim.errors import ShapeError
from pcsim.kernels import ActivationName
from pcsim.kernels.cuda_device import (
    WARP,
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


@dataclass(frozen=True)
class Tile:
    """How a block of threads shares a tile of the weight.

    Attributes:
        across: threads side by side along a row, columns of W_l.
        down: threads along a column; across · down must be a multiple of 32, of `rows` and of `columns`.
        columns_each: columns of a thread's rectangle, `across` apart so that a warp reads neighbours.
        rows_each: rows of a thread's rectangle, `down` apart.
        depth: samples staged at a time.
    """

    across: int = 16
    down: int = 8
    columns_each: int = 4
    rows_each: int = 8
    depth: int = 16

    def __post_init__(self) -> None:
        threads = self.across * self.down
        if threads % WARP or threads % self.rows or threads % self.columns:
            raise ShapeError(
                f"tile of {self.rows} × {self.columns} with {threads} threads: expected a number of threads "
                f"that {WARP}, {self.rows} and {self.columns} divide"
            )

    @property
    def columns(self) -> int:
        """Columns of the tile."""
        return self.across * self.columns_each

    @property
    def rows(self) -> int:
        """Rows of the tile."""
        return self.down * self.rows_each

    @property
    def threads(self) -> tuple[int, int]:
        """Shape of the block."""
        return self.across, self.down

    def grid(self, rows: int, columns: int) -> tuple[int, int]:
        """Return how many blocks cover a weight of (rows, columns)."""
        return -(-columns // self.columns), -(-rows // self.rows)

    def walks_far(self, batch: int, rows: int, columns: int) -> bool:
        """Return whether a product is to form G_l of a weight (rows, columns), not the blocks of its tiles.

        Each block goes through the whole mini-batch, so that a small weight keeps few blocks busy for long
        and the rest of a GPU idle: a convolution 3 → 32 of 64 CIFAR images has one tile and 3600 slices. A
        library's product cuts the mini-batch up, too. Writing and reading G_l then costs little beside so
        much arithmetic: slices must outnumber tiles. And it takes two more launches, too long to save a
        short walk.
        """
        across, down = self.grid(rows, columns)
        return -(-batch // self.depth) > max(across * down, SHORT_WALK)


@cache
def _accumulate(activation: ActivationName, number: Number, tile: Tile) -> Kernel:
    """Return the device function that sums e f(ĥ)ᵀ over the batch into `sums`, (rows_each, columns_each).

    It returns the sum of e over the batch for row `first_row + thread`, where the block is asked for it.
    """
    function, _ = activation_functions(activation, number)
    rows, columns, depth = tile.rows, tile.columns, tile.depth
    across, rows_each, columns_each = tile.across, tile.rows_each, tile.columns_each
    threads = across * tile.down
    staged_errors, staged_rates = depth * rows, depth * columns
    u_rows, u_columns, u_down, u_across = map(unsigned, (rows, columns, tile.down, across))

    def accumulate(error: View, activity: View, first_row: int, first_column: int, sums: View) -> Value:
        errors = cuda.shared.array(staged_errors, number)
        rates = cuda.shared.array(staged_rates, number)
        x, y = unsigned(cuda.threadIdx.x), unsigned(cuda.threadIdx.y)
        thread = cuda.threadIdx.y * across + cuda.threadIdx.x
        batch = error.shape[0]
        row, column = first_row + thread % rows, first_column + thread % columns
        row_sum = number(0)
        for start in range(0, batch, depth):
            for sample in range(thread // rows, depth, threads // rows):
                value = number(0)
                if start + sample < batch and row < error.shape[1]:
                    value = error[start + sample, row]
                errors[unsigned(sample) * u_rows + unsigned(thread % rows)] = value
            for sample in range(thread // columns, depth, threads // columns):
                value = number(0)
                if start + sample < batch and column < activity.shape[1]:
                    value = function(activity[start + sample, column])
                rates[unsigned(sample) * u_columns + unsigned(thread % columns)] = value
            cuda.syncthreads()
            for sample in range(depth):
                for i in range(rows_each):
                    value = errors[unsigned(sample) * u_rows + y + u_down * unsigned(i)]
                    for j in range(columns_each):
                        rate = rates[unsigned(sample) * u_columns + x + u_across * unsigned(j)]
                        sums[i, j] += value * rate
            if first_column == 0 and thread < rows:
                for sample in range(depth):
                    row_sum += errors[unsigned(sample) * u_rows + unsigned(thread)]
            cuda.syncthreads()
        return row_sum

    return cuda.jit(accumulate, device=True)


@cache
def hebbian_kernel(activation: ActivationName, number: Number, tile: Tile) -> Kernel:
    """(4), (7) W_l += s G_l, b_l += s g_l with s = rate/(v + r) + minimum_rate; add Σ|G| + Σ|g| to a total.

    Arguments: weight, bias, error, activity, v (1,), rate, minimum_rate, r, total (1,); v and total are
    float64. It is MQ's step with its v_l; SGD's with rate = 0, minimum_rate = α; NLMS's with v = ‖f(ĥ_l)‖²,
    r = 1 and rate = 1. Grid and block: `tile.grid(m, n)`, `tile.threads`.
    """
    accumulate, add_up = _accumulate(activation, number, tile), block_sum(number)
    rows_each, columns_each, across, down = tile.rows_each, tile.columns_each, tile.across, tile.down
    rows, columns = tile.rows, tile.columns

    def hebbian(
        weight: View,
        bias: View,
        error: View,
        activity: View,
        mean_gradient: View,
        rate: float,
        minimum_rate: float,
        r: float,
        total: View,
    ) -> None:
        sums = cuda.local.array((rows_each, columns_each), number)
        old = cuda.local.array((rows_each, columns_each), number)
        first_row, first_column = cuda.blockIdx.y * rows, cuda.blockIdx.x * columns
        x, y = cuda.threadIdx.x, cuda.threadIdx.y
        for i in range(rows_each):
            row = first_row + y + down * i
            for j in range(columns_each):
                column = first_column + x + across * j
                sums[i, j] = old[i, j] = number(0)
                if row < weight.shape[0] and column < weight.shape[1]:
                    old[i, j] = weight[row, column]
        row_sum = accumulate(error, activity, first_row, first_column, sums)
        scale = number(rate / (mean_gradient[0] + r) + minimum_rate)
        mean = number(1) / number(error.shape[0])
        norm = number(0)
        for i in range(rows_each):
            row = first_row + y + down * i
            for j in range(columns_each):
                column = first_column + x + across * j
                if row < weight.shape[0] and column < weight.shape[1]:
                    gradient = mean * sums[i, j]
                    norm += abs(gradient)
                    weight[row, column] = old[i, j] + scale * gradient
        row = first_row + y * across + x
        if first_column == 0 and row < first_row + rows and row < bias.shape[0]:
            gradient = mean * row_sum
            norm += abs(gradient)
            bias[row] += scale * gradient
        norm = add_up(norm)
        if x == 0 and y == 0:
            cuda.atomic.add(total, 0, np.float64(norm))

    return cuda.jit(hebbian)


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
    """Adam on −G_l with moments read and written once; add Σ|step|, before the rate, to a total.

    Arguments: weight, bias, error, activity, then the first and second moments of weight and of bias (flat),
    corrections (2,) = 1/(1 − β₁ⁿ), 1/(1 − β₂ⁿ), rate, beta1, beta2, epsilon, total (1,). Corrections and
    total are float64. Grid and block as in `hebbian_kernel`.
    """
    accumulate, add_up = _accumulate(activation, number, tile), block_sum(number)
    change = adam_change(number)
    rows_each, columns_each, across, down = tile.rows_each, tile.columns_each, tile.across, tile.down
    rows, columns = tile.rows, tile.columns

    def adam(
        weight: View,
        bias: View,
        error: View,
        activity: View,
        first: View,
        second: View,
        bias_first: View,
        bias_second: View,
        corrections: View,
        rate: float,
        beta1: float,
        beta2: float,
        epsilon: float,
        total: View,
    ) -> None:
        sums = cuda.local.array((rows_each, columns_each), number)
        for i in range(rows_each):
            for j in range(columns_each):
                sums[i, j] = number(0)
        old = cuda.local.array(columns_each, number)  # of one row: of all there would be too many registers
        ones = cuda.local.array(columns_each, number)
        twos = cuda.local.array(columns_each, number)
        first_row, first_column = cuda.blockIdx.y * rows, cuda.blockIdx.x * columns
        x, y = cuda.threadIdx.x, cuda.threadIdx.y
        row_sum = accumulate(error, activity, first_row, first_column, sums)
        mean, width, norm = number(1) / number(error.shape[0]), weight.shape[1], number(0)
        alpha, keep1, keep2 = number(rate), number(1 - beta1), number(1 - beta2)
        c1, c2, small = number(corrections[0]), number(corrections[1]), number(epsilon)
        for i in range(rows_each):
            row = first_row + y + down * i
            for j in range(columns_each):
                column = first_column + x + across * j
                old[j] = ones[j] = twos[j] = number(0)
                if row < weight.shape[0] and column < width:
                    place = row * width + column
                    old[j], ones[j], twos[j] = weight[row, column], first[place], second[place]
            for j in range(columns_each):
                column = first_column + x + across * j
                if row < weight.shape[0] and column < width:
                    place, gradient = row * width + column, mean * sums[i, j]
                    one, two, step = change(ones[j], twos[j], gradient, keep1, keep2, c1, c2, small)
                    norm += abs(step)
                    first[place], second[place], weight[row, column] = one, two, old[j] + alpha * step
        row = first_row + y * across + x
        if first_column == 0 and row < first_row + rows and row < bias.shape[0]:
            one, two, gradient = bias_first[row], bias_second[row], mean * row_sum
            one, two, step = change(one, two, gradient, keep1, keep2, c1, c2, small)
            norm += abs(step)
            bias_first[row], bias_second[row] = one, two
            bias[row] += alpha * step
        norm = add_up(norm)
        if x == 0 and y == 0:
            cuda.atomic.add(total, 0, np.float64(norm))

    return cuda.jit(adam)


@cache
def settle_kernel() -> Kernel:
    """(8) v ← ρ_n v + (1 − ρ_n) mean|[G, g]|, ρ_n = min(n/(n + 1), ρ); the mean |Δ|, s · mean; total ← 0.

    One thread, after `hebbian_kernel`. Arguments, all arrays float64: v (1,), n (1,), counted up here, total
    (1,), then the number of elements, rate, minimum_rate, r, ρ, and where the mean |Δ| goes: numbers[first].
    Nothing that changes from step to step comes from the host, so that a CUDA graph can hold it.
    """

    def settle(
        mean_gradient: View,
        updates: View,
        total: View,
        elements: int,
        rate: float,
        minimum_rate: float,
        r: float,
        decay: float,
        numbers: View,
        first: int,
    ) -> None:
        mean = total[0] / elements
        numbers[first] = (rate / (mean_gradient[0] + r) + minimum_rate) * mean
        updates[0] += 1
        kept = updates[0] / (updates[0] + 1)
        if kept > decay:  # min() of two numbers does not compile for CUDA in Numba 0.68
            kept = decay
        mean_gradient[0] = kept * mean_gradient[0] + (1 - kept) * mean
        total[0] = 0

    return cuda.jit(settle)


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
