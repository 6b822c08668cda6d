"""Several processes on a machine with several GPUs; there are none here, so torch and Numba only listen."""

import pytest
import torch

from pcsim.engine.distributed import member
from pcsim.engine.distributed.plan import Distribution, part_of, stages_of
from pcsim.learning import SGD
from pcsim.network.network import Network
from pcsim.schedule.program import Program, Schedule

pytest.importorskip("numba", reason="the CUDA kernels need Numba")


class HeardError(Exception):
    """Ends the making of a member."""


@pytest.fixture
def heard(monkeypatch):
    """What was said to torch and Numba, and that kernels were made; three GPUs."""
    from pcsim.kernels import cuda_arrays

    said = []

    def make_kernels(backend, *_):
        said.append(backend)
        raise HeardError

    monkeypatch.setattr(cuda_arrays, "simulated", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: said.append(("torch", device)))
    monkeypatch.setattr(cuda_arrays.cuda, "select_device", lambda device: said.append(("numba", device)))
    monkeypatch.setattr(member, "make_kernels", make_kernels)
    return said


class Wire:
    """As much of a wire as is looked at before there are kernels."""

    def __init__(self, rank):
        self.rank = rank


def make(backend, rank):
    """Begin to make the member of a rank."""
    program = Program.build(Network.dense([4, 3, 2]), Schedule("sequential", 1))
    part = part_of(
        program, stages_of(program, 1), 0, 0, distribution=Distribution(1), rule=SGD(0.1),
        batch=2, backend=backend, threads=1,
    )  # fmt: skip
    with pytest.raises(HeardError):
        member.Member(part, Wire(rank))


@pytest.mark.parametrize(("rank", "device"), [(0, 0), (1, 1), (2, 2), (3, 0), (7, 1)])
def test_each_rank_has_a_gpu(heard, rank, device):
    """All ranks took the first GPU; both libraries must know before kernels take memory there."""
    make("cuda", rank)
    assert heard == [("torch", device), ("numba", device), "cuda"]


def test_other_backends_touch_no_gpu(heard):
    """Choosing a GPU makes a context there, which takes some hundred MB."""
    make("cpu", 1)
    assert heard == ["cpu"]


def test_without_a_gpu(heard, monkeypatch):
    """Then the kernels say in one line that there is none."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    make("cuda", 1)
    assert heard == ["cuda"]
