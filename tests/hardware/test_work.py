"""Counted work: equal to the program's cost and the event engine's totals, and to counts by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from strategies import RULES, cases

from pcsim.engine.event import EventEngine
from pcsim.hardware.clock import unit
from pcsim.hardware.machine import load_machine
from pcsim.hardware.prices import Term
from pcsim.hardware.ways import Way
from pcsim.hardware.work import UPDATES, Setting, Used, work_of
from pcsim.network.network import Network
from pcsim.schedule.program import Program, Schedule

UNIT = load_machine("unit")
CONV = ["2x7x6", "conv 3 3x3/1 max 2", "conv 4 2x2/1", "dense 3"]
POOLS = ["1x8x8", "conv 2 3x3/2 average 2", "dense 2"]


def counted(program: Program, batch: int, rule: str = "sgd", machine=UNIT):
    """The work of each operation of a program."""
    setting = Setting(program.network, batch, UPDATES[rule], machine)
    return [work_of(operation, setting) for operation in program.operations]


def test_every_rule_has_its_work():
    """A learning rule that nobody has counted could not be charged."""
    assert set(UPDATES) == set(RULES)


@settings(max_examples=60)
@given(cases())
def test_products_and_values_are_the_programs_and_the_engines(case):
    """What is counted without arithmetic equals Program.cost and what the event engine counts."""
    program = Program.build(case.network(), case.schedule())
    works = counted(program, case.batch, case.rule)
    engine = EventEngine(program, None, unit(), case.batch)
    engine.simulate()
    cost, totals = program.cost(case.batch), engine.totals
    products = sum(work[Term.SYNAPTIC_OPERATION] for work in works)
    assert products == cost.multiplications == totals.multiplications
    assert sum(work[Term.MESSAGE] for work in works) == cost.values == totals.values
    sent = sum(work.counts.get(Term.MESSAGE, {}).get(Term.NEAR_WRITE, 0) for work in works)
    assert sent == totals.bytes
    assert sum(work[Term.OPERATION] for work in works) == totals.operations


@pytest.mark.parametrize("layers", [CONV, POOLS])
@pytest.mark.parametrize("order", ["sequential", "simultaneous", "incremental"])
def test_convolutions_are_counted_alike(layers, order):
    """Conv layers: products as in the program's cost, one weight of the kernel for many of them."""
    network = Network.of(layers, seed=1, learn_output_from="label")
    program = Program.build(network, Schedule(order, iterations=2))
    works = counted(program, 3)
    assert sum(work[Term.SYNAPTIC_OPERATION] for work in works) == program.cost(3).multiplications
    for operation, work in zip(program.operations, works):
        if operation.name == "learn":
            assert work[Term.WEIGHT_UPDATE] == network.connections[operation.layer].parameters


def test_a_convolution_by_hand():
    """2x7x6, 3 channels of 3x3, then max over 2x2, batch 2, relu: predict, relax and learn.

    The window fits 5 · 4 = 20 places: 20 · 3 · 2 · 9 = 1080 products. Before the pool are 60 numbers,
    with 60 biases and 60 comparisons of relu; then 3 comparisons for each of 3 · 2 · 2 = 12 results: 156.
    Read: input 84 a sample, 54 weights, 3 biases; written: the 60 numbers a sample that it remembers.
    Learning gates those 60 errors: 60 comparisons and 60 multiplications, and adds them for the biases.
    """
    network = Network.of(CONV, seed=1)
    ops = Schedule("sequential", iterations=1).operations(network)
    setting = Setting(network, 2, UPDATES["sgd"], UNIT)
    predict = work_of(ops.predict(0), setting).counts[Term.SYNAPTIC_OPERATION]
    assert predict == {
        Term.SYNAPTIC_OPERATION: 2160,
        Term.MULTIPLICATION: 2160,
        Term.ADDITION: 2160 + 2 * 156,
        Term.NEAR_READ: 4 * (2 * 84 + 54 + 3),
        Term.NEAR_WRITE: 4 * 2 * 60,
    }
    learn = work_of(ops.learn(0, 1), setting).counts
    assert learn[Term.SYNAPTIC_OPERATION] == {
        Term.SYNAPTIC_OPERATION: 2160,
        Term.MULTIPLICATION: 2160 + 120,
        Term.ADDITION: 2160 + 240,
        Term.NEAR_READ: 4 * 2 * (84 + 12 + 60),
    }
    assert learn[Term.WEIGHT_UPDATE][Term.NEAR_READ] == 4 * 57


@pytest.mark.parametrize(
    ("constants", "rule", "operation", "expected"),
    [
        # tanh' = 1 − tanh² and the gate, γ, the decay γ f, the step; its sums; two evaluations of tanh
        (
            {"activation": "tanh", "precision": (1, 2, 1), "activity_decay": (0, 0.1, 0)},
            *(
                "sgd",
                "relax",
                {Term.MULTIPLICATION: 1 + 1 + 1 + 1 + 1, Term.ADDITION: 1 + 1 + 2, Term.FUNCTION: 2},
            ),
        ),
        ({"activation": "identity"}, "sgd", "relax", {Term.MULTIPLICATION: 1, Term.ADDITION: 2}),
        ({"activation": "leaky_relu"}, "sgd", "relax", {Term.MULTIPLICATION: 2, Term.ADDITION: 3}),
        (
            {"activation": "gelu"},
            "sgd",
            "relax",
            {Term.MULTIPLICATION: 3, Term.ADDITION: 3, Term.FUNCTION: 2},
        ),
        ({"output": "sigmoid"}, "sgd", "compare", {Term.ADDITION: 1, Term.FUNCTION: 1}),
        ({"output": "identity", "proximal_step": float("inf")}, "sgd", "clamp", {}),
        ({"output": "identity"}, "sgd", "clamp", {Term.MULTIPLICATION: 2, Term.ADDITION: 1}),
    ],
)
def test_element_wise_work_of_one_neuron(constants, rule, operation, expected):
    """Equations (2) and (3) for layers of one neuron and one sample: every operation is there once."""
    network = Network.dense([1, 1, 1], **constants)
    ops = Schedule("sequential", iterations=1).operations(network)
    one = {"relax": lambda: ops.relax(1, 1), "compare": lambda: ops.compare(2), "clamp": lambda: ops.clamp(2)}
    counts = work_of(one[operation](), Setting(network, 1, UPDATES[rule], UNIT)).counts[Term.NEURON_UPDATE]
    kinds = (Term.MULTIPLICATION, Term.ADDITION, Term.FUNCTION)
    assert {term: counts[term] for term in kinds if term in counts} == expected
    assert counts[Term.NEURON_UPDATE] == 1


def test_learning_rules_by_hand():
    """2-3, one sample: 9 parameters. Adam keeps two numbers of each; MQ sums gradients, NLMS inputs."""
    network = Network.dense([2, 3], output="identity")
    learn = Schedule("sequential", iterations=0).operations(network).learn(0, 0)
    works = {name: work_of(learn, Setting(network, 1, update, UNIT)) for name, update in UPDATES.items()}
    for work in works.values():
        assert work[Term.WEIGHT_UPDATE] == 9
    updates = {name: work.counts[Term.WEIGHT_UPDATE] for name, work in works.items()}
    assert {name: one[Term.NEAR_WRITE] for name, one in updates.items()} == {
        **dict.fromkeys(("sgd", "mq", "nlms"), 36),
        "adam": 108,
    }
    assert updates["adam"][Term.MULTIPLICATION] == 54
    assert {name: work[Term.REDUCTION] for name, work in works.items()} == {
        "sgd": 0,
        "mq": 9,
        "adam": 0,
        "nlms": 2,
    }


def test_precisions_that_follow_from_the_state_are_charged():
    """2-3-2, tanh, one sample: norms are reductions like NLMS's; weighing, decay and f(ĥ) had been free.

    tell_norm of layer 1: 3 values, each a function, a product and an addition, 12 bytes read. Relaxing sums
    3 + 2 values; the 2 errors above are weighed; each neuron has two products more (γ and the decay), an
    addition and f(ĥ); it reads activity, error and one norm: 12 + 12 + 4 bytes. take_norm keeps one number.
    """
    network = Network.dense([2, 3, 2], activation="tanh", output="identity", proximal_step=0.5)
    works = {}
    for precisions in ("constant", "theorem 1"):
        ops = Schedule("sequential", iterations=1, precisions=precisions).operations(network)
        works[precisions] = work_of(ops.relax(1, 1), Setting(network, 1, UPDATES["sgd"], UNIT))
    plain, relax = works.values()
    arithmetic = (Term.MULTIPLICATION, Term.ADDITION, Term.FUNCTION)
    more = {
        whole: [relax.counts[whole].get(term, 0) - plain.counts[whole].get(term, 0) for term in arithmetic]
        for whole in (Term.SYNAPTIC_OPERATION, Term.NEURON_UPDATE)
    }
    assert more == {Term.SYNAPTIC_OPERATION: [2, 0, 0], Term.NEURON_UPDATE: [6, 3, 3]}
    assert relax.counts[Term.NEURON_UPDATE][Term.NEAR_READ] == 12 + 12 + 4
    assert relax.counts[Term.REDUCTION] == {Term.REDUCTION: 5, Term.MULTIPLICATION: 5, Term.ADDITION: 5}
    setting = Setting(network, 1, UPDATES["sgd"], UNIT)
    assert work_of(ops.tell_norm(1, 0), setting).counts[Term.REDUCTION] == {
        **dict.fromkeys((Term.REDUCTION, *arithmetic), 3),
        Term.NEAR_READ: 12,
    }
    assert work_of(ops.clamp(2), setting)[Term.NEAR_READ] == 4 * (2 + 2 + 1)
    assert set(work_of(ops.take_norm(1, 0), setting).counts) == {Term.OPERATION}


def test_softmax_is_a_reduction_wherever_it_is_formed():
    """Clamp, compare and compare_target at the output go over all its values; a sigmoid is no reduction."""
    for output, values in (("softmax", 12), ("sigmoid", 0)):
        network = Network.dense([2, 3, 4], output=output, learn_output_from="label")
        ops = Schedule("sequential", iterations=1).operations(network)
        setting = Setting(network, 3, UPDATES["sgd"], UNIT)
        for operation in (ops.clamp(2), ops.compare(2), ops.compare_target(1)):
            assert work_of(operation, setting)[Term.REDUCTION] == values
        assert work_of(ops.compare(1), setting)[Term.REDUCTION] == 0


def test_packets_hops_and_wires_by_hand():
    """A prediction of 3 · 5 values of 4 bytes over 2 hops along rows and 1 along columns, 0.5 mm each.

    One value a packet: 15 packets, 30 and 15 packet hops, 60 bytes · 8 · 3 hops · 0.5 mm = 720 bit mm.
    Packets of 16 bytes: 3.75, so 4 packets, which take the time of 3.75.
    """
    network = Network.dense([2, 5, 2])
    predict = Schedule("sequential", iterations=1).operations(network).predict(0)
    setting = Setting(
        network, 3, UPDATES["sgd"], replace(UNIT, hop_mm=0.5), {(0, 1): Way(1, 1, 2, 1, 0, (2, 1))}
    )
    work = work_of(predict, setting)
    assert work.counts[Term.MESSAGE] == {
        Term.MESSAGE: 15,
        Term.NEAR_WRITE: 60,
        Term.HOP_HORIZONTAL: 30,
        Term.HOP_VERTICAL: 15,
        Term.LINK_BIT_MM: 720,
    }
    wide = work_of(predict, replace(setting, machine=replace(UNIT, packet_bytes=16)))
    assert (wide[Term.MESSAGE], wide[Term.HOP_HORIZONTAL], wide.journey[Term.MESSAGE]) == (4, 8, 3.75)
    assert (wide.journey[Term.HOP_HORIZONTAL], wide.journey[Term.HOP_VERTICAL]) == (2, 1)
    silent = work_of(predict.silent(), setting)
    assert Term.MESSAGE not in silent.counts


def test_what_is_not_used_is_not_counted():
    """Event-driven: fewer products, weights and values; everything a neuron is as before."""
    network = Network.dense([2, 5, 2])
    ops = Schedule("sequential", iterations=1).operations(network)
    setting = Setting(network, 3, UPDATES["mq"], UNIT)
    predict = work_of(ops.predict(0), setting, Used(products=10, weights=5, values=7))
    assert predict[Term.SYNAPTIC_OPERATION] == predict[Term.MULTIPLICATION] == 10
    assert predict[Term.ADDITION] == 10 + 15
    assert predict[Term.NEAR_READ] == 4 * (6 + 5 + 5)
    assert predict[Term.MESSAGE] == 7
    learn = work_of(ops.learn(0, 1), setting, Used(products=10, weights=5, values=0))
    assert learn[Term.WEIGHT_UPDATE] == 5 + 5
    assert learn[Term.REDUCTION] == 15
    adam = work_of(ops.learn(0, 1), replace(setting, update=UPDATES["adam"]), Used(10, 5, 0))
    assert adam[Term.WEIGHT_UPDATE] == 15
