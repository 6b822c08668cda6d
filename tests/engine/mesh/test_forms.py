"""Closed forms against the simulator, on meshes small enough to simulate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import ORDERS

from pcsim.engine.mesh.engine import simulate_mesh, span_of
from pcsim.engine.mesh.forms import Columns, columns, sequential_span, simultaneous_span
from pcsim.engine.mesh.plan import make_plan
from pcsim.engine.mesh.times import Durations
from pcsim.errors import ShapeError
from pcsim.hardware.chip import Chip
from pcsim.hardware.mapping import Mapping, Tile
from pcsim.hardware.traffic import traffic_of
from pcsim.network.network import Network
from pcsim.schedule.program import Program, Schedule


def in_columns(program: Program, chip: Chip, parts: int) -> Mapping:
    """Layer l in column l, its tiles one below the other."""
    sizes = program.network.sizes
    width = sizes[0] // parts
    tiles = [
        Tile(layer, part * width, (part + 1) * width, part * chip.columns + layer)
        for layer in range(len(sizes))
        for part in range(parts)
    ]
    return Mapping("regular", chip, sizes, tuple(tiles), "columns")


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 6), st.integers(1, 6), st.integers(1, 3), st.sampled_from(ORDERS), st.integers(0, 3),
    st.tuples(*[st.sampled_from([0.0, 0.5, 3.0])] * 4), st.sampled_from([None, 1.0, 16.0]),
    st.integers(0, 99),
)  # fmt: skip
def test_closed_forms_are_the_simulator_s(layers, parts, width, order, iterations, times, link, seed):
    """All are equal to what a plan of all tiles gives, for any durations; no simulation beats the bound."""
    program = Program.build(Network.dense([parts * width] * layers), Schedule(order, iterations))
    horizontal, vertical, fixed, addition = times
    chip = Chip(parts, layers, None, None, None, link, horizontal, vertical)
    shared = np.random.default_rng(seed).uniform(0, 5, len(program.operations))
    durations = Durations(np.full(len(shared), fixed), shared, addition)
    found = columns(program, chip, 2, parts, durations)
    mapping = in_columns(program, chip, parts)
    plan, traffic = make_plan(program, mapping, 2, durations), traffic_of(program, mapping, 2)
    timing = simulate_mesh(plan)
    assert found.cores == len(mapping.cores)
    assert found.packets == traffic.packets == len(timing.record.packet_job)
    assert (found.hops_horizontal, found.hops_vertical) == (traffic.hops_horizontal, traffic.hops_vertical)
    assert found.busiest_packets == traffic.link_packets.max()
    assert found.busiest_ns == pytest.approx(timing.link_busy.max())
    assert found.work_ns == pytest.approx(plan.work)
    assert found.span_ns == pytest.approx(span_of(plan))
    assert timing.makespan >= found.least_ns * (1 - 1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 12), st.integers(1, 5), st.integers(0, 9), st.integers(0, 9))
def test_spans_of_two_orders(top, iterations, operation, message):
    """The formulas for equal operations and messages against the longest path."""
    for order, formula in (("sequential", sequential_span), ("simultaneous", simultaneous_span)):
        program = Program.build(Network.dense([1] * (top + 1)), Schedule(order, iterations))
        number = len(program.operations)
        chip = Chip(1, top + 1, hop_ns_horizontal=float(message))
        durations = Durations(np.full(number, float(operation)), np.zeros(number))
        assert columns(program, chip, 1, 1, durations).span_ns == formula(top, iterations, operation, message)


def test_by_hand():
    """Two layers of two tiles, T = 0, with the arithmetic written out.

    4-byte packets, 1 byte/ns, hops of 1 (rows) and 2 ns (columns), operations of 1 ns: 4 + 2 packets. The
    prediction's 4 hops along rows and |0 − 1| + |1 − 0| = 2 along columns, the errors' 2 and 2. Span: clamp,
    predict, 1 + 2 + 4; clamp, compare; down the same; learn: 2 + 7 + 2 + 7 + 1 = 19.
    """
    program = Program.build(Network.dense([2, 2]), Schedule("sequential", 0))
    number = len(program.operations)
    chip = Chip(2, 2, None, None, None, 1.0, 1.0, 2.0)
    found = columns(program, chip, 1, 2, Durations(np.ones(number), np.zeros(number)))
    assert found == Columns(4, 6, 6, 4, 2, 8.0, 10.0, 19.0, 19.0)


def test_what_is_not_regular_is_refused():
    """Closed forms of one plan say nothing about another."""
    program = Program.build(Network.dense([4, 6]), Schedule())
    durations = Durations(np.zeros(len(program.operations)), np.zeros(len(program.operations)))
    with pytest.raises(ShapeError, match="expected one size, a multiple of 2"):
        columns(program, Chip(4, 4), 1, 2, durations)
    program = Program.build(Network.dense([4, 4]), Schedule())
    with pytest.raises(ShapeError, match="1x4 mesh: expected 2x2 at least"):
        columns(program, Chip(1, 4), 1, 2, durations)
