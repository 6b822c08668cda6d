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
from pcsim.export import export
from pcsim.hardware.clock import Hardware, Links

COLUMNS = ["step", "source", "target", "time", "bytes", "events", "hops", "message"]
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
    for mine, theirs in (pairs | {name: name for name in ("step", "bytes", "message")}).items():
        assert (csv[mine] == expected[theirs]).all(), mine
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
    assert {file.name for file in (tmp_path / "t").iterdir()} == {"traffic.csv", "noxim.txt", "manifest.json"}
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
    words = f"{cycle:g} hardware time unit" + ("" if cycle == 1 else "s")
    assert f"one cycle is {words}\n" in (tmp_path / "t/noxim.txt").read_text()


def test_free_hardware_has_no_rates(trace_of, tmp_path):
    """Where nothing takes time there is no injection rate; the other files are there."""
    made = export(trace_of("sequential", record=(), hardware=Hardware()), "traffic", tmp_path / "t")
    assert not (tmp_path / "t/noxim.txt").exists()
    assert any("takes no time" in note for note in made.notes)
    assert np.array_equal(pd.read_csv(tmp_path / "t/traffic.csv")["time"].unique(), [0.0])


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
