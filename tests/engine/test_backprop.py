"""The baseline: backpropagation on the same network, weights and mini-batches."""

import numpy as np
import pytest
import torch

from pcsim.engine.backprop import BackpropEngine
from pcsim.engine.fast import FastEngine
from pcsim.engine.observer import Statistics
from pcsim.errors import ConfigurationError
from pcsim.learning import MQ, SGD, Adam
from pcsim.network.network import Network
from pcsim.schedule.program import Program, Schedule


def case(output="softmax", seed=0):
    """Return a small network in float64 and a mini-batch."""
    rng = np.random.default_rng(seed)
    network = Network.dense([5, 7, 6, 4], activation="tanh", output=output, dtype="float64", seed=seed)
    return network, rng.standard_normal((8, 5)), np.eye(4)[rng.integers(0, 4, 8)]


def test_one_step_by_hand():
    """One linear connection: ΔW = α (y − Wx − b) xᵀ, its mean magnitude and its loss worked out on paper."""
    weight, bias = np.array([[1.0, 2.0]]), np.array([0.5])
    network = Network.dense([2, 1], output="identity", dtype="float64", parameters=[(weight, bias)])
    statistics = Statistics(0, 1)
    engine = BackpropEngine(network, SGD(0.1), 1, statistics)
    engine.step(np.array([[1.0, -1.0]]), np.array([[1.5]]))  # p = −0.5, e = 2
    np.testing.assert_allclose(network.parameters[0][0], [[1.2, 1.8]])
    np.testing.assert_allclose(network.parameters[0][1], [0.7])
    assert statistics.free_energy[0, 0] == pytest.approx(2.0)
    assert engine.layers[0].update_magnitude == pytest.approx(0.2)


@pytest.mark.parametrize("rule", [SGD(0.1), Adam(0.01, beta1=0.8, epsilon=1e-6)], ids=["sgd", "adam"])
@pytest.mark.parametrize("output", ["softmax", "sigmoid", "identity"])
def test_magnitude_is_what_changed(rule, output):
    """The reported mean |Δ| is that of the parameters, over several steps."""
    network, inputs, targets = case(output)
    engine = BackpropEngine(network, rule, 8, Statistics(0, 3))
    for _ in range(3):
        before = [np.concatenate([w.ravel(), b]) for w, b in network.parameters]
        engine.step(inputs, targets)
        for unit, old, (weight, bias) in zip(engine.layers[:-1], before, network.parameters, strict=True):
            change = np.abs(np.concatenate([weight.ravel(), bias]) - old).mean()
            assert unit.update_magnitude == pytest.approx(change, rel=1e-9)


@pytest.mark.parametrize("output", ["softmax", "sigmoid", "identity"])
def test_inference_learning_tends_to_it(output):
    """For a tiny step size inference learning's updates point where backprop's do, in every matrix."""
    updates = []
    for inferring in (True, False):
        network, inputs, targets = case(output)
        before = [weight.copy() for weight, _ in network.parameters]
        if inferring:
            hard = Network.dense(
                network.sizes,
                activation="tanh",
                output=output,
                proximal_step=1e12,
                dtype="float64",
                parameters=network.parameters,
            )
            program = Program.build(hard, Schedule("sequential", 1, 1e-4))
            FastEngine(program, hard.layers(8, SGD(1.0))).step(inputs, targets)
            network = hard
        else:
            BackpropEngine(network, SGD(1.0), 8, Statistics(0, 3)).step(inputs, targets)
        updates.append([(w - old).ravel() for (w, _), old in zip(network.parameters, before, strict=True)])
    for ours, theirs in zip(*updates, strict=True):
        assert ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs) > 0.999


def test_parameters_are_the_networks_own():
    """Nothing has to be copied back: evaluation and traces read the network."""
    network, inputs, targets = case()
    held = network.parameters[0][0]
    engine = BackpropEngine(network, SGD(0.1), 8, Statistics(0, 3))
    engine.step(inputs, targets)
    assert network.parameters[0][0] is held
    said = engine.forward(torch.from_numpy(inputs)).softmax(1).detach().numpy()
    np.testing.assert_allclose(network.predict(inputs), said, rtol=1e-12)


def test_a_local_rule_is_refused():
    """MQ belongs to inference learning: say so, and what to set."""
    network, _, _ = case()
    with pytest.raises(ConfigurationError, match=r"learning rule MQ: expected sgd or adam"):
        BackpropEngine(network, MQ(1e-3), 8, Statistics(0, 3))


CONV = ("2x7x7", "conv 3 3x3/1", "conv 4 2x2/1 max 2", "dense 5", "dense 3")


def images(pool="max", seed=0):
    """Return a small convolutional network in float64 and a mini-batch of images."""
    rng, layers = np.random.default_rng(seed), [layer.replace("max", pool) for layer in CONV]
    network = Network.of(layers, activation="tanh", dtype="float64", seed=seed, proximal_step=1e12)
    return network, rng.standard_normal((6, 2 * 7 * 7)), np.eye(3)[rng.integers(0, 3, 6)]


@pytest.mark.parametrize("pool", ["max", "average"])
def test_convolutions_predict_what_the_network_predicts(pool):
    """Torch's convolution, non-linearity and pooling are the network's own, in its order."""
    network, inputs, targets = images(pool)
    engine = BackpropEngine(network, Adam(0.01), 6, Statistics(0, 4))
    for _ in range(3):
        said = engine.forward(torch.from_numpy(inputs)).softmax(1).detach().numpy()
        np.testing.assert_allclose(network.predict(inputs), said, rtol=1e-12)
        before = [np.concatenate([w.ravel(), b]) for w, b in network.parameters]
        engine.step(inputs, targets)
        for unit, old, (weight, bias) in zip(engine.layers[:-1], before, network.parameters, strict=True):
            change = np.abs(np.concatenate([weight.ravel(), bias]) - old).mean()
            assert unit.update_magnitude == pytest.approx(change, rel=1e-9)


def test_inference_learning_of_convolutions_tends_to_it():
    """Two implementations of convolution, torch's and ours, give the same direction in every matrix."""
    updates = []
    for inferring in (True, False):
        network, inputs, targets = images()
        before = [weight.copy() for weight, _ in network.parameters]
        if inferring:
            program = Program.build(network, Schedule("sequential", 1, 1e-4))
            FastEngine(program, network.layers(6, SGD(1.0))).step(inputs, targets)
        else:
            BackpropEngine(network, SGD(1.0), 6, Statistics(0, 4)).step(inputs, targets)
        updates.append([(w - old).ravel() for (w, _), old in zip(network.parameters, before, strict=True)])
    for ours, theirs in zip(*updates, strict=True):
        assert ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs) > 0.999


@pytest.fixture
def torch_as_before():
    """Torch with the number of threads that it had."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_threads_stay_what_they_were(torch_as_before):
    """Our kernels have torch keep to one thread while they test themselves, in the middle of a run, too."""
    seen, torch_threads = [], torch.get_num_threads

    class Watch(BackpropEngine):
        """Looks in the middle of a step."""

        def forward(self, inputs):
            seen.append(torch_threads())
            return super().forward(inputs)

    network, rng = Network.dense((4, 3, 2)), np.random.default_rng(0)
    inputs, targets = rng.random((8, 4), np.float32), np.eye(2, dtype=np.float32)[[0, 1] * 4]
    torch.set_num_threads(2)
    given, own = (Watch(network, SGD(0.1), 8, Statistics(0, 2), threads=count) for count in (3, None))
    torch.set_num_threads(1)
    for engine in (given, own):
        engine.step(inputs, targets)
        assert torch.get_num_threads() == 1
    assert seen == [3, 2]
