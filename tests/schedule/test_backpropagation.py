"""Backpropagation written as a program against torch's gradients."""

import numpy as np
import pytest

from pcsim.engine.backprop import BackpropEngine
from pcsim.engine.fast import FastEngine
from pcsim.engine.observer import Statistics
from pcsim.learning import SGD
from pcsim.network.network import Network
from pcsim.schedule.backpropagation import backpropagation
from pcsim.schedule.program import Program, Schedule


def network(activation: str = "tanh", clamp: float = float("inf")) -> Network:
    """A small network, the same each time."""
    return Network.dense([3, 5, 4, 6, 2], activation=activation, proximal_step=clamp, dtype="float64", seed=3)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "identity", "relu"])
def test_it_learns_what_torch_learns(activation, rng):
    """What is counted as backpropagation must be backpropagation: the same weights after three updates."""
    local, torched = network(activation), network(activation)
    rule, statistics = SGD(0.1), Statistics(0, local.top)
    engine = FastEngine(Program.build(local, Schedule(backpropagation, 1)), local.layers(4, rule))
    baseline = BackpropEngine(torched, rule, 4, statistics)
    for _ in range(3):
        inputs, targets = rng.normal(size=(4, 3)), np.eye(2)[rng.integers(2, size=4)]
        engine.step(inputs, targets)
        baseline.step(inputs, targets)
    local.gather(engine.layers)
    for own, other in zip(local.parameters, torched.parameters):
        np.testing.assert_allclose(own[0], other[0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(own[1], other[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("clamp", [float("inf"), 100.0])
def test_it_is_local(clamp):
    """Every operation must touch only what its layer owns and receives, as all orders do."""
    program = Program.build(network(clamp=clamp), Schedule(backpropagation, 1))
    program.check_locality()
    assert [operation.layer for operation in program.operations if operation.name == "send_back"] == [3, 2, 1]


def test_three_products_a_connection_but_one():
    """L up, L − 1 down (the input needs no gradient), L updates; L predictions and L errors are sent."""
    cost = Program.build(network(), Schedule(backpropagation, 1)).cost(batch=1)
    forward = 3 * 5 + 5 * 4 + 4 * 6 + 6 * 2
    assert cost.multiplications == 3 * forward - 3 * 5
    assert (cost.matrix_products, cost.messages) == (11, 8)
