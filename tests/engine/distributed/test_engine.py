"""Layers in processes of their own do the same arithmetic as the fast engine, bit by bit."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
from distributed_runs import engine_of, run_distributed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import ORDERS, RULES, Case, cases, run

from pcsim.engine.distributed.engine import DistributedEngine
from pcsim.engine.distributed.plan import Distribution, balanced, part_of, stages_of, tasks_of
from pcsim.engine.distributed.team import Team
from pcsim.engine.observer import Statistics
from pcsim.engine.process import write_agendas
from pcsim.errors import ConfigurationError, NonFiniteError, ShapeError
from pcsim.kernels import reference
from pcsim.kernels.backends import make_kernels
from pcsim.learning import MQ, SGD
from pcsim.network.layer import MessageKind
from pcsim.network.network import Network
from pcsim.schedule.orders import sequential
from pcsim.schedule.program import Program, Schedule

SLOW = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@pytest.fixture(scope="module")
def team():
    """Three processes that serve one engine after the other."""
    with Team.start(Distribution(3, timeout=60)) as started:
        yield started


def differences(one: dict, other: dict) -> list:
    """Names of what differs in a bit."""
    return [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]


# --------------------------------------------------------------------------------- who owns which layers


@given(st.lists(st.integers(0, 9), min_size=1, max_size=7), st.data())
def test_groups_are_balanced(costs, data):
    """No other cut into groups of neighbours has a smaller largest group: all of them are tried."""
    groups = data.draw(st.integers(1, len(costs)))
    found = balanced(costs, groups)
    assert [layer for group in found for layer in group] == list(range(len(costs)))
    assert len(found) == groups
    assert all(found)
    best = min(
        max(sum(costs[a:b]) for a, b in pairwise((0, *cuts, len(costs))))
        for cuts in combinations(range(1, len(costs)), groups - 1)
    )
    assert max(sum(costs[layer] for layer in group) for group in found) == best


def test_the_paper_network_is_cut_by_its_work():
    """By hand: a T=3 step costs 2·3.1 M, 8·1.0 M, 8·1.0 M and 8·10 k multiplications a sample, or nearly."""
    network = Network.dense([3072, 1024, 1024, 1024, 10])
    program = Program.build(network, Schedule("sequential", iterations=3))
    assert stages_of(program, 2) == (range(2), range(2, 5))


@settings(max_examples=40)
@given(cases(depth=st.integers(3, 6)), st.data())
def test_waiting_is_for_the_messages_of_the_program(case, data):
    """What a process waits for at its doors is what the event engine's layers wait for there."""
    program = Program.build(case.network(), case.schedule())
    first = data.draw(st.integers(0, case.top))
    layers = range(first, data.draw(st.integers(first, case.top)) + 1)
    doors = {(layers[0], MessageKind.PREDICTION), (layers[-1], MessageKind.ERROR)}
    ours: dict[int, list] = {layer: [] for layer in layers}
    for task in tasks_of(program, layers):
        ours[task.operation.layer].append((task.operation, set(task.awaits)))
    for layer, agenda in write_agendas(program.operations).items():
        if layer in layers:
            expected = [
                (operation, {(door[1], count) for door, count in needed if door in doors})
                for operation, needed in agenda
            ]
            assert ours[layer] == expected


# ------------------------------------------------------------------------------------- the same numbers


@settings(max_examples=12, suppress_health_check=SLOW)
@given(case=cases(depth=st.integers(3, 6)))
def test_three_processes_agree_bit_by_bit(team, case):
    """A message more, fewer, or another one would change a bit somewhere: states, energies, weights."""
    assert not differences(run(case, "fast").bits(), run_distributed(team, case))


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_with_fast_kernels(team, order):
    """All static orders, in the layout and with the kernels that real runs use."""
    case = Case(sizes=(6, 7, 5, 8, 3), order=order, rule="mq", batch=4, activation="relu")
    kernels = make_kernels("cpu", "float64")
    assert not differences(
        run(case, "fast", kernels=kernels).bits(), run_distributed(team, case, kernels=kernels)
    )


def test_any_linear_extension(team):
    """Processes run their own operations in the order of the list, and any right list will do."""
    case = Case(sizes=(3, 4, 5, 4, 2), order="simultaneous", steps=2)
    program = Program.build(case.network(), case.schedule())
    for seed in range(3):
        mixed = program.reordered(np.random.default_rng(seed))
        assert not differences(run(case).bits(), run_distributed(team, case, program=mixed))


def test_convolutions(team):
    """Images cross between processes, and what a convolution remembers stays where it is."""

    def network():
        layers = ["2x8x8", "conv 4 3x3/1 max 2", "conv 5 2x2/1", "dense 3"]
        return Network.of(layers, dtype="float64", seed=3)

    case = Case(sizes=network().sizes, rule="adam", batch=3)
    kernels = make_kernels("cpu", "float64")
    one = run(case, "fast", network=network(), kernels=kernels).bits()
    assert not differences(one, run_distributed(team, case, network=network(), kernels=kernels))


# ------------------------------------------------------------------------------------------- locality


def test_nobody_has_foreign_weights(team):
    """Rank 0's network is filled with NaN once the processes have their parts: nothing changes."""
    case = Case(sizes=(3, 4, 5, 4, 2), rule="mq", steps=4)
    network = case.network()
    statistics = Statistics(case.iterations, case.top)
    plan = case.schedule().plan(network)
    engine = DistributedEngine(team, plan, RULES["mq"], case.batch, reference, statistics)
    for pair in network.parameters:
        for array in pair:
            array[...] = np.nan
    for inputs, targets in case.data():
        engine.step(inputs, targets)
    network.gather(engine.layers)
    engine.finish()
    whole = run(case, "fast")
    for pair, other in zip(network.parameters, whole.network.parameters, strict=True):
        assert [array.tobytes() for array in pair] == [array.tobytes() for array in other]


def test_parts_do_not_overlap():
    """What processes are told adds up to the network: each weight, each operation goes to exactly one."""
    network = Network.dense([3, 4, 5, 4, 2])
    program = Program.build(network, Schedule())
    stages = stages_of(program, 3)
    parts = [
        part_of(
            program,
            stages,
            stage,
            0,
            distribution=Distribution(3),
            rule=SGD(0.1),
            batch=2,
            backend="reference",
            threads=1,
        )
        for stage in range(3)
    ]
    assert [weight.shape for part in parts for weight, _ in part.parameters] == [
        weight.shape for weight, _ in network.parameters
    ]
    assert sorted(task.index for part in parts for task in part.tasks) == list(range(len(program.operations)))


# ------------------------------------------------------------------------------- what goes wrong, in words


def test_more_processes_than_layers(team):
    """Somebody would have nothing to do."""
    with pytest.raises(ConfigurationError, match="3 processes for 2 layers: expected 1 to 2"):
        engine_of(team, Case(sizes=(2, 2)))


def test_an_action_that_cannot_be_sent(team):
    """A user's own action has to be found by the other process under its name."""

    def own(ops):
        for operation in sequential(ops):
            yield replace(operation, action=lambda unit: None) if operation.name == "relax" else operation

    with pytest.raises(ConfigurationError, match="cannot be sent to another process"):
        engine_of(team, Case(order=own))


def test_wrong_shapes(team):
    """Refused before anything is sent, so that the processes go on."""
    engine = engine_of(team, Case(sizes=(3, 4, 2)))
    with pytest.raises(ShapeError, match=r"inputs of shape \(2, 4\): expected \(2, 3\)"):
        engine.step(np.zeros((2, 4)), np.zeros((2, 2)))
    engine.finish()


def test_a_blown_up_update_is_named(team):
    """The step and the layer are those that a run in one process names, though it is noticed later."""
    network = Network.dense([3, 4, 4, 2], activation="identity", dtype="float64")
    plan = Schedule("sequential", 3, 0.1).plan(network)
    statistics = Statistics(3, 3)
    engine = DistributedEngine(team, plan, MQ(1e305, 1e305), 2, reference, statistics)
    rng = np.random.default_rng(0)

    def blow_up():
        for _ in range(4):
            engine.step(1e3 * rng.random((2, 3)), np.eye(2))
            statistics.check_finite()

    with np.errstate(all="ignore"), pytest.raises(NonFiniteError) as raised:
        blow_up()
    assert raised.value.step <= 1
    engine.finish()


def test_shares_add_up(team):
    """Compute, communication, waiting and the rest are the time that went by, and none is missing."""
    engine = engine_of(team, Case(sizes=(3, 4, 5, 2), steps=3))
    for inputs, targets in Case(sizes=(3, 4, 5, 2)).data():
        engine.step(inputs, targets)
    shares = engine.shares()
    engine.finish()
    assert [share.rank for share in shares] == [0, 1, 2]
    assert all(share.compute > 0 and share.communication > 0 for share in shares)
    assert sum(share.multiplications for share in shares) == 2 * sum(
        operation.multiplications for operation in case_program().operations
    )


def case_program():
    """Return the program of the case above."""
    case = Case(sizes=(3, 4, 5, 2))
    return Program.build(case.network(), case.schedule())
