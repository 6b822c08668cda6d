"""The roofline on paper against numbers worked out by hand; the launches against a recorded step."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pcsim.experiments.bench.plan import PAPER_SIZES
from pcsim.experiments.bench.roofline import GPUS, least, step

A100, H100, H200 = GPUS


@pytest.fixture(scope="module")
def works():
    return {work.name: work for work in step(PAPER_SIZES, 64, 3)}


def test_launches_of_the_papers_step(works):
    """As many as the graph of such a step has nodes; tests/kernels/cuda/device counts those."""
    counts = {name: work.launches for name, work in works.items()}
    assert counts["p_1 = W_0 f + b"] == 1
    assert counts["p_2 = W_1 f + b"] == 4
    assert counts["W_3ᵀ e_4, relax, compare"] == 3
    assert counts["compare, ‖e‖²"] == 9
    assert sum(counts.values()) == 43


def test_the_largest_kernel_by_hand(works):
    """W_0, 3072 × 1024: read and written, 25.2 MB, both ends of 64 samples 1.05 MB; 412 MFLOP."""
    work = works["Hebbian + MQ, W_0"]
    assert work.bytes == 4 * (2 * 3073 * 1024 + 64 * (3072 + 1024))
    assert work.operations == (2 * 64 + 3) * 3072 * 1024
    assert work.seconds(A100)["memory"] == pytest.approx(26.22e6 / 1.555e12, rel=1e-3)
    assert least(work, H100) == work.seconds(H100)["issue"]
    assert least(work, H100) == pytest.approx(412.1e6 / 67e12 * 2.4, rel=1e-3)
    # there a multiply-add takes two cycles, and so more than half of its instructions fit in between
    assert least(work, A100) == pytest.approx(work.seconds(A100)["fp32"] * 1.2, rel=1e-12)


def test_feedback_that_is_used_at_once(works):
    """W_1, 1024 × 1024: the weight, two ends of 64 samples, three more arrays read and two written."""
    work = works["W_1ᵀ e_2, relax, compare"]
    assert work.bytes == 4 * (1024 * 1024 + 2 * 64 * 1024 + 4 * 64 * 1024)
    assert work.operations == 2 * 64 * 1024 * 1024 + 10 * 64 * 1024
    assert least(work, H200) == least(work, H100) == work.seconds(H100)["issue"]


def test_the_command_prints_the_table():
    """The page in the docs is its output."""
    command = [sys.executable, "-m", "pcsim.experiments.bench.roofline", "--batch", "1"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0].startswith("| kernel | launches |")
    assert "**43**" in lines[-1]
