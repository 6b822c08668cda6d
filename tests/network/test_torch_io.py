"""Networks from torch and back: the same function, the same names, and one line for what cannot be."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import ACTIVATIONS, OUTPUTS
from torch import nn

from pcsim import SGD, Dataset, Experiment, Network, Schedule, run
from pcsim.errors import ConfigurationError, PcsimError, ShapeError

MODULES = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "identity": nn.Identity,
    "softmax": lambda: nn.Softmax(dim=1),
}
POOLS = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}


def told(module: nn.Module, inputs: torch.Tensor) -> np.ndarray:
    """What torch says."""
    with torch.no_grad():
        return module(inputs).numpy()


def agree(module: nn.Sequential, inputs: torch.Tensor, network: Network, tolerance: float) -> None:
    """Module, network and the module made of the network say the same; names and numbers are kept."""
    wanted, back = told(module, inputs), network.to_torch()
    flat = inputs.flatten(1).numpy()
    np.testing.assert_allclose(network.predict(flat), wanted, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(told(back, inputs), wanted, rtol=tolerance, atol=tolerance)
    assert list(back.state_dict()) == list(module.state_dict())
    for key, value in module.state_dict().items():
        assert torch.equal(back.state_dict()[key], value)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dense(activation, output):
    """Every function on both sides, in float64 to 1e-12; an Identity may be written or left out."""
    torch.manual_seed(1)
    layers = [nn.Linear(5, 7), MODULES[activation](), nn.Linear(7, 6), MODULES[activation](), nn.Linear(6, 3)]
    module = nn.Sequential(*layers, MODULES[output]()).double()
    network = Network.from_torch(module)
    assert network.traits[1].activation == activation
    assert network.traits[-1].output == output
    assert network.dtype == np.float64
    agree(module, torch.randn(4, 5, dtype=torch.float64), network, 1e-12)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_convolutions(activation, pool):
    """Convolutions with strides and pools on images that are not square."""
    torch.manual_seed(2)
    module = nn.Sequential(
        *(nn.Conv2d(2, 4, 3), MODULES[activation](), POOLS[pool](2)),
        *(nn.Conv2d(4, 5, (2, 2), stride=2), MODULES[activation](), nn.Flatten()),
        *(nn.Linear(30, 6), MODULES[activation](), nn.Linear(6, 3), nn.Softmax(dim=-1)),
    ).double()
    network = Network.from_torch(module, image=(2, 11, 15))
    assert network.shapes == ((2, 11, 15), (4, 4, 6), (5, 2, 3), (6,), (3,))
    agree(module, torch.randn(3, 2, 11, 15, dtype=torch.float64), network, 1e-12)


def test_names_of_a_named_and_nested_module():
    """A state_dict goes back into the module that it came from, whatever its parts are called."""
    relu = nn.ReLU()  # one object in three places
    features = nn.Sequential(nn.Conv2d(1, 2, 3), relu, nn.Conv2d(2, 3, 3), relu)
    head = nn.Sequential()
    for name, part in (("flat", nn.Flatten()), ("first", nn.Linear(12, 5)), ("act", relu)):
        head.add_module(name, part)
    head.add_module("7", nn.Linear(5, 2))
    module = nn.Sequential()
    module.add_module("features", features)
    module.add_module("head", head)
    network = Network.from_torch(module, image=(1, 6, 6))
    assert network.names == ("features.0", "features.2", "head.first", "head.7")
    agree(module, torch.randn(3, 1, 6, 6), network, 1e-5)
    module.load_state_dict(network.to_torch().state_dict())


def test_images_into_a_dense_network():
    """A leading Flatten is kept, so that the module still takes images."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 2))
    agree(module, torch.randn(3, 1, 4, 4), Network.from_torch(module), 1e-5)


layer_words = st.sampled_from(
    ["conv 3 2x2/1", "conv 2 3x3/2", "conv 2 2x2/1 max 2", "conv 3 3x3/1 average 2"]
)


@given(
    convs=st.lists(layer_words, max_size=2),
    widths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    activation=st.sampled_from(ACTIVATIONS),
    output=st.sampled_from(OUTPUTS),
    seed=st.integers(0, 99),
)
def test_there_and_back(convs, widths, activation, output, seed):
    """Any network of ours comes back from torch with the same bits, and torch says what it says."""
    words = ["2x12x13" if convs else "7", *convs, *(f"dense {width}" for width in widths)]
    network = Network.of(words, activation=activation, output=output, dtype="float64", seed=seed)
    module = network.to_torch()
    assert [name for name, _ in module.named_children()] == [str(index) for index in range(len(module))]
    inputs = np.random.default_rng(seed).normal(size=(3, network.sizes[0]))
    images = torch.from_numpy(inputs.reshape(3, *network.shapes[0]))
    np.testing.assert_allclose(told(module, images), network.predict(inputs), rtol=1e-12, atol=1e-12)
    again = Network.from_torch(module, (2, 12, 13) if convs else None)
    for one, other in zip(network.parameters, again.parameters):
        assert all(np.array_equal(left, right) for left, right in zip(one, other))
    np.testing.assert_array_equal(again.predict(inputs), network.predict(inputs))


def test_logits_become_a_classifier():
    """Torch's classifiers end in logits, because its loss has the softmax; ours has it in the network."""
    module = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    network = Network.from_torch(module, output="softmax", proximal_step=10.0)
    inputs = torch.randn(6, 4)
    wanted = torch.softmax(torch.from_numpy(told(module, inputs)), 1).numpy()
    np.testing.assert_allclose(network.predict(inputs.numpy()), wanted, atol=1e-6)
    assert network.traits[-1].mix == 1 / 11
    assert list(network.to_torch().state_dict()) == list(module.state_dict())


def test_copies():
    """Neither side reaches into the other's weights, and torch's random numbers stay as they were."""
    module = nn.Sequential(nn.Linear(3, 2))
    network = Network.from_torch(module)
    network.parameters[0][0][:] = 7
    state = torch.get_rng_state()
    back = network.to_torch()
    assert torch.equal(torch.get_rng_state(), state)
    network.parameters[0][0][:] = 8
    assert float(module[0].weight.detach().abs().max()) < 1
    assert float(back[0].weight.detach().max()) == 7


def test_train_a_torch_network_on_torch_data_and_hand_it_back():
    """The whole way: torch module and DataLoader in, inference learning, a module that has learnt out."""
    torch.manual_seed(3)
    centres = torch.tensor([[2.0, 0, 0, 1], [0, 2, 1, 0], [1, 0, 2, 2]])
    labels = torch.arange(240) % 3
    samples = (centres[labels] + 0.3 * torch.randn(240, 4)).clamp(0, 4) / 4
    train, test = (torch.utils.data.TensorDataset(samples[part], labels[part]) for part in (
        slice(180), slice(180, None)
    ))  # fmt: skip
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3), nn.Softmax(dim=1))
    network = Network.from_torch(module)
    data = Dataset.from_torch(torch.utils.data.DataLoader(train, batch_size=50, shuffle=True), test)
    schedule = Schedule("sequential", iterations=3, step_size=0.1)
    run(Experiment(network, data, SGD(0.5), schedule, batch=12, epochs=30))
    right = told(network.to_torch(), test.tensors[0]).argmax(1) == test.tensors[1].numpy()
    before = told(module, test.tensors[0]).argmax(1) == test.tensors[1].numpy()
    assert before.mean() < 0.8
    assert right.mean() > 0.95


def odd(*modules: nn.Module) -> nn.Sequential:
    """Modules with a layer below and one above."""
    return nn.Sequential(nn.Linear(3, 3), *modules, nn.Linear(3, 2))


def image(*modules: nn.Module) -> nn.Sequential:
    """Modules that read images, with a layer above."""
    return nn.Sequential(*modules, nn.Flatten(), nn.Linear(4, 2))


@pytest.mark.parametrize(
    ("module", "saying"),
    [
        (nn.Linear(3, 2), "module is a Linear: expected a torch.nn.Sequential"),
        (odd(nn.Dropout()), "module '1' is a Dropout: expected one of Linear, Conv2d"),
        (odd(nn.BatchNorm1d(3)), "module '1' is a BatchNorm1d"),
        (odd(nn.TransformerEncoderLayer(4, 2)), "module '1' is a TransformerEncoderLayer"),
        (odd(nn.LeakyReLU(0.2)), "negative_slope=0.2) here: expected negative_slope=0.01"),
        (odd(nn.GELU(approximate="tanh")), "expected approximate='none'"),
        (odd(nn.ReLU(), nn.Tanh()), "module '2' is Tanh() here: expected Linear, activation"),
        (odd(nn.Softmax(dim=1)), "module '1' is Softmax(dim=1) here"),
        (odd(nn.ReLU(), nn.Linear(3, 3)), "activations identity, relu: expected the same one"),
        (nn.Sequential(nn.Linear(3, 2), nn.ReLU()), "expected Softmax, Sigmoid or nothing at the end"),
        (nn.Sequential(nn.Linear(3, 2), nn.Softmax(dim=0)), "expected dim=1"),
        (
            nn.Sequential(nn.ReLU(), nn.Linear(3, 2)),
            "module '0' is a ReLU(): expected Linear or Conv2d first",
        ),
        (nn.Sequential(nn.Linear(3, 2, bias=False)), "module '0' has no bias: expected bias=True"),
        (nn.Sequential(nn.Linear(3, 2)).half(), "expected float32 or float64"),
        (nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2).double()), "dtypes of the parameters"),
        (nn.Sequential(), "no Linear in it"),
        (nn.Sequential(nn.Flatten(), nn.Conv2d(1, 1, 3)), "expected Conv2d to read it"),
        (image(nn.Conv2d(1, 1, 3, padding=1)), "expected padding=0, dilation=1, groups=1"),
        (image(nn.Conv2d(1, 1, 3, padding="same")), "expected padding=0"),
        (image(nn.Conv2d(1, 1, (3, 2))), "expected a square kernel"),
        (image(nn.Conv2d(1, 1, 3), nn.MaxPool2d(2, stride=1)), "expected a square window"),
        (image(nn.Conv2d(1, 1, 3), nn.AvgPool2d(2, ceil_mode=True)), "ceil_mode=False"),
        (image(nn.Conv2d(1, 1, 3), nn.MaxPool2d(2), nn.ReLU()), "expected Linear, activation; or Conv2d"),
        (nn.Sequential(nn.Conv2d(1, 1, 3)), "expected 'dense N' as the output"),
    ],
)
def test_what_has_no_equal_gets_one_line(module, saying):
    """A module that pcsim would run differently is refused and named; nothing is approximated."""
    first = next(iter(module.children()), None)
    shape = (1, 6, 6) if isinstance(first, nn.Conv2d) else None
    with pytest.raises(PcsimError) as caught:
        Network.from_torch(module, shape)
    assert saying in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_arguments_that_contradict_the_module():
    """What the module says cannot be said again, and images have a size."""
    module, twice = nn.Sequential(nn.Linear(3, 2), nn.Sigmoid()), nn.Linear(3, 3)
    with pytest.raises(ConfigurationError, match="expected 'sigmoid', with which the module ends"):
        Network.from_torch(module, output="softmax")
    with pytest.raises(ConfigurationError, match="activation = 'relu': expected nothing"):
        Network.from_torch(module, activation="relu")
    with pytest.raises(ConfigurationError, match="expected none, since the first module is a Linear"):
        Network.from_torch(module, (1, 2, 3))
    with pytest.raises(ConfigurationError, match=r"expected image=\(1, height, width\)"):
        Network.from_torch(image(nn.Conv2d(1, 1, 3)))
    with pytest.raises(ConfigurationError, match="weights of their own"):
        Network.from_torch(nn.Sequential(twice, nn.ReLU(), twice))
    with pytest.raises(ShapeError, match="of layer 1: expected"):
        Network.from_torch(image(nn.Conv2d(1, 1, 3)), (1, 9, 9))


def test_without_torch():
    """Everything but the exchange works without torch; what is missing is said in one line."""
    code = """
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "torch" else found(name, *rest)
import pcsim
network = pcsim.Network.dense([2, 2])
assert "torch" not in sys.modules
try:
    network.to_torch()
except pcsim.PcsimError as error:
    print(error)
"""
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert outcome.stdout == "networks from and to torch need torch; install pcsim[torch]\n"
