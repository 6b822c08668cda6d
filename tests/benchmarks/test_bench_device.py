"""What times a step on a GPU, as far as there is none: names, the profiler's notes, PyTorch's step."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from pcsim.experiments.bench import device
from pcsim.experiments.bench.device import PROFILED, Backprop, Node, short_name


@pytest.mark.parametrize(
    ("name", "short"),
    [
        (
            "_ZN6cudapy5pcsim7kernels12cuda_hebbian14hebbian_kernel12_3clocals_3e7hebbianB3v21B5cw51cE5ArrayIfE",
            "hebbian",
        ),
        (
            "void cublasLt::splitKreduce_kernel<32, 16, int, float>(cublasSplitKParams<float>)",
            "splitKreduce_kernel",
        ),
        ("Memcpy HtoD (Pinned -> Device)", "Memcpy HtoD"),
    ],
)
def test_names_as_compilers_write_them(name, short):
    """A table of mangled names would be of no use; these three are from a profile of an H200."""
    assert short_name(name) == short


def test_what_the_profiler_noted():
    """Starts of one kind are one line, in the order in which they first came; the host's doings are none."""
    events = [
        {"cat": "cpu_op", "name": "aten::copy_", "ts": 0, "dur": 9.0},
        {"cat": "gpu_memcpy", "name": "Memcpy HtoD (Pinned -> Device)", "ts": 1e9, "dur": 3.0, "args": {}},
    ]
    facts = {"grid": [2, 1, 1], "block": [32, 1, 1], "registers per thread": 24}
    for step in range(PROFILED):
        for turn in range(2):
            one = {"cat": "kernel", "name": "void fire(float*)", "args": facts}
            events.append(one | {"ts": 10 * step + 1 + turn, "dur": 1.0 + turn + step})
        events.append(
            {"cat": "gpu_memset", "name": "Memset (Device)", "ts": 10 * step, "dur": 0.5, "args": {}}
        )
    middle = 1.5 + (PROFILED - 1) / 2
    assert list(device._nodes(events)) == [
        Node("Memset", (), (), 0, 1, 0.5),
        Node("fire", (2, 1, 1), (32, 1, 1), 24, 2, middle),
    ]


def test_backprop_learns(monkeypatch):
    """What pcsim is compared with does train: the same four mini-batches again and again get easier."""
    monkeypatch.setattr(device, "PAPER_SIZES", (12, 16, 4))
    torch.manual_seed(0)
    peer = Backprop(8, as_graph=False, device="cpu")
    peer.steps(4)
    before = peer._loss(peer._model(peer._inputs), peer._labels).item()
    assert peer.milliseconds(200) > 0
    assert peer._loss(peer._model(peer._inputs), peer._labels).item() < before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu():
    """One line and exit code 2."""
    command = [sys.executable, "-m", "pcsim.experiments.bench.device"]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert outcome.returncode == 2
    assert outcome.stderr.startswith("backend cuda: torch")
    assert len(outcome.stderr.splitlines()) == 1
