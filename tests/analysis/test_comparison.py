"""Comparison of traces: planted differences are found where they are, and nothing else is."""

import json
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcsim.analysis import compare, stream
from pcsim.analysis.bits import most_ulps
from pcsim.errors import ConfigurationError, TraceError
from pcsim.tracing.schema import SCHEMA_VERSION

STATE = ("summary", "probes")


@pytest.fixture
def twin(make, tmp_path):
    """Return a function that copies a trace and changes something in the copy."""

    def copy(change, order="sequential", engine="event"):
        path = tmp_path / "twin.h5"
        original = make(order, engine).path
        shutil.copy(original, path)
        with h5py.File(path, "r+") as file:
            change(file)
        return original, path

    return copy


def verdicts(found):
    """Return verdicts by column."""
    return {f"{one.table}/{one.column}": one.verdict for one in found.columns}


@pytest.mark.parametrize("order", ["sequential", "simultaneous", "bottom-up", "red-black", "incremental"])
def test_both_engines_give_the_same_bits(make, order):
    """What the event engine promises; only its events, and what it alone counts, are its own."""
    fast, event = make(order, "fast").path, make(order, "event").path
    state = compare(fast, event, tables=STATE)
    assert state.equal
    assert set(verdicts(state).values()) == {"equal bits"}
    everything = compare(fast, event)
    assert not everything.equal
    own = {name for name, verdict in verdicts(everything).items() if verdict != "equal bits"}
    assert own - {"learning/nonzero_values", "learning/seconds"} == {
        name for name in verdicts(everything) if name.startswith("events/")
    }


def test_a_trace_equals_itself(each_run):
    """Every order and engine, all tables and attributes."""
    found = compare(each_run.path, each_run.path)
    assert found.equal
    assert found.first is None
    assert not found.attributes
    assert set(verdicts(found).values()) == {"equal bits"}


@pytest.mark.parametrize("limit", [64, 2**22])
def test_a_planted_difference_is_found(twin, monkeypatch, limit):
    """One number moved to its neighbour: table, column, step, iteration, layer, sample, neuron and 1 ULP."""
    monkeypatch.setattr(stream, "BLOCK_BYTES", limit)

    def change(file):
        error = file["probes/all/error_2"]
        error[1, 3, 4, 5] = np.nextafter(error[1, 3, 4, 5], 1)

    found = compare(*twin(change))
    changed = [one for one in found.columns if one.verdict != "equal bits"]
    assert [(one.table, one.column, one.verdict) for one in changed] == [("probes/all", "error_2", "differ")]
    assert (changed[0].differing, changed[0].max_ulps) == (1, 1)
    assert found.first.at == {"step": 2, "iteration": 3, "sample": 4, "neuron": 5, "layer": 2}
    assert abs(found.first.a - found.first.b) == changed[0].max_absolute < 1e-15
    assert changed[0].max_relative == changed[0].max_absolute / max(abs(found.first.a), abs(found.first.b))
    near = compare(*twin(change), tolerance=1e-12)
    assert near.equal
    assert verdicts(near)["probes/all/error_2"] == "equal within tolerance"
    assert near.columns[[one.column for one in near.columns].index("error_2")].first.at["neuron"] == 5


def test_the_first_difference_is_the_earliest(twin):
    """Not the first by name: step 0 comes before step 4, an iteration before learning."""

    def change(file):
        file["probes/all/activity_0"][2, 0, 0, 0] += 1
        file["probes/all/weight_1"][0, 3, 2] += 1

    found = compare(*twin(change))
    assert (found.first.column, found.first.at["step"]) == ("weight_1", 0)
    assert found.first.at == {"step": 0, "target_neuron": 3, "source_neuron": 2, "layer": 1}

    def earlier(file):
        change(file)
        file["summary/squared_error"][0, 4, 2] += 1

    found = compare(*twin(earlier))
    assert (found.first.column, found.first.at) == (
        "squared_error",
        {"step": 0, "iteration": 4, "layer": 3},
    )


def test_events_are_found_by_their_own_columns(twin):
    """An event is named by its step, kind, name, layers and iteration."""

    def change(file):
        file["events/values"][7] += 1

    found = compare(*twin(change))
    assert found.first.table == "events"
    assert {"step", "kind", "name", "layer", "target", "iteration"} <= set(found.first.at)
    assert found.first.row == 7


def test_what_does_not_count_is_shown(twin):
    """Wall-clock time and the date differ between any two runs; the order does count."""

    def change(file):
        file["learning/seconds"][...] = 123.0
        file.attrs["created"] = "2001-01-01T00:00:00+00:00"

    found = compare(*twin(change))
    assert found.equal
    assert verdicts(found)["learning/seconds"] == "differ"
    assert list(found.attributes) == ["created"]
    assert found.first is None

    def other(file):
        file.attrs["order"] = "another"

    found = compare(*twin(other))
    assert not found.equal
    assert found.counted_attributes == ["order"]


def test_a_likely_reason_is_named(twin, command):
    """Numbers that differ in last bits sent users looking for a bug, where another library multiplied."""

    def upgraded(file):
        facts = json.loads(file.attrs["computed_by"])
        facts["versions"]["numpy"] = "1.0"
        file.attrs["computed_by"] = json.dumps(facts)

    def other_numbers(file):
        upgraded(file)
        file["summary/squared_error"][0, 4, 2] += 1e-12

    def other_run(file):
        other_numbers(file)
        file.attrs["seed"] = 77

    assert not compare(*twin(upgraded)).likely_reasons
    assert compare(*twin(upgraded)).equal
    assert not compare(*twin(other_run)).likely_reasons
    pair = twin(other_numbers)
    assert compare(*pair).likely_reasons == {"numpy": (np.__version__, "1.0")}
    words = " ".join(command("compare", *pair).stdout.split())
    assert words.endswith(
        f"a likely reason, if only last bits differ: numpy ({np.__version__} in A, 1.0 in B)"
    )


def test_missing_columns_rows_and_shapes(summary_trace, make):
    """Each way in which there is nothing to compare has its own verdict, and none counts as equal."""
    rows = np.arange(24.0).reshape(4, 3, 2)
    whole, cut = summary_trace(rows, name="whole.h5"), summary_trace(rows[:2], name="cut.h5")
    found = compare(whole, cut)
    assert set(verdicts(found).values()) == {"rows differ"}
    assert found.columns[0].note == "4 and 2 rows"
    assert not found.equal
    deeper = compare(whole, summary_trace(rows[:, :2], name="short.h5"))
    assert verdicts(deeper)["summary/squared_error"] == "shapes differ"
    assert "iteration 3" in deeper.columns[1].note
    alone = verdicts(compare(whole, make().path))
    assert alone["probes/all/error_1"] == "only in B"
    assert verdicts(compare(make().path, whole))["probes/all/error_1"] == "only in A"


def test_not_a_number_equals_itself(summary_trace):
    """Two runs that blew up alike are alike; −0 and 0 are other bits of one number."""
    a, b = np.zeros((1, 2, 2)), np.zeros((1, 2, 2))
    a[0, 1] = b[0, 1] = np.nan, np.inf
    b[0, 0, 0] = -0.0
    found = compare(summary_trace(a, name="a.h5"), summary_trace(b, name="b.h5"))
    assert found.equal
    assert verdicts(found)["summary/squared_error"] == "equal within tolerance"
    b[0, 1, 1] = -np.inf
    worse = compare(summary_trace(a, name="c.h5"), summary_trace(b, name="d.h5"), tolerance=1.0)
    assert verdicts(worse)["summary/squared_error"] == "differ"
    assert worse.columns[1].max_absolute == 0


def test_the_table_shows_only_what_was_measured(summary_trace, make, command):
    """NaN against numbers is no difference of 0; nor is a column that only one has; ULPs only if few."""
    a = np.ones((1, 2, 3))
    b, c = a.copy(), a * 5
    b[0, 1] = np.nan
    paths = [
        summary_trace(values, np.ones_like(a), name=f"{name}.h5") for name, values in zip("abc", (a, b, c))
    ]
    found = compare(paths[0], paths[1])
    one = next(one for one in found.columns if one.column == "squared_error")
    assert (one.differing, one.nonfinite, one.max_absolute) == (3, 3, 0)
    shown = {"nan": command("compare", *paths[:2]), "far": command("compare", paths[0], paths[2])}
    row = {name: _row(one.stdout, "squared_error") for name, one in shown.items()}
    assert one.note == "3 not finite in A or B"
    assert row["nan"].split()[-4:] == ["3", "–", "–", "–"]
    assert row["far"].split()[-4:] == ["6", "4", "0.8", "–"]
    alone = command("compare", make().path, paths[0], "--table", "probes")
    assert _row(alone.stdout, "error_1").split()[-1] == "A"
    last = " ".join(alone.stdout.split()).rpartition("differ; ")[2]
    assert last.startswith(
        "only in A: probes/all/activity_0, probes/all/activity_1, probes/all/activity_2 and"
    )


def _row(text, column):
    """Return the first line of a table about a column, without rules."""
    return next(line for line in text.replace("│", " ").splitlines() if column in line)


def test_codes_are_compared_by_what_they_mean(twin):
    """Two runs may number their operations differently, for one with operations of a user's own."""

    def change(file):
        names = file["events/name"]
        meanings = names.attrs["flag_meanings"].split()
        names.attrs["flag_meanings"] = " ".join([*meanings[1:], meanings[0]])
        names[...] = (names[...] - 1) % len(meanings)

    assert compare(*twin(change), tables=["events"]).equal

    def worse(file):
        change(file)
        file["events/name"][3] = (file["events/name"][3] + 1) % 6

    found = compare(*twin(worse), tables=["events"])
    assert found.first.row == 3
    assert isinstance(found.first.a, str)


def test_two_types(make):
    """A float32 run beside a float64 run: compared as numbers, ULPs in the narrower type."""
    found = compare(make().path, make(dtype="float32").path, tables=["probes"], tolerance=1e-3, absolute=1e-5)
    one = next(one for one in found.columns if one.column == "activity_1")
    assert one.note == "float64 and float32"
    assert one.verdict == "equal within tolerance"
    assert 0 < one.max_ulps < 2**24


@given(st.floats(-1e300, 1e300), st.integers(1, 50))
def test_ulps_count_representable_numbers(value, count):
    """So many steps of nextafter are as many ULPs, across zero as well."""
    other = value
    for _ in range(count):
        other = np.nextafter(other, np.inf)
    assert most_ulps(np.array([value, 1.0]), np.array([other, 1.0])) == count
    tiny = np.array([-5e-324]), np.array([5e-324])
    assert most_ulps(*tiny) == 2
    assert most_ulps(np.array([-0.0]), np.array([0.0])) == 0
    assert most_ulps(np.float32([1]), np.nextafter(np.float32([1]), np.float32(2))) == 1


def test_bad_arguments(make, tmp_path):
    """One line each: a tolerance below zero, an unknown table, a missing file."""
    path = make().path
    with pytest.raises(ConfigurationError, match="tolerance = -1"):
        compare(path, path, tolerance=-1)
    with pytest.raises(TraceError, match="did you mean 'summary'"):
        compare(path, path, tables=["sumary"])
    with pytest.raises(TraceError, match="cannot read"):
        compare(path, tmp_path / "missing.h5")


def test_exit_codes(make, twin, command, refused, foreign, future):
    """0 equal, 1 differ, 2 bad input: what a script needs, once in a process of its own."""
    path = make("sequential", "event").path
    program = [sys.executable, "-c", "from pcsim.cli import main; main()", "compare"]
    for other, code in ((path, 0), (make("simultaneous", "event").path, 1), (foreign, 2)):
        assert subprocess.run([*program, path, other], capture_output=True, check=False).returncode == code
    same = command("compare", path, path)
    assert same.returncode == 0, same.stderr
    assert "equal" in same.stdout.splitlines()[-1]

    def change(file):
        file["probes/all/error_2"][0, 1, 0, 0] = np.nan

    other = command("compare", *twin(change))
    assert other.returncode == 1
    assert "probes/all/error_2 at step 0, iteration 1, sample 0, neuron 0, layer 2" in " ".join(
        other.stdout.split()
    )
    told = command("compare", *twin(change), "--json")
    assert told.returncode == 1
    found = json.loads(told.stdout)
    assert found["equal"] is False
    assert found["first"]["at"]["layer"] == 2
    assert found["first"]["b"] is None  # NaN
    refused("compare", path, foreign, saying=["not a pcsim trace"])
    refused(
        "compare", future, path, saying=[f"schema version {SCHEMA_VERSION + 7}", f"up to {SCHEMA_VERSION}"]
    )
