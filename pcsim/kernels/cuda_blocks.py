"""How a block of threads forms a tile of a matrix product, which all three products of a connection share.

Each is a sum over an axis that both operands have: predictions sum over the neurons below, feedback over
those above, the Hebbian product over samples. A block walks along that axis in slices. What a slice needs of
both operands lies in shared memory; each thread sums a small rectangle of the tile in its registers.

A GPU has many more threads than a product of 64 samples has tiles, so that there is little to do while
memory is waited for. Hence the numbers of the next slice are asked for before this one's are multiplied, all
at once and without a branch, and only looked at afterwards; and some warps may share a tile, each of which
walks along a part of the sum of its own and waits for nobody.

Places are counted in 32 bits without sign, and every sum of such numbers is cut to 32 bits again: Numba would
go on in 64 bits, which takes several instructions where one would do, and a signed number might count from
the end, as in Python. So a matrix must have fewer than 2³² numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

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
    cuda,
    unsigned,
)

MOST_THREADS = 1024  # of a block


@dataclass(frozen=True)
class Tile:
    """How a block of threads shares a tile of a product.

    Attributes:
        across: threads side by side along a row.
        down: threads along a column.
        columns_each: columns of a thread's rectangle, `across` apart so that a warp reads neighbours.
        rows_each: rows of a thread's rectangle, `down` apart.
        depth: steps of the sum that a group stages at a time.
        groups: of across · down threads each: one, or warps that divide the sum among them.
    """

    across: int
    down: int
    columns_each: int
    rows_each: int
    depth: int
    groups: int = 1

    def __post_init__(self) -> None:
        alone = self.groups == 1 or self.members == WARP
        if self.members % WARP or self.members < self.rows or self.count > MOST_THREADS or not alone:
            raise ShapeError(
                f"tile of {self.rows} × {self.columns}, {self.groups} groups of {self.members} threads: "
                f"expected a multiple of {WARP} and at least one a row, {MOST_THREADS} in all at the most; "
                f"just {WARP} if there are several groups"
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
    def members(self) -> int:
        """Number of threads of a group."""
        return self.across * self.down

    @property
    def count(self) -> int:
        """Number of threads of the block."""
        return self.across * self.down * self.groups

    @property
    def threads(self) -> tuple[int, int]:
        """Shape of the block; its groups lie one below the other."""
        return self.across, self.down * self.groups

    @property
    def numbers_each(self) -> int:
        """How many numbers of the tile are a thread's to write, at the most."""
        return -(-self.rows * self.columns // self.count)

    def grid(self, rows: int, columns: int) -> tuple[int, int]:
        """Return how many blocks cover a product of (rows, columns)."""
        return -(-columns // self.columns), -(-rows // self.rows)


@dataclass(frozen=True)
class Operand:
    """How a matrix takes part in a product.

    Attributes:
        along: whether it lies in memory along the sum: (rows of the product, steps), or (steps, rows).
        activation: what is applied to each number of it first.
    """

    along: bool
    activation: ActivationName = "identity"

    def width(self, extent: int, depth: int) -> int:
        """Return the numbers of a row of shared memory, which is one step of the sum.

        Threads that read along the sum write to different rows, a warp to some numbers of each: with as many
        more in each row they write to different banks.
        """
        return extent + max(1, WARP // depth) if self.along else extent


@cache
def _places(operand: Operand, extent: int, tile: Tile) -> Kernel:
    """Return the device function of the row and the step that a thread of a group stages, in each turn.

    Threads side by side read side by side in memory, along the sum or across it. Turns are constants of the
    compiled code, so that what they say of the place should be left to it, and no thread divide.
    """
    inner, members = (tile.depth if operand.along else extent), tile.members
    u_inner, u_members = unsigned(inner), unsigned(members)

    if members % inner == 0:
        lines = unsigned(members // inner)

        def place(member: int, turn: int) -> tuple[int, int]:
            return unsigned(member // u_inner + lines * unsigned(turn)), unsigned(member % u_inner)

    elif inner % members == 0:
        pieces = inner // members

        def place(member: int, turn: int) -> tuple[int, int]:
            return unsigned(turn // pieces), unsigned(member + u_members * unsigned(turn % pieces))

    else:

        def place(member: int, turn: int) -> tuple[int, int]:
            at = unsigned(member + u_members * unsigned(turn))
            return unsigned(at // u_inner), unsigned(at % u_inner)

    return cuda.jit(place, device=True)


@cache
def _staging(operand: Operand, extent: int, number: Number, tile: Tile) -> tuple[Kernel, Kernel, int]:
    """Return what asks for a slice of an operand, what stores it, and how many numbers a thread asks for."""
    (function, _), where = activation_functions(operand.activation, number), _places(operand, extent, tile)
    along, members, size = operand.along, tile.members, extent * tile.depth
    each, wide, fits = -(-size // members), unsigned(operand.width(extent, tile.depth)), size % members == 0
    u_size, u_members = unsigned(size), unsigned(members)

    def ask(source: View, rows: int, steps: int, first: int, start: int, member: int, held: View) -> None:
        last_row, last_step = unsigned(rows - unsigned(1)), unsigned(steps - unsigned(1))
        for turn in range(each):
            line, at = where(member, turn)
            row, step = (line, at) if along else (at, line)
            row, step = unsigned(first + row), unsigned(start + step)
            row = row if row < last_row else last_row  # any number does for what is not there
            step = step if step < last_step else last_step
            held[turn] = source[unsigned(row * steps + step) if along else unsigned(step * rows + row)]

    def store(held: View, remaining: int, member: int, shared: View, first: int) -> None:
        for turn in range(each):
            line, at = where(member, turn)
            row, step = (line, at) if along else (at, line)
            value = function(held[turn]) if step < remaining else number(0)
            if fits or unsigned(member + u_members * unsigned(turn)) < u_size:
                shared[unsigned(first + unsigned(step * wide + row))] = value

    return cuda.jit(ask, device=True), cuda.jit(store, device=True), each


def shared_size(left: Operand, right: Operand, tile: Tile) -> int:
    """Return how many numbers of shared memory `block_product` needs for its slices."""
    width = left.width(tile.rows, tile.depth) + right.width(tile.columns, tile.depth)
    return tile.groups * _sides(tile) * tile.depth * width


def _sides(tile: Tile) -> int:
    """Return how many slices of a group are in shared memory: a block that has to wait for all, two."""
    return 2 if tile.groups == 1 else 1


def _unrolled(depth: int) -> int:
    """Return how many steps the compiler is to write out one after the other."""
    return next(count for count in (4, 3, 2, 1) if depth % count == 0)


@cache
def block_product(left: Operand, right: Operand, number: Number, tile: Tile) -> Kernel:
    """Return the device function that adds a tile of a product to `sums`, (rows_each, columns_each).

    Arguments: left and right, flat, rows, columns and steps of the product, first_row, first_column, shared,
    sums; `shared` has `shared_size` numbers, what counts is `unsigned`. Each group of threads adds its own
    part. It returns the sum of `left` over all steps for row `first_row + thread`, of a block with one group
    and where it is the first of its row.
    """
    ask_left, store_left, left_each = _staging(left, tile.rows, number, tile)
    ask_right, store_right, right_each = _staging(right, tile.columns, number, tile)
    down, across, depth = tile.down, tile.across, tile.depth
    rows_each, columns_each, with_sums = tile.rows_each, tile.columns_each, tile.groups == 1
    together, sides, alone = _unrolled(tile.depth), _sides(tile), tile.members == WARP
    left_width = unsigned(left.width(tile.rows, depth))
    right_width = unsigned(right.width(tile.columns, depth))
    rights = unsigned(depth * left_width)  # where they begin in a slice
    size = unsigned(depth * (left_width + right_width))  # of a slice
    u_rows, u_down, u_across = map(unsigned, (tile.rows, down, across))
    place: Any = np.uint64  # not cut, so that constants become part of the instruction that reads
    u_depth, u_walk = unsigned(depth), unsigned(depth * tile.groups)

    def multiply(
        left: View,
        right: View,
        rows: int,
        columns: int,
        steps: int,
        first_row: int,
        first_column: int,
        shared: View,
        sums: View,
    ) -> Value:
        next_left = cuda.local.array(left_each, number)
        next_right = cuda.local.array(right_each, number)
        x, y = unsigned(cuda.threadIdx.x), unsigned(cuda.threadIdx.y % down)
        group, member = unsigned(cuda.threadIdx.y // down), unsigned(y * u_across + x)
        slices = unsigned((steps + u_walk - unsigned(1)) // u_walk)  # of each group, also beyond the end
        start = unsigned(group * slices * u_depth)
        begin, row_sum = unsigned(group * unsigned(sides) * size), number(0)
        ask_left(left, rows, steps, first_row, start, member, next_left)
        ask_right(right, columns, steps, first_column, start, member, next_right)
        for turn in range(int(slices)):
            lefts = unsigned(begin + size * unsigned(turn % sides))
            remaining = unsigned(steps - start) if start < steps else unsigned(0)
            store_left(next_left, remaining, member, shared, lefts)
            store_right(next_right, remaining, member, shared, unsigned(lefts + rights))
            if alone:
                cuda.syncwarp()
            else:
                cuda.syncthreads()  # from here on nobody reads the other side any more, either
            start = unsigned(start + u_depth)
            if turn + 1 < slices:
                ask_left(left, rows, steps, first_row, start, member, next_left)
                ask_right(right, columns, steps, first_column, start, member, next_right)
            left_at, right_at = place(lefts + y), place(lefts + rights + x)
            for _ in range(depth // together):
                for step in range(together):
                    for i in range(rows_each):
                        value = shared[left_at + place(step) * left_width + u_down * place(i)]
                        for j in range(columns_each):
                            other = shared[right_at + place(step) * right_width + u_across * place(j)]
                            sums[i, j] += value * other
                left_at += place(together) * left_width
                right_at += place(together) * right_width
            if with_sums and first_column == 0 and member < u_rows:
                for step in range(depth):
                    row_sum += shared[unsigned(lefts + unsigned(step) * left_width + member)]
            if sides == 1:
                cuda.syncwarp()
        return row_sum

    return cuda.jit(multiply, device=True)


@cache
def _gather_groups(number: Number, tile: Tile) -> Kernel:
    """Return the device function that adds up what each group has of a tile, in the order of the groups.

    Arguments: sums, shared, totals. Threads get numbers of the tile in turn, row by row: side by side for
    threads side by side; see `place_of`.
    """
    rows_each, columns_each, across, down = tile.rows_each, tile.columns_each, tile.across, tile.down
    groups, columns, size = tile.groups, unsigned(tile.columns), unsigned(tile.rows * tile.columns)
    each, threads = tile.numbers_each, unsigned(tile.count)
    u_down, u_across = unsigned(down), unsigned(across)

    def gather(sums: View, shared: View, totals: View) -> None:
        x, y = unsigned(cuda.threadIdx.x), unsigned(cuda.threadIdx.y % down)
        group, thread = unsigned(cuda.threadIdx.y // down), unsigned(cuda.threadIdx.y * across + x)
        cuda.syncthreads()  # the last slice is not read any more
        first = unsigned(group * size + y * columns + x)
        for i in range(rows_each):
            for j in range(columns_each):
                shared[unsigned(first + u_down * columns * unsigned(i) + u_across * unsigned(j))] = sums[i, j]
        cuda.syncthreads()
        for turn in range(each):
            place, total = unsigned(thread + threads * unsigned(turn)), number(0)
            if place < size:
                for part in range(groups):
                    total += shared[unsigned(place + unsigned(part) * size)]
            totals[turn] = total

    return cuda.jit(gather, device=True)


@cache
def tile_totals(left: Operand, right: Operand, number: Number, tile: Tile) -> Kernel:
    """Return the device function that forms a tile of a product and deals it out among the block's threads.

    Arguments: left and right, flat, rows, columns and steps of the product, first_row, first_column, totals;
    `totals` gets the `numbers_each` numbers of the thread, whose places `place_of` knows.
    """
    multiply, gather = block_product(left, right, number, tile), _gather_groups(number, tile)
    # One after the other slices, and what each group has summed, lie in the same shared memory.
    size = max(shared_size(left, right, tile), tile.groups * tile.rows * tile.columns)
    rows_each, columns_each = tile.rows_each, tile.columns_each

    def form(
        left: View,
        right: View,
        rows: int,
        columns: int,
        steps: int,
        first_row: int,
        first_column: int,
        totals: View,
    ) -> None:
        shared = cuda.shared.array(size, number)
        sums = cuda.local.array((rows_each, columns_each), number)
        for i in range(rows_each):
            for j in range(columns_each):
                sums[i, j] = number(0)
        multiply(left, right, rows, columns, steps, first_row, first_column, shared, sums)
        gather(sums, shared, totals)

    return cuda.jit(form, device=True)


@cache
def place_of(tile: Tile) -> Kernel:
    """Return the device function of the row and the column of the thread's number, in each of its turns.

    Arguments: first_row, first_column, turn. What lies beyond the tile is in no row.
    """
    across, columns, threads = tile.across, unsigned(tile.columns), unsigned(tile.count)
    size, nowhere = unsigned(tile.rows * tile.columns), unsigned(2**32 - 1)

    def place(first_row: int, first_column: int, turn: int) -> tuple[int, int]:
        at = unsigned(cuda.threadIdx.y * across + cuda.threadIdx.x + threads * unsigned(turn))
        row, column = unsigned(first_row + at // columns), unsigned(first_column + at % columns)
        return (row if at < size else nowhere), column

    return cuda.jit(place, device=True)
