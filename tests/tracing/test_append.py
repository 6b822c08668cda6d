"""A resumed run goes on with its trace: the result is that of a run that was never disturbed."""

import runpy
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - zstd
import numpy as np
import pytest
import xarray

import pcsim
from pcsim.engine.fast import FastEngine
from pcsim.engine.observer import Statistics
from pcsim.errors import TraceError
from pcsim.tracing import SCHEMA_VERSION, Column, Storage, TraceWriter, open_trace
from pcsim.tracing.recorder import Recorder

_killed = runpy.run_path(str(Path(__file__).with_name("test_killed.py")))
killed_trace, check, _child = _killed["killed_trace"], _killed["check"], _killed["_child"]
add_tables, values, ATTRIBUTES = _child["add_tables"], _child["values"], _child["ATTRIBUTES"]


@pytest.mark.parametrize(
    ("delay", "compression", "repeated"),
    [
        (0.05, "none", 0),
        (0.2, "none", 5),
        (0.1, "gzip", 1),
        (0.3, "gzip", 5),
        (0.2, "zstd", 3),
        (0.1, "zstd", 10**9),
        (0.1, "lzf", 7),
    ],
)
def test_append_to_a_killed_trace(tmp_path, delay, compression, repeated):
    """A process that is really killed, then a resumed one: cut anywhere, nothing shows."""
    path = tmp_path / "t.h5"
    killed_trace(path, delay, compression=compression)
    with open_trace(path) as trace:
        rows = min(trace.table(name).rows for name in _child["SHAPES"])
    done = max(0, rows - repeated)
    with TraceWriter.append(path, ATTRIBUTES, steps_done=done) as writer:
        tables = add_tables(writer)
        assert [table.rows for table in tables.values()] == [done] * 3
        with open_trace(path) as old:
            assert old.table("summary").rows >= done  # as it was, until the first flush
        for name, table in tables.items():
            table.extend(
                step=np.arange(done, rows + 20), value=values(name, done, rows + 20 - done).astype(float)
            )
            writer.flush()
    check(path, rows + 20, "complete")
    with open_trace(path) as trace:
        assert [trace.table(name).rows for name in _child["SHAPES"]] == [rows + 20] * 3


def recorded(path: Path, first: int, last: int, *, resumed: bool, packing: str) -> None:
    """Train from step `first` to `last`, everything recorded; weights and data are what they are by then."""
    network = pcsim.Network.dense([6, 5, 4], dtype="float64", seed=1)
    program = pcsim.Schedule("sequential", 2).plan(network)
    units, statistics = network.layers(3, pcsim.SGD(0.1)), Statistics(2, 2)
    options = {"flush_seconds": 0.001, "storage": Storage(packing)}
    attributes = {"experiment": {"seed": 1}}
    if resumed:
        writer = TraceWriter.append(path, attributes, steps_done=first, **options)
    else:
        writer = TraceWriter(path, attributes, **options)
    probe = pcsim.Probe(
        "p", ("activity", "message", "update", "bias"), samples=(2, 0), every=2, dtype="float64"
    )
    with writer:
        recorder = Recorder(writer, network, units, statistics, 2, [probe], every=3)
        engine = FastEngine(recorder.listening_to(program), units, [statistics, recorder])
        for step in range(last):
            rng = np.random.default_rng(step)
            if step < first:  # a checkpoint would bring the weights back; here they are trained again
                statistics_only = FastEngine(program, units, [])
                statistics_only.step(rng.normal(size=(3, 6)), np.eye(4)[rng.integers(4, size=3)])
                engine._step += 1
                continue
            engine.step(rng.normal(size=(3, 6)), np.eye(4)[rng.integers(4, size=3)])
            if (step + 1) % 5 == 0:
                recorder.record_epoch(
                    epoch=(step + 1) // 5,
                    training_steps=step + 1,
                    **dict.fromkeys(
                        ("test_accuracy", "test_loss", "energy", "seconds", "simulated_time"), 0.5
                    ),
                    **dict.fromkeys(("messages", "values", "nonzero_values", "multiplications"), 3),
                )


@pytest.mark.parametrize(
    ("first", "packing"), [(0, "gzip"), (1, "none"), (7, "gzip"), (10, "none"), (15, "gzip")]
)
def test_a_resumed_recorder_leaves_what_an_undisturbed_one_does(tmp_path, first, packing):
    """The recorder itself goes on: every table, rows in their order, none twice, none missing."""
    recorded(tmp_path / "whole.h5", 0, 25, resumed=False, packing=packing)
    recorded(tmp_path / "parts.h5", 0, 16, resumed=False, packing=packing)
    recorded(tmp_path / "parts.h5", first, 25, resumed=True, packing=packing)
    with open_trace(tmp_path / "whole.h5") as whole, open_trace(tmp_path / "parts.h5") as parts:
        assert parts.state == "complete"
        assert parts.tables == whole.tables
        for name in whole.tables:
            one, other = whole.table(name), parts.table(name)
            assert one.columns == other.columns
            for column in one.columns:
                assert np.array_equal(one.read(column), other.read(column)), (name, column)
                assert one.dims(column) == other.dims(column)
        parts.verify()
    with xarray.open_datatree(tmp_path / "parts.h5", engine="h5netcdf") as tree:
        assert list(tree["summary"]["step"].values) == list(range(0, 25, 3))


def finished(path: Path, **changes) -> Path:
    with TraceWriter(path, {"experiment": {"seed": 1}, "engine": "fast"} | changes) as writer:
        columns = {"step": Column((), "int64", "step"), "a": Column(("neuron",), "float32", "a")}
        writer.table("t", "step", columns, {"neuron": 3}).extend(step=[0, 1], a=np.ones((2, 3)))
    return path


def test_traces_of_another_run_are_refused(tmp_path):
    """Two experiments in one file would be worse than none; what is there stays, byte by byte."""
    path = finished(tmp_path / "t.h5")
    before = path.read_bytes()
    with pytest.raises(
        TraceError, match=r"is a trace of another run, its experiment is \{'seed': 1\}: expected"
    ):
        TraceWriter.append(path, {"experiment": {"seed": 2}}, steps_done=1)
    with pytest.raises(TraceError, match="cannot read"):
        TraceWriter.append(tmp_path / "none.h5", {}, steps_done=1)
    link = tmp_path / "link.h5"
    link.symlink_to(path)
    with pytest.raises(TraceError, match="symbolic link"):
        TraceWriter.append(link, {}, steps_done=1)
    step, a = Column((), "int64", "step"), Column(("neuron",), "float32", "a")
    for columns, size, message in (
        ({"step": step}, 3, "has other columns"),
        ({"step": step, "a": a}, 4, r"column 'a' has rows of float32 \(3,\): expected float32 \(4,\)"),
        ({"step": step, "a": Column(("neuron",), "float64", "a")}, 3, "expected float64"),
        ({"step": Column((), "int64", "step", flags=("x",)), "a": a}, 3, "has other codes"),
    ):
        with pytest.raises(TraceError, match=message):
            TraceWriter.append(path, {"experiment": {"seed": 1}}, steps_done=1).table(
                "t", "step", columns, {"neuron": size}
            )
    for version in (SCHEMA_VERSION - 1, SCHEMA_VERSION + 1):
        with h5py.File(path, "r+") as file:
            file.attrs["schema_version"] = version
        with pytest.raises(TraceError, match=f"schema version {version}"):
            TraceWriter.append(path, {}, steps_done=1)
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = SCHEMA_VERSION
    with h5py.File(path, "r") as file, open_trace(path) as trace:
        assert trace.state == "complete"
        assert len(file["t/step"]) == 2
    assert len(path.read_bytes()) == len(before)


def test_an_appended_trace_runs_again_and_takes_new_tables(tmp_path):
    """While it is written its state is running; attributes and tables that it lacks are added."""
    path = finished(tmp_path / "t.h5")
    with TraceWriter.append(path, {"experiment": {"seed": 1}, "resumed": 1}, steps_done=1) as writer:
        writer.table("more", "step", {"step": Column((), "int64", "step")}).append(step=4)
        with open_trace(path) as trace:
            assert trace.state == "running"
            assert trace.table("t").rows == 1
            assert trace.attributes["resumed"] == 1
            assert trace.attributes["engine"] == "fast"
    with open_trace(path) as trace:
        assert trace.state == "complete"
        assert list(trace.table("more").read("step")) == [4]
    assert [path.name for path in tmp_path.iterdir()] == ["t.h5"]
