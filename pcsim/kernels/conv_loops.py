"""Compiled loops of convolutions: images to windows and back, pooling and its way back.

All arrays are flat and lie in memory neuron by sample: an image is (channels, height, width, batch), what
windows see is (channels in, kernel, kernel, rows, columns, batch), so every copy takes runs of `batch`. A run
is cut out before its loop: with an index that might be negative, the compiler would not use vectors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pcsim.architecture import ConvLayer
from pcsim.kernels import Array
from pcsim.kernels.loops import AdamConstants, adam, compiled, least

SIGN: Any = np.int8  # of what keeps a sign only; elsewhere arrays are floating


class Sizes(NamedTuple):
    """The numbers of a `ConvLayer` as compiled code takes them."""

    image: tuple[int, int, int]
    channels: int
    kernel: int
    stride: int
    rows: int
    columns: int
    pool_size: int
    pooled_rows: int
    pooled_columns: int

    @classmethod
    def of(cls, layer: ConvLayer) -> Sizes:
        """Return the numbers of a layer."""
        _, pooled_rows, pooled_columns = layer.result
        return cls(
            layer.image,
            layer.channels,
            layer.kernel,
            layer.stride,
            layer.rows,
            layer.columns,
            layer.pool_size,
            pooled_rows,
            pooled_columns,
        )


@compiled
def patches(image: Array, sizes: Sizes, batch: int, first: int, channel: int, out: Array) -> None:
    """Out = what windows from place `first` on see of the image; (terms, places · batch).

    The terms are those of as many channels as there are lines for, from `channel` on.
    """
    _, height, width = sizes.image
    places, line = out.shape[1] // batch, 0
    while line < out.shape[0]:
        for i in range(sizes.kernel):
            for j in range(sizes.kernel):
                for n in range(places):
                    row, column = (first + n) // sizes.columns, (first + n) % sizes.columns
                    y, x = row * sizes.stride + i, column * sizes.stride + j
                    start = ((channel * height + y) * width + x) * batch
                    run, seen = out[line, n * batch : (n + 1) * batch], image[start : start + batch]
                    for sample in range(batch):
                        run[sample] = seen[sample]
                line += 1
        channel += 1


@compiled
def fold(shares: Array, sizes: Sizes, batch: int, first: int, image: Array) -> None:
    """Add what windows from place `first` on gave to each pixel: the transpose of `patches`.

    Shares are (terms, places · batch), of as many channels as the image has.
    """
    _, height, width = sizes.image
    places, line, channel = shares.shape[1] // batch, 0, 0
    while line < shares.shape[0]:
        for i in range(sizes.kernel):
            for j in range(sizes.kernel):
                for n in range(places):
                    row, column = (first + n) // sizes.columns, (first + n) % sizes.columns
                    y, x = row * sizes.stride + i, column * sizes.stride + j
                    to = ((channel * height + y) * width + x) * batch
                    run, share = image[to : to + batch], shares[line, n * batch : (n + 1) * batch]
                    for sample in range(batch):
                        run[sample] += share[sample]
                line += 1
        channel += 1


@compiled
def gate(z: Array, error: Array, leak: float, scale: float, first: int, out: Array) -> None:
    """Out = scale · f'(z) ⊙ error, for f that is linear on either side of 0.

    Out is (channels, columns), those from `first` on of the flat z and error; of z the sign is enough.
    """
    number = out.dtype.type
    open_, shut = number(scale), number(scale * leak)
    width = z.size // out.shape[0]
    for channel in range(out.shape[0]):
        start = channel * width + first
        signs, errors = z[start : start + out.shape[1]], error[start : start + out.shape[1]]
        line = out[channel]
        for i in range(line.size):
            line[i] = (open_ if signs[i] > 0 else shut) * errors[i]


@compiled
def fire(values: Array, leak: float, signs: Array) -> None:
    """Values = f(values), flat, in place, for f that is linear on either side of 0; keep which are above."""
    factor, lowest = values.dtype.type(leak), least(values, leak)
    for i in range(values.size):
        value = values[i]
        above = value > 0
        signs[i] = above
        values[i] = value if above else factor * (lowest if value < lowest else value)


@compiled
def add_turned(weight: Array, total: Array, first: int, area: int, factor: float, norms: Array) -> None:
    """Add factor · totalᵀ, (some terms, channels), to the weight, (channels, terms), from term `first` on.

    `norms` gets Σ|total| of each `area` terms, so that sums do not depend on how many come at once.
    """
    number = weight.dtype.type
    scale = number(factor)
    for part in range(total.shape[0] // area):
        norm = 0.0
        for row in range(weight.shape[0]):
            line = weight[row, first + part * area : first + (part + 1) * area]
            shares = number(0)
            for term in range(area):
                change = total[part * area + term, row]
                shares += abs(change)
                line[term] += scale * change
            norm += float(shares)
        norms[part] = norm


@compiled
def adam_turned(
    weight: Array,
    total: Array,
    first: int,
    area: int,
    first_moment: Array,
    second_moment: Array,
    constants: AdamConstants,
    norms: Array,
) -> None:
    """One Adam step on the columns of the weight from `first` on, as `add_turned`; norms get Σ|Δ|."""
    gradient = np.empty(area, total.dtype)
    for part in range(total.shape[0] // area):
        norm, start = 0.0, first + part * area
        for row in range(weight.shape[0]):
            for term in range(area):
                gradient[term] = total[part * area + term, row]
            line, moment, square = (
                weight[row, start : start + area],
                first_moment[row, start : start + area],
                second_moment[row, start : start + area],
            )
            norm += float(adam(line, gradient, moment, square, constants))
        norms[part] = norm


@compiled
def average_pool(rates: Array, sizes: Sizes, batch: int, out: Array) -> None:
    """Out = mean of each pooled window."""
    size, to = sizes.pool_size, 0
    share = out.dtype.type(1 / (size * size))
    out[:] = 0
    for channel in range(sizes.channels):
        for row in range(sizes.pooled_rows):
            for column in range(sizes.pooled_columns):
                run = out[to : to + batch]
                for i in range(size):
                    line = (channel * sizes.rows + row * size + i) * sizes.columns + column * size
                    for j in range(size):
                        seen = rates[(line + j) * batch : (line + j + 1) * batch]
                        for sample in range(batch):
                            run[sample] += share * seen[sample]
                to += batch


@compiled
def average_unpool(error: Array, sizes: Sizes, batch: int, out: Array) -> None:
    """Out = each error, in equal shares to its window; 0 at a border that fills none."""
    size, start = sizes.pool_size, 0
    share = out.dtype.type(1 / (size * size))
    out[:] = 0
    for channel in range(sizes.channels):
        for row in range(sizes.pooled_rows):
            for column in range(sizes.pooled_columns):
                above = error[start : start + batch]
                for i in range(size):
                    line = (channel * sizes.rows + row * size + i) * sizes.columns + column * size
                    for j in range(size):
                        run = out[(line + j) * batch : (line + j + 1) * batch]
                        for sample in range(batch):
                            run[sample] = share * above[sample]
                start += batch


@compiled
def max_pool(rates: Array, sizes: Sizes, batch: int, out: Array) -> None:
    """Out = largest of each pooled window."""
    size, to = sizes.pool_size, 0
    for channel in range(sizes.channels):
        for row in range(sizes.pooled_rows):
            for column in range(sizes.pooled_columns):
                run = out[to : to + batch]
                for i in range(size):
                    line = (channel * sizes.rows + row * size + i) * sizes.columns + column * size
                    for j in range(size):
                        seen = rates[(line + j) * batch : (line + j + 1) * batch]
                        for sample in range(batch):
                            if i + j == 0 or seen[sample] > run[sample]:
                                run[sample] = seen[sample]
                to += batch


@compiled
def max_unpool(error: Array, rates: Array, sizes: Sizes, batch: int, out: Array) -> None:
    """Out = each error, to the first largest of its window; 0 elsewhere."""
    size, at = sizes.pool_size, 0
    out[:] = 0
    for channel in range(sizes.channels):
        for row in range(sizes.pooled_rows):
            for column in range(sizes.pooled_columns):
                for sample in range(batch):
                    line = (channel * sizes.rows + row * size) * sizes.columns + column * size
                    winner = line * batch + sample
                    for i in range(size):
                        for j in range(size):
                            place = (line + i * sizes.columns + j) * batch + sample
                            if rates[place] > rates[winner]:
                                winner = place
                    out[winner] = error[at + sample]
                at += batch


def compile_all(dtype: str) -> None:
    """Compile, or load from disk, every loop for one type of numbers, by calling it on tiny arrays."""
    sizes = Sizes.of(ConvLayer((1, 2, 2), 1, 1, 1, "max", 2))
    image, pooled, signs = np.ones(4, dtype), np.ones(1, dtype), np.ones(4, SIGN)
    table, square = image.copy().reshape(1, 4), np.ones((1, 1), dtype)
    for writeable in (True, False):  # errors and inputs may come in read-only
        sent, above = image.copy(), pooled.copy()
        sent.flags.writeable = above.flags.writeable = writeable
        patches(sent, sizes, 1, 0, 0, table.copy())
        gate(image, sent, 1.0, 1.0, 0, table.copy())
        gate(signs, sent, 1.0, 1.0, 0, table.copy())
        average_unpool(above, sizes, 1, image.copy())
        max_unpool(above, image, sizes, 1, image.copy())
    fire(image.copy(), 1.0, signs)
    fold(table, sizes, 1, 0, image)
    add_turned(square, square.copy(), 0, 1, 1.0, np.empty(1))
    constants = AdamConstants(*(1.0,) * 7)
    adam_turned(square, square.copy(), 0, 1, square.copy(), square.copy(), constants, np.empty(1))
    average_pool(image, sizes, 1, pooled)
    max_pool(image, sizes, 1, pooled)
