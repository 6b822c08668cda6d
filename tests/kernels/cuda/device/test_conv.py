"""Convolutions on the device against the reference: each function, then whole training steps."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

from pcsim.architecture import ConvLayer
from pcsim.engine.fast import FastEngine
from pcsim.errors import ShapeError
from pcsim.kernels import reference
from pcsim.learning import MQ, Adam
from pcsim.network import predictor
from pcsim.network.network import Network
from pcsim.schedule.program import Program, Schedule

LAYERS = [
    ConvLayer((2, 5, 6), 3, 3, 2),
    ConvLayer((1, 4, 5), 2, 2, 1, "max", 2),
    ConvLayer((2, 5, 4), 2, 1, 1, "average", 2),
]


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.pool)
def test_each_function(layer, activation, kernels, rng, close):
    """Prediction, feedback and both operands; a dropped border and ties of shut units among them."""
    batch = 2
    shapes = (batch, prod(layer.image)), (layer.channels, layer.terms), (layer.channels,)
    host = [rng.normal(size=shape) for shape in (*shapes, (batch, prod(layer.result)))]
    results = []
    for one in (kernels, reference):
        activity, weight, bias, error = map(one.to_device, host)
        synapses = one.convolution(layer, activation, batch, np.dtype("float64"))
        up, down = one.to_device(np.zeros(host[3].shape)), one.to_device(np.zeros(host[0].shape))
        synapses.predict(activity, weight, bias, up)
        synapses.feedback(activity, error, weight, 0.7, down)
        moved, still = one.to_device(host[1].copy()), one.to_device(host[2].copy())
        one.sgd_step(moved, still, *synapses.operands(error, activity), 0.5)
        results.append((up, down, moved, still))
    for device, desired in zip(*results):
        close(device, desired)


@pytest.mark.parametrize("activation", ["leaky_relu", "tanh"])
def test_winners_of_a_pool(activation, kernels):
    """A run that has diverged must be seen to have: NaN goes up. The first among equals takes the error.

    Windows with NaN first, in the middle, last, twice and everywhere, equals that are largest and that are
    not, and −∞. The slope of leaky ReLU is a number at NaN, too, and shows who has won.
    """
    nan = np.nan
    windows = [[nan, 1, 2, 3], [0, nan, 9, 1], [4, 3, 2, nan], [5, nan, nan, 6], [nan] * 4]
    windows += [[1, 2, 2, -2], [3, 3, 4, 3], [-np.inf, 3, -np.inf, 1]]
    image = np.array(windows, dtype=float).reshape(2, 4, 2, 2).transpose(0, 2, 1, 3).reshape(1, 32)
    layer, results = ConvLayer((1, 4, 8), 1, 1, 1, "max", 2), []
    for one in (kernels, reference):
        activity, weight, bias = map(one.to_device, (image, np.ones((1, 1)), np.zeros(1)))
        synapses = one.convolution(layer, activation, 1, np.dtype("float64"))
        up, down = one.to_device(np.zeros((1, 8))), one.to_device(np.zeros((1, 32)))
        synapses.predict(activity, weight, bias, up)
        synapses.feedback(activity, one.to_device(np.arange(1.0, 9.0)[np.newaxis]), weight, 1.0, down)
        results.append((np.asarray(up), np.asarray(down)))
    for device, desired in zip(*results):
        np.testing.assert_allclose(device, desired, rtol=1e-12)
    assert np.isnan(results[0][0][0]).tolist() == [True] * 5 + [False] * 3


def test_more_than_32_bits_can_count_is_refused(kernels):
    """Kernels address in 32 bits: beyond that they would write to the wrong place without a word."""
    layer = ConvLayer((1, 2, 2), 2**27, 1, 1)
    with pytest.raises(ShapeError, match="convolution of 4 images 1x2x2: 2147483648 numbers in one array"):
        kernels.convolution(layer, "relu", 4, np.dtype("float32"))


def test_predictions_of_many_samples_leave_little_behind(kernels, rng, close, monkeypatch):
    """Scratch is kept: that of a thousand images would fill gigabytes for as long as a run lasts."""
    network = Network.of(["1x4x4", "conv 2 2x2/1", "dense 3"], dtype="float64", seed=1)
    inputs, budget, before = rng.normal(size=(5, 16)), 2 * 9 * 4 * 8, set(kernels._kept)
    whole = network.predict(inputs)
    monkeypatch.setattr(predictor, "WINDOW_BYTES", budget)
    close(network.predict(inputs, kernels), whole)
    kept = [kernels._kept[key] for key in set(kernels._kept) - before]
    assert max(array.size * array.dtype.itemsize for array in kept) <= budget


@pytest.mark.parametrize("rule", [MQ(0.05), Adam(0.01)], ids=["mq", "adam"])
@pytest.mark.parametrize("size", [5, 6])
def test_training_steps(size, rule, small_kernels, rng, close):
    """Through the program, with the label's own error: activities, errors and four-dimensional weights.

    Windows on the larger image are so many that a product forms the gradient.
    """
    words = [f"1x{size}x{size}", "conv 2 3x3/1 max 2", "dense 3"]
    network, twin = (Network.of(words, dtype="float64", learn_output_from="label") for _ in range(2))
    program = Program.build(network, Schedule("sequential", iterations=2, step_size=0.1))
    host = FastEngine(program, network.layers(2, rule))
    device = FastEngine(program, twin.layers(2, rule, small_kernels))
    for _ in range(2):
        inputs, targets = rng.normal(size=(2, size**2)), np.eye(3)[:2]
        host.step(inputs, targets)
        device.step(inputs, targets)
        for unit, other in zip(host.layers, device.layers):
            close(other.activity, unit.activity)
            close(other.error, unit.error)
    twin.gather(device.layers)
    for (weight, bias), (other, other_bias) in zip(network.parameters, twin.parameters):
        close(other, weight)
        close(other_bias, bias)
