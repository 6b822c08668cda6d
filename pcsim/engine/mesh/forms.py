"""Closed forms for a mesh too large to simulate: packets, hops, the busiest link and the span.

They hold for a regular plan: layer l in column l, k equal tiles of each layer one below the other, a core
each.

- A prediction is k² packets, one for each pair of tiles: k² hops along rows and Σ|i − j| = k (k² − 1)/3 along
  columns. An error is k multicast packets: k hops along rows, and k − 1 along the column for each: k (k − 1).
- The x upper tiles of a column send predictions to the k − x lower ones of the next, and one copy of each of
  their errors to all: U x (k − x) + D x packets go down between rows x − 1 and x in a mini-batch, if U
  predictions come in from the left and D errors from the right. No link along a row is busier for k ≥ 4.
- The span is that of the same program with one tile a layer, if each message travels as far as between two
  corners: h + (k − 1) v + bytes/width, with hop latencies h and v. Tile j has the latest message when it
  comes from the farther end, so no tile is later than that; and a path that goes from end to end each time
  is as late at each end. (All tiles of a layer take equally long.)

If all operations take d and all messages u, an iteration of sequential inference adds 6 d + 2 u and the first
one carries the error down through all layers; one of simultaneous inference adds 4 d + 2 u (see
`sequential_span`, `simultaneous_span`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pcsim.engine.mesh.engine import span_of
from pcsim.engine.mesh.plan import Plan, make_plan, merged_values
from pcsim.engine.mesh.times import Durations
from pcsim.errors import ShapeError
from pcsim.hardware.chip import Chip
from pcsim.hardware.mapping import Mapping, Tile
from pcsim.network.layer import MessageKind
from pcsim.schedule.program import Program


@dataclass(frozen=True)
class Columns:
    """What one mini-batch costs with layer l in column l.

    Attributes:
        cores: used, (L + 1) k.
        packets: injected by cores.
        hops_horizontal: links along rows that they cross.
        hops_vertical: links along columns that they cross.
        busiest_packets: over the busiest link.
        busiest_ns: time for which that link is taken.
        work_ns: time that all operations take together.
        span_ns: longest path, uncontended travel included.
        queued_ns: an estimate of the makespan, no bound: the longest path if the last packet of each message
            comes behind all others over the message's busiest link.
    """

    cores: int
    packets: int
    hops_horizontal: int
    hops_vertical: int
    busiest_packets: int
    busiest_ns: float
    work_ns: float
    span_ns: float
    queued_ns: float

    @property
    def least_ns(self) -> float:
        """What no simulation can beat: span, busiest link, and work over cores."""
        return max(self.span_ns, self.busiest_ns, self.work_ns / self.cores)


def columns(program: Program, chip: Chip, batch: int, parts: int, durations: Durations) -> Columns:
    """Return the closed forms for layers of equal size, each in a column of `parts` tiles.

    Args:
        program: any static order.
        chip: with a column for each layer and a row for each tile.
        batch: samples in a mini-batch.
        parts: k, tiles a layer.
        durations: of the program's operations.

    Raises:
        ShapeError: layers of different sizes or that cannot be cut into equal tiles, or too small a mesh.
    """
    sizes = program.network.sizes
    if len(set(sizes)) != 1 or sizes[0] % parts:
        raise ShapeError(f"layers {sorted(set(sizes))[:3]}…: expected one size, a multiple of {parts}")
    if chip.columns < len(sizes) or chip.rows < parts:
        raise ShapeError(f"{chip.rows}x{chip.columns} mesh: expected {parts}x{len(sizes)} at least")
    sent = Counter(one.sends for one in program.operations)
    ups, downs = sent[MessageKind.PREDICTION], sent[MessageKind.ERROR]
    size = batch * program.network.dtype.itemsize * sizes[0] // parts
    packet_ns = size / (chip.link_bytes_per_ns or float("inf"))
    busiest = max(_loads(program, parts), default=0)
    share = durations.shared.sum() + durations.addition * batch * sizes[0] * (parts - 1) * ups
    row = _row_plan(program, chip, batch, parts, durations)
    return Columns(
        cores=parts * len(sizes),
        packets=ups * parts**2 + downs * parts,
        hops_horizontal=ups * parts**2 + downs * parts,
        hops_vertical=ups * parts * (parts**2 - 1) // 3 + downs * parts * (parts - 1),
        busiest_packets=busiest,
        busiest_ns=busiest * packet_ns,
        work_ns=float(durations.fixed.sum() * parts + share),
        span_ns=span_of(row),
        queued_ns=span_of(_queued(row, parts)),
    )


def _loads(program: Program, parts: int) -> Iterator[int]:
    """Yield the packets over the busiest link down each column and along each row's links."""
    rounds = Counter((one.layer, one.sends) for one in program.operations)
    for layer in range(len(program.network.sizes)):
        ups, downs = rounds[layer - 1, MessageKind.PREDICTION], rounds[layer + 1, MessageKind.ERROR]
        yield max(ups * x * (parts - x) + downs * x for x in range(parts)) if parts > 1 else 0
        yield max(ups * parts, rounds[layer, MessageKind.ERROR])


def _row_plan(program: Program, chip: Chip, batch: int, parts: int, durations: Durations) -> Plan:
    """Return the plan with one tile a layer, as far apart as two corners, k times as fast."""
    sizes = program.network.sizes
    corner = (chip.hop_ns_horizontal or 0.0) + (parts - 1) * (chip.hop_ns_vertical or 0.0)
    width = None if chip.link_bytes_per_ns is None else chip.link_bytes_per_ns * parts
    row = Chip(1, len(sizes), link_bytes_per_ns=width, hop_ns_horizontal=corner)
    tiles = tuple(Tile(layer, 0, size, layer) for layer, size in enumerate(sizes))
    merged = merged_values(program, np.full(len(sizes), parts))
    shared = (durations.shared + durations.addition * batch * merged) / parts
    mapping = Mapping("", row, sizes, tiles, "row")
    return make_plan(program, mapping, batch, Durations(durations.fixed, shared))


def _queued(plan: Plan, parts: int) -> Plan:
    """Let each message of a row plan wait for its own packets on its busiest link.

    A prediction has x (k − x) packets on a link down a column, k²/4 at most; an error one from each
    tile above.
    """
    others = np.maximum([parts**2 // 4 - 1, parts - 2], 0)
    side = np.repeat(np.arange(len(plan.routes_first) - 1) % 2, np.diff(plan.routes_first))
    return plan._replace(route_ns=plan.route_ns * (1 + others[side]))


def sequential_span(top: int, iterations: int, operation: float, message: float) -> float:
    """Return the span of sequential inference and learning if all operations, and all messages, are equal.

    The sweep up, L messages and 2 L + 2 operations (clamp, predict and initialise each layer, clamp and
    compare the output); the first wave of errors down, L − 1 times relax and compare; then the lowest layer's
    prediction, one comparison, one error, one learning step. Each further wave follows as soon as the two
    uppermost hidden layers have exchanged an error and a prediction: relax, compare, error; relax, compare,
    predict, prediction; compare.

    Args:
        top: L, at least 3.
        iterations: T, at least 1.
        operation: time of each operation.
        message: time of each message.
    """
    first = (4 * top + 3) * operation + (2 * top + 1) * message
    return first + (iterations - 1) * (6 * operation + 2 * message)


def simultaneous_span(top: int, iterations: int, operation: float, message: float) -> float:
    """Return the same of simultaneous inference.

    After the sweep, each iteration is one exchange of neighbours: relax, predict, prediction; clamp, compare,
    error. The last error leads to one learning step.

    Args:
        top: L, at least 2.
        iterations: T.
        operation: time of each operation.
        message: time of each message.
    """
    sweep = (2 * top + 3) * operation + (top + 1) * message
    return sweep + iterations * (4 * operation + 2 * message)
