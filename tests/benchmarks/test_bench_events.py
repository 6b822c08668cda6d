"""The benchmark of the event queue, tiny: it must count what the program says, and fit what it measures."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pcsim.experiments.bench.events import Line, Timing


def test_counts_and_rates():
    """As many events as operations and messages of the program, in proportion to the mini-batches."""
    command = [sys.executable, "-m", "pcsim.experiments.bench.events", "--layers", "3", "--iterations", "2"]
    command += ["--most", "100", "--repetitions", "1", "--json"]
    outcome = subprocess.run(command, capture_output=True, text=True, check=True)
    timings = json.loads(outcome.stdout)["timings"]
    assert [one["mini_batches"] for one in timings] == [1, 3, 10, 30, 100]
    once = timings[0]["events"]
    assert [one["events"] for one in timings] == [once * one["mini_batches"] for one in timings]
    for one in timings:
        assert one["rate"] == pytest.approx(one["events"] / one["seconds"])


def test_the_line():
    """Half a second to begin with and two million events a second; a square is far from any line."""
    counts = (10**5, 10**6, 10**7)
    line = Line.through([Timing(1, n, 0.5 + n / 2e6, 0.0) for n in counts])
    assert (line.fixed, line.rate) == pytest.approx((0.5, 2e6))
    assert line.deviation == pytest.approx(0, abs=1e-9)
    assert Line.through([Timing(1, n, 1e-12 * n**2, 0.0) for n in counts]).deviation > 0.5
