"""`pcsim analyze` and the functions on every kind of file: whole, killed, without probes, and not ours."""

import json

import numpy as np
import pytest
import xarray

from pcsim import analysis
from pcsim.errors import TraceError
from pcsim.tracing import open_trace
from pcsim.tracing.schema import SCHEMA_VERSION

FUNCTIONS = [
    analysis.backprop_angles,
    analysis.dynamic_range,
    analysis.error_norms,
    analysis.event_counts,
    analysis.free_energy,
    analysis.message_counts,
    analysis.sparsity,
    analysis.update_magnitudes,
]
SECTIONS = {"error-flow", "free-energy", "updates", "events", "sparsity", "range", "backprop"}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_datasets_describe_themselves(make, function):
    """Every function takes a path or an open trace; every variable has words, units and named dimensions."""
    path = make("sequential", "event").path
    found = function(path)
    with open_trace(path) as trace:
        assert function(trace).identical(found)
    for variable in found.variables.values():
        assert variable.attrs["long_name"]
        assert variable.attrs["units"]
        assert not any(dim.startswith("dim_") for dim in variable.dims)
    assert found.attrs["order"] == "sequential"
    assert found.attrs["trace"] == str(path)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_order_and_engine(each_run, function):
    """No analysis takes an order for granted; only events need the engine that has them."""
    of_events = function in (analysis.event_counts, analysis.message_counts)
    if of_events and not _has_events(each_run.path):
        with pytest.raises(TraceError, match="--engine event"):
            function(each_run.path)
        return
    found = function(each_run.path)
    assert all(size > 0 for size in found.sizes.values())


def _has_events(path):
    with open_trace(path) as trace:
        return trace.table("events").rows > 0


@pytest.mark.parametrize("function", FUNCTIONS)
def test_files_that_are_not_ours(function, future, foreign, tmp_path):
    """A newer schema is refused with both versions, HDF5 of others and what is no HDF5 with a reason."""
    with pytest.raises(
        TraceError, match=f"schema version {SCHEMA_VERSION + 7}, this pcsim reads up to {SCHEMA_VERSION}"
    ):
        function(future)
    with pytest.raises(TraceError, match="not a pcsim trace"):
        function(foreign)
    (tmp_path / "text.h5").write_text("no trace")
    with pytest.raises(TraceError, match="not an HDF5 file"):
        function(tmp_path / "text.h5")


def test_a_killed_run(killed, command):
    """What SIGKILL has left is analysed as far as it goes, and says that it was running."""
    with open_trace(killed) as trace:
        assert trace.state == "running"
        rows = trace.table("summary").rows
    assert rows > 5
    for function in (analysis.error_norms, analysis.free_energy, analysis.update_magnitudes):
        found = function(killed)
        assert found.sizes["step"] == rows
        assert found.attrs["state"] == "running"
        assert all(np.isfinite(found[name]).all() for name in ("update_magnitude", "total") if name in found)
    assert analysis.event_counts(killed).attrs["recorded_steps"] >= rows - 1
    assert analysis.sparsity(killed).zero_share.max() == 1  # hidden errors at iteration 0
    assert int(analysis.dynamic_range(killed)["count"].min()) > 0
    assert analysis.compare(killed, killed).equal
    outcome = command("analyze", killed)
    assert outcome.returncode == 0, outcome.stderr
    assert "backprop: not recorded" in outcome.stdout


def test_tables(make, command):
    """People get a table a section, with the numbers of the functions in it."""
    run = make("simultaneous", "event")
    outcome = command("analyze", run.path)
    assert outcome.returncode == 0, outcome.stderr
    for title in ("Error flow", "Free energy", "Update magnitude", "Operations and messages"):
        assert title in outcome.stdout
    for title in ("Share of zeros", "Dynamic range", "Weight updates against backprop's"):
        assert title in outcome.stdout
    rows = [line.split() for line in outcome.stdout.splitlines()]
    fronts = [row[1] for row in rows if len(row) == 9 and row[0] in ("1", "2", "3", "4")]
    assert fronts == ["3", "2", "1", "0"]
    assert max(map(len, outcome.stdout.splitlines())) <= 80


def test_json_and_netcdf(make, command, tmp_path):
    """Scripts get what xarray reads back; the netCDF file also holds every step."""
    run, out = make("sequential", "event"), tmp_path / "out.nc"
    outcome = command("analyze", run.path, "--json", "-o", out, "--snr", 60, "--verify")
    assert outcome.returncode == 0, outcome.stderr
    told = json.loads(outcome.stdout)
    assert set(told["sections"]) == SECTIONS
    assert told["not_recorded"] == {}
    flow = xarray.Dataset.from_dict(told["sections"]["error-flow"])
    expected = analysis.error_norms(run.path)
    assert np.array_equal(flow.error_norm_mean, expected.error_norm_mean)
    assert told["sections"]["range"]["attrs"]["snr"] == 60
    assert "measured_snr" in told["sections"]["range"]["data_vars"]
    with xarray.open_datatree(out, engine="h5netcdf") as tree:
        assert set(tree.children) == {name.replace("-", "_") for name in SECTIONS}
        assert np.array_equal(tree["error_flow/error_norm"], expected.error_norm)
        assert tree["backprop/angle"].attrs["units"] == "degree"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.nc"]


def test_without_probes_or_events(make, command, refused):
    """The summary is analysed all the same; what is missing is said, and refused if it was asked for."""
    path = make("sequential", "fast", record=None).path
    outcome = command("analyze", path, "--json")
    assert outcome.returncode == 0, outcome.stderr
    told = json.loads(outcome.stdout)
    assert set(told["sections"]) == {"error-flow", "free-energy", "updates"}
    assert set(told["not_recorded"]) == SECTIONS - set(told["sections"])
    assert "add record" in told["not_recorded"]["backprop"]
    refused("analyze", path, "--only", "sparsity", saying=["add record =", "[probe.NAME]"])
    refused("analyze", path, "--only", "events", saying=["--engine event"])


def test_nothing_is_overwritten(make, refused, tmp_path, command):
    """An existing file needs --force, and a failure leaves neither it nor a part of a new one changed."""
    path, out = make().path, tmp_path / "out.nc"
    out.write_text("precious")
    refused("analyze", path, "-o", out, saying=[out, "--force"])
    refused("analyze", path, "-o", path, "--force", saying=["is the trace itself"])
    refused("analyze", path, "-o", tmp_path / "no" / "out.nc", saying=["cannot write"])
    refused("analyze", path, "--snr", "-4", "--only", "range", saying=["snr = -4"])
    assert out.read_text() == "precious"
    assert command("analyze", path, "-o", out, "--force", "--only", "updates").returncode == 0
    assert set(xarray.open_datatree(out, engine="h5netcdf").children) == {"updates"}


def test_options_of_the_range_need_it(make, refused):
    """Whoever leaves the range out would wait in vain for its formats."""
    path = make().path
    refused("analyze", path, "--snr", "40", "--only", "updates", saying=["--snr acts on", "--only range"])
    refused("analyze", path, "--verify", "--only", "updates", saying=["--verify acts on", "--only range"])


def test_bad_files_on_the_command_line(refused, future, foreign, tmp_path, summary_trace):
    """Exit code 2 and one line that names the file."""
    refused("analyze", future, saying=[f"schema version {SCHEMA_VERSION + 7}", f"up to {SCHEMA_VERSION}"])
    refused("analyze", foreign, saying=["not a pcsim trace"])
    refused("analyze", tmp_path / "missing.h5", saying=["missing.h5"])
    refused("analyze", summary_trace(np.zeros((0, 2, 2))), saying=["nothing to analyse", "training step"])
