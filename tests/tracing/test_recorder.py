"""What the recorder writes is what happened."""

import dataclasses
from itertools import count
from typing import get_args

import numpy as np
import pytest
from wires import wired

import pcsim
from pcsim.engine.event import EventEngine
from pcsim.engine.fast import FastEngine
from pcsim.engine.observer import Statistics
from pcsim.errors import ConfigurationError, TraceError
from pcsim.network.layer import MessageKind
from pcsim.schedule.channel import Dead
from pcsim.schedule.orders import asynchronous, simultaneous
from pcsim.tracing.probes import Quantity
from pcsim.tracing.recorder import Recorder
from pcsim.tracing.writer import TraceWriter

STATIC = ("sequential", "simultaneous", "bottom-up", "red-black", "incremental")
RUNS = [(order, engine) for order in STATIC for engine in ("fast", "event")] + [("asynchronous", "event")]
SENT = {"prediction_message": MessageKind.PREDICTION, "error_message": MessageKind.ERROR}


def experiment(schedule, **changes):
    """Return a short experiment on the digits, with probes of everything."""
    quantities = get_args(Quantity)
    given = {
        "probes": (pcsim.Probe("all", quantities, samples=2, every=7, dtype="float64"),),
        "batch": 32,
        "record_every": 10,
    } | changes
    network = pcsim.Network.dense([64, 9, 8, 10], activation="tanh", dtype="float64", seed=2)
    return pcsim.Experiment(network, pcsim.load_dataset("digits"), pcsim.SGD(0.2), schedule, **given)


@pytest.mark.parametrize(("order", "engine"), RUNS)
def test_probes_and_summary_agree(tmp_path, order, engine):
    """Recorded arrays fit each other: e = ĥ − p at every iteration, and their norm is the summary's."""
    given = experiment(pcsim.Schedule(order, iterations=3, step_size=0.2), batch=2, record_every=7)
    path = tmp_path / "t.h5"
    pcsim.run(given, engine=engine, kernels=pcsim.make_kernels("reference"), trace=path)
    with pcsim.open_trace(path) as trace:
        probe, summary = trace.table("probes/all"), trace.table("summary")
        assert np.array_equal(probe.read("step"), summary.read("step"))
        half = summary.read("squared_error")
        for layer in (1, 2, 3):
            error = probe.read(f"error_{layer}")
            assert error.shape[1:] == (4, 2, [9, 8, 10][layer - 1])
            assert np.allclose(
                0.5 * (error**2).sum(axis=(2, 3)) / 2, half[:, :, layer - 1], rtol=1e-9, atol=1e-15
            )
            if layer < 3:
                shown = probe.read(f"activity_{layer}") - probe.read(f"prediction_{layer}")
                assert np.allclose(shown, error, atol=1e-12)
        assert probe.dims("weight_1") == ("step", "target_neuron_1", "source_neuron_1")
        assert not half[0, 0, :2].any()  # nothing but the clamp has happened at iteration 0
        assert half[0, 0, 2] > 0


def test_weights_are_those_after_learning(tmp_path):
    """The last recorded weight is the trained network's, where the last step is recorded."""
    given = experiment(pcsim.Schedule(), probes=(pcsim.Probe("w", ("weight",), every=1, dtype="float64"),))
    pcsim.run(given, trace=tmp_path / "t.h5")
    with pcsim.open_trace(tmp_path / "t.h5") as trace:
        recorded = trace.table("probes/w").read("weight_1")[-1]
    assert np.array_equal(recorded, given.network.parameters[1][0])


def test_update_magnitude_is_the_mean_change(tmp_path):
    """Two recorded weights and biases differ by what the summary says they did."""
    given = experiment(pcsim.Schedule(), probes=(), record_every=1)
    before = [np.concatenate([w.ravel(), b]) for w, b in given.network.parameters]
    one = experiment(pcsim.Schedule(), probes=(), record_every=1, batch=1400)
    pcsim.run(one, trace=tmp_path / "t.h5")
    after = [np.concatenate([w.ravel(), b]) for w, b in one.network.parameters]
    with pcsim.open_trace(tmp_path / "t.h5") as trace:
        told = trace.table("summary").read("update_magnitude")[0]
    assert np.allclose(told, [np.abs(a - b).mean() for a, b in zip(after, before, strict=True)], rtol=1e-9)


@pytest.mark.parametrize(("order", "engine"), RUNS)
def test_updates_are_what_weights_change_by(tmp_path, order, engine):
    """Two recorded weights, one training step apart, differ by the update; so do biases."""
    probe = pcsim.Probe("w", ("weight", "update", "bias", "bias_update"), every=1, dtype="float64")
    given = experiment(pcsim.Schedule(order, 2), probes=(probe,), record_every=1)
    before = [(weight.copy(), bias.copy()) for weight, bias in given.network.parameters]
    pcsim.run(given, engine=engine, trace=tmp_path / "t.h5")
    with pcsim.open_trace(tmp_path / "t.h5") as trace:
        table, told = trace.table("probes/w"), trace.table("summary").read("update_magnitude")
        assert table.rows == 44
        assert table.dims("bias_update_1") == ("step", "target_neuron_1")
        assert table.dims("update_1") == ("step", "target_neuron_1", "source_neuron_1")
        for layer, (weight, bias) in enumerate(before):
            update, bias_update = table.read(f"update_{layer}"), table.read(f"bias_update_{layer}")
            for start, kind, change in ((weight, "weight", update), (bias, "bias", bias_update)):
                values = np.concatenate([start[np.newaxis], table.read(f"{kind}_{layer}")])
                assert np.array_equal(np.diff(values, axis=0), change)
            if order != "incremental":  # there the summary tells the last of several updates
                total = np.abs(update).sum(axis=(1, 2)) + np.abs(bias_update).sum(axis=1)
                assert np.allclose(total / (weight.size + bias.size), told[:, layer], rtol=1e-9)


@pytest.mark.parametrize(("order", "engine"), RUNS)
def test_messages_are_the_last_of_each_iteration(tmp_path, order, engine):
    """What the receivers get: the event engine's own messages, and the arrays that made them."""
    network = pcsim.Network.dense([5, 4, 3, 6, 2], activation="tanh", dtype="float64", seed=1)
    plan = pcsim.Schedule(order, 3, 0.2).plan(network)
    units, statistics = network.layers(2, pcsim.SGD(0.1)), Statistics(3, network.top)
    rng = np.random.default_rng(3)
    sent: dict[tuple[str, int, int], np.ndarray] = {}
    with TraceWriter(tmp_path / "t.h5", {}) as writer:
        probe = pcsim.Probe("m", ("message",), samples=2, every=1, dtype="float64")
        recorder = Recorder(writer, network, units, statistics, 3, [probe])
        heard = recorder.listening_to(plan)
        observers = [statistics, recorder]
        if engine == "fast":
            runner = FastEngine(heard, units, observers)
        else:
            chance = pcsim.unit(pcsim.Links(jitter=1e-9))  # without any, the queue is needed only once
            runner = EventEngine(heard, units, chance, 2, observers)
            note = runner._send

            def listen(message, now):
                sent[message.kind, message.source, message.iteration] = message.payload.copy()
                note(message, now)

            runner._send = listen
        rows = []
        for _ in range(3):
            sent.clear()
            runner.step(rng.normal(size=(2, 5)), np.eye(2))
            rows.append(dict(sent))
    with pcsim.open_trace(tmp_path / "t.h5") as trace:
        table = trace.table("probes/m")
        assert table.dims("prediction_message_0") == ("step", "iteration", "sample", "neuron_1")
        assert table.dims("error_message_2") == ("step", "iteration", "sample", "neuron_2")
        assert [name for name in table.columns if "message" in name] == [
            *(f"error_message_{layer}" for layer in range(1, 5)),
            *(f"prediction_message_{layer}" for layer in range(4)),
        ]
        recorded = {name: table.read(name) for name in table.columns}
    for name, kind in SENT.items():
        for layer in range(4) if kind == "prediction" else range(1, 5):
            told = recorded[f"{name}_{layer}"]
            assert told.any()
            if engine == "event":
                for step, row in enumerate(rows):
                    expected = np.zeros_like(told[step, 0])
                    for iteration in range(4):
                        expected = row.get((kind, layer, iteration), expected)
                        assert np.array_equal(told[step, iteration], expected)
    last = units[0].outgoing, units[3].outgoing, units[4].error
    names = "prediction_message_0", "prediction_message_3", "error_message_4"
    for now, name in zip(last, names, strict=True):
        assert np.array_equal(recorded[name][-1, -1], now)


@pytest.mark.parametrize("order", STATIC)
def test_both_engines_record_the_same_messages(tmp_path, order):
    """The fast engine has no messages to look at, only buffers; what it records must not differ."""
    read = []
    for engine in ("fast", "event"):
        given = experiment(pcsim.Schedule(order, 3, 0.2))
        path = tmp_path / f"{engine}.h5"
        pcsim.run(given, engine=engine, kernels=pcsim.make_kernels("reference"), trace=path)
        with pcsim.open_trace(path) as trace:
            table = trace.table("probes/all")
            read.append({name: table.read(name) for name in table.columns})
    assert len(read[0]) == 1 + 4 + 3 + 3 + 3 + 3 + 4 * 3 + 1  # the step, …, the target
    for name, array in read[0].items():
        assert np.array_equal(array, read[1][name]), name


WIRES = {
    "formats": wired(None, "Q4.7", "Q0.11"),
    "threshold": wired(0.02),
    "formats, threshold, loss": wired(0.01, "Q4.7", "Q0.11", loss=0.3),
    "dead later": wired(dead=Dead(2, step=3)),
    "dead lines": wired(None, "Q4.7", "Q0.11", dead=Dead(1, 0.5)),
}


@pytest.mark.parametrize("wire", WIRES)
def test_messages_are_what_receivers_have(tmp_path, wire):
    """Beyond channels a message is what has come of it: the probe once kept what nobody was ever sent."""
    read, probes = [], (pcsim.Probe("all", get_args(Quantity), samples=32, every=1, dtype="float64"),)
    for engine in ("fast", "event"):
        given = experiment(pcsim.Schedule("sequential", 3, 0.2), channels=WIRES[wire], probes=probes)
        path = tmp_path / f"{engine}.h5"
        pcsim.run(given, engine=engine, kernels=pcsim.make_kernels("reference"), trace=path)
        with pcsim.open_trace(path) as trace:
            table = trace.table("probes/all")
            read.append({name: table.read(name) for name in table.columns})
    assert all(np.array_equal(array, read[1][name]) for name, array in read[0].items())
    told, rounded = read[0], "formats" in wire or wire == "dead lines"
    for layer in (1, 2, 3):
        # The last comparison of a training step is with the last prediction.
        message = told[f"prediction_message_{layer - 1}"]
        assert np.array_equal(told[f"prediction_{layer}"][:, -1], message[:, -1])
        if rounded:
            assert not np.remainder(message * 2**7, 1).any()
            assert not np.remainder(told[f"error_message_{layer}"] * 2**11, 1).any()
    if wire == "dead later":
        assert np.ptp(told["error_message_2"][:3], axis=(0, 1)).any()
        assert (told["error_message_2"][3:, -1] == told["error_message_2"][2, -1]).all()
    if wire == "dead lines":
        assert (~told["error_message_1"].any(axis=(0, 1, 2))).sum() >= 4  # round(0.5 * 9)


@pytest.mark.parametrize("order", ["sequential", "asynchronous"])
def test_messages_of_an_event_engine_are_its_inboxes(tmp_path, order):
    """Held back, doubled or dead: what was recorded last is what lies in the inboxes at the end."""
    mishaps = {"loss": 0.2, "duplication": 0.2, "delay": 0.2, "delay_time": 3.0}
    network = pcsim.Network.dense([5, 4, 3, 6, 2], activation="tanh", dtype="float64", seed=1)
    plan = pcsim.Schedule(order, 3, 0.2).plan(network)
    units, statistics = network.layers(2, pcsim.SGD(0.1)), Statistics(3, network.top)
    rng = np.random.default_rng(3)
    with TraceWriter(tmp_path / "t.h5", {}) as writer:
        probe = pcsim.Probe("m", ("message",), samples=2, every=1, dtype="float64")
        recorder = Recorder(writer, network, units, statistics, 3, [probe])
        how = {"channels": wired(0.05, **mishaps)}
        runner = EventEngine(plan, units, pcsim.unit(), 2, [statistics, recorder], **how)
        for _ in range(5):
            runner.step(rng.normal(size=(2, 5)), np.eye(2))
    with pcsim.open_trace(tmp_path / "t.h5") as trace:
        table = trace.table("probes/m")
        for layer in range(4):
            above = units[layer + 1].inbox[MessageKind.PREDICTION]
            assert np.array_equal(table.read(f"prediction_message_{layer}")[-1, -1], above)
            below = units[layer].inbox[MessageKind.ERROR]
            assert np.array_equal(table.read(f"error_message_{layer + 1}")[-1, -1], below)


def test_listening_changes_nothing(tmp_path):
    """An asynchronous layer skips what would repeat itself; a tapped operation must still be known again."""
    counts = []
    for probes in ((), (pcsim.Probe("m", ("message",), every=1), pcsim.Probe("n", ("message",), every=2))):
        given = experiment(pcsim.Schedule("asynchronous", 3, 0.2), probes=probes)
        summary = pcsim.run(given, engine="event", trace=tmp_path / f"{len(probes)}.h5")
        weights = [weight.tobytes() for weight, _ in given.network.parameters]
        counts.append((summary.messages, summary.nonzero_values, summary.simulated_time, weights))
    assert counts[0] == counts[1]


def test_own_messages_are_heard(tmp_path):
    """A user's operation may send something that no layer keeps: the payload itself is recorded."""

    def order(ops):
        yield from ops.forward_sweep()
        reads, error = frozenset({pcsim.Place(2, "activity")}), pcsim.MessageKind.ERROR
        yield pcsim.Operation(
            "shout", 2, 1, reads, frozenset(), error, action=lambda unit: 0 * unit.activity + 7
        )
        yield from ops.learning_phase()

    for engine in ("fast", "event"):
        path = tmp_path / f"{engine}.h5"
        pcsim.run(experiment(pcsim.Schedule(order, 2)), engine=engine, trace=path)
        with pcsim.open_trace(path) as trace:
            told = trace.table("probes/all").read("error_message_2")
        assert (told[:, 1:] == 7).all()


@pytest.mark.parametrize("samples", [(3, 0), (1,), (0, 1, 2)])
def test_chosen_samples(tmp_path, samples):
    """Samples are picked by index, in the order given, and the file says which they are."""
    probes = [
        pcsim.Probe(name, ("activity", "message"), samples=which, every=7, dtype="float64")
        for name, which in (("all", 32), ("some", samples))
    ]
    pcsim.run(experiment(pcsim.Schedule(), probes=tuple(probes)), trace=tmp_path / "t.h5")
    with pcsim.open_trace(tmp_path / "t.h5") as trace:
        every, some = trace.table("probes/all"), trace.table("probes/some")
        assert tuple(some.coordinate("sample")) == samples
        for name in some.columns:
            if name != "step":
                assert np.array_equal(some.read(name), every.read(name)[:, :, list(samples)])


def test_samples_that_are_not_there(tmp_path):
    """An index beyond the mini-batch is refused before anything runs, not in the first step."""
    given = experiment(pcsim.Schedule(), probes=(pcsim.Probe("p", ("error",), samples=(0, 32)),))
    with pytest.raises(
        ConfigurationError, match="sample 32 of mini-batches of 32: expected indices from 0 to 31"
    ):
        pcsim.run(given, trace=tmp_path / "t.h5")
    given = experiment(pcsim.Schedule(), probes=(pcsim.Probe("p", ("error",), layers=(0,)),))
    with pytest.raises(ConfigurationError, match=r"probe p: layers \[0\] have no error"):
        pcsim.run(given, trace=tmp_path / "u.h5")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_arrays_in_any_memory_order(tmp_path, dtype):
    """Kernels may keep activities neuron by neuron in memory: what is recorded is the same."""
    read = []
    for order in "CF":
        network = pcsim.Network.dense([5, 4, 3], dtype="float32", seed=1)
        units = network.layers(6, pcsim.SGD(0.1))
        for unit in units:
            unit.activity, unit.error = (
                np.asarray(array, order=order) for array in (unit.activity, unit.error)
            )
        for unit in units[:-1]:
            unit.outgoing = np.asarray(unit.outgoing, order=order)
        statistics = Statistics(2, 2)
        with TraceWriter(tmp_path / f"{order}.h5", {}) as writer:
            probe = pcsim.Probe("p", get_args(Quantity), samples=(4, 1), every=1, dtype=dtype)
            recorder = Recorder(writer, network, units, statistics, 2, [probe])
            plan = recorder.listening_to(pcsim.Schedule("sequential", 2).plan(network))
            FastEngine(plan, units, [statistics, recorder]).step(
                np.random.default_rng(0).normal(size=(6, 5)).astype("float32"),
                np.eye(3, dtype="float32")[[0, 1, 2] * 2],
            )
        with pcsim.open_trace(tmp_path / f"{order}.h5") as trace:
            table = trace.table("probes/p")
            read.append({name: table.read(name) for name in table.columns})
            assert table.column("activity_1").dtype == dtype
    for name, array in read[0].items():
        assert np.allclose(array, read[1][name], rtol=1e-5, atol=1e-6), name


def test_own_operations_have_their_names(tmp_path):
    """A user's own operation is named in the events, not lumped together."""

    def order(ops):
        yield from ops.forward_sweep()
        places = frozenset({pcsim.Place(1, "activity")})
        yield pcsim.Operation("look around", 1, 0, places, places, action=lambda unit: None)
        yield from ops.learning_phase()

    pcsim.run(experiment(pcsim.Schedule(order)), engine="event", trace=tmp_path / "t.h5")
    with pcsim.open_trace(tmp_path / "t.h5") as trace:
        assert "look_around" in set(trace.table("events").decode("name"))


def test_any_white_space_in_a_name(tmp_path):
    """A blank that does not break is white space, too: it gave later names the meanings of earlier ones."""

    def order(ops):
        yield from ops.forward_sweep()
        places = frozenset({pcsim.Place(1, "activity")})
        for name in ("look\u00a0here", "compare target", "look\tback"):
            yield pcsim.Operation(name, 1, 0, places, places, action=lambda unit: None)
        yield from ops.learning_phase()

    pcsim.run(experiment(pcsim.Schedule(order)), engine="event", trace=tmp_path / "t.h5")
    with pcsim.open_trace(tmp_path / "t.h5") as trace:
        names = trace.table("events").decode("name")
    assert {"look_here", "compare_target", "look_back"} < set(names)
    assert list(names[names == "learn"]) == ["learn"] * (np.sum(names == "look_back") * 3)


def test_more_names_than_eight_bits_have(tmp_path):
    """An order may name its operations by iteration; code 128 became -128, and the trace unreadable."""

    def order(ops):
        for one in simultaneous(ops):
            named = one.name == "relax"
            yield dataclasses.replace(one, name=f"relax {one.iteration}") if named else one

    given = experiment(pcsim.Schedule(order, 140, 0.01), probes=(), record_every=1000)
    pcsim.run(given, engine="event", trace=tmp_path / "t.h5")
    with pcsim.open_trace(tmp_path / "t.h5") as trace:
        names = set(trace.table("events").decode("name"))
    assert {f"relax_{iteration}" for iteration in range(1, 141)} < names


def reactive(late=False):
    """An asynchronous order with an operation of its own; with a name that changes, if it is to be late."""
    steps = count()

    def order(ops, layer):
        place, step = frozenset({pcsim.Place(layer, "activity")}), next(steps)
        for one in asynchronous(ops, layer):
            if one is not None and one.name == "relax":
                name = f"nudge {step}" if late else "nudge"
                yield pcsim.Operation(name, layer, 1, place, place, action=lambda unit: None)
            yield one

    return pcsim.Schedule(pcsim.Reactive(order))


def test_own_operations_of_reactive_orders_have_their_names(tmp_path):
    """They have no list, so the trace did not know the names; and a trace changes no number."""
    weights = []
    for path in (None, tmp_path / "t.h5"):
        given = experiment(reactive(), probes=())
        pcsim.run(given, engine="event", trace=path)
        weights.append([weight.tobytes() for weight, _ in given.network.parameters])
    assert weights[0] == weights[1]
    with pcsim.open_trace(tmp_path / "t.h5") as trace:
        assert "nudge" in set(trace.table("events").decode("name"))


def test_names_that_nobody_could_know(tmp_path):
    """An order may make names up as it goes; the trace says so in one line."""
    with pytest.raises(TraceError, match=r"begun without the operation 'nudge \d+': expected names"):
        pcsim.run(experiment(reactive(late=True)), engine="event", trace=tmp_path / "t.h5")


def test_lives_without_an_end():
    """Names are looked for in orders that wait for ever, and in those that too much news lead astray."""

    def order(ops, layer):
        yield ops.clamp(0)
        for iteration in count(1):
            yield from (ops.relax(1, iteration), None)

    network = pcsim.Network.dense([3, 4, 2])
    assert pcsim.Schedule(pcsim.Reactive(order)).plan(network).names == ("clamp", "relax")
    known = {"clamp", "predict", "initialise", "compare", "relax"}
    assert set(pcsim.Schedule("asynchronous").plan(network).names) == known


def test_float16_overflow_is_refused(tmp_path):
    """A narrow probe must not turn large activities into infinities without a word."""
    schedule = pcsim.Schedule(iterations=1, step_size=1e7)
    probes = (pcsim.Probe("narrow", ("activity",), dtype="float16"),)
    with pytest.raises(TraceError, match=r"narrow: activity_\d goes beyond float16"):
        pcsim.run(experiment(schedule, probes=probes), trace=tmp_path / "t.h5")


@pytest.mark.parametrize(
    "wrong",
    [
        {"record": ("eror",)},
        {"record": "error"},
        {"every": 0},
        {"samples": 0},
        {"samples": ()},
        {"samples": (1, 1)},
        {"samples": (-1,)},
        {"samples": [1]},
        {"dtype": "int8"},
    ],
)
def test_wrong_probes(wrong):
    """A slip in a probe is told when it is made."""
    with pytest.raises(ConfigurationError, match="probe p"):
        pcsim.Probe(**({"name": "p", "record": ("error",)} | wrong))


def test_a_trace_says_what_made_it(tmp_path):
    """Without a model file too, the trace holds what decides its numbers: network, schedule, rule, seeds."""
    given = experiment(pcsim.Schedule("red-black", 2, 0.07, "none"), seed=5)
    pcsim.run(given, trace=tmp_path / "t.h5")
    with pcsim.open_trace(tmp_path / "t.h5") as trace:
        told = trace.attributes["experiment"]
        assert trace.attributes["kernels"] == "CpuKernels"
    assert told["network"]["activation"] == ["identity", "tanh", "tanh", "tanh"]
    assert told["network"]["layers"] == [64, 9, 8, 10]
    assert told["network"]["dtype"] == "float64"
    expected = {"order": "red-black", "iterations": 2, "step_size": 0.07, "step_decay": "none"}
    assert told["schedule"] == expected
    assert told["learning"] == "SGD(rate=0.2)"
    assert told["training"]["seed"] == 5
