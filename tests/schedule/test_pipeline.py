"""Pipelines of mini-batches: the exact one keeps every dependency, the stale one only those that it names."""

import numpy as np
import pytest

from pcsim.engine.fast import FastEngine
from pcsim.errors import ConfigurationError, ProgramError
from pcsim.learning import SGD
from pcsim.network.network import Network
from pcsim.schedule.backpropagation import backpropagation
from pcsim.schedule.parallelism import Graph
from pcsim.schedule.pipeline import interval, repeated
from pcsim.schedule.program import Program, Schedule

DEPTHS = (3, 4, 5, 8)


def program(order, depth: int, iterations: int, width: int = 1) -> Program:
    """An order written out for equal widths."""
    return Program.build(Network.dense([width] * (depth + 1)), Schedule(order, iterations))


@pytest.mark.parametrize("depth", DEPTHS)
def test_exact_intervals_in_closed_form(depth):
    """The next mini-batch follows simultaneous inference layer by layer, but waits for sequential's wave.

    Simultaneous: 2 T + 2, whatever the depth: each layer predicts and relaxes T times, learns, predicts anew.
    Sequential: 2 L − 3 + 3 T, one product less than alone. Backpropagation: 2 L, nothing overlaps.
    """
    for T in (1, 2, 3, 5):
        assert interval(program("simultaneous", depth, T), None) == 2 * T + 2
        assert interval(program("sequential", depth, T), None) == 2 * depth - 3 + 3 * T
        assert interval(program("incremental", depth, T), None) == 4 * T
    assert interval(program(backpropagation, depth, 1), None) == 2 * depth


@pytest.mark.parametrize("order", ["simultaneous", "sequential", "red-black", backpropagation])
def test_windows_share_the_span(order):
    """With w mini-batches under way and any number of cores, each of the w slots takes as long as before."""
    chosen = program(order, 5, 1 if order is backpropagation else 2)
    exact = interval(chosen, None)
    for window in (2, 4):
        assert interval(chosen, None, window=window) == pytest.approx(exact / window, rel=1e-9)


@pytest.mark.parametrize("order", ["simultaneous", "sequential", "bottom-up", backpropagation])
def test_old_weights_leave_only_the_work(order):
    """With a core a neuron and a wide window the cores are always busy: work over cores, nearly."""
    chosen = program(order, 5, 1 if order is backpropagation else 3)
    products = Graph.of_multiplications(chosen).total
    assert interval(chosen, 5, window=8, mini_batches=24) == pytest.approx(products / 5, rel=0.03)
    assert interval(chosen, 1, window=4) == products
    assert interval(chosen, 1) == products


def test_width_does_not_matter_with_a_core_a_neuron():
    """The study has one neuron a layer in pipelines: wide layers must take as many products."""
    for window in (1, 4):
        thin, wide = (program("sequential", 4, 2, width) for width in (1, 6))
        assert interval(wide, 24, window=window) == 6 * interval(thin, 4, window=window)


def test_exact_pipelines_give_the_same_bits(rng):
    """Any linear extension of the exact graph must leave the weights of one mini-batch after the other."""
    weights = []
    for seed in (None, 0, 1, 2):
        network = Network.dense([3, 4, 5, 2], dtype="float64", seed=1)
        several = repeated(Program.build(network, Schedule("simultaneous", 2)), 3)
        chosen = several if seed is None else several.reordered(np.random.default_rng(seed))
        engine = FastEngine(chosen, network.layers(2, SGD(0.1)))
        engine.step(np.full((2, 3), 0.5), np.eye(2))
        network.gather(engine.layers)
        weights.append(np.concatenate([weight.ravel() for weight, _ in network.parameters]))
    for other in weights[1:]:
        np.testing.assert_array_equal(weights[0], other)


def test_a_stale_copy_waits_for_the_weights_of_its_window():
    """Mini-batch b must wait for the learning of b − w at its layer, and for nobody's in between."""
    one = program("simultaneous", 3, 1)
    several, size = repeated(one, 6, window=3), len(one.operations)
    for index, before in enumerate(several.dependencies):
        number, operation = index // size, one.operations[index % size]
        learnt = {
            i // size for i in before if one.operations[i % size].name == "learn" and i // size != number
        }
        if operation.name == "learn":
            assert max(learnt, default=-1) == number - 1
        elif operation.name == "predict" and operation.iteration == 0 and number >= 3:
            assert learnt == {number - 3}
        else:
            assert max(learnt, default=-1) <= max(number - 3, -1)


def test_what_cannot_be_stale_is_refused():
    """Incremental learning reads what it has just learnt; a window below one is none."""
    with pytest.raises(ProgramError, match="learns 2 times"):
        repeated(program("incremental", 3, 2), 2, window=2)
    for mini_batches, window in ((0, 1), (2, 0)):
        with pytest.raises(ConfigurationError):
            repeated(program("simultaneous", 3, 2), mini_batches, window)
