"""Traffic tables hold each message once, for pandas, pyarrow and Noxim."""

from __future__ import annotations

import json
import re
import sys

import h5py
import numpy as np
import pandas as pd
import pytest
from wires import wired

import pcsim
from pcsim.config import load_model
from pcsim.errors import ConfigurationError
from pcsim.experiments.mapping import map_model
from pcsim.export import Options, export
from pcsim.hardware.chip import Chip
from pcsim.hardware.clock import Hardware, Links
from pcsim.hardware.mapping import Mapping, Tile

COLUMNS = [
    "step",
    "packet",
    "source",
    "target",
    "source_tile",
    "target_tile",
    "time",
    "end",
    "bytes",
    "events",
]
COLUMNS += ["hops", "message", "fate"]
ORDERS = ("sequential", "simultaneous", "bottom-up", "red-black", "incremental", "asynchronous")


def messages(path):
    """Return the messages of a trace as a frame, by plain means, and the simulated time of all its steps."""
    with pcsim.open_trace(path) as trace:
        table = trace.table("events")
        frame = pd.DataFrame(
            {name: table.read(name) for name in table.columns if name not in ("kind", "name")}
        )
        frame["kind"], frame["message"] = table.decode("kind"), table.decode("name")
    duration = frame.groupby("step")["end"].max().sum()
    return frame[frame["kind"] == "message"].reset_index(drop=True), duration


@pytest.mark.parametrize("order", ORDERS)
def test_tables_are_the_recorded_messages(trace_of, tmp_path, order):
    """CSV and Parquet, read by pandas, hold the same rows, which are those of the trace."""
    path = trace_of(order, record=(), network={"activation": "relu"})
    export(path, "traffic", tmp_path / "t")
    csv = pd.read_csv(tmp_path / "t/traffic.csv")
    parquet = pd.read_parquet(tmp_path / "t/traffic.parquet")
    assert list(csv) == list(parquet) == COLUMNS
    pd.testing.assert_frame_equal(csv, parquet, check_dtype=False)
    expected, _ = messages(path)
    pairs = {"source": "layer", "target": "target", "time": "start", "events": "nonzero_values"}
    for mine, theirs in (pairs | {name: name for name in ("step", "bytes", "message", "end")}).items():
        assert (csv[mine] == expected[theirs]).all(), mine
    assert (csv["packet"] == np.arange(len(csv))).all()
    assert (csv["fate"] == "arrives").all()
    assert (csv["hops"] == 1).all()
    assert (csv["events"] < csv["bytes"] / 8).any()  # a relu leaves zeros, which are no events


def test_parquet_describes_itself(trace_of, tmp_path):
    """Whoever opens only the Parquet file learns what a hop is taken to be."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    export(trace_of("sequential", record=()), "traffic", tmp_path / "t")
    schema = parquet.read_schema(tmp_path / "t/traffic.parquet")
    assert b"one layer is one core" in schema.metadata[b"mapping"]
    assert schema.field("hops").metadata[b"description"] == b"links between the cores"


def test_without_pyarrow(trace_of, tmp_path, monkeypatch):
    """CSV needs nothing; the note says how to get Parquet."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    made = export(trace_of("sequential", record=()), "traffic", tmp_path / "t")
    assert {file.name for file in (tmp_path / "t").iterdir()} == {
        "traffic.csv", "links.csv", "noxim.txt", "manifest.json",
    }  # fmt: skip
    assert any("pip install 'pcsim[export]'" in note for note in made.notes)


def read_noxim(path):
    """Read a traffic table with the rules of Noxim's GlobalTrafficTable::load (511 characters a line)."""
    table = []
    for line in path.read_text().split("\n"):
        assert len(line) < 510
        if line and not line.startswith("%"):
            match = re.match(r"\s*(\d+)\s+(\d+)\s+([0-9.e+-]+)\s+([0-9.e+-]+)\s*$", line)
            assert match, line
            source, target, pir, por = int(match[1]), int(match[2]), float(match[3]), float(match[4])
            assert 0 <= pir <= 1
            assert 0 <= por <= 1
            table.append((source, target, pir, por))
    return table


@pytest.mark.parametrize(
    ("hardware", "cycle"),
    [
        (None, 1.0),
        (Hardware(time_per_operation=3e-8, time_per_multiplication=1e-11, links=Links(1.7e-7)), 1e-7),
        (Hardware(time_per_operation=40.0, time_per_byte=0.3), 1.0),
    ],
)
def test_noxim_table(trace_of, tmp_path, hardware, cycle):
    """Rates are messages a cycle over the recorded time; no core sends more than one packet a cycle."""
    path = trace_of("sequential", record=(), hardware=hardware)
    export(path, "traffic", tmp_path / "t")
    table = read_noxim(tmp_path / "t/noxim.txt")
    expected, duration = messages(path)
    counts = expected.groupby(["layer", "target"]).size()
    assert [(source, target) for source, target, *_ in table] == sorted(counts.index)
    for source, target, pir, por in table:
        assert pir == por == pytest.approx(counts[source, target] * cycle / duration, rel=1e-6)
    by_source = pd.DataFrame(table).groupby(0)[2].sum()
    assert (by_source <= 1).all()
    assert by_source.max() > 0.1 or cycle == 1
    layers = {"mesh_dim_x": 5, "mesh_dim_y": 1}  # row by row on any other mesh some would be far apart
    assert "% configuration: mesh_dim_x: 5, mesh_dim_y: 1\n" in (tmp_path / "t/noxim.txt").read_text()
    assert json.loads((tmp_path / "t/manifest.json").read_text())["noxim"] == layers
    words = f"{cycle:g} hardware time unit" + ("" if cycle == 1 else "s")
    assert f"one cycle is {words}\n" in (tmp_path / "t/noxim.txt").read_text()


def test_free_hardware_has_no_rates(trace_of, tmp_path):
    """Where nothing takes time there is no injection rate; the other files are there."""
    made = export(trace_of("sequential", record=(), hardware=Hardware()), "traffic", tmp_path / "t")
    assert not (tmp_path / "t/noxim.txt").exists()
    assert any("takes no time" in note for note in made.notes)
    assert np.array_equal(pd.read_csv(tmp_path / "t/traffic.csv")["time"].unique(), [0.0])


MESH = """
title = "A mesh for tests"
source = "assumed"
[chip]
rows = 3
columns = 4
neurons_per_core = 32
link_bytes_per_ns = 2.0
"""


@pytest.mark.parametrize("placement", ["snake", "shared"])
def test_mapped_traffic_is_that_of_map(tmp_path, placement):
    """Packets, hops and bytes of one recorded training step, link by link, are those of `pcsim map`."""
    (tmp_path / "mesh.toml").write_text(MESH)
    settings = ["training.batch=400", "training.epochs=1", "network.layers=[64, 40, 33, 10]"]
    settings += ["trace.every=1000", "schedule.iterations=2"]
    model = load_model("digits", settings)
    if placement == "shared":  # cores with several tiles, so packets within a core
        tiles = map_model(model, str(tmp_path / "mesh.toml"), "row").mapping.tiles
        tiles = tuple(Tile(one.layer, one.first, one.last, 5 * index % 7) for index, one in enumerate(tiles))
        chip = Chip(3, 4, 32, link_bytes_per_ns=2.0)
        Mapping("mesh", chip, (64, 40, 33, 10), tiles, "by hand").save(tmp_path / "shared.json")
        placement = str(tmp_path / "shared.json")
    mapped = map_model(model, str(tmp_path / "mesh.toml"), placement)
    mapped.mapping.save(tmp_path / "map.json")
    trace = tmp_path / "t.h5"
    kernels = pcsim.make_kernels("reference")
    pcsim.run(pcsim.Experiment.from_model(model), engine="event", trace=trace, kernels=kernels)
    export(trace, "traffic", tmp_path / "t", Options(mapping=tmp_path / "map.json"))
    table, links = (pd.read_csv(tmp_path / f"t/{name}.csv") for name in ("traffic", "links"))
    manifest = json.loads((tmp_path / "t/manifest.json").read_text())
    told = mapped.to_dict()
    names = ["from", "to", "packets", "bytes"]
    assert links.to_dict("records") == [{name: one[name] for name in names} for one in told["links"]]
    assert manifest["traffic"].items() <= told["traffic"].items()
    assert manifest["noxim"] == {"mesh_dim_x": 4, "mesh_dim_y": 3}
    between = table[table["hops"] > 0]
    away = table["source"].map(mapped.mapping.chip.place), table["target"].map(mapped.mapping.chip.place)
    apart = [abs(row - other) + abs(at - beside) for (row, at), (other, beside) in zip(*away, strict=True)]
    assert table["hops"].tolist() == apart
    assert between["packet"].nunique() == told["traffic"]["messages_between_tiles"]
    for side in ("source", "target"):
        cores = [mapped.mapping.tiles[one].core for one in table[f"{side}_tile"]]
        assert table[side].tolist() == cores
    single = between.groupby("packet").filter(lambda rows: len(rows) == 1)
    assert 0 < len(single) < len(between), "predictions and multicast errors"
    rates = read_noxim(tmp_path / "t/noxim.txt")
    assert {(source, target) for source, target, *_ in rates} == set(
        map(tuple, between[between["source"] != between["target"]][["source", "target"]].to_numpy().tolist())
    )


def test_shares_of_uneven_messages_add_up(trace_of, tmp_path):
    """What is known of whole messages only is shared out by neurons, and nothing of it gets lost."""
    path = trace_of("sequential", record=(), network={"activation": "relu"})
    tiles = (Tile(0, 0, 64, 0), Tile(1, 0, 6, 1), Tile(2, 0, 2, 2), Tile(2, 2, 5, 3), Tile(3, 0, 4, 4))
    Mapping("none", Chip(2, 3), (64, 6, 5, 4, 10), (*tiles, Tile(4, 0, 10, 5)), "").save(tmp_path / "m.json")
    export(path, "traffic", tmp_path / "t", Options(mapping=tmp_path / "m.json"))
    csv, (expected, _) = pd.read_csv(tmp_path / "t/traffic.csv"), messages(path)
    cut = csv[csv["target"].isin([2, 3]) & (csv["message"] == "prediction")]
    whole = expected[(expected["target"] == 2) & (expected["message"] == "prediction")]
    for mine, theirs in {"bytes": "bytes", "events": "nonzero_values"}.items():
        assert cut[mine].to_numpy().reshape(-1, 2).sum(axis=1).tolist() == whole[theirs].tolist()
    assert (
        cut["bytes"].to_numpy().reshape(-1, 2) * [3, 2] == whole["bytes"].to_numpy()[:, None] * 6 / 5
    ).all()


def test_what_became_of_a_message_is_told(tmp_path):
    """In a run with faults, lost, late and doubled messages can be told from those that arrived."""
    settings = ["training.batch=100", "training.epochs=1", "trace.every=3", "network.layers=[64, 8, 10]"]
    settings += ["faults={loss = 0.2, duplication = 0.2, delay = 0.2, reorder = 0.2, delay_time = 5}"]
    experiment = pcsim.Experiment.from_model(load_model("digits", [*settings, "schedule.order=asynchronous"]))
    trace, kernels = tmp_path / "t.h5", pcsim.make_kernels("reference")
    pcsim.run(experiment, engine="event", trace=trace, kernels=kernels)
    export(trace, "traffic", tmp_path / "t")
    csv, (expected, _) = pd.read_csv(tmp_path / "t/traffic.csv"), messages(trace)
    with pcsim.open_trace(trace) as reader:
        kinds, fates = (reader.table("events").decode(name) for name in ("kind", "fate"))
    assert csv["fate"].tolist() == fates[kinds == "message"].tolist()
    assert set(csv["fate"]) == {"arrives", "lost", "delayed", "reordered", "copy"}
    assert (csv["end"] == expected["end"]).all()
    assert set(json.loads((tmp_path / "t/manifest.json").read_text())["columns"]) == set(csv)


def test_a_mapping_of_another_network(trace_of, tmp_path):
    """One line that names both."""
    Mapping("none", Chip(1, 2), (64, 10), (Tile(0, 0, 64, 0), Tile(1, 0, 10, 1)), "").save(
        tmp_path / "m.json"
    )
    with pytest.raises(ConfigurationError, match=r"maps layers of 64-10 neurons: expected the trace's 64-6"):
        export(
            trace_of("sequential", record=()), "traffic", tmp_path / "t", Options(mapping=tmp_path / "m.json")
        )


def test_thresholds_change_what_is_counted(trace_of, tmp_path):
    """With a threshold the number of events is of entries sent, zeros among them: every export says so."""
    path = trace_of("sequential", channels=wired(0.02))
    words = "not zero; with a threshold, those sent"
    with h5py.File(path) as file:
        assert words in file["events/nonzero_values"].attrs["long_name"]
    export(path, "traffic", tmp_path / "t")
    assert words in json.loads((tmp_path / "t/manifest.json").read_text())["columns"]["events"]
    export(path, "perfetto", tmp_path / "p.json")
    assert words in json.loads((tmp_path / "p.json").read_text())["otherData"]["nonzero_values"]
    made = export(path, "sanafe", tmp_path / "s")
    assert any("or, with a threshold, that was sent" in note for note in made.notes)
