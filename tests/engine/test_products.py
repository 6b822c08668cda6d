"""What is said of who multiplies must be what training then asks for, no more and no less."""

import numpy as np
import pytest
from strategies import RULES

from pcsim.engine.fast import FastEngine
from pcsim.engine.products import settle_products
from pcsim.kernels import reference
from pcsim.kernels.cpu import CpuKernels
from pcsim.kernels.products import Choices
from pcsim.network.network import Network
from pcsim.schedule.program import Program, Schedule

CONV = ("2x9x8", "conv 3 3x3/2", "conv 4 2x2/1", "dense 5", "dense 3")


class Listening(Choices):
    """Lets NumPy compute every other product that it is asked about, and remembers them all."""

    def __init__(self):
        super().__init__()
        self.told = {}

    def best(self, product, batch, inputs, outputs, dtype):
        """Choose by whose turn it is."""
        name = ("pcsim", "numpy")[len(self.told) % 2]
        self.told[f"{product} {batch}x{inputs}x{outputs}"] = name
        return self.provider(name)


def trained(network, batch, rule, kernels):
    """Run one mini-batch."""
    program = Program.build(network, Schedule("sequential", 3, 0.1))
    rng = np.random.default_rng(0)
    shapes = ((batch, network.sizes[0]), (batch, network.sizes[-1]))
    inputs, targets = (rng.random(shape).astype(network.dtype) for shape in shapes)
    FastEngine(program, network.layers(batch, RULES[rule], kernels)).step(inputs, targets)


@pytest.mark.parametrize("rule", ["sgd", "mq", "adam"])
@pytest.mark.parametrize("layers", [("6", "dense 5", "dense 4", "dense 3"), CONV], ids=["dense", "conv"])
def test_what_is_settled_is_what_training_asks(layers, rule):
    """A trace would name products that nobody forms, or leave out one that decides its last bits."""
    asked, said = Listening(), Listening()
    network = Network.of(layers, dtype="float64", seed=1)
    trained(network, 8, rule, CpuKernels(choices=asked))
    settled = settle_products(network, 8, CpuKernels(choices=said))
    assert settled == said.told
    assert settled.keys() == asked.told.keys()
    assert len(settled) >= 5


def test_settled_products_stay(monkeypatch):
    """Who was named before training multiplies in training, although another would be chosen by then."""
    choices = Listening()
    kernels, network = CpuKernels(choices=choices), Network.dense([6, 5, 4, 3], dtype="float64")
    settled = settle_products(network, 8, kernels)
    monkeypatch.delattr(Listening, "best")
    monkeypatch.delattr(Choices, "best")  # whoever asks anew fails
    trained(network, 8, "sgd", kernels)
    assert settled == choices.told


def test_other_kernels_have_nothing_to_settle():
    """The reference leaves all products to NumPy."""
    assert settle_products(Network.dense([6, 5, 3]), 8, reference) == {}
