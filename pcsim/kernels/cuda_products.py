"""Products of a mini-batch with a weight: predictions and feedback, for mini-batches of up to some hundred.

Libraries are made for large products. One of 64 samples has few tiles, and cuBLAS's kernels for it leave most
of a GPU idle; ours divide each sum among the groups of a block, too (`cuda_blocks`). f(ĥ_l) and the bias are
taken along on the way. All sums are added in a fixed order: the same bits come out each time.

Few sums of their own, of one sample or of a layer of ten neurons, are a block of threads each
(`thin_predict_kernel`): there is nothing that a tile could share.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from pcsim.kernels import ActivationName
from pcsim.kernels.cuda_blocks import Operand, Tile, block_product, gather_groups, place_of, shared_size
from pcsim.kernels.cuda_device import (
    LANES,
    WARP,
    Kernel,
    Number,
    View,
    activation_functions,
    block_sum,
    cuda,
    unsigned,
)

IN_FLIGHT = 8  # numbers that a thread asks for before it looks at the first
THIN = 128  # threads of a block that forms one number of a prediction
BESIDE, BELOW = (
    8,
    64,
)  # threads of a block that forms some numbers of a feedback: 8 floats are a sector of memory


MOST_SAMPLES = 256  # of a mini-batch that our own kernels multiply
THIN_SUMS = 2048  # numbers of a product that are a block of threads each
TILES: dict[Number, Tile] = {  # of 48 kB of shared memory
    np.float32: Tile(4, 8, 4, 4, 64, 8),
    np.float64: Tile(4, 8, 4, 4, 32, 8),
}


@dataclass(frozen=True)
class Plan:
    """How a product is started.

    Attributes:
        kernel: which.
        grid: how many blocks.
        block: of how many threads.
    """

    kernel: Kernel
    grid: tuple[int, int]
    block: tuple[int, int]


def predict_plan(
    activation: ActivationName, number: Number, shape: tuple[int, ...], tile: Tile | None = None
) -> Plan | None:
    """Return how a prediction of this shape, (batch, m), is formed; None if a library is to do it.

    A tile that is given is taken whatever the shape.
    """
    batch, neurons = shape
    if tile is None and batch * neurons <= THIN_SUMS:
        return Plan(thin_predict_kernel(activation, number), (neurons, batch), (THIN, 1))
    if tile is None and batch > MOST_SAMPLES:
        return None
    tile = tile or TILES[number]
    return Plan(predict_kernel(activation, number, tile), tile.grid(*shape), tile.threads)


def feedback_plan(number: Number, shape: tuple[int, ...], tile: Tile | None = None) -> Plan | None:
    """Return how feedback of this shape, (batch, n), is formed; see `predict_plan`."""
    batch, neurons = shape
    if tile is None and batch * neurons <= THIN_SUMS:
        return Plan(thin_feedback_kernel(number), (-(-neurons // BESIDE), batch), (BESIDE, BELOW))
    if tile is None and batch > MOST_SAMPLES:
        return None
    tile = tile or TILES[number]
    return Plan(feedback_kernel(number, tile), tile.grid(*shape), tile.threads)


@cache
def predict_kernel(activation: ActivationName, number: Number, tile: Tile) -> Kernel:
    """Return the kernel of out = f(activity) weightᵀ + bias.

    Arguments: activity (batch, n), weight (m, n), bias (m,), out (batch, m). Grid and block:
    `tile.grid(batch, m)`, `tile.threads`.
    """
    operands = Operand(True, activation), Operand(True)
    multiply, gather, place = (
        block_product(*operands, number, tile),
        gather_groups(number, tile),
        place_of(tile),
    )
    size, each = shared_size(*operands, tile), tile.numbers_each
    rows, columns, rows_each, columns_each = tile.rows, tile.columns, tile.rows_each, tile.columns_each

    def predict(activity: View, weight: View, bias: View, out: View) -> None:
        shared = cuda.shared.array(size, number)
        sums = cuda.local.array((rows_each, columns_each), number)
        totals = cuda.local.array(each, number)
        for i in range(rows_each):
            for j in range(columns_each):
                sums[i, j] = number(0)
        first_row, first_column = cuda.blockIdx.y * rows, cuda.blockIdx.x * columns
        multiply(activity, weight, first_row, first_column, shared, sums)
        gather(sums, shared, totals)
        for turn in range(each):
            row, column = place(first_row, first_column, turn)
            if row < unsigned(out.shape[0]) and column < unsigned(out.shape[1]):
                out[row, column] = totals[turn] + bias[column]

    return cuda.jit(predict)


@cache
def feedback_kernel(number: Number, tile: Tile) -> Kernel:
    """Return the kernel of out = factor · error weight.

    Arguments: error (batch, m), weight (m, n), out (batch, n), factor. Grid and block:
    `tile.grid(batch, n)`, `tile.threads`.
    """
    operands = Operand(True), Operand(False)
    multiply, gather, place = (
        block_product(*operands, number, tile),
        gather_groups(number, tile),
        place_of(tile),
    )
    size, each = shared_size(*operands, tile), tile.numbers_each
    rows, columns, rows_each, columns_each = tile.rows, tile.columns, tile.rows_each, tile.columns_each

    def feedback(error: View, weight: View, out: View, factor: float) -> None:
        shared = cuda.shared.array(size, number)
        sums = cuda.local.array((rows_each, columns_each), number)
        totals = cuda.local.array(each, number)
        for i in range(rows_each):
            for j in range(columns_each):
                sums[i, j] = number(0)
        first_row, first_column = cuda.blockIdx.y * rows, cuda.blockIdx.x * columns
        multiply(error, weight, first_row, first_column, shared, sums)
        gather(sums, shared, totals)
        for turn in range(each):
            row, column = place(first_row, first_column, turn)
            if row < unsigned(out.shape[0]) and column < unsigned(out.shape[1]):
                out[row, column] = number(factor) * totals[turn]

    return cuda.jit(feedback)


@cache
def thin_predict_kernel(activation: ActivationName, number: Number) -> Kernel:
    """Return the kernel of the same prediction with a block for each neuron of each sample.

    Arguments as for `predict_kernel`; grid (m, batch), block `THIN`.
    """
    function, _ = activation_functions(activation, number)
    add_up = block_sum(number)

    def predict(activity: View, weight: View, bias: View, out: View) -> None:
        rates = cuda.local.array(IN_FLIGHT, number)
        weights = cuda.local.array(IN_FLIGHT, number)
        neuron, sample, last = cuda.blockIdx.x, cuda.blockIdx.y, unsigned(weight.shape[1] - 1)
        thread, threads, total = unsigned(cuda.threadIdx.x), unsigned(THIN), number(0)
        for first in range(0, weight.shape[1], THIN * IN_FLIGHT):
            for turn in range(IN_FLIGHT):
                at = unsigned(first) + thread + threads * unsigned(turn)
                at = at if at < last else last  # any number does for what is not there
                rates[turn], weights[turn] = activity[sample, at], weight[neuron, at]
            for turn in range(IN_FLIGHT):
                at = unsigned(first) + thread + threads * unsigned(turn)
                total += function(rates[turn]) * weights[turn] if at <= last else number(0)
        total = add_up(total)
        if cuda.threadIdx.x == 0:
            out[sample, neuron] = total + bias[neuron]

    return cuda.jit(predict)


@cache
def thin_feedback_kernel(number: Number) -> Kernel:
    """Return the kernel of the same feedback with a block for some neurons below and one sample.

    Arguments as for `feedback_kernel`; grid (n in blocks of `BESIDE`, batch), block (BESIDE, BELOW). Threads
    one below the other share a sum.
    """
    half = WARP // BESIDE // 2 * BESIDE  # as far as lanes with the same neuron are apart in a warp
    warps, size = BESIDE * BELOW // WARP, BESIDE * BELOW // WARP * BESIDE

    def feedback(error: View, weight: View, out: View, factor: float) -> None:
        parts = cuda.shared.array(size, number)
        errors = cuda.local.array(IN_FLIGHT, number)
        weights = cuda.local.array(IN_FLIGHT, number)
        x, y, sample = unsigned(cuda.threadIdx.x), unsigned(cuda.threadIdx.y), cuda.blockIdx.y
        column, below = unsigned(cuda.blockIdx.x) * unsigned(BESIDE) + x, unsigned(weight.shape[1] - 1)
        own, last, total = column if column < below else below, unsigned(weight.shape[0] - 1), number(0)
        for first in range(0, weight.shape[0], BELOW * IN_FLIGHT):
            for turn in range(IN_FLIGHT):
                at = unsigned(first) + y + unsigned(BELOW) * unsigned(turn)
                at = at if at < last else last
                errors[turn], weights[turn] = error[sample, at], weight[at, own]
            for turn in range(IN_FLIGHT):
                at = unsigned(first) + y + unsigned(BELOW) * unsigned(turn)
                total += errors[turn] * weights[turn] if at <= last else number(0)
        distance = half
        while distance >= BESIDE:
            total += cuda.shfl_xor_sync(LANES, total, distance)
            distance //= 2
        thread = y * unsigned(BESIDE) + x
        if thread % unsigned(WARP) < unsigned(BESIDE):
            parts[thread // unsigned(WARP) * unsigned(BESIDE) + x] = total
        cuda.syncthreads()
        if y == 0 and column <= below:
            total = number(0)
            for warp in range(warps):
                total += parts[unsigned(warp) * unsigned(BESIDE) + x]
            out[sample, column] = number(factor) * total

    return cuda.jit(feedback)
