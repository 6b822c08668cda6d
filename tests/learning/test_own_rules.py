"""Learning rules of a user's own: whatever they do with a weight, all backends do the same."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.testing import assert_allclose

import pcsim
from pcsim.errors import ConfigurationError, ShapeError
from pcsim.kernels import reference
from pcsim.kernels.cpu import CpuKernels
from pcsim.learning.sgd import SGDLearner
from pcsim.network.learner import takes_one_step

DENSE, CONVOLUTIONAL = [64, 24, 10], ["1x8x8", "conv 4 3x3/1 max 2", "dense 10"]


class OwnLearner:
    """What all learners of this file have in common; each is its own rule, too."""

    def __call__(self, weight, bias):
        return self

    def state(self):
        return {}

    def place(self, *where):
        """Nothing to move."""


class Halves(OwnLearner):
    """Takes a step in two halves."""

    def learn(self, kernels, weight, bias, error_above, activity, activation):
        given = weight, bias, error_above, activity, activation
        return kernels.sgd_step(*given, 0.02) + kernels.sgd_step(*given, 0.02)


class Clips(OwnLearner):
    """Looks at the weight after its step, and changes it again."""

    def learn(self, kernels, weight, bias, error_above, activity, activation):
        magnitude = kernels.sgd_step(weight, bias, error_above, activity, activation, 0.05)
        np.clip(weight, -0.15, 0.15, out=weight)
        return magnitude


class Signs(OwnLearner):
    """Does its own arithmetic."""

    def learn(self, kernels, weight, bias, error_above, activity, activation):
        weight += 1e-3 * np.sign(error_above.T @ reference.activate(activation, activity))
        bias += 1e-3 * np.sign(error_above.sum(0))
        return 1e-3


@dataclass(frozen=True)
class Falls(SGDLearner):
    """Inherits a step and does something before it."""

    def learn(self, kernels, weight, bias, *operands):
        weight *= 0.999
        return super().learn(kernels, weight, bias, *operands)


def falls(weight, bias):
    return Falls(pcsim.SGD(0.05))


def trained(layers, rule, batch, kernels):
    """Return the parameters after some mini-batches of digits, by the training loop of every run."""
    network = pcsim.Network.of(layers, dtype="float64", seed=1) if layers is CONVOLUTIONAL else None
    network = network or pcsim.Network.dense(layers, dtype="float64", seed=1)
    digits = pcsim.load_dataset("digits")
    few = pcsim.Dataset(
        "few",
        digits.train_inputs[: 12 * batch],
        digits.train_targets[: 12 * batch],
        digits.test_inputs[:9],
        digits.test_targets[:9],
        digits.scale,
        digits.classes,
        shape=digits.shape,
    )
    pcsim.run(pcsim.Experiment(network, few, rule, batch=batch), kernels=kernels)
    return [array for pair in network.parameters for array in pair]


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("layers", [DENSE, CONVOLUTIONAL], ids=["dense", "convolutional"])
@pytest.mark.parametrize(
    "rule", [Halves(), Clips(), Signs(), falls], ids=["halves", "clips", "signs", "falls"]
)
def test_backends_agree(rule, layers, batch):
    """Updates that wait for the next prediction, and windows that nobody lays out, are for our own rules."""
    ours, expected = (trained(layers, rule, batch, kernels) for kernels in (CpuKernels(), reference))
    for one, other in zip(ours, expected, strict=True):
        assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_who_takes_one_step():
    """The rules in the box do; who inherits from them may do anything."""
    weight, bias = np.zeros((2, 3)), np.zeros(2)
    for rule in (pcsim.SGD(0.1), pcsim.MQ(0.1), pcsim.Adam(0.1), pcsim.NLMS()):
        assert takes_one_step(rule(weight, bias))
    assert not takes_one_step(falls(weight, bias))
    assert not takes_one_step(Halves())


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("step", ["sgd_step", "mq_step", "adam_step", "nlms_step"])
def test_swapped_operands_are_refused(step, batch):
    """Compiled loops wrote beyond the end of arrays: results changed from run to run, or the heap broke."""
    weight, bias, error, activity = np.zeros((4, 6)), np.zeros(4), np.ones((batch, 4)), np.ones((batch, 6))
    moments = tuple(np.zeros_like(array) for array in (weight, weight, bias, bias))
    constants = {
        "sgd_step": (0.1,),
        "mq_step": (np.ones(1), np.zeros(1), 0.1, 0.1, 0.1, 0.9),
        "adam_step": (moments, np.zeros(1), 0.1, 0.9, 0.999, 1e-8),
        "nlms_step": (),
    }[step]
    learn = getattr(CpuKernels(), step)
    for wrong in (
        (activity, error),
        (error, activity[:, :5]),
        (error[:, :3], activity),
        (error[:0], activity),
    ):
        with pytest.raises(ShapeError, match="at a weight of shape"):
            learn(weight, bias, *wrong, "relu", *constants)
    with pytest.raises(ShapeError, match="at a weight of shape"):
        learn(weight, bias[:3], error, activity, "relu", *constants)
    assert not weight.any()
    assert not bias.any()
    learn(weight, bias, error, activity, "relu", *constants)
    assert weight.all()


class Counts(OwnLearner):
    """Keeps a number of updates in an array without axes, changed in place."""

    def __init__(self):
        self.updates = np.zeros(())

    def __call__(self, weight, bias):
        return Counts()

    def __repr__(self):
        return "Counts()"

    def learn(self, kernels, weight, bias, error_above, activity, activation):
        self.updates += 1
        rate = 0.1 / float(self.updates)
        return kernels.sgd_step(weight, bias, error_above, activity, activation, rate)

    def state(self):
        return {"updates": self.updates}


class Forgets(Counts):
    """Makes its state anew each time."""

    def __call__(self, weight, bias):
        return Forgets()

    def state(self):
        return {"updates": self.updates + 0}


def resumed(rule, folder):
    """Return the weights of a run that was paused after its first epoch."""
    weights = []
    for parts in ([None], [1, None]):
        network = pcsim.Network.dense([64, 8, 10], seed=1)
        experiment = pcsim.Experiment(network, pcsim.load_dataset("digits"), rule, batch=400, epochs=2)
        place = folder / str(len(parts))
        for number, until in enumerate(parts):
            if number:
                experiment = dataclasses.replace(experiment, network=pcsim.Network.dense([64, 8, 10], seed=1))
            pcsim.run(experiment, checkpoint=place, resume=number > 0, until=until)
        weights.append(experiment.network.parameters[0][0])
    return weights


def test_a_number_without_axes_comes_back(tmp_path):
    """The checkpoint was written without a word, and nothing could be resumed from it."""
    whole, paused = resumed(Counts(), tmp_path)
    assert np.array_equal(whole, paused)


def test_a_state_that_is_made_anew_is_refused(tmp_path):
    """What is put back into it would be lost: the run went on as another one in silence."""
    with pytest.raises(ConfigurationError, match=r"Forgets: state\(\) gives another array 'updates' each"):
        resumed(Forgets(), tmp_path)
