"""Locality is proven: every order passes, every way to cheat is caught and named."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from strategies import ACTIVATIONS, HARD, ORDERS, OUTPUTS

from pcsim.engine.event import EventEngine
from pcsim.engine.fast import FastEngine
from pcsim.engine.observer import Statistics
from pcsim.errors import LocalityError, ProgramError
from pcsim.hardware.clock import unit
from pcsim.learning import MQ, NLMS, SGD, Adam
from pcsim.network.layer import MessageKind
from pcsim.network.network import Network
from pcsim.schedule.operation import Operation, Place
from pcsim.schedule.program import Program, Schedule

SIZES = [3, 4, 5, 4, 3]


@pytest.fixture
def network() -> Network:
    """Five layers, so that layer 2 has neighbours and strangers on both sides."""
    return Network.dense(SIZES, dtype="float64")


@pytest.fixture
def layers(network):
    """Its units, for mini-batches of two."""
    return network.layers(2, SGD(0.1))


def program_with(network: Network, *cheats) -> Program:
    """An order that settles, performs the operations that each cheat makes, settles and learns."""

    def order(ops):
        yield from ops.forward_sweep()
        for cheat in cheats:
            yield cheat(ops)
        yield from ops.settle(1)
        yield from ops.learning_phase()

    return Program.build(network, Schedule(order, 1))


@pytest.mark.parametrize("order", ORDERS)
def test_all_orders_are_local(order, network, layers):
    """The claim of the simulator, on stand-ins and on the real units."""
    program = Program.build(network, Schedule(order, 2))
    program.check_locality()
    program.check_locality(layers)


@pytest.mark.parametrize("clamp", [100.0, HARD])
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_all_functions_are_local(activation, output, clamp):
    """No activation, output or clamp looks elsewhere."""
    network = Network.dense([3, 2, 2], activation=activation, output=output, proximal_step=clamp)
    Program.build(network, Schedule("sequential", 2)).check_locality()


@pytest.mark.parametrize("rule", [SGD(0.1), MQ(0.1), Adam(0.1), NLMS()])
def test_all_rules_are_local(rule, network):
    """A rule's state counts as its own layer's."""
    layers = network.layers(1, rule)
    Program.build(network, Schedule("sequential", 2)).check_locality(layers)


# ----------------------------------------------------------------------------------- declared cheating


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            lambda op: {"reads": op.reads | {Place(4, "error")}},
            r"relax\(layer 2\) reads layer 4's error; layer 2's inbox holds messages from layers 1 and 3",
        ),
        (
            lambda op: {"writes": op.writes | {Place(3, "weight")}},
            r"relax\(layer 2\) writes layer 3's weight",
        ),
        (
            lambda op: {"writes": op.writes | {Place.inbox(2, MessageKind.ERROR)}},
            r"relax\(layer 2\) changes a received message, layer 2's inbox.error",
        ),
    ],
)
def test_declared_cheating(network, changes, text):
    """What an operation says it does is checked before it is rehearsed."""

    def cheat(ops):
        honest = ops.relax(2, 1)
        return replace(honest, **changes(honest))

    with pytest.raises(LocalityError, match=text):
        program_with(network, cheat).check_locality()


def test_a_layer_that_does_not_exist(network):
    """Caught when the program is built, before anything could run."""
    with pytest.raises(ProgramError, match=r"relax\(layer 9\) acts on or sends to layer 9: expected 0 to 4"):
        program_with(network, lambda ops: replace(ops.relax(2, 1), layer=9))


def test_a_message_to_nowhere(network):
    """The output has nobody above it."""
    program = program_with(network)
    last = next(op for op in program.operations if op.name == "compare" and op.layer == 4)
    shouting = replace(last, sends=MessageKind.PREDICTION)
    with pytest.raises(
        LocalityError, match=r"compare\(layer 4\) sends its prediction to layer 5, which is none"
    ):
        replace(program, operations=(*program.operations, shouting)).check_locality()


# --------------------------------------------------------------------------------- undeclared cheating


def reads_far_error(layers):
    def action(unit):
        unit.relax(0.1)
        unit.activity += layers[4].error.sum()

    return lambda ops: replace(ops.relax(2, 1), action=action)


def writes_far_weight(layers):
    def action(unit):
        unit.relax(0.1)
        layers[3].weight[0, 0] += 1

    return lambda ops: replace(ops.relax(2, 1), action=action)


def changes_message(layers):
    def action(unit):
        unit.inbox[MessageKind.ERROR] *= 0.5
        unit.relax(0.1)

    return lambda ops: replace(ops.relax(2, 1), action=action)


def writes_own_undeclared(layers):
    def action(unit):
        unit.relax(0.1)
        unit.error[:] = 0

    return lambda ops: replace(ops.relax(2, 1), action=action)


def weight_transport(layers):
    """What backprop needs: the weights of another layer."""

    def action(unit):
        unit.relax(0.1)
        unit.activity += layers[3].weight.sum()

    return lambda ops: replace(ops.relax(2, 1), action=action)


@pytest.mark.parametrize(
    ("cheat", "text"),
    [
        (reads_far_error, r"relax\(layer 2\) reads layer 4's error without declaring it"),
        (writes_far_weight, r"relax\(layer 2\) writes layer 3's weight"),
        (changes_message, r"relax\(layer 2\) changes a received message, layer 2's inbox.error"),
        (writes_own_undeclared, r"relax\(layer 2\) writes layer 2's error"),
        (weight_transport, r"relax\(layer 2\) reads layer 3's weight without declaring it"),
    ],
)
def test_undeclared_cheating(network, layers, cheat, text):
    """A closure can reach everything; rehearsing with everything else disturbed shows it."""
    program = program_with(network, lambda ops: ops.relax(3, 1), cheat(layers))
    with pytest.raises(LocalityError, match=text):
        program.check_locality(layers)


@pytest.mark.parametrize(
    ("name", "forgotten"), [("predict", "bias"), ("relax", "error"), ("learn", "activity")]
)
def test_undeclared_reading_of_its_own(network, layers, name, forgotten):
    """What is not declared is no dependency: reordering would then change the numbers."""
    honest = program_with(network, lambda ops: ops.relax(2, 1)).operations
    operations = [
        replace(op, reads=op.reads - {Place(2, forgotten)}) if (op.name, op.layer) == (name, 2) else op
        for op in honest
    ]
    with pytest.raises(
        LocalityError, match=rf"{name}\(layer 2\) reads layer 2's {forgotten} without declaring"
    ):
        replace(program_with(network), operations=tuple(operations)).check_locality(layers)


def test_cheating_next_to_an_honest_twin(network, layers):
    """A cheat that declares exactly what an honest operation declares must not hide behind it."""
    cheat = reads_far_error(layers)
    with pytest.raises(LocalityError, match=r"relax\(layer 2\) reads layer 4's error"):
        program_with(network, cheat, lambda ops: ops.relax(2, 1)).check_locality(layers)


def test_asking_for_what_is_not_there(network, layers):
    """The input receives no prediction; the error says who asked."""

    def action(unit):
        unit.activity += unit.inbox[MessageKind.PREDICTION]

    program = program_with(network, lambda ops: replace(ops.clamp(0, 1), action=action))
    program = replace(program, operations=(replace(program.operations[0], action=action),))
    with pytest.raises(LocalityError, match=r"clamp\(layer 0\) cannot run on what layer 0 owns"):
        program.check_locality(layers)


# ----------------------------------------------------------------------------------------- no traces left


def numbers(layers) -> dict:
    """Every number that a unit holds, as bytes; scratch buffers are nobody's state."""
    found = {}
    for layer in layers:
        held = {name: value for name, value in vars(layer).items() if isinstance(value, np.ndarray)}
        held |= {f"inbox.{kind}": value for kind, value in layer.inbox.items()}
        held |= layer.learner.state() if layer.learner else {}
        held.pop("feedback", None)
        found |= {(layer.traits.index, name): value.tobytes() for name, value in held.items()}
    return found


@pytest.fixture
def used(network, rng):
    """Return a function that makes units, lets an engine train them a little, and adds the program."""

    def make(engine, rule):
        layers = network.layers(2, rule)
        program = Program.build(network, Schedule("sequential", 2))
        if engine != "none":
            fast = engine == "fast"
            runner = FastEngine(program, layers) if fast else EventEngine(program, layers, unit(), 2)
            runner.step(rng.normal(size=(2, 3)), np.eye(3)[:2])
        return program, layers

    return make


@pytest.mark.parametrize("engine", ["none", "fast", "event"])
def test_checking_leaves_the_layers_as_they_were(used, engine):
    """A check in the middle of training must not change the training, on fresh and on used units."""
    program, layers = used(engine, SGD(0.1))
    before, inboxes = numbers(layers), [layer.inbox for layer in layers]
    program.check_locality(layers)
    assert numbers(layers) == before
    assert all(layer.inbox is inbox for layer, inbox in zip(layers, inboxes))


@pytest.mark.parametrize("engine", ["none", "fast"])
@pytest.mark.parametrize("rule", [MQ(0.1), Adam(0.1)])
def test_checking_leaves_the_learners_as_they_were(used, rule, engine):
    """The same for what a rule remembers, hidden counters included."""
    program, layers = used(engine, rule)
    before = numbers(layers)
    program.check_locality(layers)
    assert numbers(layers) == before


def test_update_magnitude_survives_the_check(used):
    """It is reported after each mini-batch; the rehearsal's random one must not be."""
    program, layers = used("fast", SGD(0.1))
    before = [layer.update_magnitude for layer in layers]
    program.check_locality(layers)
    assert [layer.update_magnitude for layer in layers] == before


def test_checking_does_not_write_into_the_data(network, layers):
    """Targets are the caller's arrays, perhaps read-only ones."""
    data = np.zeros((2, 3))
    data.flags.writeable = False
    layers[0].target = layers[4].target = data
    Program.build(network, Schedule("sequential", 1)).check_locality(layers)
    assert layers[0].target is data


def test_checking_tells_no_norms():
    """What is rehearsed with precisions of the state must not weigh the energies of a run without them."""
    network = Network.dense([4, 5, 3], proximal_step=3.0)
    program = Program.build(network, Schedule("sequential", 2))
    given = np.ones((1, 4), network.dtype), np.eye(3, dtype=network.dtype)[:1]
    energies = []
    for checked in (False, True):
        layers, statistics = network.copy().layers(1, SGD(0.1)), Statistics(2, network.top)
        if checked:
            Program.build(network, Schedule("sequential", 2, precisions="theorem 1")).check_locality(layers)
        FastEngine(program, layers, [statistics]).step(*given)
        energies.append(statistics.free_energy)
    assert np.array_equal(*energies)


@dataclass
class Fade:
    """An action with a setting; as it can be compared, and changed, it has no hash."""

    share: float

    def __call__(self, unit):
        """Move the activity."""
        unit.activity *= self.share


def test_actions_without_a_hash(network, layers):
    """A plain dataclass with __call__ is the first thing that one writes for an action with a setting."""

    def fade(ops):
        place = frozenset({Place(2, "activity")})
        return Operation("fade", 2, 1, place, place, action=Fade(0.5))

    program_with(network, fade).check_locality(layers)
    with pytest.raises(LocalityError, match=r"relax\(layer 2\) reads layer 4's error"):
        program_with(network, fade, reads_far_error(layers)).check_locality(layers)
