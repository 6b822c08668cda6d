"""Convolutional connections: by hand, against torch's autograd, and fast kernels against the reference."""

from __future__ import annotations

import tracemalloc
from math import prod

import numpy as np
import pytest
import torch
from conv_oracle import conv
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from pcsim.architecture import ConvLayer
from pcsim.engine.fast import FastEngine
from pcsim.kernels import Relaxation, conv_loops, reference
from pcsim.kernels.cpu import CpuKernels
from pcsim.kernels.products import Choices, OwnProducts
from pcsim.learning import MQ, SGD, Adam
from pcsim.network.network import Network
from pcsim.schedule.program import Program, Schedule

ACTIVATIONS = ["relu", "tanh", "sigmoid", "leaky_relu", "gelu", "identity"]
POOLS = [("none", 1), ("max", 2), ("average", 2), ("max", 3), ("average", 3)]
CPU = CpuKernels(1, Choices())


@st.composite
def layers(draw) -> ConvLayer:
    """Draw a convolution that fits its image, with or without pooling."""
    kernel, stride, size = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    least = kernel + (size - 1) * stride
    image = (draw(st.integers(1, 3)), *(draw(st.integers(least, least + 5)) for _ in range(2)))
    pool = draw(st.sampled_from(["max", "average"])) if size > 1 else "none"
    return ConvLayer(image, draw(st.integers(1, 7)), kernel, stride, pool, size)


def draw_arrays(layer: ConvLayer, batch: int, dtype: str, seed: int = 0):
    """Activity, weight matrix, bias and error from above."""
    rng = np.random.default_rng(seed)
    shapes = (
        (batch, prod(layer.image)),
        (layer.channels, layer.terms),
        (layer.channels,),
        (batch, prod(layer.result)),
    )
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def everything(kernels, layer, activation, batch, dtype, seed=0):
    """What a connection computes from the same numbers: prediction, z, feedback, G and g."""
    activity, weight, bias, error = draw_arrays(layer, batch, dtype, seed)
    synapses = kernels.convolution(layer, activation, batch, np.dtype(dtype))
    placed = []
    for array in (activity, error):
        home = kernels.mini_batch(array.shape, array.dtype)
        home[...] = array
        placed.append(home)
    up, down = (
        kernels.mini_batch(error.shape, error.dtype),
        kernels.mini_batch(activity.shape, activity.dtype),
    )
    synapses.predict(placed[0], weight, bias, up)
    placed[1].flags.writeable = False  # as a message comes in
    synapses.feedback(placed[0], placed[1], weight, 0.7, down)
    moved, still = weight.copy(), bias.copy()
    steps, operands = learning(kernels, synapses, placed[1], placed[0])
    steps.sgd_step(moved, still, *operands, 1.0)
    z = np.array(synapses.memory[0])
    return [np.array(array) for array in (up, z, down, moved - weight, still - bias)]


def learning(kernels, synapses, error, activity):
    """Who makes the learning steps, and what they take: both ends as they are, or δ and all windows."""
    if hasattr(synapses, "steps"):
        return synapses.steps, (error, activity, "identity")
    return kernels, synapses.operands(error, activity)


def test_by_hand():
    """Image 1 … 9 (3 × 3), kernel ((1, 0), (0, −1)), relu: what a window sees differs by 4, corner to corner.

    With bias 3 all z are −4 + 3 = −1 and the gate is shut; with bias 5 all are 1 and it is open. Then the
    feedback of ones is the sum of the shifted kernels, G the sum of the windows, and g their number.
    """
    layer = ConvLayer((1, 3, 3), 1, 2, 1)
    image, weight = np.arange(1.0, 10).reshape(1, 9), np.array([[1.0, 0, 0, -1]])
    for kernels in (reference, CPU):
        synapses = kernels.convolution(layer, "relu", 1, np.dtype("float64"))
        out, down, ones = np.empty((1, 4)), np.empty((1, 9)), np.ones((1, 4))
        synapses.predict(image, weight, np.array([3.0]), out)
        assert_allclose(out, 0)
        assert_allclose(synapses.memory[0], -1 if kernels is reference else 0)  # the sign is enough
        synapses.feedback(image, ones, weight, 1.0, down)
        assert_allclose(down, 0)  # the gate is shut
        synapses.predict(image, weight, np.array([5.0]), out)
        assert_allclose(out, 1)
        synapses.feedback(image, ones, weight, 1.0, down)
        assert_allclose(down, [[1, 1, 0, 1, 0, -1, 0, -1, -1]])
        step, bias = np.zeros((1, 4)), np.zeros(1)
        steps, operands = learning(kernels, synapses, ones, image)
        steps.sgd_step(step, bias, *operands, 1.0)
        assert_allclose(step, [[1 + 2 + 4 + 5, 2 + 3 + 5 + 6, 4 + 5 + 7 + 8, 5 + 6 + 8 + 9]])
        assert_allclose(bias, 4)


def test_stride_by_hand():
    """Stride 2 on 1 × 3 × 3 with a 1 × 1 kernel of 10 sees the corners 1, 3, 7, 9 only."""
    layer = ConvLayer((1, 3, 3), 1, 1, 2)
    for kernels in (reference, CPU):
        synapses = kernels.convolution(layer, "identity", 1, np.dtype("float64"))
        out, down = np.empty((1, 4)), np.empty((1, 9))
        synapses.predict(np.arange(1.0, 10).reshape(1, 9), np.array([[10.0]]), np.zeros(1), out)
        assert_allclose(out, [[10, 30, 70, 90]])
        synapses.feedback(down, np.array([[1.0, 2, 3, 4]]), np.array([[10.0]]), 0.5, down)
        assert_allclose(down, [[5, 0, 10, 0, 0, 0, 15, 0, 20]])


@pytest.mark.parametrize(
    ("pool", "said", "back"),
    [
        ("max", [[5, 6]], [[0, 0, 0, 0, 2, 0, 0, 4]]),
        ("average", [[3, 4.5]], [[0.5, 0.5, 1, 1, 0.5, 0.5, 1, 1]]),
    ],
)
def test_pooling_by_hand(pool, said, back):
    """Windows (1 2 5 4) and (3 4 5 6): 5 and 6 get all of the errors 2 and 4, or each number a quarter."""
    layer = ConvLayer((1, 2, 4), 1, 1, 1, pool, 2)
    image = np.array([[1.0, 2, 3, 4, 5, 4, 5, 6]])
    for kernels in (reference, CPU):
        synapses = kernels.convolution(layer, "identity", 1, np.dtype("float64"))
        out, down = np.empty((1, 2)), np.empty((1, 8))
        synapses.predict(image, np.ones((1, 1)), np.zeros(1), out)
        assert_allclose(out, said)
        synapses.feedback(image, np.array([[2.0, 4]]), np.ones((1, 1)), 1.0, down)
        assert_allclose(down, back)


def test_equal_winners_are_one_winner():
    """Of four equal numbers the first gets the error, as in torch; four winners would give it four times."""
    layer = ConvLayer((1, 2, 2), 1, 1, 1, "max", 2)
    for kernels in (reference, CPU):
        synapses = kernels.convolution(layer, "identity", 1, np.dtype("float64"))
        out, down = np.empty((1, 1)), np.empty((1, 4))
        synapses.predict(np.ones((1, 4)), np.ones((1, 1)), np.zeros(1), out)
        synapses.feedback(down, np.ones((1, 1)), np.ones((1, 1)), 1.0, down)
        assert_allclose(down, [[1, 0, 0, 0]])


@pytest.mark.parametrize("pool", POOLS, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_reference_is_torch_autograd(activation, pool):
    """Prediction, feedback, G and g are the vector-Jacobian products of torch's map, to 1e-10."""
    layer = ConvLayer((2, 11, 9), 4, 3, 2, *pool) if pool[1] < 3 else ConvLayer((2, 9, 8), 4, 3, 1, *pool)
    batch = 3
    activity, weight, bias, error = draw_arrays(layer, batch, "float64")
    up, _, down, G, g = everything(reference, layer, activation, batch, "float64")
    square = (layer.channels, layer.image[0], layer.kernel, layer.kernel)
    args = [
        torch.tensor(array, requires_grad=True)
        for array in (activity.reshape(batch, *layer.image), weight.reshape(square), bias)
    ]
    made = conv(*args, activation, layer.stride, *pool)
    assert_allclose(up, made.detach().numpy().reshape(batch, -1), atol=1e-10)
    back = torch.autograd.grad(made, args, torch.tensor(error.reshape(made.shape)))
    assert_allclose(down, 0.7 * back[0].numpy().reshape(batch, -1), atol=1e-10)
    assert_allclose(G, back[1].numpy().reshape(weight.shape) / batch, atol=1e-10)
    assert_allclose(g, back[2].numpy() / batch, atol=1e-10)


@settings(max_examples=60)
@given(
    layers(),
    st.sampled_from(ACTIVATIONS),
    st.integers(1, 70),
    st.sampled_from(["float32", "float64"]),
    st.integers(0, 9),
)
def test_cpu_is_the_reference(layer, activation, batch, dtype, seed):
    """Any shape, stride, pooling and mini-batch: the compiled loops say what NumPy says."""
    tolerance = 1e-11 if dtype == "float64" else 3e-5
    ours = everything(CPU, layer, activation, batch, dtype, seed)
    expected = everything(reference, layer, activation, batch, dtype, seed)
    # In float32 two sums that round differently may choose another winner of a window.
    compared = range(5) if dtype == "float64" or layer.pool != "max" else range(2)
    for index in compared:
        scale = max(1.0, float(np.abs(expected[index]).max()))
        if index == 1 and ours[1].dtype == np.int8:  # z, of which the sign is kept where that is enough
            clear = np.abs(expected[1]) > tolerance * scale
            assert_array_equal(ours[1][clear], expected[1][clear] > 0)
            continue
        assert_allclose(ours[index], expected[index], atol=tolerance * scale, rtol=0)
        assert ours[index].dtype == np.dtype(dtype)


@pytest.mark.parametrize("rule", ["mq", "adam"])
def test_other_rules_on_cpu(rule):
    """MQ's mean |G| and Adam's moments of a convolution, three updates, against the reference."""
    layer, found = ConvLayer((2, 7, 7), 5, 3, 2, "none", 1), []
    for kernels in (CPU, reference):
        activity, weight, bias, error = draw_arrays(layer, 6, "float64", 3)
        synapses = kernels.convolution(layer, "relu", 6, np.dtype("float64"))
        up = np.empty_like(error)
        v, n, moments = (
            np.array([1e-3]),
            np.zeros(1),
            tuple(np.zeros_like(a) for a in (weight, weight, bias, bias)),
        )
        said = []
        for _ in range(3):
            synapses.predict(activity, weight, bias, up)
            steps, operands = learning(kernels, synapses, error, activity)
            if rule == "mq":
                said.append(steps.mq_step(weight, bias, *operands, v, n, 1e-2, 1e-3, 1e-6, 1.0))
            else:
                said.append(steps.adam_step(weight, bias, *operands, moments, n, 1e-2, 0.9, 0.999, 1e-8))
        found.append([weight, bias, v, n, np.array(said), *moments])
    for ours, expected in zip(*found):
        assert_allclose(ours, expected, atol=1e-11)


@pytest.mark.parametrize("pool", [("none", 1), ("max", 2)], ids=str)
def test_any_number_of_threads_gives_the_same_bits(monkeypatch, pool):
    """With our own products: shared by places on the way up, by channels on the way down, or not at all."""
    monkeypatch.setattr("pcsim.kernels.crew.WORTH_A_THREAD", 0)
    monkeypatch.setattr("pcsim.kernels.crew.WORTH_SHARING", 0)
    own = OwnProducts()
    monkeypatch.setattr(CpuKernels, "provider", lambda *arguments: own)
    layer = ConvLayer((5, 14, 14), 130, 3, 1, *pool)
    one, *others = (everything(CpuKernels(n, Choices()), layer, "relu", 5, "float32") for n in (1, 2, 3))
    for other in others:
        assert [array.tobytes() for array in other] == [array.tobytes() for array in one]
    assert_allclose(one[0], everything(reference, layer, "relu", 5, "float32")[0], atol=1e-4)


@pytest.mark.parametrize("pool", [("none", 1), ("average", 2)], ids=str)
@pytest.mark.parametrize("activation", ["leaky_relu", "tanh"])
def test_relaxing_part_by_part(monkeypatch, activation, pool):
    """Feedback, then equation (2): some channels at a time must give the very bits of all at once."""
    layer, batch = ConvLayer((7, 12, 11), 6, 3, 2, *pool), 4
    activity, weight, bias, error = draw_arrays(layer, batch, "float32", 5)
    own = np.random.default_rng(6).standard_normal(activity.shape).astype("float32")
    synapses = CPU.convolution(layer, activation, batch, np.dtype("float32"))
    up, down = np.empty_like(error), np.empty_like(activity)
    synapses.predict(activity, weight, bias, up)
    synapses.feedback(activity, error, weight, 0.7, down)
    whole = activity.copy()
    CPU.relax(whole, own, down, "identity", 0.3, 1.3, 0.2)
    monkeypatch.setattr("pcsim.kernels.cpu_conv.PART_BYTES", 3 * 12 * 11 * batch * 4)  # three channels
    parts = activity.copy()
    synapses.relax(parts, own, error, weight, Relaxation(0.3, 1.3, 0.7, 0.2))
    assert_array_equal(parts, whole)


@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_learning_part_by_part(monkeypatch, rule):
    """The Hebbian product of two channels at a time, the windows of one at a time: the same bits."""
    layer, batch, found = ConvLayer((7, 12, 11), 6, 3, 2), 4, []
    for parts in (False, True):
        if parts:
            monkeypatch.setattr("pcsim.kernels.cpu_conv.PART_BYTES", 2 * 6 * 9 * 8)
            monkeypatch.setattr("pcsim.kernels.cpu_conv.PANEL_BYTES", 64)
        activity, weight, bias, error = draw_arrays(layer, batch, "float64", 5)
        synapses = CPU.convolution(layer, "relu", batch, np.dtype("float64"))
        synapses.predict(activity, weight, bias, np.empty_like(error))
        moments = tuple(np.zeros_like(array) for array in (weight, weight, bias, bias))
        ends = error, activity, "identity"
        if rule == "sgd":
            said = synapses.steps.sgd_step(weight, bias, *ends, 0.1)
        else:
            said = synapses.steps.adam_step(weight, bias, *ends, moments, np.zeros(1), 1e-2, 0.9, 0.999, 1e-8)
        found.append([weight, bias, *moments, said])
    for whole, parted in zip(*found):
        assert_array_equal(parted, whole)


def test_operands_are_all_windows():
    """Whoever wants to look at the factors gets what the reference has, in the same order."""
    layer = ConvLayer((2, 7, 7), 5, 3, 2, "none", 1)
    activity, weight, bias, error = draw_arrays(layer, 6, "float64", 3)
    found = []
    for kernels in (CPU, reference):
        synapses = kernels.convolution(layer, "relu", 6, np.dtype("float64"))
        synapses.predict(activity, weight, bias, np.empty_like(error))
        delta, windows, name = synapses.operands(error, activity)
        assert name == "identity"
        found.append((delta.T @ windows, delta.sum(axis=0)))
    for ours, expected in zip(*found):
        assert_allclose(ours, expected, atol=1e-11)


@pytest.mark.parametrize("rule", [SGD(0.01), MQ(1e-3), Adam(1e-3)], ids=lambda rule: type(rule).__name__)
def test_training_holds_little(rule):
    """Beside what layers own, a step takes a small part of what all windows of its largest layer see."""
    network = Network.of(["3x20x20", "conv 16 5x5/1", "conv 8 5x5/1", "dense 3"], seed=1)
    program, rng = Program.build(network, Schedule("sequential", 2)), np.random.default_rng(0)
    for look in (False, True):  # the first time kernels are compiled, which takes memory of its own
        engine = FastEngine(program, network.layers(64, rule, CpuKernels(1, Choices())))
        if look:
            tracemalloc.start()
        for _ in range(2):
            targets = np.eye(3, dtype="float32")[rng.integers(3, size=64)]
            engine.step(rng.random((64, 1200), "float32"), targets)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    windows = 4 * 64 * (5 * 5 * 16) * (12 * 12)  # bytes a number, samples, terms, places
    assert peak < windows / 3


def test_infinite_rectified():
    """A rectified neuron at −∞ is silent; 0 · −∞ made it NaN."""
    for leak, expected in ((0.0, [0, 0, np.inf]), (0.01, [-np.inf, -0.02, np.inf])):
        values, signs = np.array([-np.inf, -2, np.inf]), np.empty(3, conv_loops.SIGN)
        conv_loops.fire(values, leak, signs)
        assert values.tolist() == expected
        assert signs.tolist() == [0, 0, 1]
