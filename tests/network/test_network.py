"""Building networks: seeds, shapes, clear refusals, and the forward pass that torch would make."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from strategies import ACTIVATIONS, OUTPUTS

from pcsim.errors import ConfigurationError, ShapeError
from pcsim.network.network import Network

TORCH_MODULES = {
    "relu": torch.nn.ReLU,
    "tanh": torch.nn.Tanh,
    "sigmoid": torch.nn.Sigmoid,
    "leaky_relu": torch.nn.LeakyReLU,
    "gelu": torch.nn.GELU,
    "identity": torch.nn.Identity,
    "softmax": lambda: torch.nn.Softmax(dim=1),
}


def flat(network: Network) -> np.ndarray:
    """All parameters in a row."""
    return np.concatenate([array.ravel() for pair in network.parameters for array in pair])


def test_one_seed_is_one_network():
    """Two runs of one seed must start from the same bits, two seeds must not."""
    assert (
        flat(Network.dense([4, 3, 2], seed=5)).tobytes() == flat(Network.dense([4, 3, 2], seed=5)).tobytes()
    )
    assert not np.array_equal(flat(Network.dense([4, 3, 2], seed=5)), flat(Network.dense([4, 3, 2], seed=6)))


def test_float32_is_the_rounded_float64():
    """Comparing precisions makes sense only from the same start."""
    narrow, wide = (Network.dense([4, 3, 2], dtype=dtype, seed=1) for dtype in ("float32", "float64"))
    assert (narrow.dtype, wide.dtype) == (np.float32, np.float64)
    np.testing.assert_array_equal(flat(narrow), flat(wide).astype(np.float32))


def test_initial_parameters_fill_the_bounds_of_torch():
    """±1/√n_l of the presynaptic layer for weight and bias, reached but not passed."""
    network = Network.dense([100, 25, 400], dtype="float64")
    for (weight, bias), bound in zip(network.parameters, (0.1, 0.2)):
        assert 0.99 * bound < np.abs(weight).max() <= bound
        assert 0.8 * bound < np.abs(bias).max() <= bound
        assert abs(weight.mean()) < 0.1 * bound
    assert [w.shape for w, _ in network.parameters] == [(25, 100), (400, 25)]


def test_given_parameters_are_copied():
    """Learning must not reach into the arrays of whoever built the network."""
    weight, bias = np.ones((2, 3)), np.zeros(2)
    network = Network.dense([3, 2], dtype="float64", parameters=[(weight, bias)])
    network.parameters[0][0][:] = 7
    assert weight.max() == 1


def test_units_share_the_parameters_of_the_network():
    """What the units learn must be what `predict` uses."""
    network = Network.dense([3, 2])
    unit = network.layers(4)[0]
    assert unit.weight is network.parameters[0][0]
    assert unit.bias is network.parameters[0][1]


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_predict_is_the_forward_pass_of_torch(activation, output, rng):
    """Signed inputs too: f must not touch the input, and the output function comes last."""
    network = Network.dense([5, 4, 3, 2], activation=activation, output=output, dtype="float64")
    modules = []
    for weight, bias in network.parameters:
        linear = torch.nn.Linear(*weight.shape[::-1], dtype=torch.float64)
        linear.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
        modules += [linear, TORCH_MODULES[activation]()]
    modules[-1] = TORCH_MODULES[output]()
    inputs = rng.normal(size=(7, 5))
    expected = torch.nn.Sequential(*modules)(torch.tensor(inputs)).detach().numpy()
    np.testing.assert_allclose(network.predict(inputs), expected, rtol=1e-12)


def test_constants_reach_the_layers_they_belong_to():
    """γ of the layer above belongs to a layer's outgoing connection; the mix to the output only."""
    network = Network.dense(
        [2, 2, 2], proximal_step=3, precision=[1, 2, 5], activity_decay=[0, 4, 0], activation="tanh"
    )
    assert [t.precision for t in network.traits] == [1, 2, 5]
    assert [t.precision_above for t in network.traits[:-1]] == [2, 5]
    assert [t.activity_decay for t in network.traits] == [0, 4, 0]
    assert [t.mix for t in network.traits] == [0, 0, 0.25]
    assert [t.activation for t in network.traits[:-1]] == ["identity", "tanh"]
    assert not Network.dense([2, 2], proximal_step=float("inf")).soft_clamp


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"sizes": [3]}, ShapeError, "expected at least an input and an output"),
        ({"sizes": [3, 0, 2]}, ShapeError, r"\[3, 0, 2\]"),
        ({"activation": "rleu"}, ConfigurationError, "did you mean 'relu'"),
        ({"output": "softmx"}, ConfigurationError, "did you mean 'softmax'"),
        ({"output": "zzz"}, ConfigurationError, "known: identity, sigmoid, softmax"),
        ({"dtype": "float16"}, ConfigurationError, "dtype = 'float16'"),
        ({"proximal_step": 0}, ConfigurationError, "proximal_step = 0"),
        ({"proximal_step": float("nan")}, ConfigurationError, "proximal_step = nan"),
        ({"precision": [1, -1, 1]}, ConfigurationError, "none below 0"),
        ({"precision": [2, 1, 1]}, ConfigurationError, "precision of the input"),
        ({"activity_decay": [0, 0, 1]}, ConfigurationError, "activity_decay of the input or output"),
        ({"precision": [1, 1]}, ShapeError, "one for each of the 3 layers"),
        ({"activity_decay": [0, float("inf"), 0]}, ConfigurationError, "activity_decay"),
        ({"parameters": []}, ShapeError, "0 pairs of parameters: expected 2"),
        (
            {"parameters": [(np.ones((4, 3)), np.ones(4)), (np.ones((4, 2)), np.ones(2))]},
            ShapeError,
            "layer 1",
        ),
        (
            {"parameters": [(np.ones((4, 3)), np.ones(3)), (np.ones((2, 4)), np.ones(2))]},
            ShapeError,
            "layer 0",
        ),
    ],
)
def test_refusals_name_what_is_wrong(changes, error, text):
    """A wrong number found while building saves a night of training."""
    with pytest.raises(error, match=text):
        Network.dense(**{"sizes": [3, 4, 2], **changes})


@pytest.mark.parametrize("shape", [(3,), (2, 4), (1, 2, 3)])
def test_predict_refuses_inputs_of_another_width(shape):
    """Broadcasting would return numbers for inputs that do not fit."""
    with pytest.raises(ShapeError, match="expected \\(samples, 3\\)"):
        Network.dense([3, 2]).predict(np.zeros(shape))
