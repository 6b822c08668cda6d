"""Measured work: what loops count in the units' own numbers, and what it comes to on machines."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from pcsim.engine.event import EventEngine
from pcsim.errors import ConfigurationError
from pcsim.experiments.energy import charge_machines, charge_mapped, measure
from pcsim.experiments.energy_figure import draw_bills
from pcsim.experiments.experiment import Experiment
from pcsim.experiments.meter import Meter
from pcsim.experiments.pricing import setting_of
from pcsim.experiments.simulate import simulate_one
from pcsim.hardware.charge import charge
from pcsim.hardware.chip import Chip
from pcsim.hardware.clock import unit
from pcsim.hardware.machine import load_machine
from pcsim.hardware.machine_clock import clock_of
from pcsim.hardware.placement import place
from pcsim.hardware.prices import Term
from pcsim.hardware.work import Used
from pcsim.kernels import reference
from pcsim.learning import MQ, SGD
from pcsim.network.layer import MessageKind
from pcsim.network.network import Network
from pcsim.schedule.channel import Channels, Faults, Messages, Rounding
from pcsim.schedule.program import Schedule
from pcsim.training.data import batches, load_dataset


def digits(order="sequential", activation="relu", rule=None, **more) -> Experiment:
    """A small model with real data."""
    return Experiment(
        network=Network.dense([64, 12, 9, 10], seed=1, activation=activation),
        dataset=load_dataset("digits"),
        rule=rule or MQ(1e-3),
        schedule=Schedule(order, iterations=3),
        batch=8,
        **more,
    )


def spiky(shape, rng):
    """Numbers half of which are zero."""
    return rng.normal(size=shape) * (rng.random(shape) < 0.5)


def counted(network, layer, operations, batch):
    """Let a unit do operations and return what the meter saw."""
    meter = Meter(network, batch)
    for operation in operations:
        meter.watch(operation).action(layer)
    return [used for _, used in meter.take()]


def test_dense_products_are_those_that_loops_find(rng):
    """Sample by sample and weight by weight: predict by f(ĥ), relax by the error above, learn by both."""
    network = Network.dense([5, 4, 3], seed=2, dtype="float64")
    layer = network.layers(6, SGD(0.1), reference)[1]
    layer.activity[...] = spiky((6, 4), rng)
    layer.activity[:, 0] = -1.0  # relu makes it 0 in all samples: weights that nobody uses
    error = spiky((6, 3), rng)
    error[:, 2] = 0
    layer.inbox[MessageKind.ERROR] = error
    rates = np.maximum(layer.activity, 0)
    ops = Schedule("sequential", iterations=1).operations(network)
    used = counted(network, layer, [ops.predict(1), ops.learn(1, 1), ops.relax(1, 1)], 6)
    grid = list(itertools.product(range(6), range(3), range(4)))
    expected = [
        [(b, o, i) for b, o, i in grid if rates[b, i] != 0],
        [(b, o, i) for b, o, i in grid if error[b, o] != 0 and rates[b, i] != 0],
        [(b, o, i) for b, o, i in grid if error[b, o] != 0],
    ]
    assert [one.products for one in used] == [len(one) for one in expected]
    assert [one.weights for one in used] == [len({(o, i) for _, o, i in one}) for one in expected]
    assert used[0].weights == 9
    assert used[2].weights == 8
    assert used[0].values == 18  # biases make every entry of the prediction non-zero


@pytest.mark.parametrize("pool", ["", " max 2", " average 2"])
def test_convolutional_products_are_those_that_loops_find(rng, pool):
    """Window by window: predict by the pixel it sees, relax by δ before the pool, learn by both."""
    network = Network.of(["2x6x6", f"conv 3 3x3/1{pool}", "conv 2 2x2/1", "dense 2"], seed=3, dtype="float64")
    layer = network.layers(2, SGD(0.1), reference)[0]
    image = spiky((2, 2, 6, 6), rng)
    layer.activity[...] = image.reshape(2, -1)
    ops = Schedule("sequential", iterations=1).operations(network)
    layer.inbox[MessageKind.ERROR] = spiky((2, network.sizes[1]), rng)
    predict, learn = counted(network, layer, [ops.predict(0), ops.learn(0, 1)], 2)
    delta = layer.synapses.operands(layer.inbox[MessageKind.ERROR], layer.activity)[0]
    delta = delta.reshape(2, 4, 4, 3)
    seen, taught = [], []
    for b, row, column, o, i, u, v in itertools.product(*map(range, (2, 4, 4, 3, 2, 3, 3))):
        if image[b, i, row + u, column + v] != 0:
            seen.append((o, i, u, v))
            if delta[b, row, column, o] != 0:
                taught.append((o, i, u, v))
    assert (predict.products, predict.weights) == (len(seen), len(set(seen)))
    assert (learn.products, learn.weights) == (len(taught), len(set(taught)))
    assert 0 < learn.products < predict.products < 2 * 16 * 54


@pytest.mark.parametrize("order", ["sequential", "simultaneous", "asynchronous"])
def test_values_are_those_that_the_event_engine_counts(order):
    """The meter only looks: the same messages and non-zero values as a plain run of the same data."""
    experiment = digits(order)
    measured = measure(experiment, 4)
    network = experiment.network
    units = network.layers(experiment.batch, experiment.rule, reference)
    engine = EventEngine(experiment.schedule.plan(network), units, unit(), experiment.batch)
    rng = np.random.default_rng([experiment.seed, 1])
    pairs = batches(experiment.dataset, experiment.batch, rng, experiment.shuffle, network.dtype)
    for _, pair in zip(range(4), pairs):
        engine.step(*pair)
    done = [one for mini_batch in measured.mini_batches for one in mini_batch]
    assert len(done) == engine.totals.operations
    assert sum(used.values for _, used in done) == engine.totals.nonzero_values
    assert sum(operation.multiplications for operation, _ in done) * 8 == engine.totals.multiplications
    assert measured.time == pytest.approx(engine.totals.simulated_time / 4)


def test_measuring_leaves_the_network_alone():
    """A bill must not change what it is about."""
    experiment = digits()
    before = [(weight.copy(), bias.copy()) for weight, bias in experiment.network.parameters]
    measure(experiment, 2)
    for (weight, bias), (old_weight, old_bias) in zip(experiment.network.parameters, before):
        assert (weight == old_weight).all()
        assert (bias == old_bias).all()


def test_events_cost_less_where_there_are_zeros():
    """Digits have black pixels and relu has zeros: fewer products and values, the same neuron updates."""
    machine = load_machine("loihi2018")
    bills, measured = charge_machines(digits(), [machine], 3)
    dense, events = bills["loihi2018"].dense, bills["loihi2018"].events
    assert events.energy < 0.9 * dense.energy
    assert dense.latency is not None
    assert events.latency is not None
    assert events.latency < dense.latency
    for term in (Term.SYNAPTIC_OPERATION, Term.WEIGHT_UPDATE, Term.MESSAGE):
        assert events.count(term) < dense.count(term)
    assert events.count(Term.NEURON_UPDATE) == dense.count(Term.NEURON_UPDATE)
    assert measured.metrics["Effective_MACs"] < 0.9 * measured.metrics["Dense"]


def test_without_zeros_events_cost_the_same():
    """Inputs without zeros and tanh: all work is the same but for messages of errors before they move."""
    experiment = digits("sequential", "tanh")
    data = experiment.dataset
    bright = replace(data, train_inputs=data.train_inputs + np.float32(0.5))
    bills, _ = charge_machines(replace(experiment, dataset=bright), [load_machine("unit")], 1)
    both = bills["unit"]
    for dense, events in zip(both.dense.rows, both.events.rows, strict=True):
        if dense.whole is not Term.MESSAGE:
            assert dense == events


def test_asynchronous_orders_are_charged_for_what_they_did():
    """Without a list the work follows the machine's clock, and its latency is the engine's."""
    machine = load_machine("loihi2018")
    bills, measured = charge_machines(digits("asynchronous"), [load_machine("survey-odin"), machine], 2)
    both = bills["loihi2018"]
    listed = sum(operation.multiplications for done in measured.mini_batches for operation, _ in done)
    assert both.dense.count(Term.SYNAPTIC_OPERATION) == listed * 8 / 2
    assert both.dense.latency == measured.time
    assert both.events.latency is None
    assert bills["survey-odin"].dense.latency is None


def test_metrics_by_hand():
    """NeuroBench's names: Dense: the program's multiplications a sample; Footprint: all parameters' bytes."""
    experiment = digits()
    metrics = measure(experiment, 2).metrics
    program = experiment.schedule.plan(experiment.network)
    assert metrics["Dense"] == program.cost(1).multiplications
    assert metrics["Footprint"] == 4 * (64 * 12 + 12 + 12 * 9 + 9 + 9 * 10 + 10)
    assert metrics["Effective_ACs"] == metrics["ConnectionSparsity"] == 0
    assert 0.2 < metrics["ActivationSparsity"] < 0.8


@pytest.mark.parametrize("number", [0, 10_000])
def test_more_mini_batches_than_there_are_is_refused(number):
    """One line that says how many there are."""
    with pytest.raises(ConfigurationError, match=r"mini-batches = .*: expected 1 to 179"):
        measure(digits(), number)


def test_a_rule_without_prices_is_refused():
    """A user's own learning rule does work that nobody has counted."""
    with pytest.raises(ConfigurationError, match="has no prices: expected one of sgd, mq, adam, nlms"):
        charge_machines(digits(rule=lambda weight, bias: SGD(0.1)(weight, bias)), [load_machine("unit")], 1)


def test_a_mapping_brings_its_hops_and_its_makespan():
    """On its cores a network pays for the links that it crosses; the mesh says how long it takes."""
    experiment, machine = digits(), load_machine("loihi2018")
    program = experiment.schedule.plan(experiment.network)
    mapping = place(program, machine.chip, experiment.batch, "row", machine.name)
    both, _ = charge_mapped(experiment, machine, mapping, 2)
    unmapped, _ = charge_machines(experiment, [machine], 2)
    assert both.dense.count(Term.HOP_HORIZONTAL) == unmapped["loihi2018"].dense.count(Term.HOP_HORIZONTAL)
    assert both.dense.latency == pytest.approx(unmapped["loihi2018"].dense.latency, rel=0.02)
    assert both.events.latency is None
    assert both.events.energy < both.dense.energy
    with pytest.raises(ConfigurationError, match=r"for a 8x16 mesh \(loihi2018\): expected 8x8 \(mesh\)"):
        charge_mapped(experiment, load_machine("mesh"), mapping, 2)


@pytest.mark.parametrize("order", ["sequential", "asynchronous"])
def test_messages_of_a_models_own_format_are_charged_as_they_are_sent(order):
    """Entries that changed by more than θ, in 16 bits each and with an address: the engine's own count."""
    changes = Messages(threshold=1e-3, numbers=Rounding("float16"))
    channels = Channels(predictions=changes, errors=changes)
    experiment = digits(order, channels=channels)
    measured = measure(experiment, 2)
    bills, _ = charge_machines(experiment, [load_machine("unit")], 2)
    units = experiment.network.layers(8, experiment.rule, reference)
    plan = experiment.schedule.plan(experiment.network)
    engine = EventEngine(plan, units, unit(), 8, channels=channels)
    rng = np.random.default_rng([experiment.seed, 1])
    for _, pair in zip(range(2), batches(experiment.dataset, 8, rng, True, units[0].activity.dtype)):
        engine.step(*pair)
    used = [used for done in measured.mini_batches for operation, used in done if operation.sends]
    assert sum(one.values for one in used) == engine.totals.nonzero_values
    assert sum(one.bytes for one in used) == engine.totals.bytes < 4 * engine.totals.values
    assert bills["unit"].events.count(Term.MESSAGE) == engine.totals.nonzero_values / 2


def test_a_format_alone_leaves_zeros_out_on_every_machine():
    """Q4.7 rounds small values to 0, which events do not send: 12 bits = 1.5 bytes each for the n others.

    A packet for each of them, or of 4 bytes ⌈⌈1.5 n⌉ / 4⌉. Dense sends all 1,408 values of 18 messages: as
    many packets, or 1,408 · 1.5 / 4 = 528 of 4 bytes and less than one more a message.
    """
    channels = of_format("Q4.7", None)
    experiment = digits(channels=channels)
    one, four = load_machine("loihi2018"), replace(load_machine("loihi2018"), packet_bytes=4)
    single, packed = (charge_machines(experiment, [machine], 1)[0]["loihi2018"] for machine in (one, four))
    (done,) = measure(experiment, 1).mini_batches
    sent = [used for operation, used in done if operation.sends]
    _, totals = simulate_one(experiment, reference)  # which learns
    assert (totals.messages, totals.values) == (18, 1408)
    assert sum(used.values for used in sent) == totals.nonzero_values < 1408
    assert [used.bytes for used in sent] == [-(int(used.values) * -3 // 2) for used in sent]
    assert single.events.count(Term.MESSAGE) == totals.nonzero_values
    assert single.dense.count(Term.MESSAGE) == 1408
    assert packed.events.count(Term.MESSAGE) == sum(-(-int(used.bytes) // 4) for used in sent)
    assert 528 <= packed.dense.count(Term.MESSAGE) < 528 + 18


@pytest.mark.parametrize("number", [None, "Q4.7"])
def test_what_is_zero_is_neither_sent_nor_written(number):
    """Weights of 0 predict 0, so errors of layer 1 are 0: no packet of them, and no byte in an inbox."""
    experiment = digits(channels=of_format(number, None))
    dark = tuple((0 * weight, 0 * bias) for weight, bias in experiment.network.parameters)
    black = replace(experiment, network=replace(experiment.network, parameters=dark))
    events = charge_machines(black, [load_machine("unit")], 1)[0]["unit"].events
    counts = {
        row.term: row.count for row in events.rows if (row.layer, row.target, row.whole) == (1, 0, "message")
    }
    assert counts.get(Term.MESSAGE, 0) == counts.get(Term.NEAR_WRITE, 0) == 0


def of_format(number, threshold) -> Channels:
    """Channels of messages with a format and a threshold."""
    messages = Messages(threshold, Rounding(number))
    return Channels(messages, messages)


def written(machine):
    """The machine, with 0.5 ns for each byte that is put into an inbox."""
    times = dict(machine.prices.time)
    packet = times[Term.MESSAGE]
    times |= {
        Term.MESSAGE: replace(packet, includes=frozenset()),
        Term.NEAR_WRITE: replace(packet, value=0.5, includes=frozenset()),
    }
    return replace(machine, prices=replace(machine.prices, time=times))


@pytest.mark.parametrize("threshold", [None, 0.0, 1e-3])
@pytest.mark.parametrize("number", [None, "float16", "Q4.7"])
@pytest.mark.parametrize("packet_bytes", [None, 4])
@pytest.mark.parametrize("change", [lambda machine: machine, written])
def test_the_simulator_takes_the_time_of_the_bill(change, packet_bytes, number, threshold):
    """One clock: what a machine's links need for the messages that are sent is the same in both places.

    Without a threshold all values are sent, and time is the dense bill's. With one it is that of the events'
    messages; all products are done in the simulator, so those of the dense bill are put beside them.
    """
    machine = change(replace(load_machine("loihi2018"), packet_bytes=packet_bytes))
    experiment = digits(channels=of_format(number, threshold))
    network = experiment.network
    setting = setting_of(network, 8, experiment.rule, machine)
    timed = replace(experiment, hardware=clock_of(setting, experiment.schedule.operations(network)))
    bills = charge_machines(timed, [machine], 1)[0][machine.name]
    (done,) = measure(timed, 1).mini_batches
    timeline, totals = simulate_one(timed, reference)  # which learns
    flight = sum(event.end - event.start for event in timeline if event.kind == "message")
    bill = bills.dense if threshold is None else bills.events
    in_messages = sum(row.time for row in bill.rows if row.whole is Term.MESSAGE)
    assert in_messages == pytest.approx(flight, rel=1e-9)
    if threshold is None:
        assert bill.latency == pytest.approx(totals.simulated_time, rel=1e-9)
    else:
        full = [
            (one, replace(Used.all_of(one, network, 8), values=used.values, bytes=used.bytes))
            for one, used in done
        ]
        assert charge(setting, [full]).latency == pytest.approx(totals.simulated_time, rel=1e-9)


@pytest.mark.parametrize("number", [None, "float16"])
def test_time_alone_counts_every_value(number):
    """A simulation without numbers cannot tell which pass a threshold: it takes all, with their addresses.

    The first prediction of 8 samples is 8 · 12 = 96 values: 96 · 2.1 + 4.1 = 205.7 ns on loihi2018.
    """
    experiment = digits(channels=of_format(number, 1e-3))
    machine = load_machine("loihi2018")
    setting = setting_of(experiment.network, 8, experiment.rule, machine)
    clock = clock_of(setting, experiment.schedule.operations(experiment.network))
    plan = experiment.schedule.plan(experiment.network)
    engine = EventEngine(plan, None, clock, 8, channels=experiment.channels)
    engine.simulate()
    first = next(event for event in engine.timeline if event.kind == "message")
    assert first.end - first.start == pytest.approx(205.7)


@pytest.mark.parametrize(("threshold", "known"), [(None, True), (0.0, False)])
def test_the_time_of_an_asynchronous_order_is_the_dense_one_if_all_was_sent(threshold, known):
    """With a threshold the engine sends less than the dense bill charges: its time belongs to neither."""
    experiment = digits("asynchronous", channels=of_format("float16", threshold))
    bills, measured = charge_machines(experiment, [load_machine("loihi2018")], 1)
    both = bills["loihi2018"]
    assert both.dense.latency == (measured.time if known else None)
    assert both.events.latency is None


@pytest.mark.parametrize(
    ("name", "number", "known"),
    [("loihi2018", "float16", True), ("mesh", None, True), ("mesh", "float16", False)],
)
def test_a_makespan_that_does_not_know_the_format_is_not_given(name, number, known):
    """The mesh takes payloads in full; where bytes take time that is not the time of a bill in 16 bits."""
    experiment, machine = digits(channels=of_format(number, None)), load_machine(name)
    program = experiment.schedule.plan(experiment.network)
    mapping = place(program, machine.chip, 8, "row", name)
    both, _ = charge_mapped(experiment, machine, mapping, 1)
    assert (both.dense.latency is not None) == known


def test_a_mapping_without_its_chip_has_the_machines_links():
    """A file by hand may leave the chip out; packets must not become free for it."""
    experiment, machine = digits(), load_machine("loihi2018")
    program = experiment.schedule.plan(experiment.network)
    mapping = place(program, machine.chip, 8, "row", machine.name)
    bare = replace(mapping, chip=Chip(mapping.chip.rows, mapping.chip.columns))
    ours, theirs = (charge_mapped(experiment, machine, one, 1)[0].dense for one in (bare, mapping))
    assert ours.latency == theirs.latency
    assert ours.unpriced_time == theirs.unpriced_time == ("operation", "reduction")


def test_faults_are_refused():
    """A lost message costs its sender something and its receiver nothing: nobody has priced that."""
    with pytest.raises(ConfigurationError, match=r"expected a model without \[faults\]"):
        measure(digits(channels=Channels(faults=Faults(loss=0.1))), 1)


def test_machines_of_one_name_are_refused():
    """Bills are told apart by name: the second had replaced the first without a word."""
    machine = load_machine("unit")
    with pytest.raises(ConfigurationError, match="a name of its own for each machine"):
        charge_machines(digits(), [machine, replace(machine, title="another")], 1)


def test_both_bars_of_a_machine_bear_its_name():
    """The second was called by the source of the prices, which read as a machine of its own."""
    machine = load_machine("loihi2018")
    bills, _ = charge_machines(digits(), [machine], 1)
    left = draw_bills([("sequential", bills)], lambda value, unit: "").axes[0]
    assert [one.get_text() for one in left.get_yticklabels()] == ["loihi2018, dense", "loihi2018, events"]
    assert machine.source in [one.get_text() for one in left.texts]
