"""Machine files: what comes with pcsim is whole, and what a user writes is read or refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from pcsim.config import MachineHardwareConfig
from pcsim.errors import ConfigurationError
from pcsim.hardware.charge import travel
from pcsim.hardware.machine import load_machine, machine_names
from pcsim.hardware.machine_clock import clock_of
from pcsim.hardware.prices import WHOLE, Evidence, Term
from pcsim.hardware.work import UPDATES, Setting, work_of
from pcsim.network.network import Network
from pcsim.schedule.program import Schedule

GOOD = """
title = "mine"
source = "my bench"
[energy.synaptic_operation]
value = 2.5
unit = "pJ"
source = "measured on my bench"
evidence = "measured"
includes = ["multiplication", "addition"]
[time.hop_vertical]
value = 3
unit = "ns"
source = "data sheet"
evidence = "simulated"
[chip]
rows = 2
columns = 3
synapse_bytes_per_core = 100
"""


def written(folder: Path, text: str) -> Path:
    """Write a machine file."""
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", machine_names())
def test_every_preset_says_where_each_number_is_from(name):
    """A number without value, source and evidence is worth nothing, and a made-up one must say so."""
    machine = load_machine(name)
    assert machine.title
    assert machine.notes.strip()
    prices = [*machine.prices.energy.items(), *machine.prices.time.items()]
    assert prices
    for term, price in prices:
        assert len(price.source) >= 7
        assert price.evidence in Evidence
        assert not price.includes & set(WHOLE)
        assert not price.includes or term in WHOLE or term.startswith("hop_")
    if not {"unit", "mesh", "gpu-like"} & {name}:
        assert all(price.evidence is not Evidence.ASSUMED for _, price in prices)


def test_model_files_know_the_machines_that_have_times():
    """`hardware.model` lists names that the configuration cannot look up: it must not import the presets."""
    known = set(get_args(MachineHardwareConfig.model_fields["model"].annotation)) - {"file"}
    timed = {name for name in machine_names() if load_machine(name).prices.time} - {"unit"}
    assert known == timed


def test_a_users_file(tmp_path):
    """User files are welcome: name from the file, the chip's hops from prices, capacity from the cores."""
    machine = load_machine(written(tmp_path, GOOD))
    assert (machine.name, machine.title) == ("mine", "mine")
    price = machine.prices.energy[Term.SYNAPTIC_OPERATION]
    assert (price.value, price.evidence) == (2.5, Evidence.MEASURED)
    assert price.includes == {Term.MULTIPLICATION, Term.ADDITION}
    assert machine.chip is not None
    assert (machine.chip.hop_ns_horizontal, machine.chip.hop_ns_vertical) == (None, 3)
    assert machine.near_capacity == 6 * 100


@pytest.mark.parametrize(("packet", "price", "passed"), [("packet_bytes = 4\n", 8, 4), ("", 2, 1)])
def test_every_clock_knows_the_links_of_the_chip(tmp_path, packet, price, passed):
    """Width and hops of [chip] were for `pcsim map` only; all other clocks took messages for free.

    0.5 bytes a ns: a packet of 4 bytes takes 8 ns; without packets each byte 2 ns. 15 values of 4 bytes are
    under way for 60 / 0.5 + 7 = 127 ns.
    """
    links = "link_bytes_per_ns = 0.5\nhop_ns_horizontal = 7\n"
    machine = load_machine(written(tmp_path, packet + GOOD + links))
    times = machine.prices.time
    assert {term: times[term].value for term in (Term.MESSAGE, Term.HOP_HORIZONTAL, Term.HOP_VERTICAL)} == {
        Term.MESSAGE: price,
        Term.HOP_HORIZONTAL: 7,
        Term.HOP_VERTICAL: 3,
    }
    assert machine.passed_bytes == passed
    network = Network.dense([2, 5, 2])
    setting = Setting(network, 3, UPDATES["sgd"], machine)
    operations = Schedule("sequential", iterations=1).operations(network)
    assert travel(work_of(operations.predict(0), setting), times) == 127
    clock = clock_of(setting, operations)
    assert clock.message_time(0, 1, 15, 60, np.random.default_rng(0)) == 127
    assert "message" not in clock.unpriced


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("hop_ns_vertical = 4", "chip.hop_ns_vertical = 4: expected 3, as time.hop_vertical says, or one of"),
        (
            "link_bytes_per_ns = 2",
            "time.message.value = 1: expected 4 / chip.link_bytes_per_ns, as chip",
        ),
    ],
)
def test_a_chip_that_contradicts_the_prices_is_refused(tmp_path, keys, says):
    """Two numbers for one thing: `map` had taken one of them, and `energy` the other."""
    message = '[time.message]\nvalue = 1\nunit = "ns"\nsource = "data sheet"\nevidence = "simulated"\n'
    text = f"packet_bytes = 4\n{GOOD}".replace("[chip]", f"{message}[chip]")
    with pytest.raises(ConfigurationError) as refusal:
        load_machine(written(tmp_path, f"{text}{keys}\n"))
    assert says in str(refusal.value)
    agreeing = written(tmp_path, f"{text}link_bytes_per_ns = 4\nhop_ns_vertical = 3\n")
    assert load_machine(agreeing).prices.time[Term.MESSAGE].source == "data sheet"


def test_the_example_of_the_documentation_is_one(tmp_path):
    """What a reader copies from docs/hardware.md has to work."""
    page = (Path(__file__).parents[2] / "docs" / "hardware.md").read_text(encoding="utf-8")
    example = page.split("```toml\n")[1].split("```")[0]
    machine = load_machine(written(tmp_path, example))
    assert machine.prices.energy[Term.SYNAPTIC_OPERATION].value == 5
    assert machine.near_capacity == 2**20
    for name in machine_names():
        assert name in page or f"{name.split('-')[0]}-…" in page


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("value = 2.5", "value = -1", "energy.synaptic_operation: value of a price = -1: expected a finite"),
        ("value = 2.5", "value = nan", "value of a price = nan: expected a finite number"),
        ("value = 2.5", "value = true", "value of a price = True: expected a finite number"),
        ("value = 2.5\n", "", "energy.synaptic_operation.value is missing"),
        ('unit = "pJ"', 'unit = "nJ"', "energy.synaptic_operation.unit = 'nJ': expected pJ or 1"),
        ('"measured on my bench"', '""', "energy.synaptic_operation.source = '': expected text"),
        ('"measured"', '"felt"', "evidence = 'felt': expected one of measured, simulated"),
        ('"addition"]', '"adition"]', "includes = 'adition': expected a list of terms: multi"),
        (
            '"addition"]',
            '"message"]',
            "includes = 'message': expected a list of terms: multiplication, addition",
        ),
        ("energy.synaptic_operation", "energy.synaptic_op", "did you mean 'synaptic_operation'?"),
        ("includes", "include", "did you mean 'includes'?"),
        ("[chip]", "[chips]", "chips: unknown key: did you mean 'chip'?"),
        ("rows = 2\n", "", "chip.rows is missing"),
        ("rows = 2", "rows = 0", "chip.rows = 0: expected a whole number"),
        ("rows = 2", "rowz = 2", "chip.rowz: unknown key: did you mean 'rows'?"),
        ('title = "mine"\n', "", "title is missing: expected text that is not empty"),
        ('title = "mine"\n', 'title = ""\n', "title = '': expected text that is not empty"),
        (
            'source = "my bench"',
            'source = "my bench"\npacket_bytes = 1.5',
            "packet_bytes = 1.5: expected a whole",
        ),
        ("[energy.synaptic_operation]", "[energy.link_bit_mm]", "expected hop_mm too"),
        ("[chip]", "chip", "broken TOML"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path, old, new, says):
    """Bad input: what was given, what was expected, what to do."""
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ConfigurationError) as refusal:
        load_machine(path)
    text = str(refusal.value)
    assert says in text
    assert str(path) in text
    assert "\n" not in text


def test_an_unknown_machine_is_refused_with_the_nearest_name():
    """A misspelt preset is the most likely mistake."""
    with pytest.raises(
        ConfigurationError, match=r"hardware 'loihi18': expected a preset .* mean 'loihi2018'\?"
    ):
        load_machine("loihi18")
    with pytest.raises(ConfigurationError, match=r"nowhere.toml: No such file"):
        load_machine("nowhere.toml")
