"""What the writer promises, apart from kills: round trips, bounded memory, overwriting, states, disks."""

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray

from pcsim.errors import TraceError
from pcsim.tracing import SCHEMA_VERSION, Column, Table, TraceWriter, open_trace
from pcsim.tracing.schema import chunk_shape
from pcsim.tracing.table import BUFFER_BYTES

COLUMNS = {
    "step": Column((), "int64", "training step"),
    "energy": Column(("iteration", "layer"), "float64", "free energy", units="nats"),
}
COORDINATES = {"iteration": np.arange(4), "layer": np.arange(3) * 10}


def summary(writer: TraceWriter, name: str = "summary") -> Table:
    return writer.table(name, "step", COLUMNS, COORDINATES)


def trace(path: Path, rows: int = 2, **attributes: object) -> Path:
    with TraceWriter(path, attributes) as writer:
        table = summary(writer)
        for row in range(rows):
            table.append(step=row, energy=np.full((4, 3), row))
    return path


def test_xarray_names_dimensions_and_coordinates(tmp_path: Path) -> None:
    """Users mostly read with xarray: names and values must arrive without any help."""
    path = tmp_path / "trace.h5"
    with TraceWriter(path, {}) as writer:
        tables = [summary(writer), summary(writer, "probes/hidden")]
        for table in tables:
            table.extend(step=np.arange(5), energy=np.arange(60.0).reshape(5, 4, 3))
    for group in ("summary", "probes/hidden"):
        with xarray.open_dataset(path, group=group, engine="h5netcdf") as data:
            assert data["energy"].dims == ("step", "iteration", "layer")
            assert data["energy"].attrs == {"long_name": "free energy", "units": "nats"}
            assert data["energy"].sel(step=4, iteration=1, layer=20).item() == 4 * 12 + 3 + 2
    with xarray.open_dataset(path, engine="h5netcdf") as root:
        assert root.attrs["format"] == "pcsim-trace"


@pytest.mark.parametrize("rows", [0, 3])
def test_every_kind_of_dimension_opens_in_a_datatree(tmp_path: Path, rows: int) -> None:
    """Empty tables, dimensions with a size only, text coordinates: each is a way to be malformed netCDF."""
    with TraceWriter(tmp_path / "trace.h5", {}) as writer:
        columns = {"kind": Column((), "int8", "kind"), "a": Column(("sample", "name"), "float32", "a")}
        table = writer.table("deep/er/events", "event", columns, {"sample": 7, "name": ["x", "yy"]})
        summary(writer)
        table.extend(kind=np.zeros(rows, int), a=np.zeros((rows, 7, 2)))
    with xarray.open_datatree(tmp_path / "trace.h5", engine="h5netcdf") as tree:
        assert dict(tree["deep/er/events"].sizes) == {"event": rows, "sample": 7, "name": 2}
        assert list(tree["deep/er/events"]["name"].values) == ["x", "yy"]
        assert tree["summary"]["energy"].shape == (0, 4, 3)


def test_attributes_of_any_size_come_back(tmp_path: Path) -> None:
    """Model files go into attributes; the oldest HDF5 format bounds what lies in an object header."""
    given = {"model": {"layers": [1, 2]}, "long": ["word" * 10] * 20_000, "yes": True, "none": None}
    given |= {"seed": 3, "rate": np.float32(0.5), "title": "[not JSON", "large": 2**70}
    path = trace(tmp_path / "trace.h5", **given)
    with open_trace(path) as reader:
        assert {name: reader.attributes[name] for name in given} == given
        assert reader.attributes["schema_version"] == SCHEMA_VERSION
    with xarray.open_dataset(path, engine="h5netcdf") as root:
        assert len(root.attrs["long"]) > 2**16


TEXTS = ("null", "true", "[draft]", '{"a": 1}', '"null"', '"draft"', "draft", "", "12", str(2**64), "1e5")


@pytest.mark.parametrize("given", [*TEXTS, 2**64, -(2**63) - 1, 2**63 - 1, 12, True, None, {"a": [1]}])
def test_attributes_come_back_as_they_were(tmp_path: Path, given: object) -> None:
    """A text may look like what the writer makes of something else; a run's name is anybody's."""
    path = trace(tmp_path / "trace.h5", before=given)
    with TraceWriter.append(path, {"before": given, "appended": given}, steps_done=0) as writer:
        writer.set(later=given)
    with open_trace(path) as reader:
        found = [reader.attributes[name] for name in ("before", "appended", "later")]
        assert found == [given] * 3
        assert all(type(one) is type(given) for one in found)


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ("null", None),
        ("[1]", [1]),
        ('"draft"', '"draft"'),
        ("[draft]", "[draft]"),
        ("12", "12"),
        (" 1", " 1"),
    ],
)
def test_attributes_of_before_read_as_before(tmp_path: Path, stored: str, read: object) -> None:
    """Traces of before quotes had a meaning hold texts as they were given, some of them in quotes."""
    path = trace(tmp_path / "trace.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["name"] = stored
    with open_trace(path) as reader:
        assert reader.attributes["name"] == read


def test_columns_say_what_they_were_given(tmp_path: Path) -> None:
    """Only the root's attributes are JSON: a column that is called null is not called nothing."""
    columns = {"c": Column.of_codes("null", ("true",)), "d": Column((), "int8", "[]", units="null")}
    with TraceWriter(tmp_path / "trace.h5", {}) as writer:
        writer.table("t", "row", columns).append(c=0, d=0)
    with open_trace(tmp_path / "trace.h5") as reader:
        table = reader.table("t")
        assert list(table.decode("c")) == ["true"]
        assert table.column("d").attributes == {"long_name": "[]", "units": "null"}


@pytest.mark.parametrize(("words", "dtype"), [(1, "int8"), (128, "int8"), (129, "int16"), (2**14, "int16")])
def test_codes_have_room(tmp_path: Path, words: int, dtype: str) -> None:
    """A code that wraps around means something else, or nothing: every word needs a number of its own."""
    meanings = tuple(f"word{number}" for number in range(words))
    with TraceWriter(tmp_path / "trace.h5", {}) as writer:
        writer.table("t", "row", {"c": Column.of_codes("c", meanings)}).extend(c=np.arange(words))
    with open_trace(tmp_path / "trace.h5") as reader:
        assert reader.table("t").column("c").dtype == dtype
        assert tuple(reader.table("t").decode("c")) == meanings


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            Column((), "int8", "c", flags=tuple(map(str, range(129)))),
            "129 flags: expected at most 128 of int8",
        ),
        (Column.of_codes("c", tuple(map(str, range(2**14 + 1)))), "16385 flags: expected at most 16384"),
        (Column((), "float32", "c", flags=("a",)), "1 flags: expected at most 0 of float32"),
        (Column.of_codes("c", ("one", "no\u00a0break")), r"words without blanks, got 'no\\xa0break'"),
        (Column.of_codes("c", ("one", "")), "words without blanks, got ''"),
    ],
)
def test_codes_that_cannot_be(tmp_path: Path, column: Column, message: str) -> None:
    """What would be read as other words is refused before anything is written."""
    with TraceWriter(tmp_path / "trace.h5", {}) as writer, pytest.raises(TraceError, match=message):
        writer.table("t", "row", {"c": column})


@pytest.mark.parametrize("code", [-1, 2, 128, 256])
def test_codes_without_a_meaning_are_not_written(tmp_path: Path, code: int) -> None:
    """A cast to eight bits keeps no secret of what it has cut off: 256 would be the first word."""
    with TraceWriter(tmp_path / "trace.h5", {}) as writer:
        table = writer.table("t", "row", {"c": Column.of_codes("c", ("a", "b"))})
        with pytest.raises(TraceError, match=f"'c': {code}, expected 0 to 1"):
            table.append(c=code)


def test_attributes_can_be_set_later(tmp_path: Path) -> None:
    """Totals are known only at the end, and may be longer than what they replace."""
    with TraceWriter(tmp_path / "trace.h5", {"total": 0, "text": "a"}) as writer:
        writer.flush()
        writer.set(total=5, text="b" * 1000, new=[1])
    with open_trace(tmp_path / "trace.h5") as reader:
        assert reader.attributes["total"] == 5
        assert reader.attributes["text"] == "b" * 1000
        assert reader.attributes["new"] == [1]


def test_buffer_is_bounded_and_copies(tmp_path: Path) -> None:
    """Memory must not grow with the run, and callers reuse their arrays in place."""
    with TraceWriter(tmp_path / "trace.h5", {}, flush_seconds=1e9) as writer:
        table = summary(writer)
        energy = np.zeros((4, 3))
        for step in range(30_000):
            energy[:] = step
            table.append(step=step, energy=energy)
            assert table.buffered_bytes < BUFFER_BYTES
    with open_trace(tmp_path / "trace.h5") as reader:
        read = reader.table("summary").read("energy")
        assert np.array_equal(read, np.broadcast_to(np.arange(30_000.0)[:, None, None], read.shape))


@pytest.mark.parametrize("rows", [7, 3000], ids=["in one buffer", "in many"])
def test_ways_to_append_keep_their_order(tmp_path: Path, rows: int) -> None:
    """Single rows are gathered, many are taken as they are: a row must not overtake another."""
    path = tmp_path / "trace.h5"
    with TraceWriter(path, {}) as writer:
        table = writer.table(
            "probes/a",
            "step",
            {"step": COLUMNS["step"], "wide": Column(("i",), "float32", "numbers")},
            {"i": 99},
        )
        for row in range(0, rows, 4):
            table.append(step=row, wide=[row] * 99)
            table.gather(np.int32(row + 1), *[row + 1] * 99)
            table.take(step=row + 2, wide=np.full(99, row + 2, "float32"))
            with pytest.raises(TraceError, match="expected float32, got complex128"):
                table.append(step=row + 9, wide=np.full(99, 1j))
            table.extend(step=[row + 3], wide=np.full((1, 99), row + 3.0))
            assert table.rows == row + 4
            assert table.buffered_bytes < BUFFER_BYTES
    with open_trace(path) as reader:
        steps = reader.table("probes/a").read("step")
        np.testing.assert_array_equal(steps, np.arange(len(steps)))
        np.testing.assert_array_equal(reader.table("probes/a").read("wide"), np.repeat(steps[:, None], 99, 1))


def test_gathered_rows(tmp_path: Path) -> None:
    """Numbers of every type and shape end in their columns, in any number, and memory stays bounded."""
    types = ("int8", "int32", "int64", "float16", "float32", "float64")
    columns = {name: Column(("j",), name, name) for name in types} | {"step": COLUMNS["step"]}
    with TraceWriter(tmp_path / "trace.h5", {}, flush_seconds=1e9) as writer:
        table = writer.table("t", "step", columns, {"j": 3})
        for row in range(30_000):
            table.gather(*(row % 100 + at for at in range(18)), row)
            assert table.rows == row + 1
            assert table.buffered_bytes < BUFFER_BYTES
    with open_trace(tmp_path / "trace.h5") as reader:
        steps = reader.table("t").read("step")
        np.testing.assert_array_equal(steps, np.arange(30_000))
        for at, name in enumerate(types):
            numbers = (steps % 100)[:, np.newaxis] + 3 * at + np.arange(3)
            np.testing.assert_array_equal(reader.table("t").read(name), numbers)


@pytest.mark.parametrize(
    "numbers", [[0] * 12, [0] * 14, [0.5, *[0.0] * 12], [0, *["x"] * 12], [2**70, *[0] * 12]]
)
def test_gathered_rows_that_do_not_fit(tmp_path: Path, numbers: list[float]) -> None:
    """A wrong row is refused at once and whole, not when others wait with it."""
    with TraceWriter(tmp_path / "trace.h5", {}) as writer:
        table = summary(writer)
        table.gather(7, *[1.0] * 12)
        with pytest.raises(TraceError, match=f"table 'summary': cannot take a row of {len(numbers)}: "):
            table.gather(*numbers)
        table.gather(8, *[2.0] * 12)
    with open_trace(tmp_path / "trace.h5") as reader:
        assert reader.table("summary").read("step").tolist() == [7, 8]
        assert (reader.table("summary").read("energy") == np.array([1.0, 2])[:, None, None]).all()


@pytest.mark.parametrize("gather", [False, True])
def test_flushes_by_time(tmp_path: Path, gather: bool) -> None:
    """A slow run must show its rows before its buffers are full."""
    writer = TraceWriter(tmp_path / "trace.h5", {}, flush_seconds=0.0)
    table = summary(writer)
    if gather:
        table.gather(0, *[0.0] * 12)
    else:
        table.append(step=0, energy=np.zeros((4, 3)))
    with open_trace(tmp_path / "trace.h5") as reader:
        assert reader.state == "running"
        assert reader.table("summary").rows == 1
    writer.close()


def test_small_trace_is_small(tmp_path: Path) -> None:
    """Chunks are stored whole: with large ones a trace of two rows would take megabytes."""
    assert trace(tmp_path / "trace.h5").stat().st_size < 200_000
    assert chunk_shape((), "int64", 10**7) == (65_536,)
    assert chunk_shape((4, 64, 1024), "float32", None) == (1, 4, 64, 1024)
    assert chunk_shape((3072, 1024), "float32", None) == (1, 256, 1024)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"step": 0}, "no value for column 'energy'"),
        ({"step": 0, "energy": np.zeros((4, 3)), "enrgy": 1}, "no column 'enrgy': did you mean 'energy'"),
        ({"step": 0, "energy": np.zeros((3, 4))}, r"expected shape \(4, 3\) a row, got \(3, 4\)"),
        ({"step": 0.5, "energy": np.zeros((4, 3))}, "expected int64, got float64"),
    ],
)
def test_rows_that_do_not_fit(tmp_path: Path, row: dict[str, object], message: str) -> None:
    """A wrong row is refused whole, by name, not broadcast or truncated."""
    with TraceWriter(tmp_path / "trace.h5", {}) as writer:
        table = summary(writer)
        with pytest.raises(TraceError, match=message):
            table.append(**row)
        assert table.rows == 0


def test_tables_that_do_not_fit(tmp_path: Path) -> None:
    """Readers of netCDF would refuse these, or a kill could break them: better say so at once."""
    with TraceWriter(tmp_path / "trace.h5", {}) as writer:
        with pytest.raises(TraceError, match="no size for 'iteration'"):
            writer.table("summary", "step", COLUMNS, {})
        table = summary(writer)
        with pytest.raises(TraceError, match="'summary' exists"):
            summary(writer, "summary/inner")
        table.append(step=0, energy=np.zeros((4, 3)))
        with pytest.raises(TraceError, match="comes too late"):
            summary(writer, "other")


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ValueError("bad"), "failed: ValueError: bad"),
        (KeyboardInterrupt(), "interrupted"),
        (None, "complete"),
    ],
)
def test_context_manager_states(tmp_path: Path, error: BaseException | None, state: str) -> None:
    """Whoever opens a trace must see how its run ended, and keeps the rows that came before."""
    writer = TraceWriter(tmp_path / "trace.h5", {})
    with pytest.raises(type(error)) if error else nullcontext(), writer:
        summary(writer).append(step=0, energy=np.zeros((4, 3)))
        if error is not None:
            raise error
    with open_trace(tmp_path / "trace.h5") as reader:
        assert (reader.state, reader.table("summary").rows) == (state, 1)
    with pytest.raises(TraceError, match="is closed"):
        writer.flush()
    assert [path.name for path in tmp_path.iterdir()] == ["trace.h5"]


@pytest.mark.parametrize("buffer_bytes", [0, 2**20])
def test_two_runs_of_one_name_that_begin_together(tmp_path: Path, buffer_bytes: int) -> None:
    """Neither finds the other's trace at its start: the second to write must not replace the first's."""
    path = tmp_path / "trace.h5"
    with TraceWriter(path, {"seed": 1}, buffer_bytes=buffer_bytes) as first:
        second = TraceWriter(path, {"seed": 2}, buffer_bytes=buffer_bytes)
        ours, theirs = summary(first), summary(second)
        ours.append(step=0, energy=np.zeros((4, 3)))
        for lose in (lambda: theirs.append(step=0, energy=np.ones((4, 3))), second.close):
            with pytest.raises(TraceError, match=r"trace.h5 exists; pass --force"):
                lose()
        ours.append(step=1, energy=np.zeros((4, 3)))
    with open_trace(path) as kept:
        assert (kept.attributes["seed"], kept.state, kept.table("summary").rows) == (1, "complete", 2)
    assert list(tmp_path.iterdir()) == [path]


def test_overwriting_needs_to_be_asked_for(tmp_path: Path) -> None:
    """Hours of simulation are not lost to a repeated command; with overwrite they are replaced."""
    path = trace(tmp_path / "new" / "trace.h5")
    with pytest.raises(TraceError, match="exists; pass --force"):
        TraceWriter(path, {})
    with TraceWriter(path, {}, overwrite=True) as writer:
        table = summary(writer)
        with open_trace(path) as reader:
            assert reader.state == "complete"  # the old one stays until the first flush
        table.append(step=7, energy=np.zeros((4, 3)))
    with open_trace(path) as reader:
        assert list(reader.table("summary").read("step")) == [7]
    (tmp_path / "empty.h5").touch()
    TraceWriter(tmp_path / "empty.h5", {}, overwrite=True).close()


def test_foreign_things_are_never_replaced(tmp_path: Path) -> None:
    """--force on a mistyped name must not destroy a thesis, a folder, or what a link points to."""
    (tmp_path / "thesis.txt").write_text("text")
    h5py.File(tmp_path / "foreign.h5", "w").close()
    (tmp_path / "folder").mkdir()
    trace(tmp_path / "target.h5")
    (tmp_path / "link").symlink_to(tmp_path / "target.h5")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere.h5")
    before = sorted(tmp_path.iterdir())
    for name in ("thesis.txt", "foreign.h5", "folder", "link", "dangling"):
        with pytest.raises(TraceError, match=name) as caught:
            TraceWriter(tmp_path / name, {}, overwrite=True)
        assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "thesis.txt").read_text() == "text"


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """One line with path and cause, not a traceback out of h5py."""
    (tmp_path / "file").touch()
    with pytest.raises(TraceError, match=r"cannot write .*trace\.h5: its folder is a file"):
        TraceWriter(tmp_path / "file" / "trace.h5", {})
    (tmp_path / "locked").mkdir(mode=0o500)
    if not os.access(tmp_path / "locked", os.W_OK):  # root may write everywhere
        with pytest.raises(TraceError, match="Permission denied"):
            TraceWriter(tmp_path / "locked" / "trace.h5", {})


def test_full_disk(tmp_path: Path) -> None:
    """The run ends with one line, and the trace still holds every row flushed before."""
    child, path = Path(__file__).with_name("full_disk_child.py"), tmp_path / "trace.h5"
    environment = os.environ | {"PYTHONPATH": str(child.parents[2])}
    command = [sys.executable, str(child), str(path), "500000"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    *rows, message = done.stdout.splitlines()
    assert message == f"cannot write {path}: File too large"
    with open_trace(path) as reader:
        assert reader.state == "running"
        reader.verify()
        assert reader.table("summary").rows == int(rows[-1]) > 1000
