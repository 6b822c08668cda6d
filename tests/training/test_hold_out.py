"""A validation set that is held out of the training samples."""

import numpy as np
import pytest

from pcsim.errors import ConfigurationError, DataError
from pcsim.network.network import Network
from pcsim.training.data import hold_out, load_dataset
from pcsim.training.dataset import Dataset
from pcsim.training.loop import check_fit, evaluate


def labelled(labels):
    """Return a data set whose single feature is the number of the sample."""
    numbers = np.arange(len(labels), dtype=float)[:, None]
    return Dataset("mine", numbers, np.asarray(labels), numbers[:2], np.asarray(labels[:2]), 1.0, 2)


def test_each_class_gives_its_share():
    """By hand: a quarter of 8 and of 4 samples, the same in every call, another with another seed."""
    data = labelled([0] * 8 + [1] * 4)
    split = hold_out(data, 0.25, 0)
    assert np.bincount(split.validation_targets).tolist() == [2, 1]
    assert np.bincount(split.train_targets).tolist() == [6, 3]
    both = np.concatenate([split.train_inputs, split.validation_inputs]).ravel()
    assert sorted(both) == list(range(12))
    assert np.array_equal(split.validation_inputs, hold_out(data, 0.25, 0).validation_inputs)
    choices = {hold_out(data, 0.25, seed).validation_inputs.tobytes() for seed in range(8)}
    assert len(choices) > 1
    assert split.name == "mine, 3 training samples held out with seed 0"
    assert split.test_inputs is data.test_inputs
    assert list(data.splits) == ["train", "test"]


def test_what_cannot_be_held_out():
    """A share of nothing or all, or of single samples: one line each."""
    for fraction in (0.0, 1.0, -0.5):
        with pytest.raises(ConfigurationError, match="expected a number between 0 and 1"):
            hold_out(labelled([0, 1, 0, 1]), fraction, 0)
    with pytest.raises(DataError, match="mine has one training sample a class: expected more"):
        hold_out(labelled([0, 1]), 0.5, 0)


def test_evaluated_on_its_own():
    """Accuracy on the validation set is that of its samples alone, here worked out one by one."""
    data = load_dataset("digits", validation_fraction=0.1)
    network = Network.dense([64, 8, 10], seed=3)
    check_fit(network, data, 32)
    rows = np.arange(len(data.validation_inputs))
    outputs = network.predict(data.validation_inputs[rows] / np.float32(16))
    right = (outputs.argmax(axis=1) == data.validation_targets).mean()
    assert evaluate(network, data, split="validation")[0] == pytest.approx(right)
    assert evaluate(network, data)[0] != evaluate(network, data, split="validation")[0]
