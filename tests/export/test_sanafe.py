"""SANA-FE, in a process of its own, replays what was recorded and comes to pcsim's counts and times."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import pcsim
from pcsim.cli import app
from pcsim.config import load_model
from pcsim.engine.mesh.engine import simulate_mesh
from pcsim.engine.mesh.plan import make_plan
from pcsim.engine.mesh.times import Durations, chip_of
from pcsim.errors import ConfigurationError, TraceError
from pcsim.experiments.pricing import setting_of
from pcsim.export import Options, Prices, export
from pcsim.export.sanafe import row_order
from pcsim.hardware.charge import charge, dense
from pcsim.hardware.chip import Chip
from pcsim.hardware.clock import Hardware, unit
from pcsim.hardware.machine import load_machine
from pcsim.hardware.mapping import Mapping, Tile
from pcsim.hardware.prices import Term
from pcsim.hardware.routes import is_horizontal, route
from pcsim.hardware.traffic import traffic_of
from pcsim.hardware.ways import ways_of

ROOT = Path(__file__).parents[2]
needs_sanafe = pytest.mark.skipif(
    importlib.util.find_spec("sanafe") is None, reason="SANA-FE is not installed: pip install sanafe"
)
MODELS = ("simple", "detailed", "cycle")
WIRES = ("message", "hop_horizontal", "hop_vertical")
REPLAY = """
import json, sys
from pathlib import Path
import sanafe

folder, found = Path(sys.argv[1]), {}
timesteps = json.loads((folder / "manifest.json").read_text())["timesteps"]
for model in sys.argv[2:]:
    arch = sanafe.load_arch(str(folder / "arch.yaml"))
    chip = sanafe.SpikingChip(arch)
    chip.load(sanafe.load_net(str(folder / "net.yaml"), arch))
    run = chip.sim(timesteps, timing_model=model, perf_trace=True)
    found[model] = {"packets": run["packets_sent"], "hops": sum(run["perf_trace"]["hops"])}
    found[model] |= {"energy": run["energy"], "time": run["sim_time"], "operations": run["spikes"]}
    del chip
Path(sys.argv[1], "found.json").write_text(json.dumps(found))
"""
# Unlike each other and not those of any chip: a term in another's place would show.
TERMS = (*WIRES, "synaptic_operation", "addition", "neuron_update")
ENERGY, TIME = (7.0, 1.0, 20.0, 0.3, 0.01, 5.0), (4.0, 1.5, 2.5, 0.7, 0.2, 1.1)
PRICES = Prices("test", "made up", *(dict(zip(TERMS, one, strict=True)) for one in (ENERGY, TIME)))
SIZES = (64, 6, 5, 10)
UNIT = unit()
# Layer 1 is cut between two cores, one of them shared with a part of layer 3; the other cores are far apart.
TILES = (
    *(Tile(0, 0, 40, 0), Tile(0, 40, 64, 5)),
    *(Tile(1, 0, 4, 11), Tile(1, 4, 6, 2)),
    *(Tile(2, 0, 2, 7), Tile(2, 2, 5, 7)),
    *(Tile(3, 0, 7, 2), Tile(3, 7, 10, 8)),
)
CORNER = tuple(Tile(*astuple(one)[:3], (one.core // 4 + 5) * 16 + one.core % 4 + 12) for one in TILES)
MAPPINGS = {
    "row order": None,
    "cut and shared": Mapping("test", Chip(3, 4), SIZES, TILES, "by hand"),
    "in a corner of a large chip": Mapping("test", Chip(8, 16), SIZES, CORNER, "by hand"),
    "beyond the cycle-accurate mesh": Mapping("test", Chip(6, 2), SIZES, TILES, "by hand"),
}


@pytest.fixture(scope="module")
def trace_of(tmp_path_factory):
    """Return what gives the path of the trace of a few training steps."""
    folder, made = tmp_path_factory.mktemp("traces"), {}

    def give(order="sequential", sizes=SIZES, activation="relu", batch=3, engine="event", clock=UNIT):
        key = (order, sizes, activation, batch, engine, clock.time_per_operation)
        if key not in made:
            made[key] = folder / f"{len(made)}.h5"
            network = pcsim.Network.dense(sizes, activation=activation, seed=3)
            digits = pcsim.load_dataset("digits")
            names = ("train_inputs", "train_targets", "test_inputs", "test_targets")
            data = dataclasses.replace(digits, **{name: getattr(digits, name)[: 2 * batch] for name in names})
            how = {"rule": pcsim.SGD(0.05), "schedule": pcsim.Schedule(order, 2, 0.1), "batch": batch}
            run = pcsim.Experiment(network, data, **how, hardware=clock, epochs=1, record_every=1)
            pcsim.run(run, engine=engine, trace=made[key], kernels=pcsim.make_kernels("reference"))
        return made[key]

    return give


def exported(trace, folder, mapping=None, prices=PRICES):
    """Export, and return the manifest."""
    path = None
    if mapping is not None:
        path = folder.parent / f"{folder.name}.json"
        mapping.save(path)
    export(trace, "sanafe", folder, Options(mapping=path, prices=prices))
    return json.loads((folder / "manifest.json").read_text())


def replayed(folder, *models):
    """Return what SANA-FE found, by timing model; it runs in a process of its own."""
    command = [sys.executable, "-c", REPLAY, str(folder), *models]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads((folder / "found.json").read_text())


def prices_of(name):
    """Return the prices of a machine in plain numbers."""
    known = load_machine(name).prices
    energy, time = (
        {str(term): one.value for term, one in kind.items()} for kind in (known.energy, known.time)
    )
    return Prices(name, "", energy, time)


def recorded(path, step):
    """Return (kind, source, target, start, numbers, nonzero) of the messages of a training step."""
    with pcsim.open_trace(path) as trace:
        table = trace.table("events")
        columns = [table.read(name) for name in ("layer", "target", "start", "values", "nonzero_values")]
        rows = (table.read("kind") == 1) & (table.read("step") == step)
        return list(zip(table.decode("name")[rows], *(one[rows].tolist() for one in columns), strict=True))


@needs_sanafe
@pytest.mark.parametrize("name", MAPPINGS)
@pytest.mark.parametrize("order", ["sequential", "simultaneous"])
def test_sanafe_finds_what_we_count(trace_of, tmp_path, order, name):
    """Packets and hops are equal, every part of the energy and the busiest cores' time too, to rounding."""
    manifest = exported(trace_of(order), tmp_path / "out", MAPPINGS[name])
    ours = manifest["count"]
    assert manifest["timing_models"] == (
        ["simple", "detailed"] if name.startswith("beyond") else list(MODELS)
    )
    for model, found in replayed(tmp_path / "out", "simple", "detailed").items():
        assert found["packets"] == ours["packets"] > 0
        assert found["hops"] == ours["hops"] > 0
        assert found["operations"] == ours["terms"]["synaptic_operation"] + ours["terms"]["addition"]
        for part, joules in ours["energy_joules"].items():
            assert found["energy"][part] == pytest.approx(joules, rel=1e-9), part
        if model == "simple":
            assert found["time"] == pytest.approx(ours["busy_seconds"], rel=1e-9)
        else:
            assert (
                ours["busy_seconds"] <= found["time"] < 1.5 * ours["busy_seconds"]
            )  # hops and waiting come on top


@needs_sanafe
def test_all_three_timing_models(trace_of, tmp_path):
    """With Loihi's prices the cycle-accurate network takes about as long; its own hops take 4 ns."""
    manifest = exported(
        trace_of(batch=1), tmp_path / "out", MAPPINGS["cut and shared"], prices_of("sanafe-loihi")
    )
    found = replayed(tmp_path / "out", *manifest["timing_models"])
    assert set(found) == set(MODELS)
    for one in found.values():
        assert one["packets"] == manifest["count"]["packets"]
        assert one["hops"] == manifest["count"]["hops"]
        assert one["energy"] == found["simple"]["energy"]
    assert found["simple"]["time"] < found["detailed"]["time"]
    assert found["cycle"]["time"] == pytest.approx(found["detailed"]["time"], rel=0.1)


@needs_sanafe
def test_more_neurons_than_a_unit_holds(trace_of, tmp_path):
    """A soma or dendrite unit of SANA-FE has room for 1,024 neurons; two inboxes of 700 share two units."""
    trace = trace_of(sizes=(64, 700, 10), activation="tanh", batch=1)
    ours = exported(trace, tmp_path / "out")["count"]
    found = replayed(tmp_path / "out", "simple")["simple"]
    assert (found["packets"], found["hops"]) == (ours["packets"], ours["hops"])
    assert found["energy"]["soma"] == pytest.approx(ours["energy_joules"]["soma"], rel=1e-9)
    assert '- 324..699: {soma_hw_name: "receiver[1]"' in (tmp_path / "out/net.yaml").read_text()


def mesh_time(manifest, sizes, iterations):
    """Return the time in ns of the same messages on pcsim's own mesh, where operations take no time."""
    network = pcsim.Network.dense(sizes, activation="tanh", seed=3)
    program = pcsim.Program.build(network, pcsim.Schedule("sequential", iterations, 0.1))
    mapping, machine = Mapping.from_json(manifest["mapping"]), load_machine("sanafe-loihi")
    chip = chip_of(machine, network.dtype.itemsize)
    mapping = dataclasses.replace(mapping, chip=dataclasses.replace(chip, rows=1, columns=len(sizes)))
    free = np.zeros(len(program.operations))
    plan = make_plan(program, mapping, manifest["samples"], Durations(free, free))
    return simulate_mesh(plan).makespan


@needs_sanafe
def test_network_time_is_that_of_our_mesh(trace_of, tmp_path):
    """Messages on the network alone take as long on our mesh, within 5 %, but for what overlaps only there.

    Three layers in a row send one message at a time, but for the last relaxation: layer 1 then sends e_1 down
    and p_2 up, over two links at once on our mesh and packet after packet in SANA-FE: the shorter, 3 samples
    of 6 numbers, 51.1 ns each, comes on top there. What is left: SANA-FE waits for each sample's last packet
    to arrive (a hop of 4.1 ns), "simple" knows no hops, and the cycle-accurate clock rounds 51.1 ns up to 52.
    """
    sizes, samples, packet = (64, 6, 10), 3, 51.1
    wires = {term: ns for term, ns in prices_of("sanafe-loihi").time.items() if term in WIRES}
    line = dataclasses.replace(row_order(sizes), chip=Chip(1, 3))
    trace = trace_of(sizes=sizes, activation="tanh")
    manifest = exported(trace, tmp_path / "out", line, Prices("sanafe-loihi", "", {}, wires))
    ours = mesh_time(manifest, sizes, iterations=2)
    overlap = samples * sizes[1] * packet
    for model, found in replayed(tmp_path / "out", *MODELS).items():
        print(f"{model}: {found['time'] * 1e9:.1f} ns, mesh {ours:.1f} ns + {overlap:.1f} ns")
        assert found["time"] * 1e9 == pytest.approx(ours + overlap, rel=0.05), model
        assert found["time"] * 1e9 == pytest.approx(ours, rel=0.12), model


@needs_sanafe
def test_network_energy_is_that_of_our_bill(trace_of, tmp_path):
    """Messages and hops cost what the bill of the same program says on the same machine; no value is 0."""
    sizes = (64, 6, 5, 10)
    machine = load_machine("sanafe-loihi")
    network = pcsim.Network.dense(sizes, activation="tanh", seed=3)
    program = pcsim.Program.build(network, pcsim.Schedule("sequential", 2, 0.1))
    ways = ways_of(program, row_order(sizes), 3)
    bill = charge(setting_of(network, 3, pcsim.SGD(0.05), machine, ways), [dense(program, 3)])
    ours = sum(row.energy for row in bill.rows if row.level == "network")
    manifest = exported(trace_of(activation="tanh"), tmp_path / "out", prices=prices_of("sanafe-loihi"))
    found = replayed(tmp_path / "out", "simple")["simple"]
    assert found["packets"] == bill.count(Term.MESSAGE)
    assert found["hops"] == bill.count(Term.HOP_HORIZONTAL) + bill.count(Term.HOP_VERTICAL)
    assert found["energy"]["network"] * 1e12 == pytest.approx(ours, rel=1e-9)
    assert manifest["count"]["packets"] == bill.count(Term.MESSAGE)


@pytest.mark.parametrize("order", ["sequential", "simultaneous", "asynchronous"])
def test_packets_and_hops_by_hand(trace_of, tmp_path, order):
    """One core a layer: each number that is not zero crosses the route between two cores once.

    Four layers on 2x2 cores, row by row: 0 and 1, 2 and 3 are a column apart, 1 and 2 a row and a column.
    """
    path = trace_of(order)
    manifest = exported(path, tmp_path / "out")
    chip = Chip(2, 2)
    packets = across = along = 0
    for _, source, target, _, _, nonzero in recorded(path, manifest["step"]):
        links = route(chip, source, target)
        packets += nonzero
        across += nonzero * sum(map(is_horizontal, links))
        along += nonzero * sum(not is_horizontal(one) for one in links)
    assert [manifest["count"]["terms"][term] for term in WIRES] == [packets, across, along]
    messages = recorded(path, manifest["step"])
    assert manifest["messages"] == len(messages)
    assert manifest["timesteps"] == 3 * len({start for _, _, _, start, _, _ in messages}) + 1


def test_where_nothing_takes_time(trace_of, tmp_path):
    """All messages begin at once there: those of one sender follow one another all the same."""
    path = trace_of(clock=Hardware())
    messages = recorded(path, 1)
    assert {start for _, _, _, start, _, _ in messages} == {0.0}
    most = max(Counter((kind, source) for kind, source, *_ in messages).values())
    manifest = exported(path, tmp_path / "out")
    assert manifest["timesteps"] >= 3 * most + 1
    assert manifest["count"]["packets"] == sum(nonzero for *_, nonzero in messages)


def test_a_cut_layer_by_hand(trace_of, tmp_path):
    """Predictions go in part sums from both halves; an error goes once to each core, not to each tile.

    All 3 x 5 numbers of e_2 are sent from core 7, where both tiles of layer 2 are, to the cores 11 and 2 of
    layer 1; a prediction of layer 1 leaves both of them.
    """
    path = trace_of(activation="tanh")
    ours = exported(path, tmp_path / "out", MAPPINGS["cut and shared"])["count"]
    copies = {("prediction", 0): 2, ("prediction", 1): 2, ("prediction", 2): 2}  # part sums
    copies |= {("error", 1): 2, ("error", 2): 2, ("error", 3): 1}  # cores of the layer below
    rounds = recorded(path, 1)
    assert all(numbers == nonzero for *_, numbers, nonzero in rounds)
    assert ours["packets"] == sum(copies[kind, source] * nonzero for kind, source, *_, nonzero in rounds)
    products = sum(nonzero * SIZES[target] for kind, _, target, _, _, nonzero in rounds if kind == "error")
    assert ours["terms"]["synaptic_operation"] == products


def test_hops_are_those_of_our_mesh(trace_of, tmp_path):
    """The mesh's own count of values times links is ours; its multicast trees are shorter than our ways."""
    network = pcsim.Network.dense(SIZES, activation="tanh", seed=3)
    program = pcsim.Program.build(network, pcsim.Schedule("sequential", 2, 0.1))
    hops = {}
    for name, mapping in (("whole", row_order(SIZES)), ("cut", MAPPINGS["cut and shared"])):
        ours = exported(trace_of(activation="tanh"), tmp_path / name, mapping)["count"]
        hops[name] = ours["hops"], traffic_of(program, mapping, 3).bytes_times_hops / network.dtype.itemsize
    assert hops["whole"][0] == hops["whole"][1]
    assert hops["cut"][0] > hops["cut"][1]


def test_files_read_as_yaml(trace_of, tmp_path):
    """A plain reader finds a core for every group, as many input units as senders, and one number a spike."""
    path = trace_of()
    manifest = exported(path, tmp_path / "out", MAPPINGS["cut and shared"])
    arch = yaml.safe_load((tmp_path / "out/arch.yaml").read_text())["architecture"]
    net = yaml.safe_load((tmp_path / "out/net.yaml").read_text())
    assert arch["attributes"] | {"link_buffer_size": 0} == {"width": 8, "height": 4, "link_buffer_size": 0}
    core = {group: int(float(where["core"])) for one in net["mappings"] for group, where in one.items()}
    assert core["layer1_tile0_error_out"] == 3 * 4 + 2  # core 11 of 3x4: row 2, column 3, numbered by column
    assert core["layer0_tile1_prediction_out"] == 1 * 4 + 1
    units = {}
    for tile in arch["tile"]:
        first, last = map(int, re.findall(r"\d+", tile["name"]))
        ends = re.findall(r"input\[0\.\.(\d+)\]", str(tile["core"][0]["soma"]))
        units |= dict.fromkeys(range(first, last + 1), 1 + int(ends[0]) if ends else 0)
    spikes = 0
    for group in net["network"]["groups"]:
        if group["name"].endswith("_out"):
            neurons = [facts for one in group["neurons"] for facts in one.values()]
            units[core[group["name"]]] -= len(neurons)
            spikes += sum(sum(one["spikes"]) for one in neurons)
            assert max(len(one["spikes"]) for one in neurons) < manifest["timesteps"]
    assert set(units.values()) == {0}
    assert spikes < manifest["count"]["packets"]  # an error that goes to two cores is one spike


def test_what_has_no_price_is_named(trace_of, tmp_path):
    """SANA-FE wants a number for everything: a 0 that stands for "not known" is marked, in words and file."""
    half = Prices("half", "", {"message": 1.5}, {"hop_vertical": 2.0}, packet_bytes=64)
    made = export(trace_of(), "sanafe", tmp_path / "out", Options(prices=half))
    (note,) = [one for one in made.notes if one.startswith("No price")]
    assert "energy.hop_horizontal" in note
    assert "energy.message" not in note
    assert "A packet of half has 64 bytes; here each number pays for one of its own." in made.notes
    text = (tmp_path / "out/arch.yaml").read_text()
    assert "energy_message_out: 1.5e-12\n" in text
    assert "energy_process_spike: 0  # synaptic_operation has no price" in text
    assert json.loads((tmp_path / "out/manifest.json").read_text())["count"]["energy_joules"]["soma"] == 0


def test_whose_prices_they_are_is_told(trace_of, tmp_path):
    """An energy without its machine is none: the output names it, and warns where the clock was another's."""
    path = tmp_path / "t.h5"
    settings = [
        "network.layers=[64, 6, 10]",
        "training.batch=700",
        "training.epochs=1",
        "hardware.model=mesh",
    ]
    experiment = pcsim.Experiment.from_model(load_model("digits", settings))
    pcsim.run(experiment, engine="event", trace=path, kernels=pcsim.make_kernels("reference"))
    told = {}
    for name, options in (("default", ()), ("same", ("--hardware", "mesh"))):
        command = ["export", str(path), "--to", "sanafe", "-o", str(tmp_path / name), *options]
        told[name] = " ".join(CliRunner().invoke(app, command, env={"COLUMNS": "200"}).stdout.split())
    assert "machine: sanafe-loihi; prices: SANA-FE 2.2.9" in told["default"]
    assert "The trace's clock was mesh, and this is priced as sanafe-loihi" in told["default"]
    assert "machine: mesh; prices: Horowitz 2014, Noxim" in told["same"]
    assert "clock" not in told["same"]
    assert not any("clock" in note for note in export(trace_of(), "sanafe", tmp_path / "out").notes)


def test_refusals(trace_of, tmp_path):
    """A mapping of another network, a step that is not there, a trace without events: one line each."""
    other = tmp_path / "other.json"
    row_order((64, 7, 10)).save(other)
    with pytest.raises(ConfigurationError, match=r"other\.json: maps layers of 64-7-10 neurons.* 64-6-5-10"):
        export(trace_of(), "sanafe", tmp_path / "out", Options(mapping=other))
    with pytest.raises(TraceError, match="no events of training step 9"):
        export(trace_of(), "sanafe", tmp_path / "out", Options(step=9))
    with pytest.raises(TraceError, match="has no events"):
        export(trace_of(engine="fast"), "sanafe", tmp_path / "out")
    with pytest.raises(ConfigurationError, match="--mapping with --to csv"):
        export(trace_of(), "csv", tmp_path / "out", Options(mapping=other))
    assert not (tmp_path / "out").exists()


def test_a_convolution_is_refused(tmp_path):
    """Who an error is for depends on its pooling, which no edge of SANA-FE's can say."""
    network = pcsim.Network.of(["1x8x8", "conv 2 3x3/1 max 2", "dense 10"])
    how = {"rule": pcsim.SGD(0.01), "schedule": pcsim.Schedule("sequential", 1, 0.05)}
    run = pcsim.Experiment(network, pcsim.load_dataset("digits"), **how, batch=800, epochs=1)
    pcsim.run(run, engine="event", trace=tmp_path / "conv.h5")
    with pytest.raises(TraceError, match=r"connection from layer 0 to 1 is conv.*expected dense ones"):
        export(tmp_path / "conv.h5", "sanafe", tmp_path / "out")


def command(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_command_line(trace_of, tmp_path):
    """Without more, prices are those of Loihi as SANA-FE has it; a mapping brings its machine's.

    Of a machine of one's own it knows the name and not the file, which the refusal asks for.
    """
    path = trace_of()
    said = command(path, "--to", "sanafe", "-o", tmp_path / "a")
    assert said.exit_code == 0, said.output
    assert "packets" in said.stdout
    assert "energy_message_out: 1.803e-10" in (tmp_path / "a/arch.yaml").read_text()
    map_json = tmp_path / "map.json"
    dataclasses.replace(row_order(SIZES), machine="loihi2018").save(map_json)
    said = command(path, "--to", "sanafe", "-o", tmp_path / "b", "--mapping", map_json, "--json")
    assert json.loads(said.stdout)["format"] == "sanafe"
    assert "energy_message_out: 1.7e-12" in (tmp_path / "b/arch.yaml").read_text()
    dataclasses.replace(row_order(SIZES), machine="mine").save(tmp_path / "mine.json")
    said = command(path, "--to", "sanafe", "-o", tmp_path / "e", "--mapping", tmp_path / "mine.json")
    assert isinstance(said.exception, ConfigurationError)
    assert "for the machine mine, which is no preset" in str(said.exception)
    assert str(said.exception).endswith("name it with --hardware mine.toml")
    said = command(path, "--to", "sanafe", "-o", tmp_path / "c", "--hardware", "loihi2081")
    assert isinstance(said.exception, ConfigurationError)
    assert "did you mean 'loihi2018'" in str(said.exception)
    said = command(path, "--to", "csv", "-o", tmp_path / "d", "--hardware", "loihi2018")
    assert "--hardware with --to csv" in str(said.exception)


@needs_sanafe
def test_the_program_in_the_docs(trace_of, tmp_path):
    """What docs/exports.md shows runs as it stands and prints the counts."""
    manifest = exported(trace_of(), tmp_path / "one-sanafe")
    (program,) = re.findall(r"^```py\n(.*?)^```", (ROOT / "docs/exports.md").read_text(), re.M | re.S)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"\n{manifest['count']['packets']} {manifest['count']['hops']} {{'total'" in done.stdout
