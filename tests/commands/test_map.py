"""`pcsim map`: a table for people, JSON for scripts, files, and one line when it cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pcsim.cli import app
from pcsim.config import load_model
from pcsim.errors import ConfigurationError
from pcsim.experiments.experiment import build_network, build_rule
from pcsim.experiments.mapping import map_model
from pcsim.experiments.mapping_picture import draw_mapping
from pcsim.experiments.pricing import setting_of
from pcsim.hardware.charge import charge, dense
from pcsim.hardware.machine import load_machine
from pcsim.hardware.mapping import Mapping
from pcsim.schedule.program import Program, Schedule

DIGITS = Path(__file__).parents[2] / "models" / "digits.toml"
MACHINE = """
title = "A mesh for tests"
source = "assumed"
[chip]
rows = 3
columns = 4
neurons_per_core = 32
link_bytes_per_ns = 2.0
[time.operation]
value = 5.0
unit = "ns"
source = "assumed"
evidence = "assumed"
[time.hop_horizontal]
value = 1.0
unit = "ns"
source = "assumed"
evidence = "assumed"
"""


def call(*arguments: str):
    """Run a command in this process."""
    return CliRunner().invoke(
        app, ["map", *map(str, arguments)], env={"COLUMNS": "80"}, catch_exceptions=False
    )


@pytest.fixture
def machine(tmp_path):
    """A small mesh on which digits takes 2 + 4 + 4 + 1 cores of 12."""
    path = tmp_path / "mine.toml"
    path.write_text(MACHINE)
    return path


def test_table_fits_a_terminal(machine, tmp_path):
    """Everything that the issue asks of the table, within 80 columns; files are written and announced."""
    out, picture = tmp_path / "map.json", tmp_path / "map.png"
    outcome = call(
        "digits", "--hardware", machine, "-o", out, "--picture", picture, "--set", "training.batch=4"
    )
    assert outcome.exit_code == 0
    lines = outcome.stdout.splitlines()
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80
    words = " ".join(outcome.stdout.split())
    for said in (
        "digits on mine: 3x4 cores, placement traffic",
        "sequential, T = 3, mini-batch 4", "cores 11 12 91.7%",
        "neurons", "100.0%", "bytes of synapse memory", "messages between tiles", "hops", "makespan",
        "span", "busiest core", "busiest link", "additions of part sums",
        "not counted: synaptic operation",
        "reduction, addition of message, near write of message, hop vertical of message",
    ):  # fmt: skip
        assert said in words, said
    assert "tiles of one layer, not simulated: MQ's mean |G|" in words
    assert "softmax" not in words  # the output is whole
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert Mapping.load(out).machine == "mine"
    assert len(Mapping.load(out).tiles) == 11


def test_json_says_the_same(machine, tmp_path):
    """Scripts get the numbers and the mapping; a written mapping used as a placement gives them again."""
    out = tmp_path / "map.json"
    first = json.loads(
        call("digits", "--hardware", machine, "--json", "-o", out, "--order", "red-black").stdout
    )
    assert first["order"] == "red-black"
    assert first["mapping"] == json.loads(out.read_text())
    again = json.loads(
        call("digits", "--hardware", machine, "--json", "--placement", out, "--order", "red-black").stdout
    )
    assert again["traffic"] == first["traffic"]
    assert again["time"] == first["time"]
    assert again["mapping"]["tiles"] == first["mapping"]["tiles"]
    assert first["in_flight"] == 0
    assert first["time"]["makespan_ns"] >= first["time"]["span_ns"] > 0
    snake = json.loads(
        call("digits", "--hardware", machine, "--json", "--placement", "snake", "--order", "red-black").stdout
    )
    assert first["traffic"]["bytes_times_hops"] <= snake["traffic"]["bytes_times_hops"]


def test_every_link_that_is_crossed_is_told(machine):
    """Not the busiest alone: what each carries, and how long packets kept it busy and waited for it."""
    found = json.loads(call("digits", "--hardware", machine, "--json", "--set", "training.batch=4").stdout)
    links = found["links"]
    assert sum(one["bytes"] for one in links) == found["traffic"]["bytes_times_hops"]
    hops = found["traffic"]["hops_horizontal"] + found["traffic"]["hops_vertical"]
    assert sum(one["packets"] for one in links) == hops
    assert sum(one["waiting_ns"] for one in links) == pytest.approx(found["time"]["waiting_ns"])
    assert found["time"]["waiting_ns"] > 0
    assert all(one["busy_ns"] == pytest.approx(one["bytes"] / 2.0) for one in links)
    busiest = max(links, key=lambda one: one["bytes"])
    assert found["busiest_link"].items() >= {name: busiest[name] for name in ("from", "to", "bytes")}.items()


def test_energy_names_the_same_prices_that_are_missing(machine, tmp_path):
    """One list for a machine and a mapping, of what is missing on the mesh and nothing else.

    The machine prices hops along rows, and knows the width of its links: hops along columns, additions of
    part sums and ways into inboxes have no price. With the latency of columns in [chip] they have one.
    """
    out = tmp_path / "map.json"

    def both():
        mapped = json.loads(call("digits", "--hardware", machine, "--json", "-o", out, "--force").stdout)
        where = ["--hardware", str(machine), "--mapping", str(out)]
        charged = CliRunner().invoke(
            app, ["energy", "digits", *where, "--json", "--mini-batches", "1"], catch_exceptions=False
        )
        (bills,) = json.loads(charged.stdout)["orders"][0]["machines"]
        for way in ("dense", "events"):
            assert bills[way]["unpriced_time"] == mapped["time"]["unpriced"]
        assert bills["dense"]["latency"] == mapped["time"]["makespan_ns"]
        return mapped["time"]["unpriced"]

    wholes = ["synaptic_operation", "neuron_update", "weight_update", "reduction"]
    parts = ["addition of message", "near_write of message", "hop_vertical of message"]
    assert both() == wholes + parts
    machine.write_text(MACHINE.replace("[time.operation]", "hop_ns_vertical = 2.0\n[time.operation]"))
    assert both() == wholes + parts[:2]
    machine.write_text(MACHINE.replace("link_bytes_per_ns = 2.0\n", ""))
    assert both() == [*wholes, *parts, "width of links"]
    machine.write_text(MACHINE[: MACHINE.index("[time.hop")].replace("link_bytes_per_ns = 2.0\n", ""))
    assert both() == [*wholes, "message"]


def test_messages_between_tiles_are_not_packets(machine):
    """A tile's message is one, however many packets carry it: 18 on 4 cores, 43,520 values.

    digits, T = 3, a core a layer: 3 + 3 · 2 predictions and as many errors, each over one link. Their values
    are those that `pcsim energy` charges a packet each.
    """
    found = json.loads(call("digits", "--hardware", "loihi2018", "--json", "--placement", "row").stdout)
    traffic = found["traffic"]
    assert (traffic["messages_between_tiles"], traffic["messages_within_a_core"]) == (18, 0)
    assert traffic["hops_horizontal"] == 18
    assert traffic["bytes_times_hops"] == 4 * 43520
    assert "packets" not in call("digits", "--hardware", "loihi2018").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--order", "asynchronous"], "order 'asynchronous' has no fixed list"),
        (["--hardware", "digital-45nm"], r"hardware 'digital-45nm' has no \[chip\]: expected a"),
        (["--hardware", "loihi"], "did you mean"),
        (["--placement", "snak"], "placement 'snak': did you mean 'snake'?"),
        (["--picture", "map.gif"], "expected a name that ends in .png, .svg or .pdf"),
        (["--set", "network.layers=[64, 1000, 10]"],
         r"needs 35 cores of mine \(layer 0: 2, layer 1: 32, one for each other .*has 12: 23 over"),
    ],
)  # fmt: skip
def test_what_cannot_be_mapped(arguments, words, machine):
    """One line that says what is over and by how much, or what to choose instead."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        call("digits", *(["--hardware", machine] if "--hardware" not in arguments else []), *arguments)
    assert "\n" not in str(caught.value)


def test_the_picture_of_a_huge_mesh_shows_the_part_that_is_used(machine, tmp_path):
    """A million cores, of which a dozen are used: drawn at once, and the picture says what it leaves out."""
    path = tmp_path / "huge.toml"
    path.write_text(MACHINE.replace("rows = 3", "rows = 1000").replace("columns = 4", "columns = 1000"))
    model = load_model("digits", ["training.batch=1"])
    figure = draw_mapping(map_model(model, str(path), "snake"))
    mesh = figure.axes[0]
    assert "only rows 0 to 0, columns 0 to 10 of 1000x1000 are shown" in mesh.get_title()
    assert len(mesh.texts) == 11


def test_nothing_is_overwritten(machine, tmp_path):
    """A mapping may be the work of an hour: it must survive a second call, which must not begin to work."""
    out = tmp_path / "map.json"
    out.write_text("mine")
    with pytest.raises(ConfigurationError, match="exists; pass --force"):
        call("digits", "--hardware", machine, "-o", out)
    assert out.read_text() == "mine"
    assert call("digits", "--hardware", machine, "-o", out, "--force").exit_code == 0


@pytest.mark.parametrize("name", ["loihi2018", "mesh"])
@pytest.mark.parametrize("order", ["sequential", "simultaneous"])
def test_a_layer_a_core_takes_as_long_as_the_bill_says(order, name):
    """With one tile a layer in a row the mesh is the machine of the bill: its latency is the makespan."""
    model = load_model("digits", [f"schedule.order={order}", "training.batch=2"])
    mapped = map_model(model, name, "row")
    machine, network = load_machine(name), build_network(model.network, 0)
    program = Program.build(network, Schedule(**model.schedule.model_dump()))
    setting = setting_of(network, 2, build_rule(model.learning), machine)
    assert mapped.timing.makespan == pytest.approx(charge(setting, [dense(program, 2)]).latency)


def test_picture_shows_every_used_link_and_core(machine):
    """The mesh has a cell a core and a line a used link; its strips cover the makespan."""
    mapped = map_model(load_model("digits", ["training.batch=4"]), str(machine), "traffic")
    figure = draw_mapping(mapped)
    mesh, cores, _ = [ax for part in figure.subfigs for ax in part.axes if ax.get_title()]
    cells, links = mesh.collections
    assert len(cells.get_paths()) == 12
    assert len(links.get_segments()) == (mapped.traffic.link_bytes > 0).sum()
    assert cores.images[0].get_array().shape[0] == 11
    assert [text.get_text() for text in mesh.texts].count("1") == 4
    scales = [tick.get_text() for bar in figure.subfigs[1].axes for tick in bar.get_yticklabels()]
    assert scales.count("idle") == 2  # cores and links each have their own
    assert any("right of its direction" in ax.get_xlabel() for ax in figure.subfigs[0].axes)


@pytest.mark.parametrize("name", ["map.toml", "map"])
def test_a_mapping_gets_a_name_that_is_read_again(machine, tmp_path, name):
    """`--placement` takes .json only, and a machine file that was just read could be overwritten."""
    with pytest.raises(ConfigurationError, match=f"{name}: expected a name that ends in .json"):
        call("digits", "--hardware", machine, "-o", tmp_path / name)
    with pytest.raises(ConfigurationError, match=r"mine.toml: expected a name that ends in .json"):
        call("digits", "--hardware", machine, "-o", machine, "--force")
    assert machine.read_text() == MACHINE


def test_a_placement_is_not_overwritten_by_what_comes_of_it(machine, tmp_path, monkeypatch):
    """An input is never an output, with --force neither."""
    out = tmp_path / "map.json"
    call("digits", "--hardware", machine, "-o", out)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"map.json is the placement itself: expected another name"):
        call("digits", "--hardware", machine, "--placement", out, "-o", "map.json", "--force")


def test_moments_of_adam_take_room(machine):
    """Two numbers beside each parameter: `map` had called a chip 98 % full that was too small."""
    machine.write_text(MACHINE.replace("neurons_per_core = 32", "synapse_bytes_per_core = 66048"))
    held = {}
    for rule in ("sgd", "adam"):
        chosen = ("--set", f"learning.rule={rule}", "--set", "training.batch=1", "--json")
        held[rule] = json.loads(call("digits", "--hardware", machine, *chosen).stdout)
    assert held["adam"]["cores_used"] > held["sgd"]["cores_used"]
    for one in held.values():
        assert one["fills"][1]["most"] <= 66048


def test_one_tile_a_layer_is_the_machine_of_the_bill(machine):
    """Links of [chip] take their time without a mapping, too: side by side both times are the same."""
    whole = MACHINE.replace("neurons_per_core = 32\n", "")
    machine.write_text(whole.replace("rows = 3", "rows = 1").replace("_ns = 2.0", "_ns = 0.05"))
    mapped = call("digits", "--hardware", machine, "--placement", "row", "--json").stdout
    where = ["--hardware", str(machine), "--json", "--mini-batches", "1"]
    charged = CliRunner().invoke(app, ["energy", "digits", *where], catch_exceptions=False)
    (bills,) = json.loads(charged.stdout)["orders"][0]["machines"]
    makespan = json.loads(mapped)["time"]["makespan_ns"]
    assert bills["dense"]["latency"] == pytest.approx(makespan, rel=1e-9)


def test_norms_over_tiles_are_named(machine, tmp_path):
    """What each tile would have to tell the others of its layer, and does not on this mesh."""
    chosen = ["learning.rule=nlms", "schedule.precisions=theorem 1", "training.batch=1"]
    chosen += ["network.output=identity", "network.proximal_step=0.1"]
    model = tmp_path / "model.toml"
    model.write_text(DIGITS.read_text(encoding="utf-8").replace("rate = 1e-3\n", ""), encoding="utf-8")
    said = call(model, "--hardware", machine, *(word for one in chosen for word in ("--set", one))).stdout
    assert "not simulated: the norm of NLMS, the norms of precisions" in " ".join(said.split())
