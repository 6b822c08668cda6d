"""Convolutional networks through programs and engines: against the oracle, and what programs say of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from conv_oracle import ConvOracle
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import HARD, ORDERS, RULES, Case, run

from pcsim.engine.event import EventEngine
from pcsim.errors import LocalityError, ShapeError
from pcsim.hardware.clock import unit
from pcsim.kernels.backends import make_kernels
from pcsim.learning import NLMS
from pcsim.network.network import Network
from pcsim.schedule.operation import Place
from pcsim.schedule.program import Program, Schedule

LAYERS = ("2x9x8", "conv 3 3x3/2", "conv 4 2x2/1", "dense 5", "dense 3")
POOLED = ("2x9x8", "conv 3 3x3/1 max 2", "conv 4 2x2/1 average 2", "dense 3")


@dataclass(frozen=True)
class ConvCase(Case):
    """A case with convolutions; `sizes` follow from `layers`."""

    layers: tuple[str, ...] = LAYERS
    learn_from: str = "activity"

    def network(self, dtype: str = "float64") -> Network:
        return Network.of(
            self.layers,
            activation=self.activation,
            output=self.output,
            proximal_step=self.proximal_step,
            precision=self.precision,
            activity_decay=self.decay,
            dtype=dtype,
            seed=self.seed,
            learn_output_from=self.learn_from,
        )

    def oracle(self) -> ConvOracle:
        plain = super().oracle()
        convs = [text.split() for text in self.layers if text.startswith("conv")]
        names = ("activation", "output", "order", "iterations", "step_size", "step_decay", "mix")
        return ConvOracle(
            plain.weights,
            plain.biases,
            *(getattr(plain, name) for name in names),
            plain.precision,
            plain.decay,
            plain.rule,
            plain.alpha,
            image=tuple(int(n) for n in self.layers[0].split("x")),
            convs=[
                (int(words[2].split("/")[1]), *((words[3], int(words[4])) if len(words) > 3 else ("none", 1)))
                for words in convs
            ],
            from_label=self.learn_from == "label" and self.proximal_step != HARD,
        )


def case(layers=LAYERS, **fields) -> ConvCase:
    """Return a case whose sizes are those of its layers."""
    return ConvCase(sizes=Network.of(layers).sizes, layers=layers, **fields)


def agree_with_the_oracle(given: ConvCase, outcome) -> None:
    """Check activities, errors and parameters after every iteration."""
    oracle = given.oracle()
    for step, (x, y) in enumerate(given.data()):
        for t, (a, e) in enumerate(oracle.step(x, y)):
            for layer in range(1, given.top + 1):
                for name, expected in (("activity", a), ("error", e)):
                    ours = outcome.states.at(step, t + 1, name, layer)
                    np.testing.assert_allclose(ours, expected[layer], atol=1e-10)
    for (weight, bias), W, b in zip(outcome.network.parameters, oracle.weights, oracle.biases):
        np.testing.assert_allclose(weight, W, atol=1e-10)
        np.testing.assert_allclose(bias, b, atol=1e-10)


@pytest.mark.parametrize("layers", [LAYERS, POOLED], ids=["plain", "pooled"])
@pytest.mark.parametrize("order", ORDERS)
def test_every_order_is_the_oracle(order, layers):
    """Convolutions, pooling and dense layers on them, whatever the order, to 1e-10."""
    given = case(layers, order=order, activation="tanh", learn_from="label", iterations=2)
    agree_with_the_oracle(given, run(given))


@settings(max_examples=25)
@given(
    st.sampled_from([LAYERS, POOLED]),
    st.sampled_from(["relu", "tanh", "sigmoid", "leaky_relu", "gelu"]),
    st.sampled_from(["softmax", "sigmoid", "identity"]),
    st.sampled_from(["sgd", "mq", "adam"]),
    st.sampled_from(["activity", "label"]),
    st.sampled_from([1.0, HARD]),
    st.booleans(),
    st.integers(0, 9),
)
def test_everything_else_is_the_oracle(layers, activation, output, rule, learn_from, beta, weighted, seed):
    """Activations, outputs, rules, precisions, decays, both clamps, and the label for the activity."""
    depth = len(layers)
    given = case(
        layers,
        activation=activation,
        output=output,
        rule=rule,
        learn_from=learn_from,
        proximal_step=beta,
        precision=(1.0, *[0.3] * (depth - 2), 1.7) if weighted else None,
        decay=(0.0, *[0.3] * (depth - 2), 0.0) if weighted else None,
        steps=2,
        iterations=2,
        seed=seed,
    )
    agree_with_the_oracle(given, run(given))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_both_engines_give_the_same_bits(order, backend):
    """In place or through messages that wait on slow links: not one bit may differ."""
    given = case(POOLED, order=order, learn_from="label", iterations=2, steps=2)
    kernels = make_kernels(backend, "float64")
    fast, event = (run(given, engine, kernels=kernels).bits() for engine in ("fast", "event"))
    assert fast == event


def test_any_linear_extension_gives_the_same_bits():
    """What a convolution remembers of its prediction is part of the dependency graph."""
    given = case(LAYERS, order="bottom-up", iterations=3, steps=2, learn_from="label")
    program = Program.build(given.network(), given.schedule())
    expected = run(given, program=program).bits()
    for seed in range(5):
        assert run(given, program=program.reordered(np.random.default_rng(seed))).bits() == expected


def test_asynchronous_order_runs():
    """Data-driven order: the label's error arrives before the last connection learns from it."""
    given = case(LAYERS, order="asynchronous", learn_from="label", steps=1, rule="sgd")
    outcome = run(given, "event")
    names = [(event.name, event.layer) for event in outcome.engine.timeline if event.kind == "operation"]
    assert names.index(("compare_target", 4)) < names.index(("learn", 3))
    assert np.isfinite(outcome.energies[0]).all()


@pytest.mark.parametrize("order", ORDERS)
def test_program_counts_what_the_engine_counts(order):
    """Multiplications, messages and values, from the list and from the run."""
    network = Network.of(POOLED, learn_output_from="label")
    program = Program.build(network, Schedule(order, 2))
    engine = EventEngine(program, network.layers(3, RULES["mq"]), unit(), 3)
    rng = np.random.default_rng(0)
    engine.step(rng.random((3, 144), np.float32), np.eye(3, dtype=np.float32))
    cost, totals = program.cost(3), engine.totals
    assert (cost.multiplications, cost.messages, cost.values) == (
        totals.multiplications,
        totals.messages,
        totals.values,
    )
    # 3 · (2·3·3) at 7 × 6 places, 4 · (3·2·2) at 2 × 2 of the pooled 3 × 3, 3 · 4.
    products = [one.multiplications for one in network.connections]
    assert products == [3 * 18 * 42, 4 * 12 * 4, 3 * 4]
    assert {op.multiplications for op in program.operations} == {0, *products}


@pytest.mark.parametrize("layers", [LAYERS, ("3x64x64", "conv 300 9x9/2 max 2", "dense 10")])
def test_operations_are_local(layers):
    """Every operation touches only its own layer, on the network itself and on a narrow stand-in."""
    for order in ORDERS:
        network = Network.of(layers, learn_output_from="label")
        Program.build(network, Schedule(order, 1)).check_locality()


def test_memory_has_to_be_declared():
    """A convolution that relaxes by what it remembers of its prediction depends on that prediction."""
    network = Network.of(LAYERS, dtype="float64", activation="tanh")
    program = Program.build(network, Schedule("sequential", 1))
    hidden = replace(
        program,
        operations=tuple(
            replace(op, reads=op.reads - {Place(1, "memory")}) if (op.name, op.layer) == ("relax", 1) else op
            for op in program.operations
        ),
    )
    with pytest.raises(LocalityError, match=r"relax\(layer 1\) reads layer 1's memory without declaring it"):
        hidden.check_locality()


def test_no_prediction_is_kept_for_a_memory_that_nobody_reads():
    """A silent prediction would cost multiplications for nothing."""

    def twice(ops):
        yield from ops.forward_sweep()
        yield ops.relax(1, 1)
        yield ops.predict(1, 1)
        reads = frozenset({Place(1, "inbox.prediction")})
        yield replace(ops.relax(1, 1), name="look", reads=reads, action=lambda unit: None)
        yield ops.predict(1, 1)
        yield from ops.settle(1)
        yield from ops.learning_phase()

    program = Program.build(Network.of(LAYERS), Schedule(twice, 1))
    assert sum((op.name, op.layer) == ("predict", 1) for op in program.operations) == 2


def test_the_label_is_asked_for_only_where_it_differs():
    """A hard clamp is the label already, so nothing is sent twice; a soft one costs one small message."""

    def names(**constants):
        program = Program.build(Network.of(LAYERS, **constants), Schedule("sequential", 2))
        return [op.name for op in program.operations]

    assert "compare_target" not in names()
    assert "compare_target" not in names(learn_output_from="label", proximal_step=HARD)
    soft = names(learn_output_from="label")
    assert soft.count("compare_target") == 1
    assert soft.index("compare_target") < soft.index("learn")


def test_nlms_refuses_a_convolution():
    """Its exact step is one of a dense connection."""
    network = Network.of(LAYERS)
    engine = EventEngine(
        Program.build(network, Schedule("sequential", 1)), network.layers(1, NLMS()), unit(), 1
    )
    with pytest.raises(ShapeError, match="no convolution"):
        engine.step(np.ones((1, 144), np.float32), np.ones((1, 3), np.float32))
