"""The roofline on paper against numbers worked out by hand; the launches against a recorded step."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pcsim.experiments.bench.plan import PAPER_SIZES
from pcsim.experiments.bench.roofline import GPUS, least, step

A100, H100 = GPUS


@pytest.fixture(scope="module")
def works():
    return {work.name: work for work in step(PAPER_SIZES, 64, 3)}


def test_launches_of_the_papers_step(works):
    """As many as the graph of such a step has nodes; tests/kernels/cuda/device counts those."""
    counts = {name: work.launches for name, work in works.items()}
    assert counts["p_1 = W_0 f + b"] == 1
    assert counts["p_2 = W_1 f + b"] == 4
    assert counts["feedback W_3ᵀ e_4"] == 3
    assert (counts["compare, ‖e‖²"], counts["relax + compare, ‖e‖²"]) == (9, 9)
    assert sum(counts.values()) == 68


def test_the_largest_kernel_by_hand(works):
    """W_0, 3072 × 1024: read and written, 25.2 MB, both ends of 64 samples 1.05 MB; 412 MFLOP."""
    work = works["Hebbian + MQ, W_0"]
    assert work.bytes == 4 * (2 * 3073 * 1024 + 64 * (3072 + 1024))
    assert work.operations == (2 * 64 + 3) * 3072 * 1024
    assert work.seconds(A100)["memory"] == pytest.approx(26.22e6 / 1.555e12, rel=1e-3)
    assert (
        least(work, H100, 0)
        == work.seconds(H100)["issue"]
        == pytest.approx(412.1e6 / 67e12 * 57 / 32, rel=1e-3)
    )
    assert least(work, A100, 0) == work.seconds(A100)["fp32"]  # there a multiply-add takes two cycles


def test_tensor_cores_leave_memory_to_bind(works):
    """A product of 64 rows does 28 multiply-adds for each number that it reads: too few for TF32."""
    work = works["p_2 = W_1 f + b"]
    assert least(work, H100, 0) == work.seconds(H100)["fp32"]
    assert least(work, H100, 1) == work.seconds(H100)["memory"]


def test_the_command_prints_the_table():
    """The page in the docs is its output."""
    command = [sys.executable, "-m", "pcsim.experiments.bench.roofline", "--batch", "1"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0].startswith("| kernel | launches |")
    assert "**68**" in lines[-1]
