"""Both engines do the same arithmetic, bit by bit, and it is the oracle's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import HARD, ORDERS, OUTPUTS, Case, cases, run

from pcsim.engine.event import EventEngine
from pcsim.engine.fast import FastEngine
from pcsim.engine.observer import Statistics
from pcsim.errors import NonFiniteError
from pcsim.hardware.clock import Hardware, Links, unit
from pcsim.kernels import reference
from pcsim.kernels.dense import DenseSynapses
from pcsim.learning import SGD
from pcsim.network.layer import MessageKind
from pcsim.network.network import Network
from pcsim.schedule.operation import Operation, Place
from pcsim.schedule.program import Program, Schedule


def differences(one, other) -> list:
    """Names of what differs in a bit."""
    a, b = one.bits(), other.bits()
    return [name for name in a.keys() | b.keys() if a.get(name) != b.get(name)]


def assert_close(ours, theirs, what) -> None:
    """Agree to 1e-10 of the largest value (or of 1)."""
    scale = max(1.0, float(np.abs(theirs).max()))
    assert float(np.abs(ours - theirs).max()) <= 1e-10 * scale, what


# ---------------------------------------------------------------------------- engine against engine


@settings(max_examples=80)
@given(cases())
def test_engines_agree_bit_by_bit(case):
    """One kernel call more, fewer, or on other messages would change a bit somewhere."""
    assert not differences(run(case, "fast"), run(case, "event"))


@settings(max_examples=80)
@given(cases(steps=3), st.integers(0, 2**20))
def test_any_linear_extension_gives_the_same_bits(case, seed):
    """The dependency graph is complete: whoever runs it in another order gets the same numbers."""
    program = Program.build(case.network(), case.schedule())
    mixed = program.reordered(np.random.default_rng(seed))
    assert not differences(run(case), run(case, program=mixed))


@settings(max_examples=40)
@given(
    cases(steps=2),
    st.builds(
        Links,
        latency=st.sampled_from([0.0, 0.7, 30.0]),
        jitter=st.sampled_from([0.0, 5.0]),
        link_latency=st.sampled_from([{}, {(1, 2): 50.0}, {(1, 0): 20.0, (0, 1): 7.0}]),
        seed=st.integers(0, 99),
    ),
    st.sampled_from([0.0, 1.0]),
)
def test_time_never_changes_the_numbers_of_a_static_order(case, links, operation_time):
    """Without thresholds or data dependence a late message only makes others wait."""
    hardware = Hardware(operation_time, 0.3, 0.1, 0.01, links)
    assert not differences(run(case, "event"), run(case, "event", hardware))


def test_jitter_changes_times():
    """The counterpart: if it changed nothing at all, the test above would be empty."""
    case = Case()
    ends = {
        jitter: run(case, "event", unit(Links(jitter=jitter))).engine.totals.simulated_time
        for jitter in (0, 3)
    }
    assert ends[3] > ends[0]


@pytest.mark.parametrize("engine", ["fast", "event"])
@pytest.mark.parametrize("order", ORDERS)
def test_one_seed_gives_the_same_bits_twice(order, engine):
    """Nothing depends on addresses, hashes or what ran before."""
    case = Case(order=order, rule="mq")
    assert not differences(run(case, engine), run(case, engine))


@settings(max_examples=30)
@given(cases(iterations=st.integers(1, 4), rule=st.sampled_from(["sgd", "mq", "adam"])))
def test_float32_stays_float32_and_agrees_too(case):
    """The dtype in which experiments run: engines agree in bits, and with float64 to its precision."""
    fast, event = (run(case, engine, network=case.network("float32")) for engine in ("fast", "event"))
    assert not differences(fast, event)
    assert all(array.dtype == np.float32 for array in fast.states.kept.values())
    assert all(array.dtype == np.float32 for array in event.states.kept.values())


# ---------------------------------------------------------------------------- engine against oracle


@settings(max_examples=120)
@given(cases(), st.sampled_from(["fast", "event"]))
@example(Case(sizes=(2, 3, 3, 3, 3, 2), order="red-black", precision=(1, 2, 0.5, 3, 1, 0.7)), "event")
@example(Case(order="incremental", rule="mq", decay=(0, 0.3, 0.2, 0)), "fast")
def test_engines_follow_the_oracle(case, engine):
    """An independent program: activities, errors, energy and parameters, each iteration, to 1e-10."""
    ours, oracle = run(case, engine), case.oracle()
    for step, (x, y) in enumerate(case.data()):
        for t, (activities, errors) in enumerate(oracle.step(x, y)):
            for layer in range(1, case.top + 1):
                at = (step, t, layer)
                assert_close(ours.states.at(step, t + 1, "activity", layer), activities[layer], at)
                assert_close(ours.states.at(step, t + 1, "error", layer), errors[layer], at)
                half = 0.5 * (errors[layer] ** 2).sum() / case.batch
                assert_close(ours.energies[step][0][t + 1, layer - 1], half, at)
    for layer in range(case.top):
        assert_close(ours.network.parameters[layer][0], oracle.weights[layer], f"weight {layer}")
        assert_close(ours.network.parameters[layer][1], oracle.biases[layer], f"bias {layer}")
        if case.rule == "mq":
            assert_close(ours.units[layer].learner.mean_gradient[0], oracle.v[layer], f"v {layer}")


# ------------------------------------------------------------------------------------------ counting


class Counting:
    """The reference kernels, counting multiplications in products with weights and outer products."""

    def __init__(self) -> None:
        self.multiplications = 0

    def __getattr__(self, name):
        function = getattr(reference, name)
        if name == "dense":  # so that its products are counted, too
            return lambda activation, batch: DenseSynapses(self, activation)
        place = {"predict": 1, "feedback": 1}.get(name, 0 if name.endswith("_step") else None)
        if place is None:
            return function

        def counted(*arguments):
            batch = len(arguments[2] if place == 0 else arguments[0])
            self.multiplications += batch * arguments[place].size
            return function(*arguments)

        return counted


@settings(max_examples=40)
@given(cases(), st.sampled_from(["fast", "event"]))
def test_what_is_counted_is_what_is_done(case, engine):
    """The saved work is the claim: counted from the program, while running, and in the kernels."""
    kernels = Counting()
    outcome = run(case, engine, kernels=kernels)
    cost = Program.build(case.network(), case.schedule()).cost(case.batch)
    assert kernels.multiplications == case.steps * cost.multiplications
    if engine == "event":
        totals = outcome.engine.totals
        assert totals.multiplications == case.steps * cost.multiplications
        assert totals.messages == case.steps * cost.messages
        assert totals.values == case.steps * cost.values
        assert totals.bytes == 8 * totals.values
        assert 0 <= totals.nonzero_values <= totals.values
        program = Program.build(case.network(), case.schedule())
        assert totals.operations == case.steps * len(program.operations)


def test_zeros_are_not_counted_as_values_that_an_event_driven_link_carries():
    """First errors of hidden layers are exactly 0: a simultaneous order sends them, an AER link would not."""
    case = Case(order="simultaneous", iterations=1, steps=1)
    timeline = run(case, "event").engine.timeline
    errors = [e for e in timeline if e.kind == "message" and e.name == "error" and e.iteration == 0]
    counted = {e.layer: (e.values, e.nonzero_values) for e in errors}
    assert counted == {2: (10, 0), 3: (4, 4)}


# ---------------------------------------------------------------------------------- how errors travel


@pytest.mark.parametrize("connections", [2, 3, 4, 6])
def test_how_far_errors_get(connections):
    """Sequential: layer 1 after one iteration. Simultaneous: after exactly L − 1, before that 0 exactly."""
    sizes = (3,) + (4,) * (connections - 1) + (2,)
    iterations = connections + 1
    for order, arrival in (("sequential", 1), ("simultaneous", connections - 1)):
        case = Case(sizes, order=order, iterations=iterations, steps=1)
        first = run(case).energies[0][0][:, 0]
        assert (first[:arrival] == 0).all()
        assert (first[arrival:] > 0).all()


@pytest.mark.parametrize("engine", ["fast", "event"])
@pytest.mark.parametrize("order", [order for order in ORDERS if order != "incremental"])
def test_no_iterations_is_a_plain_forward_pass(order, engine, rng):
    """T = 0: hidden activities are a truncated network's predictions, hidden errors 0 to the last bit."""
    network = Network.dense([3, 5, 4, 2], activation="gelu", dtype="float64")
    units = network.layers(6, SGD(1e-300))  # learning must happen, and change nothing
    program = Program.build(network, Schedule(order, 0))
    runner = FastEngine(program, units) if engine == "fast" else EventEngine(program, units, unit(), 6)
    inputs, targets = rng.normal(size=(6, 3)), np.eye(2)[rng.integers(2, size=6)]
    runner.step(inputs, targets)
    for layer in (1, 2):
        cut = Network.dense(
            network.sizes[: layer + 1],
            activation="gelu",
            output="identity",
            dtype="float64",
            parameters=network.parameters[:layer],
        )
        np.testing.assert_array_equal(units[layer].activity, cut.predict(inputs))
        assert not units[layer].error.any()
    expected = 100 / 101 * (targets - network.predict(inputs))
    np.testing.assert_allclose(units[3].error, expected, rtol=1e-12)


def test_without_hidden_layer_one_step_is_the_delta_rule(rng):
    """L = 1 by hand: W += α mean((1 − m)(y − out) xᵀ)."""
    network = Network.dense([3, 2], dtype="float64")
    x, y = rng.normal(size=(4, 3)), np.eye(2)[[0, 1, 1, 0]]
    error = 100 / 101 * (y - network.predict(x))
    before = network.parameters[0][0].copy()
    FastEngine(Program.build(network, Schedule(iterations=2)), network.layers(4, SGD(0.5))).step(x, y)
    np.testing.assert_allclose(network.parameters[0][0] - before, 0.5 * error.T @ x / 4, rtol=1e-12)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("order", ORDERS)
def test_a_perfect_prediction_changes_nothing(order, output):
    """If the target is what the network says anyway, there is no error anywhere, ever."""
    case = Case(order=order, output=output, steps=1)
    network = case.network()
    (x, _), before = case.data()[0], [array.copy() for pair in network.parameters for array in pair]
    units = network.layers(case.batch, SGD(0.5))
    FastEngine(Program.build(network, case.schedule()), units).step(x, network.predict(x))
    for ours, old in zip((array for pair in network.parameters for array in pair), before):
        np.testing.assert_allclose(ours, old, atol=1e-15)


def test_soft_clamp_is_refreshed_after_each_iteration():
    """ĥ_L = (1 − m) y + m out(p_L) with p_L of the new activity, at the end of each iteration."""
    case = Case(proximal_step=1.0, step_size=0.5, steps=1, iterations=3, precision=(1, 1, 1, 2))
    outcome = run(case)
    (_, y), (weight, bias) = case.data()[0], case.network().parameters[-1]
    clamped = []
    for n in range(4):
        below = outcome.states.at(0, n, "activity", 2)
        out = reference.output("softmax", np.tanh(below) @ weight.T + bias)
        clamped.append(outcome.states.at(0, n, "activity", 3))
        np.testing.assert_allclose(clamped[-1], 0.5 * y + 0.5 * out, rtol=1e-12)
    assert not np.allclose(clamped[0], clamped[3])


def test_an_error_that_was_sent_stays_what_it_was():
    """Layer 2 spoils its error after sending it and says nothing: layer 1 must relax by the one it got."""

    def order(ops):
        yield from ops.forward_sweep()
        error = frozenset({Place(2, "error")})
        yield Operation("spoil", 2, 0, error, error, action=lambda unit: unit.error.fill(7))
        yield ops.relax(1, 1)
        yield from ops.settle(1)
        yield from ops.learning_phase()

    case = Case((3, 4, 2), order=order, iterations=1, steps=1)
    honest = run(replace(case, order="sequential"))
    for engine in ("fast", "event"):
        relaxed = run(case, engine).states.at(0, 1, "activity", 1)
        np.testing.assert_array_equal(relaxed, honest.states.at(0, 1, "activity", 1))


# ------------------------------------------------------------------------------------------ statistics


def test_statistics_repeat_what_did_not_change():
    """In the incremental order as in all others no row is left over from an earlier mini-batch."""
    statistics = Statistics(2, 2)
    case = Case(sizes=(3, 4, 2), iterations=1)
    network = case.network()
    units = network.layers(2, SGD(0.1))
    engine = FastEngine(Program.build(network, case.schedule()), units, (statistics,))
    for x, y in case.data():
        engine.step(x, y)
        np.testing.assert_array_equal(statistics.squared_error[2], statistics.squared_error[1])
        np.testing.assert_array_equal(statistics.free_energy[2], statistics.free_energy[1])
        np.testing.assert_allclose(statistics.squared_error[1, 0], units[1].squared_error())


def test_statistics_forget_the_mini_batch_before():
    """An asynchronous layer may act less often than last time: old rows must not pass for new ones."""
    statistics, network = Statistics(1, 1), Network.dense([2, 2], output="identity", dtype="float64")
    unit, ops = network.layers(1)[1], Schedule(iterations=1).operations(network)
    unit.target, unit.inbox[MessageKind.PREDICTION] = np.zeros((1, 2)), np.zeros((1, 2))
    for step, iterations in enumerate([(0, 1), (0,)]):
        statistics.begin_step(step)
        for iteration in iterations:
            unit.error[:] = 1 + 2 * step + iteration
            operation = ops.compare(1, iteration)
            statistics.onlooker(operation)(operation, unit)
        statistics.end_step()
    np.testing.assert_array_equal(statistics.squared_error, [[9], [9]])


def test_statistics_by_hand():
    """Layer 2 forms no error in iteration 1: its row repeats; a table of before stays as it was."""
    statistics = Statistics(1, 2)
    for step in range(2):
        statistics.begin_step(step)
        for cell, energy in {(0, 1): 1.0, (0, 2): 2.0, (1, 1): 3.0}.items():
            statistics.note(*cell, energy + step, 10 * energy)
        statistics.end_step()
        np.testing.assert_array_equal(statistics.squared_error, [[1 + step, 2 + step], [3 + step, 2 + step]])
        np.testing.assert_array_equal(statistics.free_energy, [[10, 20], [30, 20]])
        assert statistics.settled_energy == 50
    statistics.note(1, 2, 5.0, 7.0)  # in the middle of a step, after somebody has looked
    assert statistics.settled_energy == 37
    before = statistics.free_energy
    statistics.begin_step(2)
    statistics.note(0, 1, 1.0, np.inf)
    statistics.end_step()
    np.testing.assert_array_equal(before, [[10, 20], [30, 7]])
    with pytest.raises(NonFiniteError, match=r"layer 1 .* step 2, iteration 0"):
        statistics.check_finite()


@pytest.mark.parametrize("engine", ["fast", "event"])
@pytest.mark.parametrize(
    ("order", "poison", "step", "layer", "iteration"),
    [
        ("sequential", "input", 2, 1, 0),
        ("simultaneous", "step", 0, 2, 1),
        ("sequential", "step", 0, 1, 1),
        ("sequential", "target", 1, 3, 0),
    ],
)
def test_what_is_not_finite_is_named(engine, order, poison, step, layer, iteration):
    """NaN inputs at mini-batch 2, a step of 1e200, an infinite target: where did it begin?

    With a huge step the simultaneous order blows up layer 2 first (layer 1 has seen no error yet).
    """
    case = Case(
        activation="identity",
        output="identity",
        order=order,
        step_size=1e200 if poison == "step" else 0.1,
        proximal_step=HARD,
    )
    network = case.network()
    statistics, units = Statistics(3, 3), network.layers(2, SGD(0.1))
    program = Program.build(network, case.schedule())
    runner = (
        FastEngine(program, units, (statistics,))
        if engine == "fast"
        else EventEngine(program, units, unit(), 2, (statistics,))
    )
    text = rf"layer {layer} .* step {step}, iteration {iteration}:"
    for number, (x, y) in enumerate(case.data()[: step + 1]):
        broken = {"input": x, "target": y}.get(poison)
        if number == step and broken is not None:
            broken[:] = np.nan if poison == "input" else np.inf
        with np.errstate(all="ignore"):
            runner.step(x, y)
        if number < step:
            statistics.check_finite()
    with pytest.raises(NonFiniteError, match=text) as caught:
        statistics.check_finite()
    assert (caught.value.step, caught.value.layer, caught.value.iteration) == (step, layer, iteration)


def test_finite_runs_are_not_accused():
    """The check must be silent for ordinary numbers."""
    statistics = Statistics(3, 3)
    case = Case()
    network = case.network()
    engine = FastEngine(Program.build(network, case.schedule()), network.layers(2, SGD(0.1)), (statistics,))
    engine.step(*case.data()[0])
    statistics.check_finite()
    assert statistics.free_energy.min() >= 0


@pytest.mark.parametrize("engine", ["fast", "event"])
def test_observers_see_each_iteration_of_each_layer(engine):
    """A recorder keeps what it is shown: one state an iteration, layer and quantity, in each mini-batch."""
    case = replace(Case(), order="simultaneous", iterations=2, steps=2)
    kept = run(case, engine).states.kept
    hidden = {(s, n, q, l) for s in (0, 1) for n in (1, 2) for q in ("activity", "error") for l in (1, 2, 3)}
    first = {(s, 0, q, l) for s in (0, 1) for q in ("activity", "error") for l in (1, 2, 3)}
    assert set(kept) == hidden | first | {(s, 0, "activity", 0) for s in (0, 1)}
