"""Programs: hand-counted work, nothing redundant, nothing missing, and any allowed order the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import HARD, ORDERS, Case, run

from pcsim.errors import ConfigurationError, ProgramError
from pcsim.network.network import Network
from pcsim.schedule import orders as written
from pcsim.schedule.operation import Operation, Place
from pcsim.schedule.program import Program, Reaction, Schedule

EQUAL_WORK = [order for order in ORDERS if order != "incremental"]
DEPTHS = [1, 2, 3, 4, 5, 6]
PAPER = (3072, 1024, 1024, 1024, 10)
FIRST, MIDDLE, LAST = 3072 * 1024, 1024 * 1024, 1024 * 10


def build(order, iterations: int, connections: int = 4, **constants) -> Program:
    """A program of a network with so many connections."""
    network = Network.dense([3, 5, 2, 4, 6, 3, 2][: connections + 1], **constants)
    return Program.build(network, Schedule(order, iterations))


def count(program: Program, name: str) -> int:
    """How often an operation occurs."""
    return sum(operation.name == name for operation in program.operations)


# ------------------------------------------------------------------------------------ counted by hand


@pytest.mark.parametrize("iterations", [0, 1, 3])
@pytest.mark.parametrize("connections", DEPTHS)
@pytest.mark.parametrize("order", EQUAL_WORK)
def test_matrix_products(order, connections, iterations):
    """L predictions, then L − 1 feedbacks and L − 1 new predictions an iteration, L outer products."""
    program = build(order, iterations, connections)
    hidden = connections - 1
    assert program.cost(1).matrix_products == connections + 2 * iterations * hidden + connections
    assert count(program, "predict") == connections + iterations * hidden
    assert count(program, "relax") == iterations * hidden
    assert count(program, "learn") == connections


@pytest.mark.parametrize("iterations", [0, 1, 3])
@pytest.mark.parametrize("connections", DEPTHS)
def test_matrix_products_of_the_incremental_order(connections, iterations):
    """Weights learn each iteration, so all L predictions are renewed before each iteration but the first."""
    program, hidden = build("incremental", iterations, connections), connections - 1
    renewed = connections * max(0, iterations - 1)
    assert count(program, "predict") == connections + iterations * hidden + renewed
    assert count(program, "learn") == max(1, iterations) * connections  # T = 0 leaves the last phase


@pytest.mark.parametrize("order", EQUAL_WORK)
def test_messages(order):
    """2 L + 2 T (L − 1): errors that are replaced unread are never sent, wherever the order puts them."""
    for connections in DEPTHS:
        for iterations in (0, 1, 2, 5):
            cost = build(order, iterations, connections).cost(1)
            assert cost.messages == 2 * connections + 2 * iterations * (connections - 1)


def test_values_and_multiplications_scale_with_the_batch():
    """3-5-2, T = 1: products 15 + 10, 10 + 10, 15 + 10; messages p1, p2, e2, p2, e2, e1."""
    cost = build("sequential", 1, 2).cost(7)
    assert cost.multiplications == 7 * (15 + 10 + 10 + 10 + 15 + 10)
    assert cost.values == 7 * (5 + 2 + 2 + 2 + 2 + 5)
    assert (cost.matrix_products, cost.messages) == (6, 6)


@pytest.mark.parametrize(("iterations", "ours", "paper"), [(1, 10, 7), (3, 22, 21), (15, 94, 105)])
def test_inference_products_of_the_published_network(iterations, ours, paper):
    """The paper counts T (2L − 1); we need one less an iteration, p_1 being constant, after a sweep of L."""
    network = Network.dense(PAPER, dtype="float32")
    for order in EQUAL_WORK:
        program = Program.build(network, Schedule(order, iterations))
        inference = [op for op in program.operations if op.name != "learn" and op.multiplications]
        assert len(inference) == ours
        assert ours - 4 == paper - iterations
        work = sum(operation.multiplications for operation in inference)
        every = FIRST + 2 * MIDDLE + LAST + 2 * MIDDLE + LAST  # T (2L − 1): all predictions and feedbacks
        assert work == iterations * every + (1 - iterations) * FIRST + 2 * MIDDLE + LAST


@pytest.mark.parametrize("order", EQUAL_WORK)
def test_training_step_of_the_published_network_against_backprop(order):
    """T = 3 costs 1.83 times the multiplications of backprop (forward, backward, weight gradients)."""
    program = Program.build(Network.dense(PAPER), Schedule(order, 3))
    backprop = 2 * FIRST + 3 * (2 * MIDDLE + LAST)
    assert program.cost(64).multiplications / (64 * backprop) == pytest.approx(1.83, abs=0.01)


# ------------------------------------------------------------------------------- nothing is redundant


@pytest.mark.parametrize("order", EQUAL_WORK)
def test_first_prediction_is_sent_once(order):
    """The largest product of most networks: the input does not change within a mini-batch."""
    program = build(order, 5)
    assert sum(op.name == "predict" and op.layer == 0 for op in program.operations) == 1


@pytest.mark.parametrize("order", ["sequential", "simultaneous"])
def test_first_iteration_needs_no_new_prediction(order):
    """Layers start from their predictions: all first relaxations come before any second prediction."""
    names = [(op.name, op.iteration) for op in build(order, 2).operations]
    last_relax = max(i for i, name in enumerate(names) if name == ("relax", 1))
    assert sum(name == "predict" for name, _ in names[:last_relax]) == 4
    assert count(build(order, 2), "initialise") == 3


@pytest.mark.parametrize("clamp", [100.0, HARD])
@pytest.mark.parametrize("order", ORDERS)
def test_predictions_follow_changes(order, clamp):
    """Walk the list: each prediction has a source that was written since the one before."""
    changed = set(range(5))
    for operation in build(order, 3, proximal_step=clamp).operations:
        if operation.name == "predict":
            assert operation.layer in changed
            changed.remove(operation.layer)
        elif {place.name for place in operation.writes} & {"activity", "weight", "bias"}:
            changed.add(operation.layer)


@pytest.mark.parametrize("iterations", [0, 1, 3])
@pytest.mark.parametrize("order", ORDERS)
def test_no_message_stays_unread(order, iterations):
    """Walk the list: what is in an inbox is read before it is replaced, and at the end nothing waits."""
    unread = set()
    program = build(order, iterations)
    for operation in program.operations:
        unread -= operation.reads
        assert not operation.delivers & unread, f"{operation} replaces what nobody has read"
        unread |= operation.delivers
    assert not {place for place in unread if order != "incremental" or iterations}


@pytest.mark.parametrize("order", ORDERS)
def test_every_reader_sees_what_it_would_see_without_pruning(order):
    """Leaving too much out would show here: at each relax and learn, inputs are up to date as in the order.

    The unpruned order is run next to the program; both must leave the same bits.
    """
    case = Case(sizes=(3, 4, 2, 5, 2), order=order, steps=2)
    network = case.network()
    whole = tuple(written.ORDERS[order](case.schedule().operations(network)))
    pruned = Program.build(network, case.schedule())
    assert len(whole) > len(pruned.operations)
    naive = replace(pruned, operations=whole)
    assert run(case, program=naive, network=network).bits() == run(case).bits()


def repeated(order):
    """The same order by somebody who settles five times to be sure."""

    def anxious(ops):
        class Anxious(type(ops)):
            def settle(self, iteration):
                for _ in range(5):
                    yield from super().settle(iteration)

        yield from order(Anxious(ops.network, ops.step_sizes))

    return anxious


def test_doing_again_what_somebody_else_has_undone_is_no_repetition():
    """Initialise reads only the prediction; after a reset of the activity it must run once more."""

    def order(ops):
        yield from ops.forward_sweep()
        activity = frozenset({Place(1, "activity")})
        yield Operation("reset", 1, 0, frozenset(), activity, action=lambda unit: unit.activity.fill(0))
        yield ops.initialise(1)
        yield from ops.settle(0)
        yield from ops.learning_phase()

    assert count(build(order, 0, 2), "initialise") == 2


@pytest.mark.parametrize("clamp", [100.0, HARD])
@pytest.mark.parametrize("name", ORDERS)
def test_repetition_is_free(name, clamp):
    """An order may repeat itself freely: the program is the very same."""
    naive = build(repeated(written.ORDERS[name]), 3, proximal_step=clamp)
    assert naive.operations == build(name, 3, proximal_step=clamp).operations


@pytest.mark.parametrize("order", EQUAL_WORK)
def test_hard_clamp_is_set_once(order):
    """Y does not depend on the prediction; a soft clamp is refreshed after each iteration."""
    clamps = [
        sum(op.name == "clamp" and op.layer == 4 for op in build(order, 3, proximal_step=step).operations)
        for step in (HARD, 100.0)
    ]
    assert clamps == [1, 4]


@pytest.mark.parametrize("order", ORDERS)
def test_iterations_are_labelled(order):
    """Traces are read by iteration: relax n belongs to iteration n, learning to the last (or to each)."""
    program = build(order, 3)
    for layer in (1, 2, 3):
        assert [op.iteration for op in program.operations if (op.name, op.layer) == ("relax", layer)] == [
            1,
            2,
            3,
        ]
    learned = [op.iteration for op in program.operations if (op.name, op.layer) == ("learn", 0)]
    assert learned == ([1, 2, 3] if order == "incremental" else [3])
    labels = [op.iteration for op in program.operations]
    assert labels == sorted(labels)


@pytest.mark.parametrize("order", ORDERS)
def test_last_writes_are_the_state_at_the_end_of_an_iteration(order):
    """Observers see these only: for each iteration, layer and quantity the last operation that writes it."""
    program = build(order, 2)
    last = {}
    for index, operation in enumerate(program.operations):
        for place in operation.writes:
            if place.name in ("activity", "error"):
                last[operation.iteration, place] = index
    assert program.last_writes == set(last.values())


# ----------------------------------------------------------------------------------------- dependencies


def what_is_read(operations, index_of) -> dict[int, dict[Place, int]]:
    """For each operation, who wrote what it reads (and what is left in the end)."""
    writer: dict[Place, int] = {}
    seen = {}
    for operation in operations:
        index = index_of[id(operation)]
        seen[index] = {place: writer.get(place, -1) for place in operation.reads | operation.writes}
        writer |= dict.fromkeys(operation.changes, index)
    return seen | {-1: writer}


@settings(max_examples=60)
@given(st.sampled_from(ORDERS), st.integers(1, 5), st.integers(0, 3), st.integers(0, 2**20))
def test_reordering_keeps_who_reads_what_from_whom(order, connections, iterations, seed):
    """A missing edge (also one where a write must wait for a reader) lets some reader see another value."""
    program = build(order, iterations, connections)
    index_of = {id(operation): index for index, operation in enumerate(program.operations)}
    mixed = program.reordered(np.random.default_rng(seed))
    assert sorted(index_of[id(op)] for op in mixed.operations) == list(range(len(program.operations)))
    assert what_is_read(mixed.operations, index_of) == what_is_read(program.operations, index_of)


def one_way(ops):
    """Nothing comes back up to layer 1, so that no error tells it that its message has been read."""
    hidden = frozenset({Place(1, "activity")})
    yield from (ops.clamp(0), ops.predict(0))
    yield Operation("reset", 1, 0, frozenset(), hidden, action=lambda unit: unit.activity.fill(0))
    yield from (ops.initialise(1), ops.predict(1), ops.initialise(2))
    yield Operation("double", 1, 0, hidden, hidden, action=lambda unit: np.add(*[unit.activity] * 3))
    yield from (ops.predict(1, 1), ops.initialise(2), ops.compare(2))


def test_writes_wait_for_readers_and_for_earlier_writes():
    """Errors imply these edges in the usual orders; in a one-way order only the edges themselves do."""
    program = build(one_way, 1, 2)
    assert len(program.operations) == 10
    index_of = {id(operation): index for index, operation in enumerate(program.operations)}
    expected = what_is_read(program.operations, index_of)
    for seed in range(60):
        mixed = program.reordered(np.random.default_rng(seed))
        assert what_is_read(mixed.operations, index_of) == expected


def test_reordering_reorders():
    """If it returned the list as it is, the property tests built on it would prove nothing."""
    program = build("simultaneous", 3)
    mixed = [program.reordered(np.random.default_rng(seed)).operations for seed in range(5)]
    assert len({tuple(map(str, operations)) for operations in mixed}) == 5


def test_layers_of_an_iteration_are_independent():
    """Relaxing is parallel in the simultaneous order, a chain in the sequential one."""

    def chained(order):
        program = build(order, 1)
        above: list[set[int]] = []
        for before in program.dependencies:
            above.append(set(before).union(*(above[i] for i in before)))
        relax = [i for i, op in enumerate(program.operations) if op.name == "relax"]
        return sum(i in above[j] for i in relax for j in relax)

    assert chained("simultaneous") == 0
    assert chained("sequential") == 3  # 3 → 2 → 1


# ------------------------------------------------------------------------------------------ small cases


@pytest.mark.parametrize("order", EQUAL_WORK)
def test_no_iterations_is_a_forward_pass_and_learning(order):
    """T = 0: nothing relaxes; errors still travel, because learning reads them."""
    program = build(order, 0)
    assert count(program, "relax") == 0
    assert [op.layer for op in program.operations if op.name == "learn"] == [0, 1, 2, 3]
    assert {op.iteration for op in program.operations} == {0}


@pytest.mark.parametrize("order", EQUAL_WORK)
def test_no_hidden_layer_is_a_delta_rule(order):
    """L = 1: clamp, predict, clamp, compare, learn, whatever T."""
    names = [f"{operation}" for operation in build(order, 3, 1).operations]
    assert names == [
        "clamp(layer 0)",
        "predict(layer 0)",
        "clamp(layer 1)",
        "compare(layer 1)",
        "learn(layer 0)",
    ]


# ----------------------------------------------------------------------------------------- own orders


def top_down_twice(ops):
    """Relax from the top, and the last hidden layer once more; keep predictions up to date in between."""
    yield from ops.forward_sweep()
    for iteration in ops.iterations:
        for layer in [*reversed(ops.hidden), ops.top - 1]:
            yield ops.relax(layer, iteration)
            yield from ops.settle(iteration)
    yield from ops.learning_phase()


def test_own_order_runs_on_both_engines():
    """An order is a function: whoever writes one gets both engines, the checks and the counts."""
    case = Case(order=top_down_twice, sizes=(3, 4, 5, 4, 2), iterations=4)
    assert case.schedule().name == "top_down_twice"
    program = Program.build(case.network(), case.schedule())
    program.check_locality()
    assert count(program, "relax") == 4 * 4
    assert run(case, "fast").bits() == run(case, "event").bits()
    assert run(case, "fast").bits() != run(replace(case, order="sequential"), "fast").bits()


@pytest.mark.parametrize(
    ("premature", "text"),
    [
        (lambda ops: ops.compare(1), r"compare\(layer 1\) reads layer 1's activity before anything is there"),
        (lambda ops: ops.learn(0, 0), r"learn\(layer 0\) reads layer 0's activity"),
        (lambda ops: ops.clamp(4), r"clamp\(layer 4\) reads layer 4's inbox.prediction"),
    ],
)
def test_reading_before_anything_is_there(premature, text):
    """The engines would compute with zeros of an empty buffer, without a word."""

    def order(ops):
        yield premature(ops)
        yield from ops.forward_sweep()
        yield from ops.learning_phase()

    with pytest.raises(ProgramError, match=text):
        build(order, 1)


def test_forgotten_error_is_a_program_error():
    """Relaxing without the error from above: the message names what is missing."""

    def order(ops):
        yield ops.clamp(0)
        yield ops.predict(0)
        yield ops.initialise(1)
        yield ops.compare(1)
        yield ops.relax(1, 1)

    with pytest.raises(ProgramError, match=r"relax\(layer 1\) reads layer 1's inbox.error"):
        build(order, 1)


def test_asynchronous_order_has_no_list():
    """It depends on arrival; the message says which engine can run it."""
    with pytest.raises(ConfigurationError, match="use the event engine"):
        build("asynchronous", 3)
    plan = Schedule("asynchronous", 4).plan(Network.dense([3, 2, 2]))
    assert isinstance(plan, Reaction)
    assert plan.iterations == 4


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"order": "sequental"}, "did you mean 'sequential'"),
        ({"iterations": -1}, "schedule.iterations = -1"),
        ({"step_size": 0}, "schedule.step_size = 0"),
        ({"step_size": float("inf")}, "schedule.step_size = inf"),
        ({"step_size": float("nan")}, "schedule.step_size = nan"),
        ({"step_decay": "linear"}, "expected 'harmonic' or 'none'"),
    ],
)
def test_schedule_refusals(changes, text):
    """One line with the value and the way out."""
    with pytest.raises(ConfigurationError, match=text):
        Schedule(**changes)


@pytest.mark.parametrize(("decay", "steps"), [("harmonic", (0.6, 0.3, 0.2)), ("none", (0.6, 0.6, 0.6))])
def test_step_sizes(decay, steps):
    """K = ε/(1 + t) from t = 0, or ε."""
    schedule = Schedule("sequential", 3, 0.6, decay)
    assert schedule.operations(Network.dense([2, 2])).step_sizes == pytest.approx(steps)


def test_the_target_of_a_message_is_the_neighbour():
    """Predictions go up, errors go down."""
    operations: list[Operation] = list(build("sequential", 1).operations)
    for operation in operations:
        if operation.sends:
            assert operation.target - operation.layer == {"predict": 1, "compare": -1}[operation.name]
