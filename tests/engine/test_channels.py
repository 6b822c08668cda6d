"""Messages with thresholds, number formats and faults: same bits on both engines, nothing lost unseen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import HARD, ORDERS, RULES, Case, cases, run

import pcsim
from pcsim.engine.channel import EXACT, Channel, ChannelSet, Mishap
from pcsim.engine.event import EventEngine
from pcsim.engine.fast import FastEngine
from pcsim.engine.process import deliver
from pcsim.errors import CheckpointError, ConfigurationError
from pcsim.hardware.clock import Links, unit
from pcsim.network.layer import MessageKind
from pcsim.schedule.channel import PLAIN, Channels, Dead, Faults, Messages, Rounding
from pcsim.schedule.message import Fate, Message
from pcsim.schedule.number_format import NumberFormat, round_nearest
from pcsim.schedule.operation import Operation, Place

EVERYTHING = Messages(0.0)
CHANGES = Channels(EVERYTHING, EVERYTHING)
SENT = st.builds(
    Messages,
    st.sampled_from([None, 0.0, 1e-3, 0.1]),
    st.builds(
        Rounding,
        st.sampled_from([None, "float16", "Q2.5"]),
        st.sampled_from(["nearest", "stochastic"]),
        st.integers(0, 9),
    ),
)
STATIC = st.builds(
    Channels,
    SENT,
    SENT,
    st.builds(
        Faults,
        loss=st.sampled_from([0.0, 0.3, 1.0]),
        dead=st.none() | st.builds(Dead, st.integers(0, 1), st.sampled_from([0.5, 1.0]), st.integers(0, 2)),
        seed=st.integers(0, 9),
    ),
    st.builds(Rounding, st.sampled_from([None, "Q3.6"]), st.sampled_from(["nearest", "stochastic"])),
)
IN_TIME = st.builds(
    Faults,
    loss=st.sampled_from([0.0, 0.2]),
    duplication=st.sampled_from([0.0, 0.5]),
    delay=st.sampled_from([0.0, 0.3]),
    reorder=st.sampled_from([0.0, 0.3]),
    delay_time=st.sampled_from([0.5, 7.0]),
    dead=st.none() | st.just(Dead(1, 0.5, 1)) | st.just(Dead(0, 1.0, 1)),
    seed=st.integers(0, 99),
)


def differences(one, other) -> list:
    """Names of what differs in a bit."""
    a, b = one.bits(), other.bits()
    return [name for name in a.keys() | b.keys() if a.get(name) != b.get(name)]


# ------------------------------------------------------------------------------------------- thresholds


@pytest.mark.parametrize(("dtype", "rule"), [("float32", "mq"), ("float64", "sgd")])
@pytest.mark.parametrize("order", [*ORDERS, "asynchronous"])
def test_threshold_zero_gives_the_bits_of_the_dense_run(order, dtype, rule):
    """Nothing that changed is left out and no rounding enters, signs of zeros included: all orders."""
    case = Case(order=order, rule=rule, activation="relu")
    dense = run(case, "event", network=case.network(dtype))
    for engine in ("event", "fast") if order != "asynchronous" else ("event",):
        changes = run(case, engine, network=case.network(dtype), channels=CHANGES)
        assert not differences(dense, changes)
    assert changes.engine.totals.nonzero_values < dense.engine.totals.values if engine == "event" else True


@settings(max_examples=40)
@given(cases())
def test_threshold_zero_gives_the_bits_of_any_dense_run(case):
    """The same for drawn networks, rules, clamps and constants, on the fast engine."""
    assert not differences(run(case), run(case, channels=CHANGES))


@settings(max_examples=60)
@given(
    st.sampled_from([0.0, 1e-3, 0.05, 0.5]),
    st.sampled_from(["float32", "float64"]),
    st.sampled_from([None, "Q2.5", "bfloat16"]),
    st.integers(0, 2**20),
)
def test_the_receivers_copy_is_within_the_threshold(threshold, dtype, name, seed):
    """After each message the copy differs from what the sender has by θ at most, in the sent format."""
    rng = np.random.default_rng(seed)
    settings_ = Channels(Messages(threshold, Rounding(name)))
    state, copy = np.zeros((3, 4), dtype), np.zeros((3, 4), dtype)
    channel = Channel(settings_, (0, 1), state.shape, state.dtype, state)
    for _ in range(20):
        state = state + (rng.normal(size=state.shape) * rng.choice([0.0, 1e-4, 1e-2, 1.0])).astype(dtype)
        letter = channel.send(state, 0)
        np.copyto(copy, letter.values, where=letter.entries)
        exact = state if name is None else round_nearest(state, NumberFormat.parse(name))
        assert (np.abs(exact - copy) <= threshold).all()
        assert letter.numbers == np.count_nonzero(letter.entries)


def test_what_is_sent_by_hand():
    """θ = 1: 0, 1, 1.5 from zeros sends the last; then 0, 2.6, 2.4 sends only the middle one."""
    buffer = np.zeros((1, 3))
    channel = Channel(Channels(Messages(1.0)), (0, 1), (1, 3), buffer.dtype, buffer)
    first = channel.send(np.array([[0.0, 1.0, 1.5]]), 0)
    second = channel.send(np.array([[0.0, 2.6, 2.4]]), 0)
    assert first.entries.tolist() == [[False, False, True]]
    assert second.entries.tolist() == [[False, True, False]]
    assert (first.numbers, first.bytes) == (1, -(-(64 + 2) // 8))  # 2 bits tell 3 neurons apart
    np.testing.assert_array_equal(channel.sent, [[0.0, 2.6, 1.5]])


def test_a_threshold_of_zero_sends_signs_of_zeros_and_nan():
    """−0 equals 0 and is other bits; NaN equals nothing: both reach the receiver."""
    copy, state = np.zeros((1, 3)), np.array([[-0.0, 0.0, np.nan]])
    letter = Channel(Channels(Messages(0.0)), (0, 1), (1, 3), copy.dtype, copy).send(state, 0)
    np.copyto(copy, letter.values, where=letter.entries)
    assert copy.tobytes() == state.tobytes()
    assert letter.numbers == 2


def test_what_rounds_to_zero_is_no_event():
    """θ = 0 in fixed point: −0.3 and 0.3 are the one zero of a word, so nothing has changed."""
    buffer = np.zeros((1, 2))
    channel = Channel(Channels(Messages(0.0, Rounding("Q2.0"))), (0, 1), (1, 2), buffer.dtype, buffer)
    letters = [channel.send(np.array([[value, 1.0]]), 0) for value in (-0.3, 0.3, -0.3)]
    assert [letter.numbers for letter in letters] == [1, 0, 0]


def test_a_higher_threshold_sends_less():
    """The point of it: entries sent fall as θ rises, and an infinite one would send nothing."""
    sent = []
    for threshold in (0.0, 1e-4, 1e-2, 1.0, 1e6):
        messages = Messages(threshold)
        outcome = run(Case(steps=4), "fast", channels=Channels(messages, messages))
        sent.append(outcome.engine.carried.nonzero_values)
    assert sent == sorted(sent, reverse=True)
    assert sent[0] > sent[2] > sent[-1] == 0


# ---------------------------------------------------------------------------------- engine against engine


@settings(max_examples=50)
@given(cases(), STATIC)
def test_engines_agree_bit_by_bit_through_any_static_channel(case, channels):
    """Rounding, thresholds, loss and dead cores depend on the order of sending only, not on who carries."""
    fast, event = (run(case, engine, channels=channels) for engine in ("fast", "event"))
    assert not differences(fast, event)
    if channels.carry:
        totals, carried = event.engine.totals, fast.engine.carried
        for name in ("messages", "values", "nonzero_values", "bytes", "received", "lost", "unsent"):
            assert getattr(totals, name) == getattr(carried, name), name


@settings(max_examples=30)
@given(cases(), STATIC, st.integers(0, 99))
def test_time_does_not_change_what_a_static_channel_does(case, channels, seed):
    """Links with latency and jitter: same bits, as each link draws in the order of sending."""
    slow = unit(Links(latency=3.0, jitter=5.0, seed=seed))
    one, other = (run(case, "event", hardware, channels=channels) for hardware in (unit(), slow))
    assert not differences(one, other)


@settings(max_examples=30)
@given(cases(order=st.sampled_from([*ORDERS, "asynchronous"])), IN_TIME)
def test_one_seed_gives_the_same_bits_twice(case, faults):
    """Whatever goes wrong goes wrong again."""
    one, same = (run(case, "event", channels=Channels(faults=faults)) for _ in range(2))
    assert not differences(one, same)
    assert one.engine.timeline == same.engine.timeline


@pytest.mark.parametrize("order", [*ORDERS, "asynchronous"])
def test_seeds_of_faults_differ(order):
    """The counterpart: another seed loses other messages."""
    case = Case(order=order, steps=4)
    results = {
        run(case, "event", channels=Channels(faults=Faults(loss=0.3, seed=seed))).engine.totals.lost
        for seed in range(12)
    }
    assert len(results) > 1


# --------------------------------------------------------------------------------------- number formats


@pytest.mark.parametrize("engine", ["fast", "event"])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_messages_and_activities_are_numbers_of_their_formats(engine, rounding):
    """What lies in inboxes and activities after a mini-batch is unchanged by rounding it once more."""
    predictions, errors = (Messages(None, Rounding(name, rounding)) for name in ("Q3.4", "Q1.7"))
    channels = Channels(predictions, errors, states=Rounding("Q2.6", rounding))
    outcome = run(Case(rule="mq"), engine, channels=channels)
    for layer in outcome.units:
        for name, array in (("Q2.6", layer.activity), *_inbox(layer, "Q3.4", "Q1.7")):
            assert array.tobytes() == round_nearest(array, NumberFormat.parse(name)).tobytes()
    assert differences(outcome, run(Case(rule="mq"), engine))


@pytest.mark.parametrize("engine", ["fast", "event"])
def test_the_label_is_learnt_where_the_hard_clamp_rounds_it(engine):
    """ĥ_L is y in the format of activities; learn_output_from = "label" asks for y itself."""
    rng = np.random.default_rng(2)
    inputs, targets = rng.normal(size=(40, 3)), rng.uniform(size=(40, 2))
    data = pcsim.Dataset("values", inputs, targets, inputs[:5], targets[:5], 1.0, 0)
    learnt = []
    for proximal_step in (HARD, 1.0):
        network = pcsim.Network.dense(
            [3, 4, 2], output="identity", proximal_step=proximal_step, learn_output_from="label"
        )
        experiment = pcsim.Experiment(
            network,
            data,
            pcsim.SGD(0.1),
            pcsim.Schedule(iterations=0),
            batch=20,
            channels=Channels(states=Rounding("Q2.1")),
        )
        pcsim.run(experiment, engine=engine)
        learnt.append(network.parameters[-1])
    np.testing.assert_array_equal(*(weight for weight, _ in learnt))
    np.testing.assert_array_equal(*(bias for _, bias in learnt))


def _inbox(layer, prediction, error):
    names = {MessageKind.PREDICTION: prediction, MessageKind.ERROR: error}
    return [(names[kind], array) for kind, array in layer.inbox.items()]


def test_a_format_that_holds_every_number_changes_nothing():
    """float32 messages in a float32 network are what they were."""
    wide = Channels(Messages(None, Rounding("float32")), Messages(None, Rounding("float32")))
    case = Case()
    plain, rounded = (run(case, network=case.network("float32"), channels=c) for c in (PLAIN, wide))
    assert not differences(plain, rounded)


def test_bytes_by_hand():
    """3-4-5-2, batch 2: a dense prediction of layer 0 in Q2.5 is 2 × 4 × 8 bits = 8 bytes, not 64."""
    channels = Channels(Messages(None, Rounding("Q2.5")))
    timeline = run(Case(steps=1), "event", channels=channels).engine.timeline
    first = next(e for e in timeline if e.kind == "message")
    errors = [e for e in timeline if e.kind == "message" and e.name == "error"]
    assert (first.layer, first.values, first.bytes) == (0, 8, 8)
    assert all(event.bytes == 8 * event.values for event in errors)  # float64, as before


# ----------------------------------------------------------------------------------------------- faults


@settings(max_examples=40)
@given(cases(order=st.sampled_from([*ORDERS, "asynchronous"])), IN_TIME)
def test_every_message_is_received_or_lost(case, faults):
    """Conservation, counted by who hears the arrivals; and no operation waits for ever."""
    outcome = run(case, "event", channels=Channels(faults=faults))
    totals = outcome.engine.totals
    assert totals.in_flight == 0
    assert totals.messages == totals.received + totals.lost
    if case.order != "asynchronous":
        program = case.schedule().plan(case.network())
        assert totals.operations == case.steps * len(program.operations)
        assert totals.messages - totals.copies + totals.unsent == case.steps * program.cost(1).messages


def test_messages_are_in_flight_while_they_travel():
    """The counterpart: on slow links the balance is open in the middle of a mini-batch, not after it."""
    case, seen = Case(steps=1), []
    network = case.network()
    units = network.layers(case.batch, RULES[case.rule])
    spy = Spy(lambda: seen.append(engine.totals.in_flight))
    engine = EventEngine(case.schedule().plan(network), units, unit(Links(latency=9.0)), case.batch, [spy])
    engine.step(*case.data()[0])
    assert max(seen) > 0
    assert engine.totals.in_flight == 0


class Spy:
    """An observer that calls a function at every operation that it is shown."""

    def __init__(self, call) -> None:
        self._call = call

    def begin_step(self, step):
        pass

    def onlooker(self, operation):
        return self.observe

    def observe(self, operation, unit):
        self._call()

    def end_step(self):
        pass


@pytest.mark.parametrize(("name", "counted"), [("loss", "lost"), ("duplication", "copies")])
def test_rates_come_out_as_asked(name, counted):
    """Of n messages about p n meet a fault, within 5 standard deviations; 0 and 1 are never and always."""
    case = Case(sizes=(2, 2, 2), steps=60, batch=1, rule="sgd")
    for rate in (0.0, 0.1, 0.5, 1.0):
        totals = run(case, "event", channels=Channels(faults=Faults(**{name: rate}, seed=3))).engine.totals
        sent = totals.messages - totals.copies
        assert abs(getattr(totals, counted) - rate * sent) <= 5 * np.sqrt(sent * rate * (1 - rate))


def test_delays_come_out_as_asked():
    """A quarter of the messages take 50 time units more, and only they, also those that step aside."""
    case = Case(sizes=(2, 2, 2), steps=1, iterations=150, rule="sgd", step_size=0.01)
    for fault in ("delay", "reorder"):
        faults = Faults(**{fault: 0.25}, delay_time=50.0, seed=2)
        timeline = run(case, "event", channels=Channels(faults=faults)).engine.timeline
        times = [event.end - event.start for event in timeline if event.kind == "message"]
        assert set(times) == {0.0, 50.0}
        late, number = times.count(50.0), len(times)
        assert abs(late - 0.25 * number) <= 5 * np.sqrt(number * 0.25 * 0.75)


@pytest.mark.parametrize("engine", ["fast", "event"])
@pytest.mark.parametrize("order", ORDERS)
def test_a_receiver_goes_on_with_its_last_message(order, engine):
    """Everything lost: inboxes keep the zeros that they began with, and no operation waits for ever."""
    outcome = run(Case(order=order), engine, channels=Channels(faults=Faults(loss=1.0)))
    assert all(not array.any() for layer in outcome.units for array in layer.inbox.values())
    counted = outcome.engine.totals if engine == "event" else outcome.engine.carried
    assert counted.lost == counted.messages > counted.received == 0


def test_asynchronous_layers_wake_for_a_missing_message():
    """With every message lost each hidden layer still relaxes, as it notices what is missing."""
    case = Case(order="asynchronous", iterations=3, steps=1)
    timeline = run(case, "event", channels=Channels(faults=Faults(loss=1.0))).engine.timeline
    relaxed = {event.layer for event in timeline if event.name == "relax"}
    assert relaxed == {1, 2}
    assert [event.layer for event in timeline if event.name == "learn"] == [0, 1, 2]


def test_copies_change_no_number_of_a_static_order():
    """The same value twice is the same value, and the receiver does not take it for the next message."""
    case = Case(steps=3)
    twice = run(case, "event", channels=Channels(faults=Faults(duplication=1.0)))
    assert not differences(run(case, "event"), twice)
    assert twice.engine.totals.copies * 2 == twice.engine.totals.messages
    fates = {event.fate for event in twice.engine.timeline if event.kind == "message"}
    assert fates == {Fate.ARRIVES, Fate.COPY}


def test_delays_that_keep_the_order_change_no_number_of_a_static_order():
    """The receiver waits."""
    case = Case(steps=2)
    faults = Faults(delay=0.5, delay_time=20.0)
    late, prompt = run(case, "event", channels=Channels(faults=faults)), run(case, "event")
    assert not differences(prompt, late)
    assert late.engine.totals.simulated_time > prompt.engine.totals.simulated_time


def hurried(seen):
    """An order in which layer 1 sends two predictions in a row, and layer 2 looks at each."""

    def look(unit) -> None:
        seen.append(float(unit.inbox[MessageKind.PREDICTION][0, 0]))

    def double(unit) -> None:
        unit.activity *= 2

    def order(ops):
        hidden, held = Place(1, "activity"), frozenset({Place(2, "activity")})
        reads = frozenset({Place.inbox(2, MessageKind.PREDICTION)})
        first = Operation("look", 2, 0, reads, held, action=look)
        more = Operation("double", 1, 0, frozenset({hidden}), frozenset({hidden}), action=double)
        yield from (ops.clamp(0), ops.predict(0), ops.initialise(1), ops.predict(1), first)
        yield from (more, ops.predict(1), replace(first, name="look again"))

    return order


def test_who_is_overtaken_is_read_last():
    """Two predictions in a row: where only the first steps aside, they are read the other way round."""
    usual: list[float] = []
    case = Case((2, 3, 2), "identity", "identity", steps=1, batch=1, proximal_step=HARD)
    run(replace(case, order=hurried(usual)), "fast")
    found = set()
    for seed in range(20):
        seen: list[float] = []
        faults = Faults(reorder=0.5, delay_time=50.0, seed=seed)
        run(replace(case, order=hurried(seen)), "event", channels=Channels(faults=faults))
        found.add(tuple(seen))
    assert found == {tuple(usual), tuple(reversed(usual))}


@settings(max_examples=30)
@given(cases(steps=2), st.integers(0, 99))
def test_nobody_overtakes_in_the_built_in_static_orders(case, seed):
    """Each message waits for the answer to the one before it on its link, so there is nobody to overtake."""
    faults = Faults(reorder=0.5, delay_time=40.0, seed=seed)
    assert not differences(run(case, "event"), run(case, "event", channels=Channels(faults=faults)))


def test_a_dead_layer_says_nothing_from_its_step_on():
    """Steps 0 and 1 as ever, then not one message from layer 1; what it sent last stays in the inboxes."""
    case = Case(steps=4)
    outcome = run(case, "event", channels=Channels(faults=Faults(dead=Dead(1, step=2))))
    senders = [event.layer for event in outcome.engine.timeline if event.kind == "message"]
    assert senders
    assert 1 not in senders
    before = run(replace(case, steps=2), "event")
    for layer, kind in ((2, MessageKind.PREDICTION), (0, MessageKind.ERROR)):
        held, said = (one.units[layer].inbox[kind] for one in (outcome, before))
        assert held.tobytes() == said.tobytes()
    per_step = sum(e.kind == "message" and e.layer == 1 for e in before.engine.timeline)
    assert outcome.engine.totals.unsent == 2 * per_step > 0


@pytest.mark.parametrize("engine", ["fast", "event"])
def test_a_share_of_a_layer_is_dead(engine):
    """Half of the four lines of layer 1's error stay as they were: zeros, as it was dead from the start."""
    outcome = run(Case(), engine, channels=Channels(faults=Faults(dead=Dead(1, 0.5))))
    silent = ~outcome.units[0].inbox[MessageKind.ERROR].any(axis=0)
    assert silent.sum() == 2
    np.testing.assert_array_equal(
        outcome.units[0].inbox[MessageKind.ERROR][:, ~silent], outcome.units[1].error[:, ~silent]
    )


def test_a_message_merges_into_what_was_there():
    """The receiver's copy: entries that are sent replace theirs, the others stay."""
    case = Case()
    units = case.network().layers(case.batch, RULES[case.rule])
    ChannelSet(CHANGES, case.network(), case.batch, units).prepare_inboxes()
    payload = np.full((2, 4), 7.0)
    entries = np.array([[True, False, True, False], [False] * 4])
    deliver(Message(MessageKind.PREDICTION, 0, 1, 0, payload, entries), units)
    np.testing.assert_array_equal(units[1].inbox[MessageKind.PREDICTION], np.where(entries, 7.0, 0.0))


# --------------------------------------------------------------------------------------- state, refusals

ALL_AT_ONCE = Channels(
    Messages(0.01, Rounding("Q2.9", "stochastic", 5)),
    Messages(0.001, Rounding("Q0.11", "stochastic", 5)),
    Faults(loss=0.2, dead=Dead(1, 0.3, 2), seed=8),
    Rounding("Q3.10", "stochastic", 4),
)


@pytest.mark.parametrize("engine", ["fast", "event"])
def test_a_state_resumes_bit_for_bit(engine):
    """Copies, last sent values and random states: two engines of two steps are one engine of four."""
    case = Case(steps=4, rule="mq")
    whole, halves = case.network(), case.network()
    one = _engine(engine, case, whole)
    for batch in case.data():
        one.step(*batch)
    first = _engine(engine, case, halves)
    for batch in case.data()[:2]:
        first.step(*batch)
    arrays, facts = first.state()
    second = _engine(engine, case, case.network())
    second.restore(arrays, facts)
    for batch in case.data()[2:]:
        second.step(*batch)
    (ours, ours_facts), (theirs, theirs_facts) = one.state(), second.state()
    assert ours.keys() == theirs.keys() >= {"sent_0_1", "inbox_prediction_1", "inbox_error_0"}
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)
    assert ours_facts == theirs_facts
    del arrays["sent_0_1"]
    with pytest.raises(CheckpointError, match="sent_0_1 is missing"):
        second.restore(arrays, facts)


def _engine(name, case, network):
    units = network.layers(case.batch, RULES[case.rule])
    program = case.schedule().plan(network)
    if name == "fast":
        return FastEngine(program, units, channels=ALL_AT_ONCE)
    return EventEngine(program, units, unit(), case.batch, channels=ALL_AT_ONCE)


@pytest.mark.parametrize("name", ["duplication", "delay", "reorder"])
def test_the_fast_engine_refuses_faults_in_time(name):
    """One line that names the fault and the way out."""
    faults = Faults(**{name: 0.1}, delay_time=1.0)
    with pytest.raises(ConfigurationError, match=f"faults.{name} depends on when messages arrive.*event"):
        run(Case(), "fast", channels=Channels(faults=faults))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Messages(-0.1), "threshold = -0.1"),
        (lambda: Messages(float("nan")), "threshold = nan"),
        (lambda: Faults(loss=1.5), "loss = 1.5: expected a probability"),
        (lambda: Faults(delay=0.1), "delay_time = 0.0: expected above 0"),
        (lambda: Dead(1, 0.0), "dead_share = 0.0"),
        (lambda: Rounding("Q9"), "format 'Q9'"),
        (lambda: Rounding("Q2.3", "up"), "rounding = 'up': expected one of nearest, stochastic"),
        (lambda: run(Case(), channels=Channels(faults=Faults(dead=Dead(9)))), "expected a layer from 0 to 3"),
    ],
)
def test_settings_that_cannot_be(make, said):
    """One line each."""
    with pytest.raises(ConfigurationError, match=said):
        make()


def test_timing_without_arithmetic_goes_through_channels_too():
    """Without units everything is taken to have changed; loss and duplication happen all the same."""
    case = Case()
    faults = Faults(loss=0.5, duplication=0.5, seed=1)
    engine = EventEngine(
        case.schedule().plan(case.network()), None, unit(), 2, channels=Channels(faults=faults)
    )
    for _ in range(5):
        engine.simulate()
    totals = engine.totals
    assert totals.messages == totals.received + totals.lost
    assert totals.lost > 0 < totals.copies


# -------------------------------------------------------------------------------- what the timeline tells


def test_roundoff_by_hand():
    """0.3 and −0.6 in Q2.1 become 0.5 and −0.5: errors 0.2 and 0.1, so √(0.05/2); the signal is √(0.45/2)."""
    channel = Channel(Channels(Messages(numbers=Rounding("Q2.1"))), (0, 1), (1, 2), np.dtype(float), None)
    payload = np.array([[0.3, -0.6]])
    found = channel.roundoff(payload, channel.send(payload, 0))
    assert found.rounding_error == pytest.approx(np.sqrt(0.025))
    assert found.root_mean_square == pytest.approx(np.sqrt(0.225))
    assert found.largest == 0.6
    plain = Channel(CHANGES, (0, 1), (1, 2), np.dtype(float), np.zeros((1, 2)))
    assert plain.roundoff(payload, plain.send(payload, 0)) == EXACT


@pytest.mark.parametrize(
    ("mishap", "fate"),
    [
        (Mishap(), Fate.ARRIVES),
        (Mishap(lost=True, delayed=True, stepped_aside=True), Fate.LOST),
        (Mishap(delayed=True, stepped_aside=True), Fate.REORDERED),
        (Mishap(copied=True, delayed=True), Fate.DELAYED),
        (Mishap(copied=True), Fate.ARRIVES),
    ],
)
def test_the_worst_that_happens_is_the_fate(mishap, fate):
    """Several mishaps of one message: what is lost is not late."""
    assert mishap.fate is fate


def test_the_timeline_tells_fates():
    """As many messages of each fate as the totals count; operations of a dead core say so."""
    faults = Faults(loss=0.3, duplication=0.3, dead=Dead(1, step=0), seed=2)
    outcome = run(Case(steps=1), "event", channels=Channels(faults=faults))
    timeline, totals = outcome.engine.timeline, outcome.engine.totals
    fates = [event.fate for event in timeline if event.kind == "message"]
    assert (fates.count(Fate.LOST), fates.count(Fate.COPY)) == (totals.lost, totals.copies)
    assert totals.lost > 0
    assert totals.copies > 0
    silent = [event for event in timeline if event.kind == "operation" and event.fate is Fate.UNSENT]
    assert len(silent) == totals.unsent > 0
    assert {event.layer for event in silent} == {1}
    assert {event.name for event in silent} == {"predict", "compare"}


def test_the_timeline_tells_rounding():
    """Operations that write an activity, and messages with a format, say what rounding did; others not."""
    numbers = Rounding("Q2.5")
    outcome = run(Case(steps=1), "event", channels=Channels(Messages(numbers=numbers), states=numbers))
    rounds = {event.name for event in outcome.engine.timeline if event.roundoff != EXACT}
    assert rounds == {"initialise", "relax", "clamp", "prediction"}
    for event in outcome.engine.timeline:
        assert event.roundoff.rounding_error <= 2**-6
