"""Two operations in one pass: the same numbers, and only where nobody can tell."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pcsim
from pcsim.engine import fusion
from pcsim.engine.event import EventEngine
from pcsim.engine.observer import Statistics
from pcsim.hardware.clock import unit
from pcsim.kernels import reference
from pcsim.kernels.cpu import CpuKernels
from pcsim.network.layer import Layer
from pcsim.schedule.operation import Relax

ORDERS = ["sequential", "simultaneous", "bottom-up", "red-black", "incremental"]


def program_of(order, activation="relu", iterations=3):
    """Return a program and its network with decay and precisions, so that every term counts."""
    network = pcsim.Network.dense(
        [6, 9, 8, 7, 4],
        activation=activation,
        dtype="float64",
        seed=1,
        precision=[1, 0.5, 2, 1.5, 3],
        activity_decay=[0, 0.1, 0.2, 0.3, 0],
    )
    return pcsim.Program.build(network, pcsim.Schedule(order, iterations=iterations, step_size=0.3))


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "identity"])
@pytest.mark.parametrize("order", ORDERS)
def test_same_numbers(order, activation, monkeypatch):
    """Fused, both engines learn the same bits; step by step, and by the reference, they learn the same."""
    found, fused, times = [], [], []
    both = Layer.relax_and_predict
    monkeypatch.setattr(Layer, "relax_and_predict", lambda *given: fused.append(given) or both(*given))
    for kernels, event in (
        (CpuKernels(), False),
        (CpuKernels(), True),
        (CpuKernels(), None),
        (reference, False),
    ):
        if event is None:
            monkeypatch.setattr(fusion, "pairs", lambda *_: {})
        program = program_of(order, activation)
        layers = program.network.layers(1, pcsim.MQ(1e-2), kernels)
        engine = EventEngine(program, layers, unit(), 1) if event else pcsim.FastEngine(program, layers)
        rng = np.random.default_rng(2)
        for _ in range(4):
            engine.step(rng.random((1, 6)), np.eye(4)[rng.integers(0, 4, 1)])
        times.append(len(fused))
        found.append([weight for weight, _ in program.network.parameters] + [one.activity for one in layers])
    assert times == [times[0], 2 * times[0], 2 * times[0], 2 * times[0]]  # the last two fuse nothing
    assert times[0] > 0
    for ours, also, plain, expected in zip(*found, strict=True):
        assert_array_equal(ours, also)
        assert_allclose(ours, plain, rtol=1e-13, atol=1e-15)
        assert_allclose(ours, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("order", ["sequential", "simultaneous"])
def test_every_relaxation_takes_its_prediction_along(order):
    """The paper's two orders leave nothing unfused: 3 hidden layers, 3 iterations."""
    program = program_of(order)
    pairs = fusion.pairs(program, program.network.layers(1, pcsim.SGD(0.1), CpuKernels()))
    assert len(pairs) == 9
    both_ends = fusion.actions(program, program.network.layers(1, pcsim.SGD(0.1), CpuKernels()))
    ends = {id(program.operations[index]) for pair in pairs.items() for index in pair}
    assert both_ends.keys() == ends  # neither is done a second time
    for relax, predict in pairs.items():
        assert program.operations[relax].layer == program.operations[predict].layer
        assert program.operations[predict].name == "predict"


def test_old_prediction_that_is_still_needed():
    """If the layer above compares in between, the prediction must not come early."""

    def late(ops):
        yield from ops.forward_sweep()
        for layer in reversed(ops.hidden):
            yield ops.relax(layer, 1)
        for layer in ops.hidden:
            yield ops.compare(layer, 1)  # with the old prediction
        yield from ops.settle(1)
        yield from ops.learning_phase()

    network = pcsim.Network.dense([6, 5, 5, 3], dtype="float64")
    program = pcsim.Program.build(network, pcsim.Schedule(late, iterations=1))
    pairs = fusion.pairs(program, network.layers(1, pcsim.SGD(0.1), CpuKernels()))
    relaxed = {program.operations[index].layer for index in pairs}
    assert relaxed == {2}  # nobody compares with layer 2's own prediction but the output, later


def test_only_where_the_layer_can():
    """Mini-batches, curved activations and other kernels go step by step."""
    for activation, batch, kernels in (
        ("relu", 2, CpuKernels()),
        ("tanh", 1, CpuKernels()),
        ("relu", 1, reference),
    ):
        program = program_of("sequential", activation)
        assert any(isinstance(one.action, Relax) for one in program.operations)
        assert fusion.pairs(program, program.network.layers(batch, pcsim.SGD(0.1), kernels)) == {}


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("output", ["softmax", "sigmoid", "identity"])
@pytest.mark.parametrize("beta", [100.0, np.inf], ids=["soft", "hard"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh"])
def test_comparing_on_the_way_changes_no_bit(activation, beta, output, batch, monkeypatch):
    """Layers in processes of their own compare by themselves, and promise the fast engine's bits."""
    found = []
    for fuses in (True, False):
        if not fuses:
            monkeypatch.setattr(fusion, "comparisons", lambda *_: {})
        network = pcsim.Network.dense(
            [6, 9, 8, 4],
            activation=activation,
            output=output,
            proximal_step=beta,
            precision=[1, 0.5, 2, 1.5],
            activity_decay=[0, 0.1, 0.2, 0],
            seed=1,
        )
        program = pcsim.Program.build(network, pcsim.Schedule("sequential", iterations=3, step_size=0.3))
        layers = network.layers(batch, pcsim.MQ(1e-2), CpuKernels())
        statistics = Statistics(3, network.top)
        engine, rng = pcsim.FastEngine(program, layers, [statistics]), np.random.default_rng(2)
        tables = []
        for _ in range(3):
            targets = np.eye(4, dtype="float32")[rng.integers(0, 4, batch)]
            engine.step(rng.random((batch, 6), dtype="float32"), targets)
            tables += [statistics.squared_error.copy(), statistics.free_energy.copy()]
        found.append([*tables, *(array for unit in layers for array in (unit.activity, unit.error))])
        found[-1] += [array for pair in network.parameters for array in pair]
    for ours, plain in zip(*found, strict=True):
        assert_array_equal(ours, plain)


@pytest.mark.parametrize(("order", "fused"), [("sequential", 9 + 4), ("simultaneous", 3 + 4)])
def test_what_compares_on_the_way(order, fused):
    """Every clamp of the output; sequential: every relaxation, simultaneous: that of layer 1.

    Its prediction comes from the input, which does not move; the others' come in between.
    """
    program = program_of(order)
    found = fusion.comparisons(program, program.network.layers(2, pcsim.SGD(0.1), CpuKernels()))
    assert len(found) == fused
    for first, (second, _) in found.items():
        one, other = program.operations[first], program.operations[second]
        assert (one.layer, other.name) == (other.layer, "compare")
        assert one.name in ("relax", "clamp")


def test_a_prediction_that_comes_in_between():
    """The error must be that to the new prediction: then it cannot be formed early."""

    def late(ops):
        yield from ops.forward_sweep()
        for layer in reversed(ops.hidden):
            yield ops.relax(layer, 1)
        yield from ops.settle(1)
        yield from ops.learning_phase()

    network = pcsim.Network.dense([6, 5, 5, 3], dtype="float64")
    program = pcsim.Program.build(network, pcsim.Schedule(late, iterations=1))
    found = fusion.comparisons(program, network.layers(2, pcsim.SGD(0.1), CpuKernels()))
    relaxed = {
        program.operations[index].layer for index in found if program.operations[index].name == "relax"
    }
    assert relaxed == {1}  # whose prediction comes from the input, which does not move


def test_the_reference_compares_by_itself():
    """It reads like the equations, one after the other."""
    program = program_of("sequential")
    assert fusion.comparisons(program, program.network.layers(2, pcsim.SGD(0.1), reference)) == {}
