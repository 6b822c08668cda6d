"""Mini-batches of one, driven by events, against the reference."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pcsim
from pcsim.kernels import reference
from pcsim.kernels.cpu import CpuKernels

ACTIVATIONS = ["relu", "tanh", "sigmoid", "leaky_relu", "gelu", "identity"]
SIZES = [(5, 3), (7, 11), (64, 10), (129, 65), (300, 260)]  # inputs, outputs


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def cpu(request, monkeypatch):
    """Kernels that share every product, however small, over their threads."""
    monkeypatch.setattr("pcsim.kernels.cpu.WORTH_A_THREAD", 0)
    return CpuKernels(request.param)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("precision", [1.0, 0.3])
def test_both_directions(cpu, size, activation, precision):
    """Predictions are the reference's; feedback too, where the gate lets it through."""
    rng = np.random.default_rng(0)
    inputs, outputs = size
    weight, bias = rng.standard_normal((outputs, inputs)), rng.standard_normal(outputs)
    activity, error = rng.standard_normal((1, inputs)), rng.standard_normal((1, outputs))
    gate, found = reference.derivative(activation, activity), []
    for kernels in (cpu, reference):
        synapses = kernels.dense(activation, 1)
        placed, up, down = synapses.place(weight), np.empty((1, outputs)), np.empty((1, inputs))
        synapses.predict(activity, placed, bias, up)
        synapses.feedback(activity, error, placed, precision, down)
        found.append((up, gate * down))
    assert_allclose(found[0][0], found[1][0], rtol=1e-12, atol=1e-12)
    assert_allclose(found[0][1], found[1][1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("rule", [pcsim.SGD(0.1), pcsim.MQ(1e-2), pcsim.NLMS(), pcsim.Adam(1e-2)], ids=repr)
@pytest.mark.parametrize("order", ["sequential", "simultaneous"])
def test_training(cpu, activation, rule, order):
    """Five whole steps with any rule end with the reference's weights, in the network that was given."""
    found = []
    for kernels in (cpu, reference):
        network = pcsim.Network.dense([6, 9, 7, 4], activation=activation, dtype="float64", seed=1)
        program = pcsim.Program.build(network, pcsim.Schedule(order, iterations=2))
        engine = pcsim.FastEngine(program, network.layers(1, rule, kernels))
        rng = np.random.default_rng(2)
        for _ in range(5):
            engine.step(rng.random((1, 6)), np.eye(4)[rng.integers(0, 4, 1)])
        found.append(network.parameters)
    for ours, expected in zip(*found, strict=True):
        assert_allclose(ours[0], expected[0], rtol=1e-10, atol=1e-12)
        assert_allclose(ours[1], expected[1], rtol=1e-10, atol=1e-12)


def test_silent_neurons_are_left_alone(cpu):
    """Nothing of a silent neuron is read or written: not even a weight that is not a number does harm."""
    synapses = cpu.dense("relu", 1)
    weight = synapses.place(np.array([[1.0, np.nan, 3], [4, np.nan, 6]]))
    activity, error = np.array([[2.0, -1, 1]]), np.array([[1.0, 10]])
    up, down = np.empty((1, 2)), np.empty((1, 3))
    synapses.predict(activity, weight, np.zeros(2), up)
    assert_array_equal(up, [[2 * 1 + 3, 2 * 4 + 6]])
    synapses.feedback(activity, error, weight, 1.0, down)
    assert_array_equal(down, [[1 + 40, 0, 3 + 60]])
    cpu.sgd_step(weight, np.zeros(2), *synapses.operands(error, activity), 1.0)
    assert_array_equal(weight, [[1 + 2, np.nan, 3 + 1], [4 + 20, np.nan, 6 + 10]])


def test_same_bits_on_two_threads(monkeypatch):
    """The number of threads, which a self-test chooses, must not decide results."""
    monkeypatch.setattr("pcsim.kernels.cpu.WORTH_A_THREAD", 0)
    found = []
    for threads in (1, 2):
        network = pcsim.Network.dense([300, 200, 100, 10])
        program = pcsim.Program.build(network, pcsim.Schedule())
        engine = pcsim.FastEngine(program, network.layers(1, pcsim.MQ(1e-3), CpuKernels(threads)))
        rng = np.random.default_rng(0)
        for _ in range(3):
            engine.step(
                rng.random((1, 300), np.float32), np.eye(10, dtype=np.float32)[rng.integers(0, 10, 1)]
            )
        found.append(network.parameters)
    for one, two in zip(*found, strict=True):
        assert_array_equal(one[0], two[0])


def test_batch_size_may_change():
    """A network that has learnt online predicts and goes on learning in mini-batches, and back."""
    networks = []
    for kernels in (CpuKernels(), reference):
        network = pcsim.Network.dense([6, 9, 4], dtype="float64", seed=1)
        program = pcsim.Program.build(network, pcsim.Schedule())
        rng = np.random.default_rng(3)
        for batch in (1, 8, 1, 3):
            engine = pcsim.FastEngine(program, network.layers(batch, pcsim.SGD(0.1), kernels))
            engine.step(rng.random((batch, 6)), np.eye(4)[rng.integers(0, 4, batch)])
            network.predict(rng.random((5, 6)), kernels)
            network.predict(rng.random((1, 6)), kernels)
        networks.append(network)
    for ours, expected in zip(networks[0].parameters, networks[1].parameters, strict=True):
        assert_allclose(ours[0], expected[0], rtol=1e-12, atol=1e-14)
    inputs = np.random.default_rng(4).random((5, 6))
    assert_allclose(networks[0].predict(inputs, CpuKernels()), networks[1].predict(inputs), rtol=1e-12)
