"""Time in the event engine: timelines drawn by hand, one thing at a time, and what asynchrony changes."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import HARD, ORDERS, Case, cases, run

from pcsim.engine.event import EventEngine
from pcsim.errors import ConfigurationError, ProgramError
from pcsim.hardware.clock import Hardware, Links, unit
from pcsim.learning import SGD
from pcsim.network.layer import MessageKind
from pcsim.network.network import Network
from pcsim.schedule.operation import Operation, Place
from pcsim.schedule.program import Program, Reaction, Schedule

ASYNCHRONOUS = Case(
    (3, 4, 5, 4, 2), order="asynchronous", iterations=5, step_size=0.1, step_decay="none", steps=1
)
HARDWARE = st.builds(
    Hardware,
    st.sampled_from([0.0, 1.0]),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([0.0, 2.0]),
    st.sampled_from([0.0, 0.1]),
    st.builds(
        Links,
        latency=st.sampled_from([0.0, 4.0]),
        link_latency=st.sampled_from([{}, {(1, 2): 30.0}, {(2, 1): 9.0}]),
        jitter=st.sampled_from([0.0, 3.0]),
        seed=st.integers(0, 9),
    ),
    st.sampled_from([0.0, 0.7]),
)


def drawn(timeline) -> list[tuple]:
    """The events without their sizes: who, what, from, to; messages as source → target."""
    return [
        (e.start, e.end, e.name, e.layer)
        if e.kind == "operation"
        else (e.start, e.end, e.name, e.layer, e.target)
        for e in timeline
    ]


def simulated(network: Network, schedule: Schedule, hardware: Hardware, batch: int = 2) -> EventEngine:
    """An engine after one mini-batch in which only time passed."""
    engine = EventEngine(schedule.plan(network), None, hardware, batch)
    engine.simulate()
    return engine


# ------------------------------------------------------------------------------------ drawn by hand


def test_timeline_of_unit_hardware():
    """2-3-4, sequential, T = 1, soft clamp; an operation takes 1, a message nothing.

        layer 2                          clamp 4-5 compare 5-6              clamp 9-10 compare 10-11
        layer 1      initialise 2-3 predict 3-4 compare 4-5 relax 6-7 compare 7-8 predict 8-9 learn 11-12
        layer 0  clamp 0-1 predict 1-2                                learn 8-9

    p1 at 2, p2 at 4, e2 at 6, e1 at 8, p2 at 9, e2 at 11. The first e1 would not be read: not sent.
    """
    engine = simulated(Network.dense([2, 3, 4]), Schedule("sequential", 1), unit())
    assert sorted(drawn(engine.timeline)) == sorted(
        [
            (0, 1, "clamp", 0),
            (1, 2, "predict", 0),
            (2, 2, "prediction", 0, 1),
            (2, 3, "initialise", 1),
            (3, 4, "predict", 1),
            (4, 4, "prediction", 1, 2),
            (4, 5, "compare", 1),
            (4, 5, "clamp", 2),
            (5, 6, "compare", 2),
            (6, 6, "error", 2, 1),
            (6, 7, "relax", 1),
            (7, 8, "compare", 1),
            (8, 8, "error", 1, 0),
            (8, 9, "predict", 1),
            (8, 9, "learn", 0),
            (9, 9, "prediction", 1, 2),
            (9, 10, "clamp", 2),
            (10, 11, "compare", 2),
            (11, 11, "error", 2, 1),
            (11, 12, "learn", 1),
        ]
    )
    assert engine.totals.simulated_time == 12


def test_timeline_of_a_hard_clamp_starts_at_the_top_too():
    """Y is there from the start: layer 2 clamps at 0-1 and has nothing to clamp after p2."""
    network = Network.dense([2, 3, 4], proximal_step=HARD)
    timeline = drawn(simulated(network, Schedule("sequential", 1), unit()).timeline)
    assert [event for event in timeline if event[2] == "clamp"] == [(0, 1, "clamp", 0), (0, 1, "clamp", 2)]
    assert timeline[-1] == (9, 10, "learn", 1)


def test_timeline_of_parametric_hardware():
    """2-3-4 float64, batch 2: 1 an operation + ½ a multiplication; messages 2 + ¼ a byte.

    predict 0 and learn 0: 1 + ½·12 = 7. predict 1, relax 1, learn 1: 1 + ½·24 = 13. Others 1.
    p1, e1: 3·2·8 = 48 bytes, 14. p2, e2: 4·2·8 = 64 bytes, 18.
    """
    network = Network.dense([2, 3, 4], dtype="float64")
    engine = simulated(network, Schedule("sequential", 1), Hardware(1, 0.5, 2, 0.25))
    expected = [
        (0, 1, "clamp", 0),
        (1, 8, "predict", 0),
        (8, 22, "prediction", 0, 1),
        (22, 23, "initialise", 1),
        (23, 36, "predict", 1),
        (36, 37, "compare", 1),
        (36, 54, "prediction", 1, 2),
        (54, 55, "clamp", 2),
        (55, 56, "compare", 2),
        (56, 74, "error", 2, 1),
        (74, 87, "relax", 1),
        (87, 88, "compare", 1),
        (88, 102, "error", 1, 0),
        (88, 101, "predict", 1),
        (101, 119, "prediction", 1, 2),
        (102, 109, "learn", 0),
        (119, 120, "clamp", 2),
        (120, 121, "compare", 2),
        (121, 139, "error", 2, 1),
        (139, 152, "learn", 1),
    ]
    assert sorted(drawn(engine.timeline)) == sorted(expected)
    assert engine.totals.simulated_time == 152
    assert (engine.totals.multiplications, engine.totals.bytes) == (4 * 24 + 2 * 12, 4 * 64 + 2 * 48)


def test_a_link_queues_what_a_fast_sender_sends():
    """A layer that sends every 1 on a link that needs 10: 1-11, 11-21, 21-31, in the order of sending."""
    values = []

    def shout(ops, layer):
        if layer == 0:
            yield ops.clamp(0)
            for _ in range(3):
                yield Operation(
                    "double",
                    0,
                    0,
                    frozenset({Place(0, "activity")}),
                    frozenset({Place(0, "activity")}),
                    MessageKind.PREDICTION,
                    action=lambda unit: np.multiply(unit.activity, 2, out=unit.activity),
                )
            return
        while True:
            yield None
            yield Operation(
                "look",
                1,
                0,
                frozenset({Place.inbox(1, MessageKind.PREDICTION)}),
                frozenset(),
                action=lambda unit: values.append(unit.inbox[MessageKind.PREDICTION][0, 0]),
            )

    network = Network.dense([1, 1], dtype="float64")
    schedule = Schedule("asynchronous", 1)
    plan = Reaction(network, replace(schedule.operations(network)), shout)
    units = network.layers(1, SGD(1e-300))
    units[0].inbox[MessageKind.ERROR] = np.zeros((1, 1))
    engine = EventEngine(plan, units, unit(Links(latency=10)), 1)
    engine.step(np.ones((1, 1)), np.ones((1, 1)))
    messages = [(e.start, e.end) for e in engine.timeline if e.kind == "message"]
    assert messages == [(2, 12), (12, 22), (22, 32)]
    assert values == [2, 4, 8]  # what each message said when it was sent, though the sender had 8 from 4 on


# ------------------------------------------------------------------------------------- what always holds


def events_by_layer(engine) -> dict[int, list]:
    """Operations of each layer in order of time."""
    found = defaultdict(list)
    for event in engine.timeline:
        if event.kind == "operation":
            found[event.layer].append(event)
    return found


PLANS = cases(rule="sgd", steps=1, order=st.sampled_from([*ORDERS, "asynchronous"]))


@settings(max_examples=80)
@given(PLANS, HARDWARE)
def test_one_thing_at_a_time(case, hardware):
    """A layer has one unit of arithmetic; a link one wire. Durations are those of the hardware."""
    engine = simulated(case.network(), case.schedule(), hardware, case.batch)
    for events in events_by_layer(engine).values():
        assert all(one.end <= other.start for one, other in pairwise(events))
    links = defaultdict(list)
    for event in engine.timeline:
        if event.kind == "message":
            links[event.layer, event.target].append(event)
            delay = hardware.time_per_message + hardware.time_per_byte * event.bytes
            delay += hardware.time_per_value * event.values
            delay += hardware.links.link_latency.get((event.layer, event.target), hardware.links.latency)
            assert -1e-9 <= event.end - event.start - delay <= hardware.links.jitter + 1e-9
            assert event.values == case.batch * case.sizes[max(event.layer, event.target)]
        else:
            busy = hardware.time_per_operation + hardware.time_per_multiplication * event.multiplications
            assert event.end - event.start == pytest.approx(busy)
    for events in links.values():
        assert all(one.end <= other.start for one, other in pairwise(events))
        assert [event.iteration for event in events] == sorted(event.iteration for event in events)
    starts = [event.start for event in engine.timeline]
    assert starts == sorted(starts)


@settings(max_examples=80)
@given(cases(rule="sgd", steps=1), HARDWARE)
def test_messages_arrive_before_they_are_read(case, hardware):
    """Walk program and timeline: a message starts after its sender and ends before its reader starts."""
    program = Program.build(case.network(), case.schedule())
    engine = simulated(case.network(), case.schedule(), hardware, case.batch)
    operations = {layer: iter(events) for layer, events in events_by_layer(engine).items()}
    messages = defaultdict(list)
    for event in engine.timeline:
        if event.kind == "message":
            messages[event.target, event.name].append(event)
    sent = defaultdict(int)
    for operation in program.operations:
        event = next(operations[operation.layer])
        assert (event.name, event.iteration) == (operation.name, operation.iteration)
        for kind in MessageKind:
            if Place.inbox(operation.layer, kind) in operation.reads:
                assert messages[operation.layer, kind][sent[operation.layer, kind] - 1].end <= event.start
        if operation.sends:
            message = messages[operation.target, operation.sends][sent[operation.target, operation.sends]]
            assert message.start >= event.end
            sent[operation.target, operation.sends] += 1
    assert {key: len(found) for key, found in messages.items()} == dict(sent)
    assert all(next(rest, None) is None for rest in operations.values())


@settings(max_examples=60)
@given(cases(rule="sgd", steps=1), HARDWARE)
def test_makespan_is_the_longest_chain(case, hardware):
    """No faster than its dependencies allow; with links that never make anything queue, exactly as fast."""
    program = Program.build(case.network(), case.schedule())
    engine = simulated(case.network(), case.schedule(), hardware, case.batch)
    free = dict.fromkeys(range(len(case.sizes)), 0.0)  # when a layer has done all before
    arrived: dict[Place, float] = {}
    item = case.network().dtype.itemsize
    for operation in program.operations:
        waits = [arrived[place] for place in operation.reads if place in arrived]
        busy = hardware.operation_time(
            operation.name, operation.layer, case.batch * operation.multiplications
        )
        free[operation.layer] = max([free[operation.layer], *waits]) + busy
        for place in operation.delivers:
            link = (operation.layer, operation.target)
            delay = hardware.links.link_latency.get(link, hardware.links.latency)
            values = case.batch * operation.values
            each = hardware.time_per_value + hardware.time_per_byte * item
            flight = hardware.time_per_message + each * values
            arrived[place] = free[operation.layer] + flight + delay
    longest = max([*free.values(), *arrived.values()])
    assert engine.totals.simulated_time >= longest - 1e-9
    links = hardware.links
    if not (
        links.latency
        or links.link_latency
        or links.jitter
        or hardware.time_per_byte + hardware.time_per_value + hardware.time_per_message
    ):
        assert engine.totals.simulated_time == pytest.approx(longest)


@settings(max_examples=40)
@given(PLANS, HARDWARE)
def test_time_without_arithmetic_is_the_same_time(case, hardware):
    """A timing-only run (no units) draws the same timeline; only zeros cannot be told."""
    engine = simulated(case.network(), case.schedule(), hardware, case.batch)
    calculated = run(case, "event", hardware).engine
    assert drawn(calculated.timeline) == drawn(engine.timeline)
    assert replace(calculated.totals, nonzero_values=0) == replace(engine.totals, nonzero_values=0)
    assert engine.totals.nonzero_values == engine.totals.values


def test_totals_add_up_over_mini_batches():
    """Time and traffic of a run are sums; the timeline is that of the latest mini-batch."""
    engine = EventEngine(Schedule().plan(Network.dense([3, 2, 2])), None, unit(), 2)
    engine.simulate()
    once = replace(engine.totals)
    engine.simulate()
    assert engine.totals.simulated_time == 2 * once.simulated_time
    assert engine.totals.messages == 2 * once.messages
    assert len(engine.timeline) == once.messages + once.operations


def test_simultaneous_is_faster_than_sequential_on_parallel_layers():
    """The reason to simulate time at all: equal work, shorter chain, the deeper the more."""
    network = Network.dense([4] * 9)
    times = {
        order: simulated(network, Schedule(order, 3), unit()).totals.simulated_time
        for order in ("simultaneous", "sequential")
    }
    assert times["simultaneous"] < 0.7 * times["sequential"]


# ------------------------------------------------------------------------------------- own operations


def look_twice(seen):
    """Layer 1 doubles its activity while its first prediction is still under way to layer 2."""

    def order(ops):
        hidden, inbox = Place(1, "activity"), Place.inbox(2, MessageKind.PREDICTION)
        look = Operation(
            "look",
            2,
            0,
            frozenset({inbox}),
            frozenset({Place(2, "activity")}),
            action=lambda unit: seen.append(unit.inbox[MessageKind.PREDICTION].copy()),
        )
        double = Operation(
            "double",
            1,
            0,
            frozenset({hidden}),
            frozenset({hidden}),
            action=double_it,
        )
        yield from (ops.clamp(0), ops.predict(0), ops.initialise(1), ops.predict(1), look)
        yield from (double, ops.predict(1), replace(look, name="look again"))

    return order


def double_it(unit) -> None:
    """Double an activity in place."""
    unit.activity *= 2


def test_a_message_says_what_its_sender_had_when_it_sent():
    """A slow link, a fast sender: the old values are read, on this engine as on the other."""
    case = Case((2, 3, 2), "identity", "identity", steps=1, batch=1, proximal_step=HARD)
    read = []
    for engine in ("fast", "event"):
        seen: list[np.ndarray] = []
        own = replace(case, order=look_twice(seen))
        outcome = run(own, engine, Hardware(1, links=Links(link_latency={(1, 2): 100.0})))
        read.append(seen)
    (weight, bias), activity = case.network().parameters[1], outcome.units[1].activity
    for seen in read:
        np.testing.assert_allclose(seen[0], activity / 2 @ weight.T + bias)
        np.testing.assert_allclose(seen[1], activity @ weight.T + bias)
    events = {event.name: event for event in outcome.engine.timeline if event.kind == "operation"}
    assert events["double"].end < events["look"].start, (
        "the sender must have moved on before the reader reads"
    )


def test_messages_that_wait_are_read_in_the_order_of_sending():
    """A busy receiver finds two predictions at the door: the older one belongs to its first reading."""
    case = Case((2, 3, 2), "identity", "identity", steps=1, batch=1, proximal_step=HARD)
    seen: list[np.ndarray] = []

    def order(ops):
        nothing = frozenset({Place(2, "bias")})  # which an output layer does not have
        for number in range(20):
            yield Operation(f"idle {number}", 2, 0, frozenset(), nothing, action=lambda unit: None)
        yield from look_twice(seen)(ops)

    timeline = run(replace(case, order=order), "event").engine.timeline
    arrived = [e.end for e in timeline if e.kind == "message" and e.target == 2]
    assert max(arrived) < next(e.start for e in timeline if e.name == "look")
    reference: list[np.ndarray] = []
    run(replace(case, order=look_twice(reference)), "fast")
    np.testing.assert_array_equal(seen, reference)


def test_asynchronous_layers_do_not_repeat_themselves():
    """T = 0: every layer says what it has to say once, 2 L messages, whatever arrives afterwards."""
    engine = simulated(ASYNCHRONOUS.network(), replace(ASYNCHRONOUS, iterations=0).schedule(), unit())
    assert engine.totals.messages == 2 * ASYNCHRONOUS.top
    assert sum(e.name == "compare" for e in engine.timeline) == ASYNCHRONOUS.top


@pytest.mark.parametrize("seed", range(6))
def test_asynchronous_comparisons_have_a_reason(seed):
    """A hidden layer compares only if it has moved, or a prediction has come, since it last did."""
    engine = simulated(ASYNCHRONOUS.network(), ASYNCHRONOUS.schedule(), unit(Links(jitter=3.0, seed=seed)))
    for layer in range(1, ASYNCHRONOUS.top):
        acts = [e for e in engine.timeline if e.kind == "operation" and e.layer == layer]
        moved = [e.start for e in acts if e.name in ("initialise", "relax")]
        told = [e.end for e in engine.timeline if e.name == "prediction" and e.target == layer]
        compared = [e.start for e in acts if e.name == "compare"]
        for before, now in itertools.pairwise(compared):
            assert any(before < time <= now for time in [*moved, *told]), (layer, before, now)


def test_payloads_cannot_be_changed_on_the_way():
    """A message is immutable: the receiver holds a read-only copy."""
    outcome = run(Case(), "event")
    for layer in outcome.units:
        for array in layer.inbox.values():
            with pytest.raises(ValueError, match="read-only"):
                array[:] = 0


def test_sending_without_a_payload_is_a_program_error():
    """A user's operation that forgets to return what it sends: named, not silently skipped."""

    def order(ops):
        yield from ops.forward_sweep()
        yield replace(ops.compare(2, 1), name="mute", action=lambda unit: None)
        yield from (ops.relax(1, 1), ops.compare(1, 1))
        yield from ops.learning_phase()

    with pytest.raises(
        ProgramError, match=r"mute\(layer 2\) sends its error but its action returned no payload"
    ):
        run(Case(order=order, sizes=(3, 4, 2)), "event")


@pytest.mark.parametrize("field", ["operation", "multiplication", "message", "byte", "value"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_durations_are_not_negative(field, value):
    """Time that runs backwards breaks the queue."""
    with pytest.raises(ConfigurationError, match=f"hardware.time_per_{field}"):
        Hardware(**{f"time_per_{field}": value})


# ---------------------------------------------------------------------------------------- asynchronous


def relaxations(engine) -> dict[int, int]:
    """How often each layer relaxed."""
    names = {layer: [event.name for event in events] for layer, events in events_by_layer(engine).items()}
    return {layer: names[layer].count("relax") for layer in sorted(names)}


def test_asynchronous_runs_are_reproducible():
    """One jitter seed, one result, to the bit and to the event."""
    hardware = unit(Links(jitter=2.0, seed=4))
    one, other = (run(ASYNCHRONOUS, "event", hardware) for _ in range(2))
    assert one.bits() == other.bits()
    assert one.engine.timeline == other.engine.timeline


def test_arrival_changes_asynchronous_numbers():
    """The counterpart of the static orders: which news come together depends on time."""
    results = {
        run(ASYNCHRONOUS, "event", unit(Links(jitter=3.0, seed=seed))).units[2].activity.tobytes()
        for seed in range(4)
    }
    assert len(results) > 1


@settings(max_examples=60)
@given(
    cases(order="asynchronous", rule="sgd", steps=2, depth=st.integers(3, 6), iterations=st.integers(1, 6)),
    HARDWARE,
)
def test_asynchronous_layers_relax_at_most_t_times(case, hardware):
    """Every hidden layer takes part, and the run ends."""
    engine = run(case, "event", hardware).engine
    counts = relaxations(engine)
    assert all(1 <= counts[layer] <= case.iterations for layer in range(1, case.top))
    assert sorted(e.layer for e in engine.timeline if e.name == "learn") == list(range(case.top))


def stale_places(case: Case, hardware: Hardware) -> list[str]:
    """Run one mini-batch; return where a layer at rest holds something that is no longer so."""
    network = case.network()
    units = network.layers(case.batch, SGD(1e-300))  # learning changes nothing, so the end is the rest
    EventEngine(case.schedule().plan(network), units, hardware, case.batch).step(*case.data()[0])
    stale = []
    for below, above in pairwise(units):
        prediction = np.empty_like(above.activity)
        below.kernels.predict(below.activity, below.weight, below.bias, below.traits.activation, prediction)
        said = above.kernels.output(above.traits.output, prediction) if above.traits.output else prediction
        pairs = {
            "prediction in the inbox": (above.inbox[MessageKind.PREDICTION], prediction),
            "error": (above.error, above.activity - said),
            "error in the inbox below": (below.inbox[MessageKind.ERROR], above.error),
        }
        stale += [
            f"layer {above.traits.index}: {name}"
            for name, (held, now) in pairs.items()
            if not np.allclose(held, now, rtol=1e-12, atol=1e-12)
        ]
    return stale


@settings(max_examples=60)
@given(cases(order="asynchronous", rule="sgd", steps=1), HARDWARE)
def test_asynchronous_layers_leave_no_news_unread(case, hardware):
    """At rest every error is that of the present activities, also the one that learning reads."""
    assert not stale_places(case, hardware)


@pytest.mark.parametrize("iterations", [3, 5])
def test_news_that_arrive_while_a_layer_is_busy_wake_it_afterwards(iterations):
    """With jitter, messages come in bunches: one that comes during a compare must not be slept through."""
    case = replace(ASYNCHRONOUS, sizes=(3, 4, 4, 4, 2), iterations=iterations)
    hardware = {seed: unit(Links(jitter=4.0, seed=seed)) for seed in range(120)}
    found = {seed: stale_places(case, machine) for seed, machine in hardware.items()}
    assert not {seed: stale for seed, stale in found.items() if stale}


@pytest.mark.parametrize("connections", [2, 3, 4, 6])
def test_asynchronous_layers_use_their_iterations(connections):
    """On unit hardware news keep coming until all T relaxations are made."""
    case = replace(ASYNCHRONOUS, sizes=(3,) + (4,) * (connections - 1) + (2,), iterations=6)
    counts = relaxations(run(case, "event").engine)
    assert {layer: counts[layer] for layer in range(1, connections)} == dict.fromkeys(
        range(1, connections), 6
    )


def test_asynchronous_without_iterations_is_a_forward_pass():
    """T = 0: no layer relaxes; the output's error still reaches the learning rule."""
    case = replace(ASYNCHRONOUS, iterations=0)
    outcome = run(case, "event")
    assert not any(relaxations(outcome.engine).values())
    expected = run(replace(case, order="sequential"), "fast")
    for ours, theirs in zip(outcome.network.parameters, expected.network.parameters):
        np.testing.assert_array_equal(ours[0], theirs[0])
    assert all(not unit.error.any() for unit in outcome.units[1:-1])


@pytest.mark.parametrize("jitter", [0.0, 3.0])
@pytest.mark.parametrize("order", ["sequential", "simultaneous", "red-black", "bottom-up", "asynchronous"])
def test_all_orders_reach_the_same_fixed_point(order, jitter):
    """A linear network under a hard clamp has one minimum of F: solve for it, and let each order find it."""
    case = Case(
        (3, 4, 5, 4, 2),
        "identity",
        "identity",
        order,
        iterations=1500,
        step_size=0.3,
        step_decay="none",
        proximal_step=HARD,
        steps=1,
    )
    outcome, (x, y), network = run(case, "event", unit(Links(jitter=jitter))), case.data()[0], case.network()
    # ∂F/∂ĥ_l = (ĥ_l − W ĥ_{l−1} − b) − Wᵀ(ĥ_{l+1} − W ĥ_l − b) = 0 for l = 1, 2, 3, solved as one system
    (w0, b0), (w1, b1), (w2, b2), (w3, b3) = network.parameters
    zero = np.zeros
    system = np.block(
        [
            [np.eye(4) + w1.T @ w1, -w1.T, zero((4, 4))],
            [-w1, np.eye(5) + w2.T @ w2, -w2.T],
            [zero((4, 4)), -w2, np.eye(4) + w3.T @ w3],
        ]
    )
    for sample in range(case.batch):
        right = [w0 @ x[sample] + b0 - w1.T @ b1, b1 - w2.T @ b2, b2 + w3.T @ (y[sample] - b3)]
        solution = np.linalg.solve(system, np.concatenate(right))
        ours = np.concatenate([outcome.units[layer].activity[sample] for layer in (1, 2, 3)])
        np.testing.assert_allclose(ours, solution, atol=1e-8)
