"""Own orders and operations: never pruned wrongly, never silently wrong, refused with a reason."""

from dataclasses import replace

import numpy as np
import pytest

import pcsim
from pcsim.errors import ConfigurationError, LocalityError, ProgramError, ShapeError
from pcsim.network.layer import MessageKind

SIZES = [3, 4, 4, 2]


@pytest.fixture
def network():
    """A small network with curved activations, so that every change shows."""
    return pcsim.Network.dense(SIZES, activation="tanh", dtype="float64", seed=3)


@pytest.fixture
def data():
    """One mini-batch of five samples."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((5, 3)), np.eye(2)[rng.integers(0, 2, 5)]


def own(layer, iteration, name, action, *, reads=(), writes=(), sends=None):
    """Return an operation of a user's own."""
    places = (frozenset(pcsim.Place(layer, place) for place in names) for names in (reads, writes))
    return pcsim.Operation(name, layer, iteration, *places, sends, action=action)


def built(network, order, iterations=3):
    """Return the program of an order."""
    return pcsim.Program.build(network, pcsim.Schedule(order, iterations=iterations))


def fast(network, program, rule=None, batch=5):
    """Return an engine and its units."""
    units = network.layers(batch, rule or pcsim.SGD(0.1))
    return pcsim.FastEngine(program, units), units


def test_own_action_is_not_taken_for_its_predecessor(network, data):
    """Three injections that differ in what they do all run, though they declare the same."""

    def order(ops):
        yield from ops.forward_sweep()
        for iteration in ops.iterations:
            yield own(1, iteration, "inject", lambda u, v=iteration: u.activity.fill(v), writes=["activity"])
        yield from ops.learning_phase()

    engine, units = fast(network, built(network, order))
    engine.step(*data)
    assert (units[1].activity == 3).all()


def test_replaced_message_is_sent_again(network, data):
    """A prediction that somebody else's message has replaced is no repetition."""

    def order(ops):
        yield from ops.forward_sweep()
        mute = own(0, 1, "mute", lambda u: np.zeros_like(u.outgoing), sends=MessageKind.PREDICTION)
        look = own(1, 1, "look", lambda u: None, reads=["inbox.prediction"], writes=["bias"])
        yield from (mute, look, ops.predict(0, 1), ops.compare(1, 1))
        yield from ops.learning_phase()

    engine, units = fast(network, built(network, order, 1))
    engine.step(*data)
    assert not units[1].error.any()  # ĥ_1 is still its prediction; the muted one would leave an error


def test_engines_take_turns_on_the_same_units(data):
    """Train fast, look at one timeline, train on: the same weights as without the look."""
    weights = []
    for turns in (("fast", "fast", "fast"), ("fast", "event", "fast")):
        network = pcsim.Network.dense(SIZES, activation="tanh", dtype="float64", seed=3)
        program = built(network, "sequential")
        units = network.layers(5, pcsim.MQ(1e-2))
        engines = {
            "fast": pcsim.FastEngine(program, units),
            "event": pcsim.EventEngine(program, units, pcsim.unit(), 5),
        }
        for turn in turns:
            engines[turn].step(*data)
        weights.append([weight.copy() for weight, _ in network.parameters])
    for ours, expected in zip(*weights, strict=True):
        assert np.array_equal(ours, expected)


@pytest.mark.parametrize(
    ("call", "saying"),
    [
        (lambda ops: ops.relax(1, 0), r"relax\(layer 1\) in iteration 0.*from 1 to 3"),
        (lambda ops: ops.relax(1, 4), r"iteration 4"),
        (lambda ops: ops.relax(3, 1), r"hidden layers 1 to 2"),
        (lambda ops: ops.clamp(1, 1), r"clamp\(layer 1\): expected the input, 0, or the output, 3"),
        (lambda ops: ops.learn(3, 1), r"learn\(layer 3\): expected a layer from 0 to 2"),
        (lambda ops: ops.predict(3), r"predict\(layer 3\): expected a layer from 0 to 2"),
        (lambda ops: ops.compare(0), r"compare\(layer 0\): expected a layer from 1 to 3"),
        (lambda ops: ops.compare(2, -1), r"iteration -1: expected 0 to 3"),
        (lambda ops: ops.compare(2, 99), r"iteration 99"),
        (lambda ops: replace(ops.compare(2, 1), layer=7), r"layer 7: expected 0 to 3"),
        (lambda ops: None, r"yields None: expected operations"),
    ],
)
def test_slips_in_an_order(network, call, saying):
    """A wrong layer or iteration must not become a wrong step size or a wrong label."""

    def order(ops):
        yield from ops.forward_sweep()
        yield call(ops)

    with pytest.raises(ProgramError, match=saying):
        built(network, order)


def test_iterations_are_the_labels_that_operations_take(network):
    """`for iteration in ops.iterations` can be handed on as it is."""
    operations = pcsim.Schedule(iterations=3, step_size=0.6).operations(network)
    assert list(operations.iterations) == [1, 2, 3]
    steps = [operations.relax(1, iteration).action.step for iteration in operations.iterations]
    assert steps == pytest.approx([0.6, 0.3, 0.2])


def test_own_comparison_is_seen_by_the_statistics(network, data):
    """Whoever forms an error is recorded, whatever it is called."""

    def renamed(order):
        def listed(ops):
            return (replace(op, name="weigh") if op.name == "compare" else op for op in order(ops))

        return listed

    from pcsim.schedule.orders import sequential

    rows = []
    for order in (sequential, renamed(sequential)):
        statistics = pcsim.Statistics(3, network.top)
        pcsim.FastEngine(built(network, order), network.layers(5, pcsim.SGD(1e-9)), [statistics]).step(*data)
        rows.append(statistics.squared_error.copy())
    assert rows[0][1:].all()
    assert np.allclose(rows[0], rows[1], rtol=1e-6)


def test_what_follows_a_comparison_is_seen_by_the_statistics(network, data):
    """An own action that compares and then changes the error: recorded is the error that it leaves."""

    def doubled(unit):
        unit.compare()
        unit.error[...] *= 2
        return unit.error

    def order(ops):
        yield from ops.forward_sweep()
        yield from (replace(op, action=doubled) if op.name == "compare" else op for op in ops.settle(1))
        yield from ops.learning_phase()

    statistics, kernels = pcsim.Statistics(1, network.top), pcsim.make_kernels("cpu", network.dtype.name)
    units = network.layers(5, pcsim.SGD(1e-9), kernels)
    program = pcsim.Program.build(network, pcsim.Schedule(order, iterations=1))
    pcsim.FastEngine(program, units, [statistics]).step(*data)
    assert statistics.squared_error[1, -1] == pytest.approx(units[-1].squared_error())


@pytest.mark.parametrize("shape", [(1, 3), (5, 1), (3,), (4, 3)])
@pytest.mark.parametrize("engine", ["fast", "event"])
def test_inputs_are_not_broadcast(network, data, engine, shape):
    """A mini-batch of the wrong shape would otherwise spread silently over the units."""
    program, units = built(network, "sequential"), network.layers(5, pcsim.SGD(0.1))
    runner = (
        pcsim.FastEngine(program, units)
        if engine == "fast"
        else pcsim.EventEngine(program, units, pcsim.unit(), 5)
    )
    with pytest.raises(ShapeError, match=r"inputs of shape .* expected \(5, 3\)"):
        runner.step(np.ones(shape), data[1])


@pytest.mark.parametrize("payload", [None, np.zeros((5, 9)), np.zeros((1, 4))])
@pytest.mark.parametrize("engine", ["fast", "event"])
def test_payloads_are_checked(network, data, engine, payload):
    """A message that is missing or misshapen is named; it must not leave the old one in place."""

    def order(ops):
        yield from ops.forward_sweep()
        yield own(2, 1, "shout", lambda u: payload, sends=MessageKind.ERROR)
        yield from ops.learning_phase()

    program, units = built(network, order, 1), network.layers(5, pcsim.SGD(0.1))
    runner = (
        pcsim.FastEngine(program, units)
        if engine == "fast"
        else pcsim.EventEngine(program, units, pcsim.unit(), 5)
    )
    with pytest.raises(ProgramError, match=r"shout\(layer 2\) sends"):
        runner.step(*data)


def test_own_messages_are_counted_with_their_width(network):
    """The width follows from who sends to whom, so that nobody has to declare it."""

    def order(ops):
        yield from ops.forward_sweep()
        yield own(2, 1, "shout", lambda u: u.error, reads=["error"], sends=MessageKind.ERROR)
        yield ops.learn(1, 1)

    shouts = [op for op in built(network, order, 1).operations if op.name == "shout"]
    assert [op.values for op in shouts] == [4]


def test_rebinding_is_refused(network):
    """An own rule that puts a new array in the weight's place would train nothing."""

    def order(ops):
        yield from ops.forward_sweep()

        def replace_weight(unit):
            unit.weight = unit.weight + 1.0

        yield own(1, 1, "grow", replace_weight, reads=["weight"], writes=["weight"])

    with pytest.raises(LocalityError, match=r"another array in the place of layer 1's weight.*in place"):
        built(network, order, 1).check_locality()


def test_experiments_prove_own_orders(tmp_path):
    """A cheating order is refused before it trains."""
    network = pcsim.Network.dense([64, 8, 8, 10])

    def order(ops):
        yield from ops.forward_sweep()
        secret = network.parameters[2][0]
        yield own(
            1, 1, "peek", lambda u: u.activity.__iadd__(secret.sum()), reads=["activity"], writes=["activity"]
        )
        yield from ops.learning_phase()

    experiment = pcsim.Experiment(
        network, pcsim.load_dataset("digits"), pcsim.SGD(0.1), pcsim.Schedule(order, iterations=1), batch=32
    )
    with pytest.raises(LocalityError, match=r"peek\(layer 1\) reads layer 2's weight without declaring it"):
        pcsim.run(experiment)


def test_unknown_engine(tmp_path):
    """A misspelt engine must not become the other one."""
    experiment = pcsim.Experiment(
        pcsim.Network.dense([64, 8, 10]), pcsim.load_dataset("digits"), pcsim.SGD(0.1)
    )
    with pytest.raises(ConfigurationError, match=r"engine 'Event': did you mean 'event'"):
        pcsim.run(experiment, engine="Event")


@pytest.mark.parametrize("order", [3, None, ["sequential"]])
def test_schedules_want_a_name_or_a_function(order):
    """What is no order is named at once."""
    with pytest.raises(ConfigurationError, match="expected a name or a function"):
        pcsim.Schedule(order)


@pytest.mark.parametrize("iterations", [2.5, "3", True])
def test_schedules_want_whole_numbers(iterations):
    """Half an iteration, or a text, is no T."""
    with pytest.raises(ConfigurationError, match=r"schedule\.iterations = .*: expected a whole number"):
        pcsim.Schedule("sequential", iterations)


def test_schedules_want_numbers():
    """A text is no step."""
    with pytest.raises(ConfigurationError, match=r"schedule\.step_size = 'a': expected a value above 0"):
        pcsim.Schedule("sequential", 3, "a")


def test_own_reactive_order(network, data):
    """An asynchronous order of one's own: here every layer relaxes once, as soon as an error reaches it."""

    def once(ops, layer):
        if layer == 0:
            yield from (ops.clamp(0), ops.predict(0))
            return
        yield None
        if layer == ops.top:
            yield from (ops.clamp(layer), ops.compare(layer))
            return
        yield from (ops.initialise(layer), ops.predict(layer), None)
        yield from (ops.compare(layer).silent(), ops.relax(layer, 1), ops.compare(layer, 1))

    schedule = pcsim.Schedule(pcsim.Reactive(once), iterations=1)
    assert schedule.name == "once"
    engine = pcsim.EventEngine(schedule.plan(network), network.layers(5, pcsim.SGD(0.1)), pcsim.unit(), 5)
    engine.step(*data)
    relaxed = [event.layer for event in engine.timeline if event.name == "relax"]
    assert relaxed == [2, 1]
    with pytest.raises(ConfigurationError, match="order 'once' depends on when messages arrive"):
        pcsim.Program.build(network, schedule)


def input_alone(ops, layer):
    """Clamps the input and predicts; other layers wait for ever."""
    if layer == 0:
        yield from (ops.clamp(0), ops.predict(0))


def at_once(ops, layer):
    """Compares before anything has come."""
    yield ops.compare(layer) if layer else ops.clamp(0)


def foreign(ops, layer):
    """Lets every layer act for the first one."""
    yield ops.clamp(0)


def a_list(ops, layer):
    """Yields all operations at once."""
    yield [ops.clamp(0)]


def no_generator(ops, layer):
    """Forgets to yield."""


def of_operations(ops):
    """A fixed order, taken for a reactive one."""
    yield from ops.forward_sweep()


def endless(ops, layer):
    """Never waits and never ends."""
    while True:
        yield ops.clamp(0) if layer == 0 else None


def answers_for_ever(ops, layer):
    """Every message is answered by another one."""
    if layer == 0:
        yield from (ops.clamp(0), ops.predict(0))
        return
    yield None
    if layer == ops.top:
        while True:
            yield from (ops.clamp(layer), ops.compare(layer), None)
    yield from (ops.initialise(layer), ops.predict(layer), None)
    while True:
        yield from (ops.compare(layer, 1), ops.relax(layer, 1), ops.predict(layer, 1), None)


@pytest.mark.parametrize(
    ("order", "saying"),
    [
        (input_alone, r"learn\(layer 0\) reads its inbox, where no error has come yet"),
        (at_once, r"compare\(layer 1\) reads its inbox, where no prediction has come yet"),
        (foreign, r"yields clamp\(layer 0\) for layer 1: expected its own"),
        (a_list, "for layer 0: expected operations, or None to wait"),
        (no_generator, "returns None: write it as a generator"),
        (of_operations, "2 were given: expected a function of operations and layer"),
        (endless, "layer 0 has yielded 4000 operations in one mini-batch and goes on"),
        (answers_for_ever, "has yielded 4000 operations in one mini-batch and goes on"),
    ],
)
def test_slips_in_a_reactive_order(network, data, order, saying):
    """They gave errors of Python's from inside the engine, or hung."""
    schedule = pcsim.Schedule(pcsim.Reactive(order), iterations=3)
    units = network.layers(5, pcsim.SGD(0.1))
    with pytest.raises(ProgramError, match=saying):
        pcsim.EventEngine(schedule.plan(network), units, pcsim.unit(), 5).step(*data)
