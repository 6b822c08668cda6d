"""A register tile: the innermost loop of our matrix products, written in LLVM's vector instructions.

A block of `rows` by `vectors` sums stays in vector registers while the loop runs over what is summed; each
turn loads `vectors` vectors, spreads `rows` single numbers, and does `rows · vectors` fused
multiplications and additions. Numba's own vectoriser does not find this shape; given it, LLVM keeps all sums
in registers, and a core comes within a few per cent of its peak. How matrices are cut into tiles is the
business of `pcsim.kernels.blocked`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from pcsim.kernels.compiler import FEATURES
from pcsim.kernels.vectors import INDEX, LANE, Builder, Typed, Value, Vectors, data_of

# Only there: elsewhere a mask takes registers, or loads go number by number, so a whole tile does without.
MASKS_ARE_FREE = "avx512f" in FEATURES


def tile(rows: int, vectors: int, ahead: int = 0) -> Callable[..., Any]:
    """Return a function for compiled code that multiplies one tile.

    The function takes, with all starts and strides in elements and all arrays flat:

    - `left, left_start, left_row, left_term`: element (r, t) of the left factor is
      `left[left_start + r left_row + t left_term]`;
    - `right, right_start, right_term`: row t of the right factor begins at `right_start + t right_term` and
      is contiguous;
    - `terms`: how many products each sum has;
    - `out, out_start, out_row`: row r of the result begins at `out_start + r out_row`;
    - `columns`: how many columns of the tile exist; what lies beyond is neither read nor written;
    - `scale`: out += scale · (left right).

    It returns Σ|left right| over the tile; where nobody asks for it, LLVM leaves it out.

    Args:
        rows: of the tile.
        vectors: of `VECTOR_BYTES` in each row.
        ahead: bytes to fetch ahead of the left factor in each turn; for one that is read across its rows,
            which processors do not foresee.
    """

    @intrinsic
    def multiply(
        typing: Typed,
        left: Typed,
        left_start: Typed,
        left_row: Typed,
        left_term: Typed,
        right: Typed,
        right_start: Typed,
        right_term: Typed,
        terms: Typed,
        out: Typed,
        out_start: Typed,
        out_row: Typed,
        columns: Typed,
        scale: Typed,
    ) -> tuple[Typed, Callable[..., Value]]:
        number, index = out.dtype, types.intp
        signature = number(
            left, index, index, index, right, index, index, index, out, index, index, index, number
        )

        def generate(context: Typed, builder: Builder, signature: Typed, arguments: Sequence[Value]) -> Value:
            places = data_of(context, builder, signature, arguments, multiply_arguments)
            return _Tile(context, builder, number, rows, vectors, ahead, places).build()

        return signature, generate

    return multiply


multiply_arguments = [
    "left",
    "left_start",
    "left_row",
    "left_term",
    "right",
    "right_start",
    "right_term",
    "terms",
    "out",
    "out_start",
    "out_row",
    "columns",
    "scale",
]


class _Tile(Vectors):
    """Writes the instructions of one tile."""

    def __init__(
        self,
        context: Typed,
        builder: Builder,
        number: Typed,
        rows: int,
        vectors: int,
        ahead: int,
        places: dict[str, Value],
    ) -> None:
        super().__init__(context, builder, number)
        self.rows, self.vectors, self.ahead, self.at = rows, vectors, ahead, places

    def build(self) -> Value:
        """Write the loop and what follows it; return Σ|left right|."""
        builder = self.builder
        masks, unmasked = [self._mask(n) for n in range(self.vectors)], [None] * self.vectors
        places = [[self._out_place(row, n) for n in range(self.vectors)] for row in range(self.rows)]
        for place in itertools.chain(*places):  # comes from memory while the loop runs
            self.prefetch(place, write=True)
        sums = self._loop(masks) if MASKS_ARE_FREE else None
        # A masked store is several times slower than a plain one as soon as memory is the limit.
        whole = builder.icmp_signed(">=", self.at["columns"], INDEX(self.vectors * self.lanes))
        norms = []
        with builder.if_else(whole) as branches:
            for branch, lanes in zip(branches, (unmasked, masks), strict=True):
                with branch:
                    found = sums or self._loop(lanes)
                    self._add_to(places, found, lanes)
                    norms.append((self.norm(found), builder.block))
        norm = builder.phi(self.element)
        for value, block in norms:
            norm.add_incoming(value, block)
        return norm

    def _out_place(self, row: int, n: int) -> Value:
        """Return where the n-th vector of a row of the result lies."""
        builder = self.builder
        start = builder.add(self.at["out_start"], builder.mul(self.at["out_row"], INDEX(row)))
        return builder.gep(self.at["out"], [builder.add(start, INDEX(n * self.lanes))])

    def _add_to(self, places: list[list[Value]], sums: list[list[Value]], masks: list[Value]) -> None:
        """Write out += scale · sums."""
        scale = self.spread(self.at["scale"])
        for row_places, row_sums in zip(places, sums, strict=True):
            for place, total, mask in zip(row_places, row_sums, masks, strict=True):
                changed = self.multiply_add(scale, total, self.load(place, mask))
                self.store(changed, place, mask)

    def _loop(self, masks: list[Value]) -> list[list[Value]]:
        """Write the loop over the terms; return the sums, [row][vector]."""
        builder, at = self.builder, self.at
        starts = [
            builder.gep(at["left"], [builder.add(at["left_start"], builder.mul(at["left_row"], INDEX(row)))])
            for row in range(self.rows)
        ]
        first = builder.gep(at["right"], [at["right_start"]])
        before = builder.block
        body, after = builder.append_basic_block("tile"), builder.append_basic_block("tile.end")
        builder.branch(body)
        builder.position_at_end(body)

        term, left, right = (self.carried(INDEX, INDEX(0), before) for _ in range(3))
        sums = [[self.carried(self.vector, self.zero, before) for _ in masks] for _ in range(self.rows)]
        loaded = [
            self.load(builder.gep(first, [builder.add(right, INDEX(n * self.lanes))]), mask)
            for n, mask in enumerate(masks)
        ]
        if self.ahead:
            soon = builder.add(left, INDEX(self.ahead // self.itemsize))
            self.prefetch(builder.gep(starts[0], [soon]), write=False)
        new = []
        for row in range(self.rows):
            number = self.spread(builder.load(builder.gep(starts[row], [left])))
            new.append(
                [
                    self.multiply_add(number, vector, total)
                    for vector, total in zip(loaded, sums[row], strict=True)
                ]
            )
        following = builder.add(term, INDEX(1))
        term.add_incoming(following, body)
        left.add_incoming(builder.add(left, at["left_term"]), body)
        right.add_incoming(builder.add(right, at["right_term"]), body)
        for old_row, new_row in zip(sums, new, strict=True):
            for old, value in zip(old_row, new_row, strict=True):
                old.add_incoming(value, body)
        builder.cbranch(builder.icmp_signed("<", following, at["terms"]), body, after)
        builder.position_at_end(after)
        return new

    def _mask(self, n: int) -> Value:
        """Return which lanes of the n-th vector exist."""
        numbers = ir.Constant(
            ir.VectorType(LANE, self.lanes), list(range(n * self.lanes, (n + 1) * self.lanes))
        )
        columns = self.builder.trunc(self.at["columns"], LANE)
        return self.builder.icmp_signed("<", numbers, self.spread(columns))
