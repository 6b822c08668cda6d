"""How a block of threads forms a tile of a matrix product, which all three products of a connection share.

Each is a sum over an axis that both operands have: predictions sum over the neurons below, feedback over
those above, the Hebbian product over samples. A block walks along that axis in slices. What a slice needs of
both operands lies in shared memory; each thread sums a small rectangle of the tile in its registers.

A GPU has many more threads than a product of 64 samples has tiles, so that there is little to do while memory
is waited for. Hence the numbers of the next slice are asked for before this one's are multiplied, all at once
and without a branch, and only looked at afterwards; and some groups of threads may share a tile, each with a
part of every slice. Shared memory is addressed by unsigned numbers: a signed one might count from the end, as
in Python, and the innermost loop would spend more instructions on that than on its sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

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


@dataclass(frozen=True)
class Tile:
    """How a block of threads shares a tile of a product.

    Attributes:
        across: threads side by side along a row.
        down: threads along a column.
        columns_each: columns of a thread's rectangle, `across` apart so that a warp reads neighbours.
        rows_each: rows of a thread's rectangle, `down` apart.
        depth: steps of the sum that are staged at a time.
        groups: of across · down threads each, which share the steps of a slice. All threads of a block must
            be a multiple of 32, and of at least as many as the tile has rows.
    """

    across: int = 16
    down: int = 8
    columns_each: int = 4
    rows_each: int = 8
    depth: int = 16
    groups: int = 1

    def __post_init__(self) -> None:
        if self.count % WARP or self.count < self.rows or self.depth % self.groups:
            raise ShapeError(
                f"tile of {self.rows} × {self.columns} with {self.count} threads in {self.groups} groups, "
                f"{self.depth} steps at a time: expected a multiple of {WARP} threads, at least one a row, "
                "and as many steps for each group"
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


def _width(operand: Operand, extent: int) -> int:
    """Return the numbers of a row of shared memory, which is one step of the sum.

    Threads that read along the sum write to different rows: with one number more, to different banks.
    """
    return extent + 1 if operand.along else extent


@cache
def _staging(operand: Operand, extent: int, number: Number, tile: Tile) -> tuple[Kernel, Kernel, int]:
    """Return what asks for a slice of an operand, what stores it, and how many numbers a thread asks for.

    Threads side by side read side by side in memory, along the sum or across it.
    """
    function, _ = activation_functions(operand.activation, number)
    along, depth, threads, size = operand.along, tile.depth, tile.count, extent * tile.depth
    each, wide = -(-size // threads), unsigned(_width(operand, extent))
    fits, short = size % threads == 0, unsigned(depth)
    u_extent, u_size, u_threads = unsigned(extent), unsigned(size), unsigned(threads)

    def place(thread: int, turn: int) -> tuple[int, int]:
        at = unsigned(thread) + u_threads * unsigned(turn)
        if along:
            return at // short, at % short
        return at % u_extent, at // u_extent

    where = cuda.jit(place, device=True)

    def ask(source: View, first: int, start: int, thread: int, held: View) -> None:
        rows, steps = (source.shape[0], source.shape[1]) if along else (source.shape[1], source.shape[0])
        last_row, last_step = unsigned(rows - 1), unsigned(steps - 1)
        for turn in range(each):
            row, step = where(thread, turn)
            row, step = unsigned(first) + row, unsigned(start) + step
            row = row if row < last_row else last_row  # any number does for what is not there
            step = step if step < last_step else last_step
            held[turn] = source[row, step] if along else source[step, row]

    def store(held: View, remaining: int, thread: int, shared: View, first: int) -> None:
        for turn in range(each):
            row, step = where(thread, turn)
            value = function(held[turn]) if step < unsigned(remaining) else number(0)
            if fits or unsigned(thread) + u_threads * unsigned(turn) < u_size:
                shared[unsigned(first) + step * wide + row] = value

    return cuda.jit(ask, device=True), cuda.jit(store, device=True), each


def shared_size(left: Operand, right: Operand, tile: Tile) -> int:
    """Return how many numbers of shared memory a block needs: two slices, or what its groups have summed."""
    slices = 2 * tile.depth * (_width(left, tile.rows) + _width(right, tile.columns))
    return slices if tile.groups == 1 else max(slices, tile.groups * tile.rows * tile.columns)


@cache
def block_product(left: Operand, right: Operand, number: Number, tile: Tile) -> Kernel:
    """Return the device function that adds a tile of a product to `sums`, (rows_each, columns_each).

    Arguments: left, right, first_row, first_column, shared, sums; `shared` has `shared_size` numbers. Each
    group of threads adds its own part. It returns the sum of `left` over all steps for row
    `first_row + thread`, where the block is the first of its row.
    """
    ask_left, store_left, left_each = _staging(left, tile.rows, number, tile)
    ask_right, store_right, right_each = _staging(right, tile.columns, number, tile)
    rows, depth, rows_each, columns_each = tile.rows, tile.depth, tile.rows_each, tile.columns_each
    across, steps_each, along = tile.across, tile.depth // tile.groups, left.along
    left_width, right_width = unsigned(_width(left, rows)), unsigned(_width(right, tile.columns))
    left_size, right_size = unsigned(depth) * left_width, unsigned(depth) * right_width
    rights = unsigned(2) * left_size  # where they begin
    u_down, u_across = unsigned(tile.down), unsigned(across)

    def multiply(
        left: View, right: View, first_row: int, first_column: int, shared: View, sums: View
    ) -> Value:
        next_left = cuda.local.array(left_each, number)
        next_right = cuda.local.array(right_each, number)
        x, y = unsigned(cuda.threadIdx.x), unsigned(cuda.threadIdx.y) % u_down
        own = unsigned(cuda.threadIdx.y) // u_down * unsigned(steps_each)
        thread = cuda.threadIdx.y * across + cuda.threadIdx.x
        steps = left.shape[1] if along else left.shape[0]
        row_sum, side = number(0), unsigned(0)
        ask_left(left, first_row, 0, thread, next_left)
        ask_right(right, first_column, 0, thread, next_right)
        for start in range(0, steps, depth):
            left_from, right_from = side * left_size, rights + side * right_size
            store_left(next_left, steps - start, thread, shared, left_from)
            store_right(next_right, steps - start, thread, shared, right_from)
            cuda.syncthreads()  # from here on nobody reads the other side any more, either
            if start + depth < steps:
                ask_left(left, first_row, start + depth, thread, next_left)
                ask_right(right, first_column, start + depth, thread, next_right)
            left_at, right_at = left_from + own * left_width + y, right_from + own * right_width + x
            for step in range(steps_each):
                for i in range(rows_each):
                    value = shared[left_at + unsigned(step) * left_width + u_down * unsigned(i)]
                    for j in range(columns_each):
                        other = shared[right_at + unsigned(step) * right_width + u_across * unsigned(j)]
                        sums[i, j] += value * other
            if first_column == 0 and thread < rows:
                for step in range(depth):
                    row_sum += shared[left_from + unsigned(step) * left_width + unsigned(thread)]
            side = unsigned(1) - side
        return row_sum

    return cuda.jit(multiply, device=True)


@cache
def gather_groups(number: Number, tile: Tile) -> Kernel:
    """Return the device function that adds up what each group has of a tile, in the order of the groups.

    Arguments: sums, shared, totals. Threads get numbers of the tile in turn, row by row: side by side for
    threads side by side; see `place_of`.
    """
    rows_each, columns_each, across, down = tile.rows_each, tile.columns_each, tile.across, tile.down
    groups, columns, size = tile.groups, unsigned(tile.columns), unsigned(tile.rows * tile.columns)
    each, threads, u_down, u_across = (
        tile.numbers_each,
        unsigned(tile.count),
        unsigned(down),
        unsigned(across),
    )

    def gather(sums: View, shared: View, totals: View) -> None:
        x, y = unsigned(cuda.threadIdx.x), unsigned(cuda.threadIdx.y) % u_down
        group = unsigned(cuda.threadIdx.y) // u_down
        thread = unsigned(cuda.threadIdx.y * across + cuda.threadIdx.x)
        cuda.syncthreads()  # the last slice is not read any more
        for i in range(rows_each):
            for j in range(columns_each):
                row, column = y + u_down * unsigned(i), x + u_across * unsigned(j)
                shared[group * size + row * columns + column] = sums[i, j]
        cuda.syncthreads()
        for turn in range(each):
            place, total = thread + threads * unsigned(turn), number(0)
            if place < size:
                for part in range(groups):
                    total += shared[unsigned(part) * size + place]
            totals[turn] = total

    return cuda.jit(gather, device=True)


@cache
def place_of(tile: Tile) -> Kernel:
    """Return the device function of the row and the column of the thread's number, in each of its turns.

    Arguments: first_row, first_column, turn. What lies beyond the tile is in no row.
    """
    across, columns, threads = tile.across, unsigned(tile.columns), unsigned(tile.count)
    size, nowhere = unsigned(tile.rows * tile.columns), unsigned(2**32 - 1)

    def place(first_row: int, first_column: int, turn: int) -> tuple[int, int]:
        at = unsigned(cuda.threadIdx.y * across + cuda.threadIdx.x) + threads * unsigned(turn)
        row, column = unsigned(first_row) + at // columns, unsigned(first_column) + at % columns
        return (row if at < size else nowhere), column

    return cuda.jit(place, device=True)
