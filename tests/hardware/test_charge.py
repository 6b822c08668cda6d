"""Bills: hand-computed examples, sums of parts, what is unpriced, and time as on the event queue."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Case, cases

from pcsim.engine.event import EventEngine
from pcsim.engine.timing import timing_totals
from pcsim.errors import ConfigurationError
from pcsim.hardware.charge import Bill, charge, charges, dense
from pcsim.hardware.clock import unit
from pcsim.hardware.machine import Machine, load_machine, machine_names
from pcsim.hardware.machine_clock import clock_of
from pcsim.hardware.prices import Evidence, Price, PriceList, Term
from pcsim.hardware.work import UPDATES, Setting
from pcsim.network.network import Network
from pcsim.schedule.program import Program, Schedule

MACHINES = st.sampled_from(machine_names()).map(load_machine)
SCHEDULE = Schedule("sequential", iterations=1)


def small(machine: Machine | str, rule: str = "mq") -> tuple[Setting, Program]:
    """The example that the docstrings below work through: 2-3-2, relu, softmax, two samples, T = 1.

    Its program: clamp 0, predict 0, initialise 1, predict 1, clamp 2, compare 1, compare 2; relax 1,
    compare 1, predict 1, clamp 2, compare 2; learn 0, learn 1. The first compare 1 is not sent.
    """
    network = Network.dense([2, 3, 2], seed=1)
    machine = load_machine(machine) if isinstance(machine, str) else machine
    return Setting(network, 2, UPDATES[rule], machine), Program.build(network, SCHEDULE)


def billed(machine: Machine | str, rule: str = "mq") -> Bill:
    """The dense bill of that example."""
    setting, program = small(machine, rule)
    return charge(setting, [dense(program, 2)])


def machine_with(energy: dict[Term, Price] | None = None, time: dict[Term, Price] | None = None) -> Machine:
    """A machine with these prices."""
    return Machine("test", "test", "test", "", PriceList(energy or {}, time or {}))


def price(value: float, *includes: Term) -> Price:
    """A price of this value."""
    return Price(value, "pJ", "test", Evidence.ASSUMED, frozenset(includes))


def test_loihi2018_by_hand():
    """Counts of a mini-batch of 2, and Davies' table 2.

    Synaptic operations: 6 products (predict 0, 1, 1, relax 1, learn 0, 1) of 2 · 6 = 12 are 72.
    Neuron updates: clamp 0 4, initialise 6, clamp 2 twice 8, compare 1 twice 12, compare 2 twice 8, relax 6:
    44.
    Weight updates: 2 · 3 + 3 and 3 · 2 + 2 are 17. Values sent: 6 + 4 + 4 + 4 + 6 + 4 = 28, each one hop.
    72 · 23.6 + 44 · 81 + 17 · 120 + 28 · (1.7 + 3.0) = 1699.2 + 3564 + 2040 + 131.6 = 7434.8 pJ.

    Time, ns: products 42 each, neuron updates 8.4, weight updates 6.1, messages 2.1 a value and 4.1.
    Layer 0 is done with predict at 33.6 + 42 = 75.6, its message arrives at 75.6 + 12.6 + 4.1 = 92.3.
    Layer 1 initialises until 142.7 and predicts until 184.7; the message arrives at 197.2.
    Layer 2 clamps until 230.8 and compares until 264.4; its error arrives at 276.9.
    Layer 1 relaxes until 276.9 + 42 + 50.4 = 369.3, compares until 419.7 and predicts until 461.7; at 474.2
    layer 2 clamps (507.8) and compares (541.4); the error arrives at 553.9.
    Layer 1 learns: 553.9 + 42 + 8 · 6.1 = 644.7. Layer 0 has learnt before, at 436.4 + 42 + 54.9 = 533.3.
    """
    bill = billed("loihi2018")
    assert bill.energy == pytest.approx(7434.8, rel=1e-12)
    assert bill.latency == pytest.approx(644.7, rel=1e-12)
    assert bill.energy_delay_product == pytest.approx(7434.8 * 644.7, rel=1e-12)
    assert bill.unpriced_energy == ("operation", "reduction")
    assert not bill.far


def test_sanafe_loihi_by_hand():
    """The same counts: 72 · 35.5 + 44 · 72.8 + 28 · (180.3 + 3.0) = 2556 + 3203.2 + 5132.4 = 10891.6 pJ."""
    bill = billed("sanafe-loihi")
    assert bill.energy == pytest.approx(10891.6, rel=1e-12)
    assert bill.unpriced_energy == ("operation", "weight_update", "reduction")


def test_digital_45nm_by_hand():
    """By parts: 133 multiplications, 210 additions, 664 bytes read and 356 written, all near.

    Multiplications: 72 in products; clamp 2 twice 8 + 4 (softmax's quotients); compare 2 twice 4; relax 12
    (gate and step); 17 updates: 72 + 24 + 8 + 12 + 17 = 133.
    Additions: predict 0 12 + 6 biases = 18; predict 1 twice 12 + 4 + 6 (relu compares) = 44; clamp 2 twice
    4 + 4; compare 1 twice 6; compare 2 twice 4 + 4; relax 12 + 6 (gate) + 12 = 30; learn 0 12 + 6 + 9 + 9
    (MQ's sum) = 36; learn 1 12 + 4 + 6 + 8 + 8 = 38: 18 + 44 + 16 + 12 + 16 + 30 + 36 + 38 = 210.
    Bytes read: 16 (clamp 0) + 52 + 24 + 56 + 32 + 48 + 32 + 88 (relax: error above 16, weight 24, activity
    24, error 24) + 48 + 56 + 32 + 32 + 76 + 72 = 664. Written: 16 + 24 + 16 + 24 + 16 + 24 + 24 + 16 + 16 +
    36 + 32 by operations and 28 · 4 by messages: 244 + 112 = 356.
    133 · 3.7 + 210 · 0.9 + (664 + 356) · 12.5 = 492.1 + 189 + 12750 = 13431.1 pJ.
    """
    bill = billed("digital-45nm")
    assert bill.energy == pytest.approx(13431.1, rel=1e-12)
    terms = (Term.MULTIPLICATION, Term.ADDITION, Term.NEAR_READ, Term.NEAR_WRITE)
    assert [bill.count(term) for term in terms] == [133, 210, 664, 356]
    assert bill.latency is None
    assert bill.energy_delay_product is None
    assert bill.unpriced_energy == ("operation", "function of reduction", "hop_horizontal of message")


@pytest.mark.parametrize(
    ("name", "synaptic", "neuron"),
    [
        ("kerasspiking-loihi", 27.1, 81),
        ("kerasspiking-spinnaker", 13_300, 26_000),
        ("kerasspiking-spinnaker2", 450, 2190),
        ("kerasspiking-cpu", 8600, 8600),
        ("kerasspiking-gpu", 300, 300),
        ("kerasspiking-arm", 900, 900),
        ("survey-spinnaker", 45, 0),
        ("survey-spinnaker2", 10, 0),
        ("survey-odin", 12.7, 0),
        ("survey-reckon", 5.3, 0),
    ],
)
def test_one_figure_a_chip_by_hand(name, synaptic, neuron):
    """72 synaptic operations and 44 neuron updates: 72 · synaptic + 44 · neuron; the rest is listed."""
    bill = billed(name)
    assert bill.energy == pytest.approx(72 * synaptic + 44 * neuron, rel=1e-12)
    assert ("neuron_update" in bill.unpriced_energy) == (neuron == 0)
    assert {"operation", "weight_update", "reduction", "message"} <= set(bill.unpriced_energy)


def test_seneca_by_hand():
    """72 · 2.8 + 28 packets of 32 bits · 2 = 257.6 pJ."""
    assert billed("survey-seneca").energy == pytest.approx(72 * 2.8 + 28 * 2, rel=1e-12)


def test_mesh_by_hand():
    """Counts as for digital-45nm, and softmax's 16 exponentials: four times over 4 values.

    14 operations · 100 + 133 · 3.7 + 210 · 0.9 + 1020 bytes · 1.25 + 16 · 20 + 28 flits · 1.51 + 28 · 32 bits
    · 0.0488 = 1400 + 492.1 + 189 + 1275 + 320 + 42.28 + 43.7248 = 3762.1048 pJ.
    """
    assert billed("mesh").energy == pytest.approx(3762.1048, rel=1e-12)


def test_gpu_like_by_hand():
    """Reductions: softmax four times 4, MQ 9 + 8: 33. Six messages of 16 or 24 bytes: a packet of 32 each.

    14 · 1e6 + 72 · 20 + 44 · 100 + 17 · 60 + 33 · 40 + 6 · 160 = 14009140 pJ.
    """
    assert billed("gpu-like").energy == pytest.approx(14_009_140, rel=1e-12)


def test_unit_counts_work_and_keeps_the_unit_clock():
    """14 operations + 72 + 44 + 17 + 33 values reduced + 28 packets = 208; time as on the unit clock."""
    bill = billed("unit")
    assert bill.energy == 208
    _, program = small("unit")
    engine = EventEngine(program, None, unit(), 2)
    engine.simulate()
    assert bill.latency == engine.totals.simulated_time


@settings(max_examples=60)
@given(cases(), MACHINES)
def test_energy_is_the_sum_of_its_parts(case, machine):
    """By layer, operation, term, level and link the same total; every row is its count times its price."""
    setting = Setting(case.network(), case.batch, UPDATES[case.rule], machine)
    program = Program.build(setting.network, case.schedule())
    bill = charge(setting, [dense(program, case.batch)])
    keys = [
        lambda row: str(row.layer),
        lambda row: row.operation,
        lambda row: row.term,
        lambda row: row.level,
        lambda row: f"{row.layer}-{row.target}",
    ]
    for key in keys:
        assert sum(bill.by(key).values()) == pytest.approx(bill.energy, rel=1e-12)
    for row in bill.rows:
        assert row.energy == (0 if row.energy_price is None else row.count * row.energy_price)
    facts = bill.to_dict()
    assert sum(facts["by_link"].values()) == pytest.approx(facts["energy"], rel=1e-12)


@settings(max_examples=60)
@given(cases(), MACHINES)
def test_what_has_no_price_is_listed_and_never_zero(case, machine):
    """Every whole piece of work that happens is charged, made of parts that are charged, or listed."""
    setting = Setting(case.network(), case.batch, UPDATES[case.rule], machine)
    bill = charge(setting, [dense(Program.build(setting.network, case.schedule()), case.batch)])
    listed = {name.split(" of ")[-1] for name in bill.unpriced_energy}
    for row in bill.rows:
        assert row.energy_price is not None or row.whole in listed or row.term is row.whole
    charged = {row.whole for row in bill.rows if row.energy_price is not None}
    assert {row.whole for row in bill.rows} <= charged | listed
    assert not {name for name in bill.unpriced_energy if " of " not in name} & {str(one) for one in charged}


def test_a_machine_without_prices_lists_all_and_charges_nothing():
    """The empty price list is the extreme case: no energy, no latency, everything named."""
    bill = billed(machine_with())
    wholes = ("operation", "synaptic_operation", "neuron_update", "weight_update", "reduction", "message")
    assert bill.unpriced_energy == bill.unpriced_time == wholes
    assert bill.energy == 0
    assert bill.latency is None


def test_a_price_for_the_whole_covers_what_it_includes_and_no_more():
    """A synaptic operation that includes its arithmetic leaves its memory to be charged, or to be listed."""
    counts = {Term.SYNAPTIC_OPERATION: 10, Term.MULTIPLICATION: 10, Term.ADDITION: 12, Term.NEAR_READ: 40}
    whole = Term.SYNAPTIC_OPERATION
    arithmetic = price(2, Term.MULTIPLICATION, Term.ADDITION)
    charged = charges(whole, counts, {whole: arithmetic})
    assert [(one.term, one.cost, one.price is None) for one in charged] == [
        (whole, 20, False),
        (Term.NEAR_READ, 0, True),
    ]
    with_memory = charges(
        whole, counts, {whole: arithmetic, Term.NEAR_READ: price(3), Term.ADDITION: price(9)}
    )
    assert [(one.term, one.cost) for one in with_memory] == [(whole, 20), (Term.NEAR_READ, 120)]
    parts = charges(whole, counts, {Term.MULTIPLICATION: price(1), Term.ADDITION: price(1)})
    assert [(one.term, one.cost) for one in parts] == [
        (Term.MULTIPLICATION, 10),
        (Term.ADDITION, 12),
        (Term.NEAR_READ, 0),
    ]
    assert [one.term for one in charges(whole, counts, {})] == [whole]


def test_a_price_includes_its_parts_where_no_piece_is_left():
    """Doing nothing had cost more than doing everything: without a product its additions were charged apart.

    A neuron's bias of 0.25 pJ and its 4 bytes belong to the synaptic operations, of which events leave none.
    """
    whole = Term.SYNAPTIC_OPERATION
    parts = {Term.ADDITION: price(0.25), Term.NEAR_READ: price(12.5)}
    prices = {whole: price(5, Term.MULTIPLICATION, Term.ADDITION, Term.NEAR_READ), **parts}
    counts = {whole: 0.0, Term.MULTIPLICATION: 0.0, Term.ADDITION: 12.0, Term.NEAR_READ: 48.0}
    assert charges(whole, counts, prices) == []
    assert charges(whole, counts, {whole: prices[whole]}) == []
    assert [one.term for one in charges(whole, counts, parts)] == [Term.ADDITION, Term.NEAR_READ]


def test_a_price_of_zero_is_a_price():
    """Zero on purpose is not the same as unknown."""
    bill = billed(machine_with({Term.REDUCTION: price(0, Term.ADDITION, Term.MULTIPLICATION, Term.FUNCTION)}))
    assert "reduction" not in bill.unpriced_energy


@given(st.randoms(use_true_random=False), MACHINES)
@settings(max_examples=30)
def test_bills_do_not_depend_on_the_order_of_dictionaries(random, machine):
    """Neither the order of prices nor, but for the time, that of operations changes a bit."""
    setting, program = small(machine)
    bill = charge(setting, [dense(program, 2)])

    def shuffled(prices):
        items = list(prices.items())
        random.shuffle(items)
        return dict(items)

    prices = PriceList(shuffled(machine.prices.energy), shuffled(machine.prices.time))
    other = charge(replace(setting, machine=replace(machine, prices=prices)), [dense(program, 2)])
    assert (other.rows, other.energy, other.latency) == (bill.rows, bill.energy, bill.latency)
    done = dense(program, 2)
    random.shuffle(done)
    mixed = charge(setting, [done], ordered=False)
    assert mixed.rows == bill.rows
    assert (mixed.unpriced_energy, mixed.unpriced_time) == (bill.unpriced_energy, bill.unpriced_time)


@settings(max_examples=60, deadline=None)
@given(cases(), st.sampled_from(["loihi2018", "sanafe-loihi", "mesh", "gpu-like", "unit"]))
def test_latency_is_the_event_engines(case: Case, name):
    """Three ways to the same time: a pass over the list, and both queues on the machine's clock."""
    network, schedule = case.network(), case.schedule()
    setting = Setting(network, case.batch, UPDATES[case.rule], load_machine(name))
    program = Program.build(network, schedule)
    clock = clock_of(setting, schedule.operations(network))
    engine = EventEngine(program, None, clock, case.batch)
    engine.simulate()
    assert timing_totals(program, clock, case.batch) == engine.totals
    bill = charge(setting, [dense(program, case.batch)])
    assert bill.latency == pytest.approx(engine.totals.simulated_time, rel=1e-9)


@pytest.mark.parametrize("name", ["sanafe-loihi", "mesh"])
def test_the_clock_knows_the_operations_of_refreshed_precisions(name):
    """Telling a norm takes its own time on both: the clock took it for an operation that does nothing."""
    schedule = Schedule("sequential", iterations=2, precisions="theorem 1")
    network = Network.dense([4, 5, 3, 2], output="identity", proximal_step=0.5)
    setting = Setting(network, 1, UPDATES["nlms"], load_machine(name))
    program = Program.build(network, schedule)
    clock = clock_of(setting, schedule.operations(network))
    engine = EventEngine(program, None, clock, 1)
    engine.simulate()
    assert ("tell_norm", 1) in clock.operation_times
    assert ("take_norm", 3) in clock.operation_times
    latency = charge(setting, [dense(program, 1)]).latency
    assert latency == pytest.approx(engine.totals.simulated_time, rel=1e-9)


@pytest.mark.parametrize("name", ["loihi2018", "digital-45nm", "mesh"])
def test_convolutions_are_charged_too(name):
    """Conv layers: parts add up, products are the program's, and time is the event engine's."""
    layers = ["2x7x6", "conv 3 3x3/1 max 2", "conv 4 2x2/1", "dense 3"]
    network, schedule = Network.of(layers, seed=1, learn_output_from="label"), Schedule(iterations=2)
    setting = Setting(network, 3, UPDATES["mq"], load_machine(name))
    program = Program.build(network, schedule)
    bill = charge(setting, [dense(program, 3)])
    for key in (lambda row: row.operation, lambda row: row.term, lambda row: str(row.layer)):
        assert sum(bill.by(key).values()) == pytest.approx(bill.energy, rel=1e-12)
    assert bill.energy > 0
    if name == "loihi2018":
        assert bill.count(Term.SYNAPTIC_OPERATION) == program.cost(3).multiplications
    if bill.latency is not None:
        engine = EventEngine(program, None, clock_of(setting, schedule.operations(network)), 3)
        engine.simulate()
        assert bill.latency == pytest.approx(engine.totals.simulated_time, rel=1e-9)


def test_weights_that_do_not_fit_are_far():
    """One byte too few and all parameters are read from far memory, state still from near."""
    setting, program = small("digital-45nm")
    size = (6 + 3 + 6 + 2) * 4
    assert setting.parameter_bytes == size
    near = charge(replace(setting, machine=replace(setting.machine, near_bytes=size)), [dense(program, 2)])
    far = charge(replace(setting, machine=replace(setting.machine, near_bytes=size - 1)), [dense(program, 2)])
    assert (near.far, far.far) == (False, True)
    assert near.count(Term.FAR_READ) == 0
    read = 36 + 32 + 32 + 24 + 36 + 32  # predict 0, predict 1 twice, relax, learn 0, learn 1
    assert far.count(Term.FAR_READ) == read
    assert far.count(Term.FAR_WRITE) == 36 + 32
    assert far.count(Term.NEAR_READ) == near.count(Term.NEAR_READ) - read
    assert far.energy - near.energy == pytest.approx((read + 68) * (162.5 - 12.5))


def test_a_clock_prices_a_message_by_values_or_by_bytes():
    """loihi2018, 2.1 ns a packet and 4.1 ns a hop; a prediction of 32 x 128 = 4,096 values as float16.

    A packet carries one value: 4,096 · 2.1 + 4.1 = 8,605.7 ns, in any format. With 4 bytes a packet the 8,192
    bytes are 2,048 packets: 2,048 · 2.1 + 4.1 = 4,304.9 ns. A price of packets that includes the hop leaves
    8,601.6 ns, and 0.5 ns for each byte that is put into the inbox adds 8,192 · 0.5 = 4,096 ns.
    """
    setting, _ = small("loihi2018")
    machine, rng = setting.machine, np.random.default_rng(0)

    def time(machine):
        clock = clock_of(replace(setting, machine=machine), SCHEDULE.operations(setting.network))
        return clock.message_time(0, 1, 4096, 8192, rng)

    assert time(machine) == pytest.approx(8605.7)
    assert time(replace(machine, packet_bytes=4)) == pytest.approx(4304.9)
    prices = dict(machine.prices.time)
    packet = prices[Term.MESSAGE]
    whole = prices | {Term.MESSAGE: replace(packet, includes=packet.includes | {Term.HOP_HORIZONTAL})}
    assert time(replace(machine, prices=PriceList({}, whole))) == pytest.approx(8601.6)
    written = prices | {Term.MESSAGE: replace(packet, includes=frozenset()), Term.NEAR_WRITE: price(0.5)}
    assert time(replace(machine, prices=PriceList({}, written))) == pytest.approx(8605.7 + 4096)


def test_a_bill_needs_a_mini_batch_and_a_clock_needs_times():
    """Both would otherwise divide by nothing or let time stand still."""
    setting, _ = small("loihi2018")
    with pytest.raises(ConfigurationError, match="at least one"):
        charge(setting, [])
    setting, _ = small("digital-45nm")
    with pytest.raises(ConfigurationError, match="'digital-45nm' has no prices in time"):
        clock_of(setting, SCHEDULE.operations(setting.network))
