"""Bad files are refused in one line; good ones are read lazily and by name."""

import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from pcsim.errors import TraceError
from pcsim.tracing import SCHEMA_VERSION, Column, TraceWriter, live_file, open_trace
from pcsim.tracing.damage import reading


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a trace of 2,000 events and one of 2,000 probe rows."""
    path = tmp_path / "trace.h5"
    with TraceWriter(path, {}) as writer:
        kinds = {"kind": Column((), "int8", "what", flags=("operation", "message"))}
        events = writer.table("events", "event", kinds)
        columns = {
            "step": Column((), "int64", "step"),
            "a": Column(("sample", "neuron"), "float64", "a", "mV"),
        }
        probe = writer.table("probes/p", "step", columns, {"sample": np.array([3, 5]), "neuron": 20})
        events.extend(kind=np.arange(2000) % 2)
        probe.extend(step=np.arange(2000), a=np.arange(80_000.0).reshape(2000, 2, 20))
    return path


def test_tables_columns_and_dimensions(path: Path) -> None:
    """Analysis code finds its way by names alone."""
    with open_trace(path) as trace:
        assert trace.tables == ("events", "probes/p")
        table = trace.table("probes/p")
        assert (table.columns, table.rows) == (("a", "step"), 2000)
        assert table.dims("a") == ("step", "sample", "neuron")
        assert table.dims("step") == ("step",)
        assert [list(table.coordinate(dim)[:2]) for dim in table.dims("a")] == [[0, 1], [3, 5], [0, 1]]
        assert table.column("a").attributes == {"long_name": "a", "units": "mV"}
        assert list(trace.table("events").decode("kind", slice(0, 3))) == [
            "operation",
            "message",
            "operation",
        ]
        summary = trace.summary()["probes/p"]
        assert summary.dims == {"step": 2000, "sample": 2, "neuron": 20}
        assert summary.bytes_on_disk >= 2000 * 41 * 8
        trace.verify()


@pytest.mark.parametrize(
    "key", [..., 3, -1, slice(5, 9), (slice(None, None, 7), 1), (..., 0), (-2, 0, slice(3)), np.array([1, 4])]
)
def test_columns_slice_like_arrays(path: Path, key: object) -> None:
    """Rows are clipped by hand for killed files, so the index arithmetic needs its own check."""
    with open_trace(path) as trace:
        column = trace.table("probes/p").column("a")
        assert np.array_equal(column[key], np.arange(80_000.0).reshape(2000, 2, 20)[key])
        with pytest.raises(IndexError):
            column[2000]


def test_reading_is_lazy(path: Path) -> None:
    """Traces can be larger than memory: one row costs about one row."""
    with open_trace(path) as trace:
        column = trace.table("probes/p").column("a")
        tracemalloc.start()
        column[7]
        assert tracemalloc.get_traced_memory()[1] < 50_000
        tracemalloc.stop()


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
def test_older_schemas_are_read(path: Path, version: int) -> None:
    """Traces outlive the program: version 1 has no column that version 2 does not read the same way."""
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = version
    with open_trace(path) as trace:
        trace.verify()
        assert trace.attributes["schema_version"] == version


@pytest.mark.parametrize("max_bytes", [1, 48, 10_000, 10**9])
@pytest.mark.parametrize("rows", [slice(None), slice(3, 1999), slice(-7, None), slice(5, 5)])
def test_blocks_cover_each_row_once_and_stay_small(path: Path, max_bytes: int, rows: slice) -> None:
    """Everything that streams is built on it: no row lost at a seam, no block over its bound."""
    with open_trace(path) as trace:
        table, seen, stop = trace.table("probes/p"), [], rows.indices(2000)[0]
        for block, arrays in table.blocks(["a", "step"], rows, max_bytes):
            assert block.start == stop
            stop = block.stop
            assert sum(array.nbytes for array in arrays.values()) <= max(max_bytes, 40 * 8 + 8)
            assert len(arrays["a"]) == len(arrays["step"]) == block.stop - block.start > 0
            seen.append(arrays["a"])
        expected = np.arange(80_000.0).reshape(2000, 2, 20)[rows]
        assert np.array_equal(np.concatenate([expected[:0], *seen]), expected)
        with pytest.raises(TraceError, match="no column 'b'"):
            next(table.blocks(["b"]))
        with pytest.raises(ValueError, match="step 1"):
            next(table.blocks(["a"], slice(None, None, 2)))


def test_columns_of_unequal_length(path: Path) -> None:
    """A kill within a flush can show one column longer than another: only whole rows count."""
    with h5py.File(path, "r+") as file:
        file["probes/p/a"].resize(1500, axis=0)
    with open_trace(path) as trace:
        table = trace.table("probes/p")
        assert table.rows == 1500
        assert len(table.read("step")) == len(table.column("step")) == 1500
        assert table.column("step")[-1] == 1499
        trace.verify()


def test_unknown_names(path: Path) -> None:
    """A typing error is answered with the nearest name."""
    with open_trace(path) as trace:
        with pytest.raises(TraceError, match="no table 'event': did you mean 'events'"):
            trace.table("event")
        with pytest.raises(TraceError, match="no column 'knd': did you mean 'kind'"):
            trace.table("events").read("knd")
        with pytest.raises(TraceError, match="codes without a meaning"):
            trace.table("probes/p").decode("step")


def bad(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "bad.h5"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("not HDF5 at all")
    elif kind == "folder":
        path.mkdir()
    elif kind != "missing":
        with h5py.File(path, "w") as file:
            if kind != "foreign":
                file.attrs["format"] = "pcsim-trace"
                file.attrs["schema_version"] = {"newer": SCHEMA_VERSION + 1, "odd": "one"}[kind]
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "cannot read .*: No such file"),
        ("empty", "is empty"),
        ("text", "is not an HDF5 file"),
        ("folder", "is a folder: expected a pcsim trace"),
        ("foreign", "is HDF5 but not a pcsim trace"),
        ("newer", f"has schema version {SCHEMA_VERSION + 1}, this pcsim reads up to {SCHEMA_VERSION}"),
        ("odd", "has schema version 'one'"),
    ],
)
def test_files_that_are_no_traces(tmp_path: Path, kind: str, message: str) -> None:
    """Each way to be wrong has its own line, with the path in it."""
    with pytest.raises(TraceError, match=message) as caught:
        open_trace(bad(tmp_path, kind))
    assert "bad.h5" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
def test_truncated(path: Path, share: float) -> None:
    """A copy that broke off is the most frequent damage."""
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(TraceError, match="truncated or damaged"), open_trace(path) as trace:
        trace.verify()


def test_damage_anywhere_is_a_trace_error_or_harmless(path: Path) -> None:
    """Overwritten blocks may show only on reading; nothing but TraceError may come out of it."""
    whole, errors = path.read_bytes(), []
    for start in range(0, len(whole), 4096):
        path.write_bytes(whole[:start] + b"\xa5" * 512 + whole[start + 512 :])
        try:
            with open_trace(path) as trace:
                trace.verify()
        except TraceError as error:
            errors.append(str(error))
    assert len(errors) > 2
    assert not any("\n" in error for error in errors)


@pytest.mark.parametrize("rows", [3, 30])
def test_a_reader_whose_writer_goes_on(tmp_path: Path, rows: int) -> None:
    """The length of the file was that of its opening, and the index of the columns was behind it.

    Whoever looks at a run that is under way saw "addr overflow" and a trace that is said to be damaged.
    """
    path = tmp_path / "live.h5"
    with TraceWriter(path, {}, flush_seconds=1e9) as writer:
        columns = {name: Column((), "int64", name) for name in ("step", "value")}
        table = writer.table("summary", "step", columns, expected_rows=1)
        table.extend(step=np.arange(rows), value=np.arange(rows))
        writer.flush()
        with open_trace(path) as trace:
            before = trace.table("summary")
            for _ in range(3):
                steps = np.arange(table.rows, table.rows + 200)
                table.extend(step=steps, value=steps)
                writer.flush()
                assert np.array_equal(before.read("value"), np.arange(rows))
                assert before.summary().rows == rows
                now = trace.table("summary")
                assert np.array_equal(now.read("step"), np.arange(now.rows))
            trace.verify()
        with open_trace(path) as trace:
            assert trace.table("summary").rows == rows + 600


def test_a_damaged_trace_that_changes_is_perhaps_being_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reads too early can do something about it; a trace that nobody changes is not read again."""
    opened = []
    monkeypatch.setattr(live_file, "reading", lambda *more: opened.append(more) or reading(*more))
    path.write_bytes(path.read_bytes()[:3000])
    for tries, changing in ((1, False), (live_file.TRIES, True)):
        monkeypatch.setattr(live_file.LiveFile, "_has_changed", lambda self, changing=changing: changing)
        opened.clear()
        with pytest.raises(TraceError, match="truncated or damaged") as caught:
            open_trace(path)
        assert len(opened) == tries
        assert str(caught.value).endswith("or it is being written: try again") == changing


def test_a_closed_trace(path: Path) -> None:
    """Its columns are not read, and the file is not opened once more."""
    with open_trace(path) as trace:
        column = trace.table("events").column("kind")
    with pytest.raises(TraceError, match="is closed: expected an open trace"):
        column[:]
