"""What writes LLVM's vector instructions: the vocabulary that tiles are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from llvmlite import ir
from numba.core import cgutils, types

from pcsim.kernels.compiler import FEATURES, VECTOR_BYTES, X86

# llvmlite and Numba's code generation have no types: what the names below stand for is checked by nobody.
Value: TypeAlias = Any  # a value of the program that is being written
Kind: TypeAlias = Any  # a type of such a value
Builder: TypeAlias = Any  # writes instructions
Typed: TypeAlias = Any  # Numba's description of an argument

INDEX = ir.IntType(64)
LANE = ir.IntType(32)

# Where a processor has no fused multiplication and addition, "fma" would call a function for each number.
MULTIPLY_ADD = "fma" if not X86 or {"fma", "avx512f"} & FEATURES else "fmuladd"


def data_of(
    context: Typed, builder: Builder, signature: Typed, arguments: Sequence[Value], names: Sequence[str]
) -> dict[str, Value]:
    """Return the arguments of a function by name; of an array where its elements begin."""
    found = {}
    for kind, name, argument in zip(signature.args, names, arguments, strict=True):
        is_array = isinstance(kind, types.Array)
        found[name] = context.make_array(kind)(context, builder, argument).data if is_array else argument
    return found


class Vectors:
    """Writes instructions on vectors of `VECTOR_BYTES`.

    Args:
        context: Numba's, of what is being compiled.
        builder: writes.
        number: Numba's type of an element.

    Attributes:
        element: type of an element.
        itemsize: bytes of an element.
        lanes: elements of a vector.
        vector: type of a vector.
        zero: a vector of zeros.
    """

    def __init__(self, context: Typed, builder: Builder, number: Typed) -> None:
        self.builder, self.element = builder, context.get_data_type(number)
        self.itemsize = number.bitwidth // 8
        self.lanes = VECTOR_BYTES // self.itemsize
        self.vector = ir.VectorType(self.element, self.lanes)
        self.zero = ir.Constant(self.vector, [0.0] * self.lanes)
        self._suffix = f"v{self.lanes}f{8 * self.itemsize}"

    def carried(self, kind: Kind, value: Value, before: Value) -> Value:
        """Return what a loop carries from turn to turn: a value at first, coming from a block."""
        phi = self.builder.phi(kind)
        phi.add_incoming(value, before)
        return phi

    def norm(self, sums: Sequence[Sequence[Value]]) -> Value:
        """Return the sum of the absolute values of all sums, [row][vector]."""
        return self.across(self.total([self.magnitude(row) for row in sums]))

    def magnitude(self, row: Sequence[Value]) -> Value:
        """Return a vector of the sum of the absolute values of some vectors."""
        return self.total([self.call("fabs", self.vector, [one]) for one in row])

    def total(self, vectors: Sequence[Value]) -> Value:
        """Return the sum of some vectors, in their order."""
        found = vectors[0]
        for one in vectors[1:]:
            found = self.builder.fadd(found, one)
        return found

    def across(self, total: Value) -> Value:
        """Return the sum of the elements of a vector: half is added to half, always in this order."""
        lanes = self.lanes
        while lanes > 1:
            lanes //= 2
            halves = []
            for first in (0, lanes):
                chosen = ir.Constant(ir.VectorType(LANE, lanes), list(range(first, first + lanes)))
                halves.append(self.builder.shuffle_vector(total, total, chosen))
            total = self.builder.fadd(*halves)
        return self.builder.extract_element(total, LANE(0))

    def multiply_add(self, one: Value, other: Value, total: Value) -> Value:
        """Return one · other + total."""
        return self.call(MULTIPLY_ADD, self.vector, [one, other, total])

    def load(self, place: Value, mask: Value = None) -> Value:
        """Return the vector at a place, with 0 where a mask says that nothing is to be read."""
        if mask is None:
            place = self.builder.bitcast(place, self.vector.as_pointer())
            return self.builder.load(place, align=self.itemsize)
        operation = self._declare(
            "masked.load", self.vector, [place.type, LANE, mask.type, self.vector], pointer=True
        )
        return self.builder.call(operation, [place, LANE(self.itemsize), mask, self.zero])

    def store(self, value: Value, place: Value, mask: Value = None) -> None:
        """Write a vector to a place, but for what a mask leaves out."""
        if mask is None:
            place = self.builder.bitcast(place, self.vector.as_pointer())
            self.builder.store(value, place, align=self.itemsize)
            return
        operation = self._declare(
            "masked.store", ir.VoidType(), [self.vector, place.type, LANE, mask.type], pointer=True
        )
        self.builder.call(operation, [value, place, LANE(self.itemsize), mask])

    def prefetch(self, place: Value, *, write: bool) -> None:
        """Have what lies at a place fetched."""
        kind = ir.FunctionType(ir.VoidType(), [place.type, LANE, LANE, LANE])
        operation = _function(self.builder, kind, "llvm.prefetch.p0")
        self.builder.call(operation, [place, LANE(int(write)), LANE(3), LANE(1)])  # keep it; it is data

    def call(self, name: str, result: Kind, arguments: list[Value]) -> Value:
        """Return what one of LLVM's functions on vectors makes of its arguments."""
        operation = self._declare(name, result, [argument.type for argument in arguments])
        return self.builder.call(operation, arguments)

    def _declare(self, name: str, result: Kind, arguments: list[Kind], *, pointer: bool = False) -> Value:
        kind = ir.FunctionType(result, arguments)
        full = f"llvm.{name}.{self._suffix}" + (".p0" if pointer else "")
        return _function(self.builder, kind, full)

    def spread(self, value: Value) -> Value:
        """Return a vector with the value in every lane."""
        undefined = ir.Constant(ir.VectorType(value.type, self.lanes), ir.Undefined)
        single = self.builder.insert_element(undefined, value, LANE(0))
        zeros = ir.Constant(ir.VectorType(LANE, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(single, undefined, zeros)


def _function(builder: Builder, kind: Kind, name: str) -> Value:
    """Return an instruction that LLVM knows by name."""
    return cgutils.get_or_insert_function(builder.module, kind, name)  # type: ignore[no-untyped-call]
