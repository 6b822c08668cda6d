"""What decides a run's last bits stands in its trace, as it was when the run was last started."""

import platform
import warnings

import h5py
import numpy as np
import pytest
import torch

import pcsim
from pcsim.engine.backprop import BackpropEngine
from pcsim.kernels.cpu import CpuKernels
from pcsim.kernels.products import Choices
from pcsim.kernels.software import processor
from pcsim.tracing import open_trace

SIZES = [64, 12, 10]


class ByNumpy(Choices):
    """NumPy computes all products."""

    def best(self, product, batch, inputs, outputs, dtype):
        """Choose NumPy."""
        return self.provider("numpy")


def experiment(epochs=2, rule=None):
    """Return a small network that learns digits."""
    return pcsim.Experiment(
        network=pcsim.Network.dense(SIZES, seed=1),
        dataset=pcsim.load_dataset("digits"),
        rule=rule or pcsim.SGD(0.05),
        schedule=pcsim.Schedule("sequential", iterations=2),
        batch=300,
        epochs=epochs,
    )


def facts(path):
    """Return what a trace says."""
    with open_trace(path) as trace:
        return trace.attributes["computed_by"]


def test_own_kernels(tmp_path):
    """Processor, threads, each product by shape, and versions."""
    pcsim.run(experiment(1), kernels=CpuKernels(2), trace=tmp_path / "t.h5")
    found = facts(tmp_path / "t.h5")
    versions = found.pop("versions")
    products = {f"{name} 300x12x10": "pcsim" for name in ("predict", "feedback", "hebbian")}
    assert found == {
        "processor": processor(),
        "threads": 2,
        "products": products | {"predict 300x64x12": "pcsim", "hebbian 300x64x12": "pcsim"},
    }
    assert versions["python"] == platform.python_version()
    assert (versions["numpy"], versions["h5py"]) == (np.__version__, h5py.__version__)
    assert {"pcsim", "numba", "openblas"} <= versions.keys()


def test_libraries(tmp_path):
    """The reference leaves all products to NumPy, backpropagation to torch."""
    pcsim.run(experiment(1), kernels=pcsim.make_kernels("reference"), trace=tmp_path / "t.h5")
    assert facts(tmp_path / "t.h5")["products"] == "numpy"
    assert facts(tmp_path / "t.h5")["threads"] >= 1
    pcsim.run(experiment(1), engine="backprop", trace=tmp_path / "b.h5")
    assert facts(tmp_path / "b.h5")["products"] == "torch"


@pytest.mark.parametrize("threads", [1, 3])
def test_backpropagation_takes_the_threads_that_are_named(tmp_path, monkeypatch, threads):
    """The trace names the kernels' threads: torch takes as many, not one for each processor."""
    taken, forward = set(), BackpropEngine.forward

    def watched(self, inputs):
        taken.add(torch.get_num_threads())
        return forward(self, inputs)

    monkeypatch.setattr(BackpropEngine, "forward", watched)
    pcsim.run(experiment(1), engine="backprop", kernels=CpuKernels(threads), trace=tmp_path / "b.h5")
    assert facts(tmp_path / "b.h5")["threads"] == threads
    assert taken == {threads}


@pytest.mark.parametrize("choices", [ByNumpy, Choices], ids=["a library", "our own"])
def test_resumed_on_other_threads(tmp_path, choices):
    """The last start counts; where a library multiplies its bits may change, and the user is told."""
    path, places = tmp_path / "t.h5", {"trace": tmp_path / "t.h5", "checkpoint": tmp_path / "c"}
    pcsim.run(experiment(), kernels=CpuKernels(1, choices()), until=1, **places)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        pcsim.run(experiment(), kernels=CpuKernels(2, choices()), resume=True, **places)
    assert facts(path)["threads"] == 2
    assert [str(one.message).rpartition(": its ")[2] for one in told] == (
        ["last bits may not be an undisturbed run's: threads: 1 before, 2 now"] if choices is ByNumpy else []
    )


def test_resumed_from_an_older_trace(tmp_path):
    """A trace of before the attribute is gone on with, without a warning, and has it then."""
    path, places = tmp_path / "t.h5", {"trace": tmp_path / "t.h5", "checkpoint": tmp_path / "c"}
    pcsim.run(experiment(), kernels=CpuKernels(), until=1, **places)
    with h5py.File(path, "r+") as file:
        del file.attrs["computed_by"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pcsim.run(experiment(), kernels=CpuKernels(), resume=True, **places)
    assert facts(path)["threads"] == 1
    with open_trace(path) as trace:
        assert trace.table("learning").rows == 2
