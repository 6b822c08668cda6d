"""Products of a mini-batch with a weight, predictions and feedback, as long as they are small for a GPU.

Libraries are made for large products. One of 64 samples has few tiles, and what cuBLAS takes for a prediction
of 1024 neurons leaves most of an H200 idle; ours divides each sum among the warps of a block, too
(`cuda_blocks`). f(ĥ_l) and the bias are taken along, and feedback can be used where it is formed. All sums
are added in a fixed order: the same bits come out each time.

Few sums of their own, of one sample or of a layer of ten neurons, are a block of threads each
(`thin_predict_kernel`): there is nothing that a tile could share.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from pcsim.kernels import ActivationName
from pcsim.kernels.cuda_blocks import Operand, Tile, place_of, tile_totals
from pcsim.kernels.cuda_device import (
    LANES,
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
from pcsim.kernels.cuda_local import relaxed_activity

IN_FLIGHT = 8  # numbers that a thread asks for before it looks at the first
THIN = 128  # threads of a block that forms one number of a prediction
BESIDE, BELOW = 8, 64  # threads of a block that forms some numbers of feedback: 8 floats are a sector

# Found on an H200, with 1024 neurons above and below: docs/performance-cuda.md.
MOST_OF_A_PREDICTION, MOST_OF_FEEDBACK = 2**17, 2**16  # numbers of a product above which cuBLAS is faster
THIN_SUMS = 2**12  # numbers of a product up to which each is a block of threads
FEW_SAMPLES = 32  # up to which tiles are half as high, and so twice as many
TILES: dict[Number, tuple[Tile, Tile]] = {  # for few samples and for more; of 48 kB of shared memory
    np.float32: (Tile(4, 8, 4, 2, 8, 16), Tile(4, 8, 4, 4, 16, 8)),
    np.float64: (Tile(4, 8, 4, 2, 8, 8), Tile(4, 8, 4, 4, 8, 8)),
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
    if tile is None and batch * neurons > MOST_OF_A_PREDICTION:
        return None
    tile = tile or TILES[number][batch > FEW_SAMPLES]
    return Plan(predict_kernel(activation, number, tile), tile.grid(*shape), tile.threads)


def feedback_plan(
    number: Number,
    shape: tuple[int, ...],
    tile: Tile | None = None,
    activation: ActivationName | None = None,
) -> Plan | None:
    """Return how feedback of this shape, (batch, n), is formed; see `predict_plan` and `feedback_kernel`."""
    batch, neurons = shape
    if tile is None and batch * neurons <= THIN_SUMS:
        kernel = thin_feedback_kernel(number, activation)
        return Plan(kernel, (-(-neurons // BESIDE), batch), (BESIDE, BELOW))
    if tile is None and batch * neurons > MOST_OF_FEEDBACK:
        return None
    tile = tile or TILES[number][batch > FEW_SAMPLES]
    return Plan(feedback_kernel(number, tile, activation), tile.grid(*shape), tile.threads)


@cache
def predict_kernel(activation: ActivationName, number: Number, tile: Tile) -> Kernel:
    """Return the kernel of out = f(activity) weightᵀ + bias.

    Arguments, flat: activity (batch, n), weight (m, n), bias (m,), out (batch, m), then batch, n and m. Grid
    and block: `tile.grid(batch, m)`, `tile.threads`.
    """
    operands = Operand(True, activation), Operand(True)
    form, place = tile_totals(*operands, number, tile), place_of(tile)
    rows, columns, each = tile.rows, tile.columns, tile.numbers_each

    def predict(
        activity: View, weight: View, bias: View, out: View, batch: int, below: int, above: int
    ) -> None:
        totals = cuda.local.array(each, number)
        samples, neurons, steps = unsigned(batch), unsigned(above), unsigned(below)
        first_row, first_column = unsigned(cuda.blockIdx.y * rows), unsigned(cuda.blockIdx.x * columns)
        form(activity, weight, samples, neurons, steps, first_row, first_column, totals)
        for turn in range(each):
            row, column = place(first_row, first_column, turn)
            if row < samples and column < neurons:
                out[unsigned(row * neurons + column)] = totals[turn] + bias[column]

    return cuda.jit(predict)


class Back(NamedTuple):
    """What becomes of feedback: out = factor · error weight, (batch, n), flat."""

    out: View
    factor: float


class Relaxing(NamedTuple):
    """What becomes of feedback that is used at once, by equation (2), and compared: see `relax_and_compare`.

    Attributes:
        factor: γ_{l+1}.
        activity: ĥ_l, (batch, n), flat, and so on: changed.
        error: e_l, changed.
        prediction: p_l.
        step: k.
        precision: γ_l.
        activity_decay: γ_l^decay.
        numbers: block i writes its part of ‖e_l‖² to numbers[first + i].
        first: where they begin.
    """

    factor: float
    activity: View
    error: View
    prediction: View
    step: float
    precision: float
    activity_decay: float
    numbers: View
    first: int


End = Any  # `Back` or `Relaxing`, as a kernel sees it


@cache
def _ending(activation: ActivationName | None, number: Number) -> Kernel:
    """Return the device function of what becomes of one number of feedback, and of what it adds to ‖e_l‖².

    Arguments: the number, its place, `Relaxing` if there is an activation, else `Back`.
    """

    def put(total: Value, place: int, end: Back) -> Value:
        end.out[place] = number(end.factor) * total
        return number(0)

    if activation is None:
        return cuda.jit(put, device=True)
    relaxed = relaxed_activity(activation, number)

    def relax(total: Value, place: int, end: Relaxing) -> Value:
        drive, error = number(end.factor) * total, end.error[place]
        constants = end.step, end.precision, end.activity_decay
        value = relaxed(end.activity[place], error, drive, *constants)
        difference = value - end.prediction[place]
        end.activity[place], end.error[place] = value, difference
        return difference * difference

    return cuda.jit(relax, device=True)


@cache
def feedback_kernel(number: Number, tile: Tile, activation: ActivationName | None = None) -> Kernel:
    """Return the kernel of error weight, and of what becomes of it.

    Arguments: error (batch, m) and weight (m, n), flat, batch, n, m, then `Back`, or `Relaxing` if an
    activation is given. Grid and block: `tile.grid(batch, n)`, `tile.threads`.
    """
    operands = Operand(True), Operand(False)
    form, place = tile_totals(*operands, number, tile), place_of(tile)
    rows, columns, each = tile.rows, tile.columns, tile.numbers_each
    finish, add_up, counts = _ending(activation, number), block_sum(number), activation is not None

    def feedback(error: View, weight: View, batch: int, below: int, above: int, end: End) -> None:
        totals = cuda.local.array(each, number)
        samples, neurons, steps = unsigned(batch), unsigned(below), unsigned(above)
        first_row, first_column = unsigned(cuda.blockIdx.y * rows), unsigned(cuda.blockIdx.x * columns)
        form(error, weight, samples, neurons, steps, first_row, first_column, totals)
        square = number(0)
        for turn in range(each):
            row, column = place(first_row, first_column, turn)
            if row < samples and column < neurons:
                square += finish(totals[turn], unsigned(row * neurons + column), end)
        if counts:
            square = add_up(square)
            if cuda.threadIdx.x == 0 and cuda.threadIdx.y == 0:
                block = cuda.blockIdx.y * cuda.gridDim.x + cuda.blockIdx.x
                end.numbers[end.first + block] = np.float64(square)

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
                rates[turn] = activity[unsigned(of_activity + at)]
                weights[turn] = weight[unsigned(of_weight + at)]
            for turn in range(IN_FLIGHT):
                there = unsigned(first + threads * unsigned(turn)) < width
                total += function(rates[turn]) * weights[turn] if there else number(0)
            first = unsigned(first + walk)
        total = add_up(total)
        if thread == 0:
            out[unsigned(sample * unsigned(above) + neuron)] = total + bias[neuron]

    return cuda.jit(predict)


@cache
def thin_feedback_kernel(number: Number, activation: ActivationName | None = None) -> Kernel:
    """Return the kernel of the same feedback with a block for some neurons below and one sample.

    Arguments as for `feedback_kernel`; grid (n in blocks of `BESIDE`, batch), block (BESIDE, BELOW). Threads
    one below the other share a sum.
    """
    farthest = WARP // 2  # lanes with the same neuron are `BESIDE` apart, or twice or four times that
    warps, size = BESIDE * BELOW // WARP, BESIDE * BELOW // WARP * BESIDE
    beside, lanes, walk = unsigned(BESIDE), unsigned(WARP), unsigned(BELOW * IN_FLIGHT)
    last_of_walk, below_each = unsigned(BELOW * IN_FLIGHT - 1), unsigned(BELOW)
    finish, counts = _ending(activation, number), activation is not None

    def feedback(error: View, weight: View, batch: int, below: int, above: int, end: End) -> None:
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
        square = number(0)
        if y == 0 and column < width:
            total = number(0)
            for warp in range(warps):
                total += parts[unsigned(unsigned(warp) * beside + x)]
            square = finish(total, unsigned(cuda.blockIdx.y * width + column), end)
        if counts:
            distance = BESIDE // 2
            while distance > 0:
                square += cuda.shfl_xor_sync(LANES, square, distance)
                distance //= 2
            if thread == 0:
                block = cuda.blockIdx.y * cuda.gridDim.x + cuda.blockIdx.x
                end.numbers[end.first + block] = np.float64(square)

    return cuda.jit(feedback)
