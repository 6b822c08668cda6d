"""Orders that nobody would write: every engine does what the list says, operation by operation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import act, out, slope

import pcsim
from pcsim.kernels import reference
from pcsim.kernels.cpu import CpuKernels

RATE = 0.3
MIX = 0.25  # of out(p_L) in the clamped output: proximal step 3
PRECISION, DECAY = [1, 0.5, 2, 1.5, 0.7, 1.2], [0, 0.1, 0.2, 0.05, 0.3]
MOVES = ("relax", "compare", "predict", "clamp", "settle", "learn", "learn all")


@dataclass(frozen=True)
class Order:
    """Random moves, (what, where) in each iteration, between a forward sweep and a learning phase."""

    iterations: tuple[tuple[tuple[str, int], ...], ...]
    settles: bool

    def __call__(self, ops):
        yield from ops.forward_sweep()
        for iteration, moves in enumerate(self.iterations, 1):
            for what, where in moves:
                yield from self._move(ops, what, where, iteration)
        if self.settles:
            yield from ops.settle(len(self.iterations))
        yield from ops.learning_phase()

    @staticmethod
    def _move(ops, what, where, iteration):
        if what == "settle":
            yield from ops.settle(iteration)
        elif what == "learn all":
            yield from ops.learning_phase(iteration)
        elif what == "clamp":
            yield ops.clamp(ops.top, iteration)
        elif what == "relax":
            yield ops.relax(1 + where % (ops.top - 1), iteration)
        elif what == "compare":
            yield ops.compare(1 + where % ops.top, iteration)
        else:
            yield getattr(ops, what)(where % ops.top, iteration)


MOVE = st.tuples(st.sampled_from(MOVES), st.integers(0, 11))
MOVES_OF_ALL = st.lists(st.lists(MOVE, max_size=9).map(tuple), max_size=3).map(tuple)
ORDERS = st.builds(Order, MOVES_OF_ALL, st.booleans())


class Interpreter:
    """Does one listed operation after the other, on arrays that nothing shares."""

    def __init__(self, network, steps):
        self.network, self.steps, self.top = network, steps, network.top
        self.weights = [weight.copy() for weight, _ in network.parameters]
        self.biases = [bias.copy() for _, bias in network.parameters]
        self.activity, self.error, self.below, self.above = ({} for _ in range(4))

    def do(self, name, layer, iteration, x, y):
        """Do an operation; `below` and `above` are the inboxes."""
        traits = self.network.traits[layer]
        f, top = traits.activation, layer == self.top
        if name == "initialise":
            self.activity[layer] = self.below[layer].copy()
        elif name == "clamp":
            said = MIX * out(traits.output, self.below[layer]) if top else 0
            self.activity[layer] = (1 - MIX) * y + said if top else x.copy()
        elif name == "predict":
            rates = act(f, self.activity[layer])
            self.below[layer + 1] = rates @ self.weights[layer].T + self.biases[layer]
        elif name == "compare":
            expected = out(traits.output, self.below[layer]) if top else self.below[layer]
            self.error[layer] = self.activity[layer] - expected
            self.above[layer - 1] = self.error[layer].copy()
        elif name == "relax":
            here, gate = self.activity[layer], slope(f, self.activity[layer])
            back = PRECISION[layer + 1] * self.above[layer] @ self.weights[layer]
            change = gate * back - PRECISION[layer] * self.error[layer] - DECAY[layer] * gate * act(f, here)
            self.activity[layer] = here + self.steps[iteration - 1] * change
        elif name == "learn":
            error, rates = self.above[layer], act(f, self.activity[layer])
            self.weights[layer] = self.weights[layer] + RATE * error.T @ rates / len(x)
            self.biases[layer] = self.biases[layer] + RATE * error.mean(axis=0)
        else:
            raise AssertionError(name)


def network_of(depth, activation, output):
    sizes = [3, 7, 5, 6, 4, 2][: depth + 1]
    return pcsim.Network.dense(
        sizes,
        activation=activation,
        output=output,
        proximal_step=3,
        dtype="float64",
        seed=depth,
        precision=PRECISION[: depth + 1],
        activity_decay=[*DECAY[:depth], 0],
    )


@pytest.mark.parametrize("kernels", [reference, CpuKernels()], ids=["reference", "cpu"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    order=ORDERS,
    depth=st.integers(2, 5),
    activation=st.sampled_from(["relu", "leaky_relu", "tanh"]),
    output=st.sampled_from(["softmax", "sigmoid", "identity"]),
    batch=st.sampled_from([1, 3]),
    seed=st.integers(0, 9),
)
def test_orders_do_what_they_list(kernels, order, depth, activation, output, batch, seed):
    """What is left out, fused, or kept in one array must not be seen in any number."""
    network = network_of(depth, activation, output)
    schedule = pcsim.Schedule(order, iterations=len(order.iterations), step_size=0.2)
    operations = schedule.operations(network)
    expected, listed = Interpreter(network, operations.step_sizes), list(order(operations))
    rng = np.random.default_rng(seed)
    xs = rng.standard_normal((3, batch, network.sizes[0]))
    ys = np.eye(network.sizes[-1])[rng.integers(0, network.sizes[-1], (3, batch))]
    for x, y in zip(xs, ys, strict=True):
        for one in listed:
            expected.do(one.name, one.layer, one.iteration, x, y)
    for engine in ("fast", "event"):
        trained = network_of(depth, activation, output)
        program = pcsim.Program.build(trained, schedule)
        units = trained.layers(batch, pcsim.SGD(RATE), kernels)
        simulated = engine == "event"
        runs = pcsim.EventEngine(program, units, pcsim.unit(), batch) if simulated else None
        runs = runs or pcsim.FastEngine(program, units)
        for x, y in zip(xs, ys, strict=True):
            runs.step(x, y)
        for layer, unit in enumerate(units):
            close(unit.activity, expected.activity[layer])
            if layer:
                close(unit.error, expected.error[layer])
        for (weight, bias), *wanted in zip(
            trained.parameters, expected.weights, expected.biases, strict=True
        ):
            close(weight, wanted[0])
            close(bias, wanted[1])


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-11)


def test_learning_between_relaxing_and_comparing():
    """All learn from the errors as they were, then compare in silence: nobody reads what that forms below."""

    def order(ops):
        yield from ops.forward_sweep()
        for iteration in ops.iterations:
            for layer in ops.hidden:
                yield ops.relax(layer, iteration)
            yield from ops.learning_phase(iteration)
            for layer in range(1, ops.top + 1):
                yield ops.compare(layer, iteration)

    weights = []
    for kernels in (reference, CpuKernels()):
        network = network_of(4, "relu", "softmax")
        program = pcsim.Program.build(network, pcsim.Schedule(order, iterations=1, step_size=0.5))
        engine = pcsim.FastEngine(program, network.layers(3, pcsim.SGD(0.5), kernels))
        rng = np.random.default_rng(0)
        for _ in range(3):
            engine.step(rng.standard_normal((3, 3)), np.eye(4)[rng.integers(0, 4, 3)])
        weights.append([weight for weight, _ in network.parameters])
    for ours, wanted in zip(*weights, strict=True):
        close(ours, wanted)
