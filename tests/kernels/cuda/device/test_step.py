"""Whole training steps on the device: a tiny network against the reference."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from pcsim.engine.fast import FastEngine
from pcsim.learning import MQ, SGD, Adam
from pcsim.network.layer import Layer, MessageKind
from pcsim.network.network import Network
from pcsim.schedule.program import Program, Schedule


class DeviceLayer(Layer):
    """A layer whose arrays are made by its kernels: what `Layer` itself would need for a device."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        for name in ("activity", "error", "outgoing", "feedback", "weight", "bias"):
            if hasattr(self, name):
                setattr(self, name, self.kernels.to_device(getattr(self, name)))


class DeviceEngine(FastEngine):
    """An engine whose letter boxes are device arrays."""

    def __init__(self, program, layers, kernels):
        with pytest.MonkeyPatch.context() as patch:
            zeros_like = np.zeros_like
            patch.setattr(np, "zeros_like", lambda array: kernels.to_device(zeros_like(array.copy())))
            super().__init__(program, layers)

    def _letter_box(self, operation):
        if operation.sends is None:
            return None
        inbox = self.layers[operation.target].inbox[operation.sends]

        def deliver(payload):
            if payload is not inbox:
                inbox[...] = payload

        return deliver


def on_device(learner, kernels):
    """Move the state of a learner to the device."""
    if hasattr(learner, "mean_gradient"):
        learner.mean_gradient = kernels.to_device(learner.mean_gradient)
    if hasattr(learner, "moments"):
        learner.moments = tuple(kernels.to_device(moment) for moment in learner.moments)
    return learner


def device_engine(network, program, rule, batch, kernels):
    """Make the units of a network on the device."""
    layers = [
        DeviceLayer(
            traits,
            batch,
            network.dtype,
            kernels,
            connection,
            parameters,
            on_device(rule(*parameters), kernels),
        )
        for traits, connection, parameters in zip(network.traits, network.connections, network.parameters)
    ]
    layers.append(DeviceLayer(network.traits[-1], batch, network.dtype, kernels))
    return DeviceEngine(program, layers, kernels)


@pytest.mark.parametrize(
    ("order", "rule", "output", "beta"),
    [
        ("sequential", MQ(0.05), "softmax", 100.0),
        ("simultaneous", Adam(0.01), "sigmoid", 100.0),
        ("sequential", SGD(0.1), "identity", float("inf")),
    ],
    ids=["mq-softmax", "adam-sigmoid", "sgd-identity-hard"],
)
def test_two_training_steps(order, rule, output, beta, small_kernels, rng, close):
    """Through the program and the layers of pcsim: activities, errors, weights, magnitudes."""
    network, twin = (
        Network.dense(
            [5, 4, 6, 3], activation="tanh", output=output, proximal_step=beta, dtype="float64", seed=3
        )
        for _ in range(2)
    )
    program = Program.build(network, Schedule(order, iterations=2, step_size=0.1))
    host = FastEngine(program, network.layers(3, rule))
    device = device_engine(twin, program, rule, 3, small_kernels)
    for _ in range(2):
        inputs, targets = rng.normal(size=(3, 5)), rng.uniform(size=(3, 3))
        host.step(inputs, targets)
        device.step(small_kernels.to_device(inputs), small_kernels.to_device(targets))
        for unit, other in zip(host.layers, device.layers):
            close(other.activity, unit.activity)
            close(other.error, unit.error)
            assert other.squared_error() == pytest.approx(unit.squared_error(), rel=1e-12, abs=1e-15)
            if unit.connection is not None:
                close(other.weight, unit.weight)
                close(other.bias, unit.bias)
                assert float(other.update_magnitude) == pytest.approx(unit.update_magnitude, rel=1e-12)


def fused_sequential_step(engine, rules, kernels, steps):
    """SeqIL-MQ with every fusion on the device: what a CUDA graph would hold.

    The last error of a layer is written straight into the inbox below, f(ĥ) straight into the operand of the
    next product, and clamp, output error and message are one kernel.
    """
    layers, kind, top = engine.layers, MessageKind, len(engine.layers) - 1
    rates = [kernels.scratch(f"fired {i}", unit.activity.shape, np.float64) for i, unit in enumerate(layers)]

    def predict(i):
        unit = layers[i]
        operand = rates[i] if i else unit.activity
        kernels.predict_from_rates(operand, unit.weight, unit.bias, unit.outgoing)

    def clamp():
        unit = layers[top]
        given = unit.target, unit.inbox[kind.PREDICTION], unit.traits.output, unit.traits.mix
        kernels.clamp_and_compare(*given, unit.activity, unit.error, layers[top - 1].inbox[kind.ERROR])

    layers[0].clamp()
    predict(0)
    for i in range(1, top):
        unit = layers[i]
        unit.initialise()
        kernels.compare(unit.activity, unit.inbox[kind.PREDICTION], unit.error)
        kernels.fire(unit.activity, unit.connection.activation, rates[i])
        predict(i)
    clamp()
    for step in steps:
        for i in reversed(range(1, top)):
            unit, traits = layers[i], layers[i].traits
            kernels.feedback(unit.inbox[kind.ERROR], unit.weight, traits.precision_above, unit.feedback)
            kernels.relax_and_compare(
                *(unit.activity, unit.error, unit.feedback, unit.inbox[kind.PREDICTION]),
                *(unit.connection.activation, step, traits.precision, traits.activity_decay),
                message=layers[i - 1].inbox[kind.ERROR],
                rates=rates[i],
            )
        for i in range(1, top):
            predict(i)
        for i in range(2, top):
            kernels.compare(
                layers[i].activity, layers[i].inbox[kind.PREDICTION], layers[i - 1].inbox[kind.ERROR]
            )
            layers[i].error[...] = layers[i - 1].inbox[kind.ERROR]
        clamp()
    for unit, (rule, state) in zip(layers, rules):
        constants = (rule.rate, rule.minimum_rate, rule.r, rule.decay)
        arrays = (unit.weight, unit.bias, unit.inbox[kind.ERROR], unit.activity)
        kernels.mq_step_counted(*arrays, unit.connection.activation, state, *constants)


def fused_case(kernels, rng):
    """A host engine, a device engine, MQ's state on the device, and mini-batches."""
    network, twin = (
        Network.dense([5, 4, 6, 3], activation="tanh", dtype="float64", precision=[1, 2, 3, 1], seed=3)
        for _ in range(2)
    )
    schedule = Schedule("sequential", iterations=2, step_size=0.1)
    program, rule = Program.build(network, schedule), MQ(0.05, decay=0.6)
    host = FastEngine(program, network.layers(3, rule))
    device = device_engine(twin, program, rule, 3, kernels)
    rules = [
        (rule, (kernels.to_device(np.array([rule.rate])), kernels.zeros((1,), np.float64)))
        for _ in pairwise(device.layers)
    ]
    device.layers[0].target = kernels.zeros((3, 5), np.float64)
    device.layers[-1].target = kernels.zeros((3, 3), np.float64)
    data = [(rng.normal(size=(3, 5)), np.eye(3)[rng.permutation(3)]) for _ in range(3)]
    return host, device, rules, data


def compare_engines(host, device, close):
    """All that learning leaves behind."""
    for unit, other in zip(host.layers[:-1], device.layers):
        close(other.weight, unit.weight)
        close(other.bias, unit.bias)
        close(other.activity, unit.activity)


def test_a_fused_step_is_the_unfused_one(small_kernels, rng, close):
    """Three steps with every fusion and with counts on the device, against the plain program on the host."""
    host, device, rules, data = fused_case(small_kernels, rng)
    for inputs, targets in data:
        host.step(inputs, targets)
        device.layers[0].target[...], device.layers[-1].target[...] = inputs, targets
        fused_sequential_step(device, rules, small_kernels, [0.1, 0.05])
        compare_engines(host, device, close)


def test_a_step_replayed_as_a_cuda_graph(small_kernels, rng, close):
    """The first step is run, the second recorded and replayed, the third replayed: all as on the host."""
    from pcsim.kernels.cuda_arrays import TorchProducts

    products = small_kernels.products
    if not isinstance(products, TorchProducts):
        pytest.skip("CUDA graphs need a GPU: Numba's simulator has none")
    host, device, rules, data = fused_case(small_kernels, rng)
    run = lambda: fused_sequential_step(device, rules, small_kernels, [0.1, 0.05])  # noqa: E731
    replay = None
    for inputs, targets in data:
        host.step(inputs, targets)
        device.layers[0].target[...], device.layers[-1].target[...] = inputs, targets
        if replay is None:
            run()
            replay = products.capture(run)
        else:
            replay()
        compare_engines(host, device, close)
