"""Forward passes in parts, and parameters that are placed once."""

from __future__ import annotations

import numpy as np
import pytest

from pcsim.kernels import reference
from pcsim.network import predictor
from pcsim.network.connection import Conv
from pcsim.network.network import Network
from pcsim.training.data import Dataset
from pcsim.training.loop import TEST_BATCH, evaluate


class Watched:
    """The reference kernels, which note what is placed where they work."""

    def __init__(self):
        self.placed = []

    def __getattr__(self, name):
        return getattr(reference, name)

    def to_device(self, host):
        self.placed.append(host.shape)
        return host


@pytest.fixture
def batches(monkeypatch):
    """Return a list of the mini-batches that convolutions are made for."""
    made, synapses = [], Conv.synapses

    def watch(self, kernels, batch, dtype):
        made.append(batch)
        return synapses(self, kernels, batch, dtype)

    monkeypatch.setattr(Conv, "synapses", watch)
    return made


# The first net has 9 places with 8 terms, then 1 with 9; the other one 4 places with 1 term for 6 channels.
@pytest.mark.parametrize(
    ("words", "numbers"),
    [(["2x4x4", "conv 1 2x2/1", "conv 3 3x3/1", "dense 2"], 72), (["1x2x2", "conv 6 1x1/1", "dense 2"], 24)],
    ids=["windows", "what they make"],
)
@pytest.mark.parametrize(
    ("room", "sizes"), [(9, [8]), (8, [8]), (7, [4, 4]), (3, [3, 3, 2]), (0.5, [1] * 8)], ids=str
)
def test_windows_have_room(room, sizes, words, numbers, batches, rng, monkeypatch):
    """Parts of one size, as large as memory allows, one sample at the least; the same output."""
    network = Network.of(words, dtype="float64", seed=1)
    inputs = rng.normal(size=(8, network.sizes[0]))
    whole = network.predict(inputs)
    batches.clear()
    monkeypatch.setattr(predictor, "WINDOW_BYTES", int(room * numbers * 8))
    np.testing.assert_allclose(network.predict(inputs), whole, rtol=1e-12)
    assert batches[:: len(network.connections) - 1] == sizes


def test_dense_networks_and_no_samples(rng, monkeypatch):
    """Nothing is laid out for dense layers, so that they are not cut; no samples have no outputs."""
    monkeypatch.setattr(predictor, "WINDOW_BYTES", 1)
    dense, watched = Network.dense([3, 4, 2], seed=1), Watched()
    dense.predict(rng.normal(size=(50, 3)), watched)
    assert watched.placed[4:] == [(50, 3)]
    assert dense.predict(np.zeros((0, 3))).shape == (0, 2)


def test_an_evaluation_places_parameters_once(rng):
    """On a GPU each time is an upload: 21 MB for each thousand samples with the paper's network."""
    images, labels = rng.normal(size=(2 * TEST_BATCH + 1, 4)), np.zeros(2 * TEST_BATCH + 1, int)
    data = Dataset("noise", images, labels, images, labels, scale=1.0, classes=2)
    watched = Watched()
    evaluate(Network.of(["1x2x2", "conv 2 1x1/1", "dense 2"]), data, watched)
    assert [shape for shape in watched.placed if shape[1:] != (4,)] == [(2, 1), (2,), (2, 8), (2,)]
    assert len(watched.placed) == 4 + 3
