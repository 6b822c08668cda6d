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
    np.float32: Tile(4, 8, 4, 4, 8, 16),
    np.float64: Tile(4, 8, 4, 4, 8, 8),
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

    Arguments, flat: activity (batch, n), weight (m, n), bias (m,), out (batch, m), then batch, n and m. Grid
    and block: `tile.grid(batch, m)`, `tile.threads`.
    """
    operands = Operand(True, activation), Operand(True)
    multiply, gather = block_product(*operands, number, tile), gather_groups(number, tile)
    size, each, place = shared_size(*operands, tile), tile.numbers_each, place_of(tile)
    rows, columns, rows_each, columns_each = tile.rows, tile.columns, tile.rows_each, tile.columns_each

    def predict(
        activity: View, weight: View, bias: View, out: View, batch: int, below: int, above: int
    ) -> None:
        shared = cuda.shared.array(size, number)
        sums = cuda.local.array((rows_each, columns_each), number)
        totals = cuda.local.array(each, number)
        for i in range(rows_each):
            for j in range(columns_each):
                sums[i, j] = number(0)
        samples, neurons, steps = unsigned(batch), unsigned(above), unsigned(below)
        first_row, first_column = unsigned(cuda.blockIdx.y * rows), unsigned(cuda.blockIdx.x * columns)
        multiply(activity, weight, samples, neurons, steps, first_row, first_column, shared, sums)
        gather(sums, shared, totals)
        for turn in range(each):
            row, column = place(first_row, first_column, turn)
            if row < samples and column < neurons:
                out[unsigned(row * neurons + column)] = totals[turn] + bias[column]

    return cuda.jit(predict)


@cache
def feedback_kernel(number: Number, tile: Tile) -> Kernel:
    """Return the kernel of out = factor · error weight.

    Arguments, flat: error (batch, m), weight (m, n), out (batch, n), then batch, n, m and factor. Grid and
    block: `tile.grid(batch, n)`, `tile.threads`.
    """
    operands = Operand(True), Operand(False)
    multiply, gather = block_product(*operands, number, tile), gather_groups(number, tile)
    size, each, place = shared_size(*operands, tile), tile.numbers_each, place_of(tile)
    rows, columns, rows_each, columns_each = tile.rows, tile.columns, tile.rows_each, tile.columns_each

    def feedback(
        error: View, weight: View, out: View, batch: int, below: int, above: int, factor: float
    ) -> None:
        shared = cuda.shared.array(size, number)
        sums = cuda.local.array((rows_each, columns_each), number)
        totals = cuda.local.array(each, number)
        for i in range(rows_each):
            for j in range(columns_each):
                sums[i, j] = number(0)
        samples, neurons, steps = unsigned(batch), unsigned(below), unsigned(above)
        first_row, first_column = unsigned(cuda.blockIdx.y * rows), unsigned(cuda.blockIdx.x * columns)
        multiply(error, weight, samples, neurons, steps, first_row, first_column, shared, sums)
        gather(sums, shared, totals)
        for turn in range(each):
            row, column = place(first_row, first_column, turn)
            if row < samples and column < neurons:
                out[unsigned(row * neurons + column)] = number(factor) * totals[turn]

    return cuda.jit(feedback)


@cache
def thin_predict_kernel(activation: ActivationName, number: Number) -> Kernel:
    """Return the kernel of the same prediction with a block for each neuron of each sample.

    Arguments as for `predict_kernel`; grid (m, batch), block `THIN`.
    """
    function, _ = activation_functions(activation, number)
    add_up, threads, walk = block_sum(number), unsigned(THIN), unsigned(THIN * IN_FLIGHT)
    last_of_walk = unsigned(THIN * IN_FLIGHT - 1)

    def predict(
        activity: View, weight: View, bias: View, out: View, batch: int, below: int, above: int
    ) -> None:
        rates = cuda.local.array(IN_FLIGHT, number)
        weights = cuda.local.array(IN_FLIGHT, number)
        neuron, sample, width = unsigned(cuda.blockIdx.x), unsigned(cuda.blockIdx.y), unsigned(below)
        thread, last, total = unsigned(cuda.threadIdx.x), unsigned(width - unsigned(1)), number(0)
        first, of_activity, of_weight = thread, unsigned(sample * width), unsigned(neuron * width)
        for _ in range((width + last_of_walk) // walk):
            for turn in range(IN_FLIGHT):
                at = unsigned(first + threads * unsigned(turn))
                at = at if at < last else last  # any number does for what is not there
                rates[turn], weights[turn] = (
                    activity[unsigned(of_activity + at)],
                    weight[unsigned(of_weight + at)],
                )
            for turn in range(IN_FLIGHT):
                there = unsigned(first + threads * unsigned(turn)) < width
                total += function(rates[turn]) * weights[turn] if there else number(0)
            first = unsigned(first + walk)
        total = add_up(total)
        if thread == 0:
            out[unsigned(sample * unsigned(above) + neuron)] = total + bias[neuron]

    return cuda.jit(predict)


@cache
def thin_feedback_kernel(number: Number) -> Kernel:
    """Return the kernel of the same feedback with a block for some neurons below and one sample.

    Arguments as for `feedback_kernel`; grid (n in blocks of `BESIDE`, batch), block (BESIDE, BELOW). Threads
    one below the other share a sum.
    """
    farthest = WARP // 2  # lanes with the same neuron are `BESIDE` apart, or twice or four times that
    warps, size = BESIDE * BELOW // WARP, BESIDE * BELOW // WARP * BESIDE
    beside, lanes, walk = unsigned(BESIDE), unsigned(WARP), unsigned(BELOW * IN_FLIGHT)
    last_of_walk, below_each = unsigned(BELOW * IN_FLIGHT - 1), unsigned(BELOW)

    def feedback(
        error: View, weight: View, out: View, batch: int, below: int, above: int, factor: float
    ) -> None:
        parts = cuda.shared.array(size, number)
        errors = cuda.local.array(IN_FLIGHT, number)
        weights = cuda.local.array(IN_FLIGHT, number)
        x, y = unsigned(cuda.threadIdx.x), unsigned(cuda.threadIdx.y)
        width, height, total = unsigned(below), unsigned(above), number(0)
        column, last = unsigned(cuda.blockIdx.x * beside + x), unsigned(height - unsigned(1))
        own = column if column < width else unsigned(width - unsigned(1))
        first, of_error = y, unsigned(cuda.blockIdx.y * height)
        for _ in range((height + last_of_walk) // walk):
            for turn in range(IN_FLIGHT):
                at = unsigned(first + below_each * unsigned(turn))
                at = at if at < last else last  # any number does for what is not there
                errors[turn], weights[turn] = (
                    error[unsigned(of_error + at)],
                    weight[unsigned(at * width + own)],
                )
            for turn in range(IN_FLIGHT):
                there = unsigned(first + below_each * unsigned(turn)) < height
                total += errors[turn] * weights[turn] if there else number(0)
            first = unsigned(first + walk)
        distance = farthest
        while distance >= BESIDE:
            total += cuda.shfl_xor_sync(LANES, total, distance)
            distance //= 2
        thread = unsigned(y * beside + x)
        if thread % lanes < beside:
            parts[unsigned(thread // lanes * beside + x)] = total
        cuda.syncthreads()
        if y == 0 and column < width:
            total = number(0)
            for warp in range(warps):
                total += parts[unsigned(unsigned(warp) * beside + x)]
            out[unsigned(cuda.blockIdx.y * width + column)] = number(factor) * total

    return cuda.jit(feedback)
