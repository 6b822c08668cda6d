"""A register tile of the Hebbian product that leaves out what is 0.

Where a layer is rectified and predictions are its first activities, the errors of silent neurons stay exactly
0 until something wakes them: half of those that the first weights of a network learn from. A sample whose
error is 0 teaches a row of the weight nothing; `active` lists the others, and a tile adds up those alone, in
their order: the bits are those of `pcsim.kernels.tiles`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from pcsim.kernels import Array
from pcsim.kernels.loops import compiled
from pcsim.kernels.vectors import INDEX, Builder, Typed, Value, Vectors, data_of

Indices = NDArray[np.int32]

AT_ONCE = 2  # samples of a turn of the loop
WORTH = 2 / 3  # share of errors other than 0 up to which leaving out the others pays
LEAST_BATCH = 32  # samples from which on it does: with fewer the loops of a row are too short


@compiled
def worth_listing(error: Array) -> bool:
    """Return whether leaving out the errors that are 0, of (m, batch), saves time."""
    if error.shape[1] < LEAST_BATCH:
        return False
    count = 0
    for row in range(error.shape[0]):
        for sample in range(error.shape[1]):
            count += error[row, sample] != 0
    return count <= WORTH * error.size


@compiled
def active(error: Array, step: int, values: Array, places: Indices, counts: Indices) -> None:
    """List the errors other than 0 of each row; zeros make their number even, and two at least.

    Args:
        error: (m, batch).
        step: from a sample to the next in what will be multiplied.
        values: set to the errors; (m, batch + `AT_ONCE`).
        places: set to their samples times step; (m, batch + `AT_ONCE`).
        counts: set to how many are listed, (m,).
    """
    rows, batch = error.shape
    for row in range(rows):
        count = 0
        for sample in range(batch):
            value = error[row, sample]
            values[row, count], places[row, count] = value, sample * step
            count += value != 0
        until = max(count + count % AT_ONCE, AT_ONCE)
        values[row, count:until], places[row, count:until] = 0, 0
        counts[row] = until


def sparse_tile(rows: int, vectors: int, panels: int) -> Callable[..., Any]:
    """Return a function for compiled code that adds the Hebbian product of some rows and panels.

    The function takes, with all starts and strides in elements and all arrays flat:

    - `values, places, counts, first, listed`: what `active` has listed, which of its rows the first is, and
      how long a row of the lists is;
    - `right, right_start, panel`: a row of the first panel is at `right_start` and a place of the list, that
      of the next panel `panel` further;
    - `out, out_start, out_row`: row r of the result begins at `out_start + r out_row`;
    - `soon`: where the result of the next tile begins, which is fetched meanwhile;
    - `scale`: out += scale · product.

    It returns Σ|product| of each panel.

    Args:
        rows: done one after the other.
        vectors: of `VECTOR_BYTES` in a row of a panel.
        panels: done at once.
    """

    @intrinsic
    def multiply(
        typing: Typed,
        values: Typed,
        places: Typed,
        counts: Typed,
        first: Typed,
        listed: Typed,
        right: Typed,
        right_start: Typed,
        panel: Typed,
        out: Typed,
        out_start: Typed,
        out_row: Typed,
        soon: Typed,
        scale: Typed,
    ) -> tuple[Typed, Callable[..., Value]]:
        number, index = out.dtype, types.intp
        norms = types.UniTuple(number, panels)  # type: ignore[no-untyped-call]
        operands = values, places, counts, index, index, right, index, index, out, index, index, index, number

        def generate(context: Typed, builder: Builder, signature: Typed, arguments: Sequence[Value]) -> Value:
            data = data_of(context, builder, signature, arguments, multiply_arguments)
            found = _SparseTile(context, builder, number, rows, vectors, panels, data).build()
            return context.make_tuple(builder, norms, found)

        return norms(*operands), generate

    return multiply


multiply_arguments = [
    "values",
    "places",
    "counts",
    "first",
    "listed",
    "right",
    "right_start",
    "panel",
    "out",
    "out_start",
    "out_row",
    "soon",
    "scale",
]


class _SparseTile(Vectors):
    """Writes the instructions of one tile."""

    def __init__(
        self,
        context: Typed,
        builder: Builder,
        number: Typed,
        rows: int,
        vectors: int,
        panels: int,
        data: dict[str, Value],
    ) -> None:
        super().__init__(context, builder, number)
        self.rows, self.vectors, self.panels, self.at = rows, vectors, panels, data

    def build(self) -> list[Value]:
        """Write one loop after the other; return Σ|product| of each panel."""
        norms: list[list[Value]] = [[] for _ in range(self.panels)]
        scale = self.spread(self.at["scale"])
        for row in range(self.rows):
            outs = [self._outs("out_start", row, panel) for panel in range(self.panels)]
            for panel in range(self.panels):  # comes from memory while this tile is done
                for place in self._outs("soon", row, panel):
                    self.prefetch(place, write=True)
            sums = self._loop(row)
            for panel in range(self.panels):
                for place, total in zip(outs[panel], sums[panel], strict=True):
                    self.store(self.multiply_add(scale, total, self.load(place)), place)
                norms[panel].append(self.magnitude(sums[panel]))
        return [self.across(self.total(rows)) for rows in norms]

    def _outs(self, tile: str, row: int, panel: int) -> list[Value]:
        """Return where the vectors of a row of the result lie, in a tile that begins as an argument says."""
        builder, width = self.builder, self.vectors * self.lanes
        start = builder.add(self.at[tile], builder.mul(self.at["out_row"], INDEX(row)))
        first = builder.add(start, INDEX(panel * width))
        return [
            builder.gep(self.at["out"], [builder.add(first, INDEX(n * self.lanes))])
            for n in range(self.vectors)
        ]

    def _loop(self, row: int) -> list[list[Value]]:
        """Write the loop over what is listed for a row; return the sums, [panel][vector]."""
        builder, at = self.builder, self.at
        listed = builder.add(at["first"], INDEX(row))
        count = builder.sext(builder.load(builder.gep(at["counts"], [listed])), INDEX)
        start = builder.mul(listed, at["listed"])
        before = builder.block
        body, after = builder.append_basic_block("sparse"), builder.append_basic_block("sparse.end")
        builder.branch(body)
        builder.position_at_end(body)
        turn = self.carried(INDEX, INDEX(0), before)
        carried = [
            [self.carried(self.vector, self.zero, before) for _ in range(self.vectors)]
            for _ in range(self.panels)
        ]
        sums = carried
        for one in range(AT_ONCE):
            sums = self._add(builder.add(start, builder.add(turn, INDEX(one))), sums)
        following = builder.add(turn, INDEX(AT_ONCE))
        turn.add_incoming(following, body)
        for old, new in zip(itertools.chain(*carried), itertools.chain(*sums), strict=True):
            old.add_incoming(new, body)
        builder.cbranch(builder.icmp_signed("<", following, count), body, after)
        builder.position_at_end(after)
        return sums

    def _add(self, entry: Value, sums: list[list[Value]]) -> list[list[Value]]:
        """Return the sums and what one entry of the list adds to them."""
        builder, at = self.builder, self.at
        value = self.spread(builder.load(builder.gep(at["values"], [entry])))
        place = builder.sext(builder.load(builder.gep(at["places"], [entry])), INDEX)
        begin = builder.gep(at["right"], [builder.add(at["right_start"], place)])
        found = []
        for panel, panel_sums in enumerate(sums):
            row = builder.gep(begin, [builder.mul(at["panel"], INDEX(panel))])
            found.append(
                [
                    self.multiply_add(value, self.load(builder.gep(row, [INDEX(n * self.lanes)])), total)
                    for n, total in enumerate(panel_sums)
                ]
            )
        return found
