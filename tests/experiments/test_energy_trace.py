"""Bills of traces: they are those of the model where both know the same, and less where less was sent."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

import pcsim
from pcsim.cli import app
from pcsim.config import load_model
from pcsim.errors import ConfigurationError, TraceError
from pcsim.experiments.clocks import describe_clock, read_clock
from pcsim.experiments.energy import charge_machines
from pcsim.experiments.energy_trace import charge_trace
from pcsim.experiments.experiment import Experiment
from pcsim.hardware.clock import Hardware, Links
from pcsim.hardware.machine import PRESETS, load_machine
from pcsim.hardware.prices import Term
from pcsim.tracing.reader import open_trace

SMALL = ["network.layers=[64, 9, 8, 10]", "training.batch=512", "training.epochs=1", "trace.every=1"]
LOST = ["faults.dead_layer=1", "faults.dead_share=1.0"]


def traced(path, *overrides):
    """Train a small network from a model file; return its experiment and trace."""
    experiment = Experiment.from_model(load_model("digits", [*SMALL, *overrides]))
    kernels = pcsim.make_kernels("reference", "float32")
    pcsim.run(experiment, engine="event", kernels=kernels, trace=path)
    return experiment, path


def bill_of(path, machine):
    """Charge a trace to a preset."""
    with open_trace(path) as trace:
        return charge_trace(trace, load_machine(machine))


@pytest.mark.parametrize("order", ["sequential", "simultaneous", "red-black", "incremental", "asynchronous"])
def test_a_dense_bill_is_the_models(order, tmp_path):
    """Same operations, same messages: the trace of a run costs what `pcsim energy MODEL` says, row by row."""
    experiment, path = traced(tmp_path / "t.h5", f"schedule.order={order}")
    machine = load_machine("digital-45nm")
    found = bill_of(path, "digital-45nm")
    bills, _ = charge_machines(experiment, [machine], 1)
    expected = bills["digital-45nm"].dense
    assert found.bills.dense.energy == pytest.approx(expected.energy, rel=1e-12)
    assert found.bills.dense.unpriced_energy == expected.unpriced_energy
    for key in ("layer", "operation", "term"):
        ours, theirs = (
            bill.by(lambda row, key=key: str(getattr(row, key))) for bill in (found.bills.dense, expected)
        )
        assert {name: one for name, one in ours.items() if one} == pytest.approx(
            {n: e for n, e in theirs.items() if e}
        )
    assert found.steps == found.recorded == 2


def test_time_is_the_clocks(tmp_path):
    """A run on a machine's clock took as long as that machine's bill says; on another there is no time."""
    experiment, path = traced(tmp_path / "t.h5", "hardware.model=loihi2018")
    bills, _ = charge_machines(experiment, [load_machine("loihi2018")], 1)
    assert bill_of(path, "loihi2018").bills.dense.latency == pytest.approx(bills["loihi2018"].dense.latency)
    other = bill_of(path, "sanafe-loihi").bills.dense
    assert (other.latency, other.untimed) == (None, "the run's clock was another than this machine's")


def mean_end(path):
    """How long a recorded training step took: the mean of the last ends."""
    with open_trace(path) as trace:
        events = trace.table("events")
        step, end = events.read("step"), events.read("end")
    return np.mean([end[step == one].max() for one in np.unique(step)])


@pytest.mark.parametrize(
    ("settings", "row"),
    [
        (["messages.format=Q4.7"], "dense"),
        (["messages.threshold=0.03", "messages.error_threshold=3e-4", "messages.format=Q4.7"], "events"),
        (["messages.error_threshold=0"], None),
        (["faults.dead_layer=1", "faults.dead_share=0.5"], None),
        (LOST, "dense"),
    ],
)
@pytest.mark.parametrize("machine", ["loihi2018", "mesh"])
def test_time_is_that_of_the_messages_that_were_sent(machine, settings, row, tmp_path):
    """Entries under a threshold took no time, so the time is not that of the dense bill, and the other way.

    It is neither's where the links did what neither bill says: a threshold in one direction, or dead lines.
    """
    _, path = traced(tmp_path / "t.h5", f"hardware.model={machine}", *settings)
    bills = bill_of(path, machine).bills
    expected = pytest.approx(mean_end(path))
    assert bills.dense.latency == (expected if row == "dense" else None)
    assert bills.events.latency == (expected if row == "events" else None)


def test_a_format_alone_is_in_both_bills_of_a_trace(tmp_path):
    """Dense in time and energy as `pcsim energy MODEL`; events send no zeros, 1.5 bytes a value."""
    experiment, path = traced(tmp_path / "t.h5", "hardware.model=mesh", "messages.format=Q4.7")
    found = bill_of(path, "mesh").bills
    expected = charge_machines(experiment, [load_machine("mesh")], 1)[0]["mesh"].dense
    assert found.dense.energy == pytest.approx(expected.energy, rel=1e-12)
    assert found.dense.latency == pytest.approx(expected.latency, rel=1e-9)
    with open_trace(path) as trace:
        events = trace.table("events")
        numbers = events.read("nonzero_values")[events.decode("kind") == "message"]
    packets = sum(math.ceil(math.ceil(1.5 * one) / 4) for one in numbers) / 2
    assert found.events.count(Term.MESSAGE) == pytest.approx(packets)


def test_time_of_a_machine_of_ones_own(tmp_path):
    """The file's clock is in the trace: its copy has that time, too, and another price none."""
    slow = PRESETS.joinpath("loihi2018.toml").read_text().replace("value = 2.1", "value = 21.0")
    (tmp_path / "slow.toml").write_text(slow)
    _, path = traced(tmp_path / "t.h5", "hardware.model=file", f'hardware.path="{tmp_path / "slow.toml"}"')
    assert bill_of(path, tmp_path / "slow.toml").bills.dense.latency == pytest.approx(mean_end(path))
    assert bill_of(path, "loihi2018").bills.dense.latency is None
    (tmp_path / "copy.toml").write_text(slow)
    assert bill_of(path, tmp_path / "copy.toml").bills.dense.latency == pytest.approx(mean_end(path))
    (tmp_path / "slow.toml").write_text(slow.replace("value = 8.4", "value = 8.5"))
    assert bill_of(path, tmp_path / "slow.toml").bills.dense.latency is None


def test_time_of_the_unit_clock(tmp_path):
    """The machine `unit` has the clock of `hardware.model=unit`, which is described in another way."""
    _, path = traced(tmp_path / "t.h5")
    assert bill_of(path, "unit").bills.dense.latency == mean_end(path)


@pytest.mark.parametrize("what", [None, "slow", [1], {}, {"links": 3, "operation_times": {}}])
def test_a_clock_that_nobody_knows_has_no_times(what):
    """Damaged traces, and clocks of a user's own class, whose rules no trace holds."""
    assert read_clock(what) is None


def test_a_clock_survives_its_trace():
    """What is written is read back equal, through JSON as traces have it; older ones price no values."""
    times = {("relax", 2): 10.5, ("clamp", 0): 1}
    clock = Hardware(1, 2, 3, 4, Links(5, {(1, 0): 6}, 7, 8), 9, times, ("reduction",), "ns")
    described = json.loads(json.dumps(describe_clock(clock)))
    assert read_clock(described) == clock
    assert read_clock(described | {"block": 3}) is None
    del described["time_per_value"]
    assert read_clock(described) == replace(clock, time_per_value=0)


def test_messages_are_charged_as_recorded(tmp_path):
    """With a threshold: as many packets as entries that the trace counts, 1.7 pJ each on loihi2018."""
    _, path = traced(tmp_path / "t.h5", "messages.threshold=0.05")
    found = bill_of(path, "loihi2018")
    with open_trace(path) as trace:
        events = trace.table("events")
        entries = events.read("nonzero_values")[events.decode("kind") == "message"].sum() / found.steps
    assert found.bills.events.by(lambda row: str(row.term))["message"] == pytest.approx(1.7 * entries)
    assert found.bills.events.energy < found.bills.dense.energy


def test_what_a_dead_core_does_not_send_costs_nothing(tmp_path):
    """Its messages are missing from both bills, its arithmetic is not."""
    _, alive = traced(tmp_path / "a.h5")
    _, dead = traced(tmp_path / "d.h5", *LOST)
    before, after = (bill_of(path, "loihi2018").bills.dense for path in (alive, dead))
    messages = [
        sum(row.energy for row in bill.rows if row.layer == 1 and row.level == "network")
        for bill in (before, after)
    ]
    assert messages[0] > 0
    assert messages[1] == 0
    assert before.energy - after.energy == pytest.approx(messages[0])


def test_what_cannot_be_charged(tmp_path):
    """Second copies, runs without a model file, and traces without events: one line each."""
    _, copies = traced(tmp_path / "c.h5", "faults.duplication=1")
    with pytest.raises(TraceError, match=r"second copies of messages.*expected a run without"):
        bill_of(copies, "loihi2018")
    experiment = Experiment.from_model(load_model("digits", SMALL))
    pcsim.run(experiment, engine="fast", trace=tmp_path / "f.h5")
    with pytest.raises(TraceError, match="no recorded events"):
        bill_of(tmp_path / "f.h5", "loihi2018")


def test_the_command(tmp_path):
    """A table within 80 columns, JSON, a picture; options that are a model's are refused."""
    _, path = traced(tmp_path / "t.h5")
    shown = CliRunner().invoke(app, ["energy", str(path)], env={"COLUMNS": "80"}, catch_exceptions=False)
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "2 of 2 recorded training steps" in " ".join(shown.stdout.split())
    picture = tmp_path / "bill.png"
    told = CliRunner().invoke(
        app, ["energy", str(path), "--json", "-o", str(picture)], catch_exceptions=False
    )
    facts = json.loads(told.stdout)
    (machine,) = facts["machines"]
    assert (facts["training_steps"], machine["machine"]) == (2, "loihi2018")
    assert machine["dense"]["energy"] == pytest.approx(bill_of(path, "loihi2018").bills.dense.energy)
    assert picture.read_bytes().startswith(b"\x89PNG")
    for option, value in (("--set", "training.batch=1"), ("--mini-batches", "10"), ("--data-dir", "here")):
        refused = CliRunner().invoke(app, ["energy", str(path), option, value])
        assert isinstance(refused.exception, ConfigurationError)
        assert f"{option} with a trace" in str(refused.exception)
