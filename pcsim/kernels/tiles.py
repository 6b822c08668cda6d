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
from typing import Any, TypeAlias

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from pcsim.kernels.compiler import FEATURES, VECTOR_BYTES, X86

# llvmlite and Numba's code generation have no types: what the names below stand for is checked by nobody.
Value: TypeAlias = Any  # a value of the program that is being written
Kind: TypeAlias = Any  # a type of such a value
Builder: TypeAlias = Any  # writes instructions
Typed: TypeAlias = Any  # Numba's description of an argument

INDEX = ir.IntType(64)
LANE = ir.IntType(32)

# Only there: elsewhere a mask takes registers, or loads go number by number, so a whole tile does without.
MASKS_ARE_FREE = "avx512f" in FEATURES
# Where a processor has no fused multiplication and addition, "fma" would call a function for each number.
MULTIPLY_ADD = "fma" if not X86 or {"fma", "avx512f"} & FEATURES else "fmuladd"


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
            places = dict(zip(multiply_arguments, arguments, strict=True))
            for name in ("left", "right", "out"):
                array = signature.args[multiply_arguments.index(name)]
                places[name] = context.make_array(array)(context, builder, places[name]).data
            element = context.get_data_type(number)
            return _Tile(builder, element, number.bitwidth // 8, rows, vectors, ahead, places).build()

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


class _Tile:
    """Writes the instructions of one tile."""

    def __init__(
        self,
        builder: Builder,
        element: Kind,
        itemsize: int,
        rows: int,
        vectors: int,
        ahead: int,
        places: dict[str, Value],
    ) -> None:
        self.builder, self.element, self.itemsize = builder, element, itemsize
        self.rows, self.vectors, self.ahead, self.at = rows, vectors, ahead, places
        self.lanes = VECTOR_BYTES // itemsize
        self.vector = ir.VectorType(element, self.lanes)
        self.zero = ir.Constant(self.vector, [0.0] * self.lanes)
        self.suffix = f"v{self.lanes}f{8 * itemsize}"

    def build(self) -> Value:
        """Write the loop and what follows it; return Σ|left right|."""
        builder = self.builder
        masks, unmasked = [self._mask(n) for n in range(self.vectors)], [None] * self.vectors
        places = [[self._out_place(row, n) for n in range(self.vectors)] for row in range(self.rows)]
        for place in itertools.chain(*places):  # comes from memory while the loop runs
            self._prefetch(place, write=True)
        sums = self._loop(masks) if MASKS_ARE_FREE else None
        # A masked store is several times slower than a plain one as soon as memory is the limit.
        whole = builder.icmp_signed(">=", self.at["columns"], INDEX(self.vectors * self.lanes))
        norms = []
        with builder.if_else(whole) as branches:
            for branch, lanes in zip(branches, (unmasked, masks), strict=True):
                with branch:
                    found = sums or self._loop(lanes)
                    self._add_to(places, found, lanes)
                    norms.append((self._norm(found), builder.block))
        norm = builder.phi(self.element)
        for value, block in norms:
            norm.add_incoming(value, block)
        return norm

    def _norm(self, sums: list[list[Value]]) -> Value:
        """Return the sum of the absolute values of all sums."""
        norm = self.zero
        for total in itertools.chain(*sums):
            norm = self.builder.fadd(norm, self._call("fabs", self.vector, [total]))
        reduce = self._declare("vector.reduce.fadd", self.element, [self.element, self.vector])
        return self.builder.call(reduce, [self.element(0.0), norm], fastmath=("reassoc",))

    def _out_place(self, row: int, n: int) -> Value:
        """Return where the n-th vector of a row of the result lies."""
        builder = self.builder
        start = builder.add(self.at["out_start"], builder.mul(self.at["out_row"], INDEX(row)))
        return builder.gep(self.at["out"], [builder.add(start, INDEX(n * self.lanes))])

    def _add_to(self, places: list[list[Value]], sums: list[list[Value]], masks: list[Value]) -> None:
        """Write out += scale · sums."""
        scale = self._spread(self.at["scale"])
        for row_places, row_sums in zip(places, sums, strict=True):
            for place, total, mask in zip(row_places, row_sums, masks, strict=True):
                changed = self._call(MULTIPLY_ADD, self.vector, [scale, total, self._load(place, mask)])
                self._store(changed, place, mask)

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

        def carried(kind: Kind, value: Value) -> Value:
            phi = builder.phi(kind)
            phi.add_incoming(value, before)
            return phi

        term, left, right = (carried(INDEX, INDEX(0)) for _ in range(3))
        sums = [[carried(self.vector, self.zero) for _ in masks] for _ in range(self.rows)]
        loaded = [
            self._load(builder.gep(first, [builder.add(right, INDEX(n * self.lanes))]), mask)
            for n, mask in enumerate(masks)
        ]
        if self.ahead:
            soon = builder.add(left, INDEX(self.ahead // self.itemsize))
            self._prefetch(builder.gep(starts[0], [soon]), write=False)
        new = []
        for row in range(self.rows):
            number = self._spread(builder.load(builder.gep(starts[row], [left])))
            new.append(
                [
                    self._call(MULTIPLY_ADD, self.vector, [number, vector, total])
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
        return self.builder.icmp_signed("<", numbers, self._spread(columns))

    def _load(self, place: Value, mask: Value = None) -> Value:
        if mask is None:
            place = self.builder.bitcast(place, self.vector.as_pointer())
            return self.builder.load(place, align=self.itemsize)
        operation = self._declare(
            "masked.load", self.vector, [place.type, LANE, mask.type, self.vector], pointer=True
        )
        return self.builder.call(operation, [place, LANE(self.itemsize), mask, self.zero])

    def _store(self, value: Value, place: Value, mask: Value = None) -> None:
        if mask is None:
            place = self.builder.bitcast(place, self.vector.as_pointer())
            self.builder.store(value, place, align=self.itemsize)
            return
        operation = self._declare(
            "masked.store", ir.VoidType(), [self.vector, place.type, LANE, mask.type], pointer=True
        )
        self.builder.call(operation, [value, place, LANE(self.itemsize), mask])

    def _prefetch(self, place: Value, *, write: bool) -> None:
        kind = ir.FunctionType(ir.VoidType(), [place.type, LANE, LANE, LANE])
        operation = _function(self.builder, kind, "llvm.prefetch.p0")
        self.builder.call(operation, [place, LANE(int(write)), LANE(3), LANE(1)])  # keep it; it is data

    def _call(self, name: str, result: Kind, arguments: list[Value]) -> Value:
        operation = self._declare(name, result, [argument.type for argument in arguments])
        return self.builder.call(operation, arguments)

    def _declare(self, name: str, result: Kind, arguments: list[Kind], *, pointer: bool = False) -> Value:
        kind = ir.FunctionType(result, arguments)
        full = f"llvm.{name}.{self.suffix}" + (".p0" if pointer else "")
        return _function(self.builder, kind, full)

    def _spread(self, value: Value) -> Value:
        """Return a vector with the value in every lane."""
        undefined = ir.Constant(ir.VectorType(value.type, self.lanes), ir.Undefined)
        single = self.builder.insert_element(undefined, value, LANE(0))
        zeros = ir.Constant(ir.VectorType(LANE, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(single, undefined, zeros)


def _function(builder: Builder, kind: Kind, name: str) -> Value:
    """Return an instruction that LLVM knows by name."""
    return cgutils.get_or_insert_function(builder.module, kind, name)  # type: ignore[no-untyped-call]
