"""Mini-batches of one, driven by events, against the reference."""

import threading
from contextlib import nullcontext, suppress

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pcsim
from pcsim.engine.event import EventEngine
from pcsim.errors import ShapeError
from pcsim.hardware.clock import unit
from pcsim.kernels import Relaxation, reference
from pcsim.kernels.cpu import CpuKernels
from pcsim.kernels.online import Update

ACTIVATIONS = ["relu", "tanh", "sigmoid", "leaky_relu", "gelu", "identity"]
SIZES = [(5, 3), (7, 11), (64, 10), (129, 65), (300, 260)]  # inputs, outputs


def event_engine(program, layers):
    """Return an event engine with unit times."""
    return EventEngine(program, layers, unit(), 1)


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def cpu(request, monkeypatch):
    """Kernels that share every product, however small, over their threads."""
    monkeypatch.setattr("pcsim.kernels.crew.WORTH_A_THREAD", 0)
    monkeypatch.setattr("pcsim.kernels.crew.WORTH_SHARING", 0)
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
    monkeypatch.setattr("pcsim.kernels.crew.WORTH_A_THREAD", 0)
    monkeypatch.setattr("pcsim.kernels.crew.WORTH_SHARING", 0)
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


@pytest.mark.parametrize("activation", ["relu", "tanh", "leaky_relu"])
@pytest.mark.parametrize("rule", [pcsim.SGD(0.1), pcsim.MQ(1e-2), pcsim.NLMS(), pcsim.Adam(1e-2)], ids=repr)
@pytest.mark.parametrize("make_engine", [pcsim.FastEngine, event_engine], ids=["fast", "event"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_postponed_learning_is_the_same(cpu, activation, rule, make_engine, dtype):
    """Updates that wait for the next prediction leave the same bits, in one block or cut into several."""
    found = []
    for blocks in ([], [6], [1, 3, 2]):
        network = pcsim.Network.dense([37, 70, 33, 4], activation=activation, dtype=dtype, seed=1)
        program = pcsim.Program.build(network, pcsim.Schedule("sequential", iterations=2))
        engine = make_engine(program, network.layers(1, rule, cpu))
        rng = np.random.default_rng(2)
        for steps in blocks or [1] * 6:
            with cpu.postponing() if blocks else nullcontext():
                for _ in range(steps):
                    inputs = np.maximum(rng.standard_normal((1, 37)), 0).astype(dtype)
                    engine.step(inputs, np.eye(4, dtype=dtype)[rng.integers(0, 4, 1)])
        found.append([array for pair in network.parameters for array in pair])
    for others in found[1:]:
        for ours, expected in zip(others, found[0], strict=True):
            assert_array_equal(ours, expected)


def test_a_layer_always_shows_what_it_has_learnt():
    """Whoever looks at a weight while updates wait sees it complete; an exception loses none."""
    cpu, weights = CpuKernels(), []
    for block in (nullcontext, cpu.postponing):
        network = pcsim.Network.dense([6, 9, 4], seed=1)
        program = pcsim.Program.build(network, pcsim.Schedule("sequential", iterations=1))
        engine = pcsim.FastEngine(program, network.layers(1, pcsim.SGD(0.1), cpu))
        inputs, target = np.linspace(-1, 1, 6, dtype="float32")[None], np.eye(4, dtype="float32")[:1]
        seen = []
        with suppress(ShapeError), block():
            for step in range(3):
                engine.step(inputs, target)
                if step == 1:
                    seen.extend(unit.weight.copy() for unit in engine.layers[:-1])
            engine.step(inputs[:, 1:], target)
        weights.append([*seen, *(weight for weight, _ in network.parameters)])
    for ours, expected in zip(*weights, strict=True):
        assert_array_equal(ours, expected)


def test_updates_do_wait(monkeypatch):
    """The two tests above would pass if nothing were ever put off."""
    applied, cpu = [], CpuKernels()
    monkeypatch.setattr(cpu, "apply", applied.append)
    network = pcsim.Network.dense([6, 9, 4], seed=1)
    program = pcsim.Program.build(network, pcsim.Schedule("sequential", iterations=1))
    engine = pcsim.FastEngine(program, network.layers(1, pcsim.MQ(0.1), cpu))
    with cpu.postponing():
        for _ in range(3):
            engine.step(np.ones((1, 6), "float32"), np.eye(4, dtype="float32")[:1])
        assert not applied
    assert len(applied) == 2


def test_threads_postpone_each_for_itself():
    """Where one ends its block while another goes on with the same kernels, updates got lost or doubled."""
    cpu, weight = CpuKernels(), np.zeros((3, 2), "float32", order="F")
    update = Update(weight.T, np.ones(2, "float32"), np.ones(3, "float32"), 1.0)

    def other():
        with cpu.postponing():
            assert cpu.postponed.take(weight) is None

    with cpu.postponing():
        cpu.postponed.put(weight, update)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert cpu.postponed.allowed
        assert not weight.any()
    assert (weight == 1).all()


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "identity"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("value", [-np.inf, np.inf, np.nan])
@np.errstate(all="ignore")
def test_infinite_activities(cpu, activation, batch, value):
    """A rectified neuron at −∞ is silent: 0 · −∞ made everything that it is connected to NaN."""
    constants, found = Relaxation(0.1, 1.0, 0.5, 0.2), []
    for kernels in (cpu, reference):
        rng = np.random.default_rng(6)
        activity, error, above = (rng.standard_normal((batch, size)) for size in (5, 5, 4))
        weight, bias = rng.standard_normal((4, 5)), rng.standard_normal(4)
        activity[0, 2] = value
        synapses, up = kernels.dense(activation, batch), np.empty((batch, 4))
        placed, learnt, moved = synapses.place(weight), synapses.place(weight.copy()), activity.copy()
        synapses.predict(activity, placed, bias, up)
        norm = kernels.sgd_step(learnt, bias.copy(), above, activity, activation, 0.1)
        kernels.relax(moved, error, 0.5 * above @ weight, activation, 0.1, 1.0, 0.2)
        compared, wrong, given = activity.copy(), error.copy(), (activation, 0.1, 1.0, 0.2)
        if kernels is cpu:
            kernels.relax_and_compare(compared, wrong, 0.5 * above @ weight, error, *given)
        else:
            kernels.relax(compared, wrong, 0.5 * above @ weight, *given)
            kernels.compare(compared, error, wrong)
        fused, after = activity.copy(), np.empty((batch, 4))
        if batch == 1 and kernels is cpu:
            synapses.relax_and_predict(fused, error, above, placed, bias, constants, after)
        else:
            kernels.relax(fused, error, 0.5 * above @ weight, activation, 0.1, 1.0, 0.2)
            synapses.predict(fused, placed, bias, after)
        found.append((up, learnt, np.array(norm), moved, compared, wrong, fused, after))
    for ours, expected in zip(*found, strict=True):
        assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)


def test_predicting_sees_what_waits():
    """A network that is asked in the middle of an epoch says what it has learnt, weights and biases."""
    found = []
    for kernels in (CpuKernels(), reference):
        network = pcsim.Network.dense([6, 9, 4], dtype="float64", seed=1)
        program = pcsim.Program.build(network, pcsim.Schedule("sequential", iterations=2))
        engine = pcsim.FastEngine(program, network.layers(1, pcsim.SGD(0.1), kernels))
        rng = np.random.default_rng(2)
        with kernels.postponing():
            for _ in range(3):
                engine.step(rng.random((1, 6)), np.eye(4)[rng.integers(0, 4, 1)])
                found.append(network.predict(np.eye(6), kernels))
    for ours, expected in zip(found[:3], found[3:], strict=True):
        assert_allclose(ours, expected, rtol=1e-12)


def test_units_share_all_of_a_connection_or_nothing():
    """Weights of mini-batches of one lie in another order, so units of before keep theirs: biases, too."""
    kernels, network = CpuKernels(), pcsim.Network.dense([6, 9, 4], dtype="float64", seed=1)
    many, one = network.layers(8, pcsim.SGD(0.1), kernels), network.layers(1, pcsim.SGD(0.1), kernels)
    for old, new, (weight, bias) in zip(many, one, network.parameters, strict=False):
        assert np.may_share_memory(new.weight, weight)
        assert np.may_share_memory(new.bias, bias)
        assert not np.may_share_memory(old.weight, weight)
        assert not np.may_share_memory(old.bias, bias)
