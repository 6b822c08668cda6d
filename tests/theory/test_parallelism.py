"""Closed forms of work, span and messages against programs and the event simulator."""

import numpy as np
import pytest

from pcsim.engine.event import EventEngine
from pcsim.errors import ConfigurationError
from pcsim.hardware.clock import Hardware, unit
from pcsim.learning import SGD
from pcsim.network.network import Network
from pcsim.schedule.backpropagation import backpropagation
from pcsim.schedule.parallelism import Graph
from pcsim.schedule.program import Program, Schedule
from pcsim.theory.parallelism import BACKPROP, STATIC, counts

WIDTH = 4
POINTS = [(depth, T) for depth in (*range(2, 10), 14, 21, 33) for T in (1, 2, 3, 4, 7, 12) if depth * T < 150]


def written(order: str, depth: int, iterations: int) -> Program:
    """The order written out for equal widths."""
    chosen = backpropagation if order == BACKPROP else order
    return Program.build(Network.dense([WIDTH] * (depth + 1)), Schedule(chosen, iterations))


@pytest.mark.parametrize("order", [*STATIC, BACKPROP])
def test_closed_forms_are_those_of_the_program(order):
    """The formulas of the documentation must count what the simulator would do, for any depth and T."""
    for depth, iterations in POINTS:
        program, form = written(order, depth, iterations), counts(order, depth, iterations)
        graph, cost = Graph.of_multiplications(program), program.cost(batch=1)
        said = (form.products, form.products * WIDTH**2, form.span * WIDTH, form.messages)
        assert said == (cost.matrix_products, graph.total, graph.span, cost.messages), (depth, iterations)
        assert cost.values == form.messages * WIDTH
        assert form.operations == Graph.of_operations(program).span, (depth, iterations)


@pytest.mark.parametrize("order", [*STATIC, BACKPROP])
def test_layer_time_is_that_of_the_event_engine(order):
    """With a core a layer and free messages, the event queue must come to the closed form's time."""
    for depth, iterations in POINTS[::3]:
        engine = EventEngine(
            written(order, depth, iterations), None, Hardware(time_per_multiplication=1 / WIDTH**2), 1
        )
        engine.simulate()
        form = counts(order, depth, iterations)
        assert engine.totals.simulated_time == form.layer_time, (depth, iterations)
        assert engine.totals.messages == form.messages


def test_one_iteration_of_sequential_by_hand():
    """L = 3, T = 1: sweep up (3), relax 2 then 1 (2), predict 1 again (1), learn from the new e_2 (1)."""
    form = counts("sequential", 3, 1)
    assert (form.products, form.span) == (3 + 2 + 2 + 3, 7)


def test_who_is_first_on_unlimited_cores():
    """The break-even between a wave and many small steps: 3 T_s + L − 3 < 2 T_m."""
    for depth in range(3, 30):
        for T in range(1, 60):
            waves, steps = counts("sequential", depth, 1), counts("simultaneous", depth, T)
            assert (waves.span < steps.span) == (depth < 2 * T)
    assert counts("sequential", 17, 3).span >= counts("simultaneous", 17, 3).span


def test_what_has_no_closed_form_is_refused():
    """A depth without hidden layers, no iteration, or an unlisted order must not come out as a number."""
    for order, depth, iterations in (
        ("sequential", 1, 1),
        ("sequential", 3, 0),
        ("asynchronous", 3, 1),
        ("sequental", 3, 1),
    ):
        with pytest.raises(ConfigurationError):
            counts(order, depth, iterations)


def test_asynchronous_with_one_iteration_is_sequential(rng):
    """Where every layer may relax once, when an error comes, a core a layer leaves sequential's very bits."""
    data = [(rng.normal(size=(2, WIDTH)), rng.normal(size=(2, WIDTH))) for _ in range(3)]
    learnt = []
    for order in ("sequential", "asynchronous"):
        network = Network.dense([WIDTH] * 7, activation="tanh", output="identity", dtype="float64", seed=1)
        plan = Schedule(order, 1, 0.4).plan(network)
        engine = EventEngine(plan, network.layers(2, SGD(0.1)), unit(), 2)
        for inputs, targets in data:
            engine.step(inputs, targets)
        learnt.append(np.concatenate([weight.ravel() for weight, _ in network.parameters]))
    np.testing.assert_array_equal(*learnt)
