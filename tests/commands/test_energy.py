"""`pcsim energy`: tables, JSON, pictures and refusals as a user meets them; the clock of `hardware.model`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from pcsim.cli import app
from pcsim.commands.energy_tables import quantity
from pcsim.errors import ConfigurationError
from pcsim.hardware.machine import PRESETS, machine_names
from pcsim.tracing.reader import open_trace

DIGITS = Path(__file__).parents[2] / "models" / "digits.toml"
QUICK = ["--mini-batches", "2", "--set", "network.layers=[64,12,10]"]


def call(*arguments: object) -> str:
    """Run the command line in this process and return what it prints; its errors go through."""
    outcome = CliRunner(env={"COLUMNS": "80"}).invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.stderr
    return outcome.stdout


def test_the_table_fits_and_says_what_it_leaves_out():
    """Totals of both ways with their source beside them, shares, and what has no price, in 80 columns."""
    shown = call("energy", DIGITS, "--hardware", "loihi2018", "--hardware", "digital-45nm", *QUICK)
    for text in ("loihi2018", "Davies 2018, table 2", "digital-45nm", "Horowitz 2014", "dense", "events"):
        assert text in shown
    assert "loihi2018: pre-silicon simulation (Davies 2018, table 2)" in shown
    assert "loihi2018: no price, not in the energy: operation, reduction" in shown
    assert "digital-45nm: no price in time at all" in shown
    assert "one hop along a row" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_mini_batch_of_one():
    """One sample is no samples."""
    said = call("energy", DIGITS, *QUICK, "--set", "training.batch=1")
    assert said.startswith("A mini-batch of 1 sample, digits, sequential, T = 3")


def test_what_does_not_fit_the_chip_is_said(tmp_path):
    """`pcsim map` refuses three layers on two cores; the bill had nothing to say."""
    path = tmp_path / "two.toml"
    text = (PRESETS / "loihi2018.toml").read_text(encoding="utf-8")
    path.write_text(text.replace("rows = 8", "rows = 1").replace("columns = 16", "columns = 2"), "utf-8")
    said = call("energy", DIGITS, "--hardware", path, *QUICK)
    assert "two: does not fit the chip: 1 core over (pcsim map)" in said
    assert one_machine("--hardware", path, "--json", *QUICK)["dense"]["misfit"] == "1 core over"
    assert one_machine("--json", *QUICK)["dense"]["misfit"] is None


def one_machine(*arguments: object) -> dict[str, Any]:
    """What the only machine of the only order charges."""
    (machine,) = json.loads(call("energy", DIGITS, *arguments))["orders"][0]["machines"]
    return machine


def test_two_files_of_one_name_are_compared(tmp_path, monkeypatch):
    """A second revision in a folder of its own is another machine, and a copy of a file the same chip."""
    monkeypatch.chdir(tmp_path)
    text = (PRESETS / "loihi2018.toml").read_text(encoding="utf-8")
    for path, price in (("chip.toml", "23.6"), ("revB/chip.toml", "9.0"), ("copy.toml", "23.6")):
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text(text.replace("value = 23.6", f"value = {price}"), encoding="utf-8")
    both = ["--hardware", "chip.toml", "--hardware", "revB/chip.toml"]
    machines = json.loads(call("energy", DIGITS, *both, "--json", *QUICK))["orders"][0]["machines"]
    assert [one["machine"] for one in machines] == ["chip.toml", "revB/chip.toml"]
    assert machines[0]["dense"]["energy"] > machines[1]["dense"]["energy"]
    with pytest.raises(ConfigurationError, match=r"chip.toml ./chip.toml: expected each machine and order"):
        call("energy", DIGITS, "--hardware", "chip.toml", "--hardware", "./chip.toml", *QUICK)
    call("map", DIGITS, "--hardware", "chip.toml", "-o", "map.json", "--placement", "row", *QUICK[2:])
    mapped = one_machine("--hardware", "copy.toml", "--mapping", "map.json", "--json", *QUICK)
    assert mapped["machine"] == "copy"


def test_a_time_that_is_not_known_is_explained(tmp_path):
    """A dash for the time without a word looks like a machine without prices in time."""
    out = tmp_path / "map.json"
    small = [*QUICK[2:], "--set", "messages.format=float16"]
    call("map", DIGITS, "--hardware", "mesh", "-o", out, "--placement", "row", *small)
    said = call("energy", DIGITS, "--hardware", "mesh", "--mapping", out, *QUICK[:2], *small)
    said = " ".join(said.split())
    assert "mesh: no time of dense: the mesh is simulated without the messages' own format" in said
    assert "mesh: no time of events: the mesh is simulated with all values sent" in said


def test_json_adds_up():
    """Scripts get the same totals: by layer, operation, term, level and link, and the prices with sources."""
    chosen = ["--hardware", "mesh", "--order", "simultaneous"]
    found = json.loads(call("energy", DIGITS, *chosen, "--json", *QUICK))
    (order,) = found["orders"]
    assert (order["order"], order["batch"], order["mini_batches"]) == ("simultaneous", 32, 2)
    assert set(order["metrics"]) == {
        *("Dense", "Effective_MACs", "Effective_ACs"),
        *("ActivationSparsity", "ConnectionSparsity", "Footprint"),
    }
    (machine,) = order["machines"]
    for way in ("dense", "events"):
        bill = machine[way]
        for parts in ("by_layer", "by_operation", "by_term", "by_level", "by_link"):
            assert sum(bill[parts].values()) == pytest.approx(bill["energy"], rel=1e-12)
        assert sum(row["energy"] for row in bill["rows"]) == pytest.approx(bill["energy"], rel=1e-12)
        assert bill["energy_a_sample"] == bill["energy"] / 32
        assert bill["energy_delay_product"] == pytest.approx(bill["energy"] * bill["latency"])
    assert machine["events"]["energy"] < machine["dense"]["energy"]
    assert machine["prices"]["energy"]["hop_vertical"]["source"].startswith("Noxim")
    assert machine["prices"]["energy"]["hop_vertical"]["evidence"] == "second-hand"


def test_the_list_names_every_preset_in_one_line_with_its_source():
    """What there is, before anybody reads TOML."""
    lines = call("energy", "--list").splitlines()
    for name in machine_names():
        assert sum(line.startswith(f"{name} ") for line in lines) == 1
    assert max(map(len, lines)) <= 80
    machines = json.loads(call("energy", "--list", "--json"))
    assert [machine["machine"] for machine in machines] == list(machine_names())


@pytest.mark.filterwarnings("error::UserWarning")
def test_the_picture_is_one(tmp_path):
    """A PNG that opens, also for a single machine and for several orders; nothing is overwritten."""
    out = tmp_path / "energy.png"
    orders = ["--order", "sequential", "--order", "asynchronous"]
    assert f"picture: {out}" in call("energy", DIGITS, "-o", out, *orders, *QUICK)
    with Image.open(out) as picture:
        assert picture.size[0] > 1000
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 8
    with pytest.raises(ConfigurationError, match="exists; pass --force"):
        call("energy", DIGITS, "-o", out, *QUICK)
    call("energy", DIGITS, "-o", out, "--force", "--hardware", "survey-odin", *QUICK)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "expected a model file, or --list"),
        (
            (DIGITS, "--hardware", "loihi2"),
            "hardware 'loihi2': expected a preset or a .toml file; did you mean",
        ),
        ((DIGITS, "--hardware", "unit", "--hardware", "unit"), "expected each machine and order once"),
        ((DIGITS, "-o", "energy.gif"), "energy.gif: expected a name that ends in .png, .svg or .pdf"),
        ((DIGITS, "--order", "upside-down"), "schedule.order = 'upside-down': expected one of"),
        ((DIGITS, "--mini-batches", 1000), "mini-batches = 1000: expected 1 to 44"),
    ],
)
def test_bad_input_is_one_line(arguments, says):
    """What was given, what was expected, what to do."""
    with pytest.raises(ConfigurationError) as refusal:
        call("energy", *arguments)
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("mapping", ["nope", "other.json"])
def test_a_bad_mapping_is_told_before_the_bar(mapping, tmp_path, monkeypatch):
    """No file, or a mapping for another mesh: no progress bar appears."""
    monkeypatch.chdir(tmp_path)
    call("map", DIGITS, "-o", "other.json", "--placement", "row", *QUICK[2:])
    monkeypatch.setattr("pcsim.terminal.ProgressBar.__init__", None)
    with pytest.raises(ConfigurationError, match=r"nope: cannot be read|for a 8x16 mesh \(loihi2018\)"):
        call("energy", DIGITS, "--mapping", mapping, "--hardware", "mesh", *QUICK)


def test_a_broken_machine_file_ends_with_code_2(tmp_path):
    """A real process: one line on standard error, no traceback."""
    path = tmp_path / "mine.toml"
    path.write_text('title = "mine"\nsource = "mine"\n[energy.hopp]\nvalue = 1\n')
    start = [sys.executable, "-c", "from pcsim.cli import main; main()"]
    command = [*start, "energy", str(DIGITS), "--hardware", str(path)]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert outcome.returncode == 2
    assert outcome.stderr.startswith(f"error: {path}: energy.hopp: unknown term: ")
    assert outcome.stderr.count("\n") == 1


def test_the_event_engine_takes_a_machines_times():
    """`hardware.model=NAME` sets the clock that the bill's dense latency has; what has no time is said."""
    own = ["--set", "network.layers=[64,12,10]"]
    outcome = CliRunner().invoke(
        app, ["simulate", str(DIGITS), "--set", "hardware.model=loihi2018", "--json", *own]
    )
    assert outcome.stderr == "takes no time, as it has no price: operation, reduction\n"
    time = json.loads(outcome.stdout)["totals"]["simulated_time"]
    path = PRESETS / "loihi2018.toml"
    from_file = ["--set", "hardware.model=file", "--set", f'hardware.path="{path}"']
    again = CliRunner().invoke(app, ["simulate", str(DIGITS), *from_file, "--json", *own])
    assert json.loads(again.stdout)["totals"]["simulated_time"] == time
    bill = json.loads(call("energy", DIGITS, "--json", *QUICK))["orders"][0]["machines"][0]["dense"]
    assert time == pytest.approx(bill["latency"], rel=1e-9)


def test_a_trace_holds_the_clock_of_a_machine(tmp_path):
    """`hardware.model=NAME` in `pcsim run`: the trace names each operation's time.

    A mini-batch of 8 through 64-12: 8 x 64 x 12 = 6,144 multiplications of 3.5 ns each at least.
    """
    trace = tmp_path / "clock.h5"
    small = ("network.layers=[64,12,10]", "training.epochs=1", "training.batch=8", "hardware.model=loihi2018")
    settings = [word for one in small for word in ("--set", one)]
    said = call("run", DIGITS, *settings, "--engine", "event", "--trace", trace)
    assert re.search(r"\d (ms|s) ", said)  # a machine's times are seconds
    with open_trace(trace) as recorded:
        clock = recorded.attributes["hardware"]
    assert clock["operation_times"]["0 predict"] >= 6144 * 3.5
    assert set(clock["operation_times"]) >= {"1 relax", "2 clamp", "1 learn"}
    assert clock["unpriced"] == ["operation", "reduction"]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["hardware.model=file"], "hardware.path is missing: expected a machine file"),
        (
            ["hardware.model=mesh", "hardware.path=x.toml"],
            "hardware.path = 'x.toml': expected no path unless",
        ),
        (["hardware.model=file", f"hardware.path={PRESETS / 'survey-odin.toml'}"], "has no prices in time"),
    ],
)
def test_clocks_that_cannot_be(overrides, says):
    """A machine without times would let everything happen at once."""
    with pytest.raises(ConfigurationError, match=says):
        call("simulate", DIGITS, *(word for one in overrides for word in ("--set", one)))


@pytest.mark.parametrize(
    ("value", "units", "text"),
    [
        (129_108_195.2, ("pJ",), "129 µJ"),
        (0.5, ("pJ",), "500 fJ"),
        (16_985_700.9, ("ns",), "17 ms"),
        (1e9, ("ns",), "1 s"),
        (129e6 * 17e6, ("pJ", "ns"), "2.19 µJ·s"),
        (999_700, ("pJ",), "1 µJ"),
        (5_227_000, ("1",), "5.23 M"),
        (0.0, ("pJ",), "0 J"),
    ],
)
def test_quantities_are_written_with_prefixes(value, units, text):
    """PJ and ns are for files; people read three digits and a prefix."""
    assert quantity(value, *units) == text
