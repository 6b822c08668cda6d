"""The mesh benchmark: its numbers are simulated, fitted and closed, not written down."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from pcsim.experiments.bench.mesh import (
    MILLION,
    exponent,
    in_columns,
    measure,
    run,
    simulated_columns,
    without_weights,
)
from pcsim.network.network import Network
from pcsim.schedule.program import Program, Schedule


def test_growth_is_linear():
    """Arrays of a simulation grow with its messages and not faster; messages follow the closed form."""
    points = [measure(layers, 3)[0] for layers in (10, 20, 40)]
    # Hidden layers and the input send (1 + T) (L − 1) + 1 predictions, of 16 parts; errors are as many, of
    # 4 packets to 4 tiles.
    assert [point.messages for point in points] == [32 * (4 * (layers - 2) + 1) for layers in (10, 20, 40)]
    assert exponent(points, "array_bytes") == pytest.approx(1, abs=0.1)


def test_a_million_cores_by_hand():
    """1,000 layers of 1,000 tiles, T = 3: 999 + 3 · 998 = 3,993 predictions (k² packets) and errors (k)."""
    forms = in_columns(*MILLION)[0]
    assert forms.cores == 10**6
    assert forms.packets == 3993 * (10**6 + 10**3)
    assert forms.hops_horizontal == forms.packets
    assert forms.hops_vertical == 3993 * (1000 * (10**6 - 1) // 3 + 1000 * 999)
    # U = D = 4 between inner layers: 4 x (1000 − x) + 4 x, largest at 500 and 501.
    assert forms.busiest_packets == 4 * 500 * 500 + 4 * 500
    assert forms.busiest_ns == forms.busiest_packets * 15 * 4 / 4


def test_closed_forms_of_a_small_plan_are_simulated():
    """The million cannot be simulated; the same plan with 36 cores can, and is not faster than its bound."""
    forms, timing = simulated_columns(6, 6, 15)
    assert forms.packets == len(timing.record.packet_job)
    assert forms.hops_horizontal + forms.hops_vertical == len(timing.record.crossed)
    assert forms.span_ns == pytest.approx(timing.span)
    assert forms.least_ns <= timing.makespan


@pytest.mark.parametrize("plan", [(8, 8, 15), (16, 8, 1), (6, 16, 2), (10, 12, 4)])
def test_the_estimate_with_queueing(plan):
    """Packets wait a little (6 % over the span) or a lot (300 %): the simulator is within 10 % of it."""
    forms, timing = simulated_columns(*plan)
    assert timing.makespan == pytest.approx(forms.queued_ns, rel=0.1)


def test_shapes_without_weights_make_the_same_program():
    """Networks too large for memory must cost what real ones cost."""
    thin, real = without_weights([5, 4, 3]), Network.dense([5, 4, 3])
    assert (thin.sizes, thin.traits, thin.connections) == (real.sizes, real.traits, real.connections)
    assert Program.build(thin, Schedule()).operations == Program.build(real, Schedule()).operations
    large = without_weights([10**6, 10**6])
    assert sum(array.strides[0] for array in large.parameters[0]) == 0


def test_report_has_everything():
    """The run ends in tables within 80 columns, whatever was measured."""
    found = run(((4, 1), (8, 1)))
    assert set(found["exponents"]) >= {"planning", "simulating", "array_bytes"}
    assert found["large"]["cores"] == 32
    assert found["million"]["least_ns"] >= found["million"]["span_ns"]
    assert all(np.isfinite(value) for value in found["exponents"].values())
    code = "from pcsim.experiments.bench.mesh import *; show(run(((4, 1), (8, 1))))"
    outcome = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "80", "PATH": ""},
    )
    assert "1,000,000 cores" in outcome.stdout
    assert max(map(len, outcome.stdout.splitlines())) <= 80
