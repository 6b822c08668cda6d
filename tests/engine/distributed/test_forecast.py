"""The forecast for machines that nobody has at hand, where it can be worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import cases

from pcsim.engine.distributed.forecast import Machine, forecast
from pcsim.network.network import Network
from pcsim.schedule.program import Program, Schedule

HARD = float("inf")


def test_two_processes_by_hand():
    """4-3-2, no iteration, hard clamp: predict 12, predict 6, learn 12, learn 6; one multiplication a second.

    Rank 0 has layer 0 (24 s of work), rank 1 the others (12 s). p_1 leaves at 12 and arrives at 12 + 3·8/8
    + 1 = 16. Rank 1 predicts p_2 until 22 and then compares, as the program has it; e_1 leaves and arrives at
    22 + 3 + 1 = 26. Rank 0 learns from 26 to 38 and begins again, rank 1 has long learnt: 38 s a mini-batch.
    """
    network = Network.dense([4, 3, 2], proximal_step=HARD, dtype="float64")
    program = Program.build(network, Schedule("sequential", iterations=0))
    found = forecast(program, 2, 1, Machine(1.0, bytes=8.0, latency=1.0))
    assert found.layers == (range(1), range(1, 3))
    assert found.up == found.down == (24,)
    assert found.busy == (24.0, 12.0)
    assert found.seconds == 38.0
    assert found.speedup == 36 / 38


@settings(max_examples=40)
@given(cases(depth=st.integers(3, 6)), st.integers(1, 3), st.sampled_from([1.0, 10.0, 1e9]))
def test_what_must_hold_of_any(case, processes, speed):
    """One process takes the sum of its work; more cannot beat the busiest, and slow links never help."""
    program = Program.build(case.network(), case.schedule())
    work = float(program.cost(case.batch).multiplications)
    alone = forecast(program, 1, case.batch, Machine(1.0, speed))
    assert alone.seconds == pytest.approx(work)
    quick = forecast(program, processes, case.batch, Machine(1.0, speed))
    slow = forecast(program, processes, case.batch, Machine(1.0, speed / 2, latency=1.0))
    assert sum(quick.busy) == pytest.approx(work)
    assert quick.seconds >= max(quick.busy) * (1 - 1e-12)
    assert slow.seconds >= quick.seconds * (1 - 1e-12)
    assert 0 < quick.efficiency <= 1 + 1e-12
