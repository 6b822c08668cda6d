"""Every format takes every trace, refuses what is none, and never harms what is there."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

import pcsim
import pcsim.tracing
from pcsim.cli import app
from pcsim.errors import ConfigurationError, PcsimError, TraceError
from pcsim.export import FORMATS, Options, export
from pcsim.export.testbench import read

ROOT = Path(__file__).parents[2]
STATIC = ("sequential", "simultaneous", "bottom-up", "red-black", "incremental")
CASES = [(order, engine) for order in STATIC for engine in ("fast", "event")] + [("asynchronous", "event")]
NEEDS_EVENTS = {"perfetto", "sanafe", "traffic"}


def options_for(name, step=6):
    return {"testbench": Options(layer=2), "nir": Options(linearise=step)}.get(name, Options())


def look(name, out):
    """Read an export with the reader that its users have."""
    match name:
        case "csv":
            text = (out / "summary.iteration-layer.csv").read_text()
            assert text.startswith("step,iteration,layer,free_energy")
        case "nir":
            import nir

            nir.read_data(out / "recording.nir").check_nodes(nir.read(out / "graph.nir"))
        case "npz":
            with np.load(out) as archive:
                assert np.isfinite(archive["summary/free_energy"]).all()
        case "perfetto":
            assert json.loads(out.read_text())["traceEvents"]
        case "sanafe":
            spikes = "".join(re.findall(r"spikes: \[([01,]+)\]", (out / "net.yaml").read_text()))
            count = json.loads((out / "manifest.json").read_text())["count"]
            assert spikes.count("1") == count["packets"] > 0
        case "testbench":
            assert all(one.holds for one in read(out).check())
        case "traffic":
            import pandas

            csv, parquet = pandas.read_csv(out / "traffic.csv"), pandas.read_parquet(out / "traffic.parquet")
            assert len(csv) == len(parquet) > 0


@pytest.mark.parametrize(("order", "engine"), CASES)
@pytest.mark.parametrize("name", FORMATS)
def test_every_order_and_engine(trace_of, tmp_path, order, engine, name):
    """Each format exports each kind of run, or says which engine records what it needs."""
    path, out = trace_of(order, engine), tmp_path / "out"
    if name in NEEDS_EVENTS and engine == "fast":
        with pytest.raises(
            TraceError, match=r"recorded by the fast engine and has no events.*--engine event"
        ):
            export(path, name, out, options_for(name))
        assert list(tmp_path.iterdir()) == []
        return
    shares = []
    made = export(path, name, out, options_for(name), progress=shares.append)
    look(name, out)
    assert made.bytes == sum(Path(file).stat().st_size for file in made.files)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def recorded_steps(path):
    """Return how many steps a trace holds that is being written."""
    try:
        with pcsim.open_trace(path) as trace:
            return min(trace.table(name).rows for name in ("probes/p", "events"))
    except TraceError:
        return 0


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A trace whose run was really killed, after some recorded steps."""
    path = tmp_path_factory.mktemp("killed") / "killed.h5"
    record = ["activity", "error", "prediction", "message", "weight", "bias", "update", "bias_update"]
    model = ["training.epochs=100000", "trace.flush_seconds=0.02", "trace.every=1", "probe.p.every=1"]
    model += [f"probe.p.record={json.dumps(record)}", "network.layers=[64,6,5,10]", "data.test_fraction=0.9"]
    command = [sys.executable, "-c", "from pcsim.cli import main; main()", "run", ROOT / "models/digits.toml"]
    command += ["--engine", "event", "--trace", path]
    command += [part for setting in model for part in ("--set", setting)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 120
        while recorded_steps(path) < 5 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.poll() is None, process.stderr.read().decode()
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_a_killed_run(killed, tmp_path, name):
    """What a run has flushed before SIGKILL exports like any other trace."""
    with pcsim.open_trace(killed) as trace:
        assert trace.state == "running"
        steps = trace.table("probes/p").read("step")
    export(killed, name, tmp_path / "out", options_for(name, int(steps[-1])))
    look(name, tmp_path / "out")


@pytest.mark.parametrize("name", FORMATS)
def test_a_future_schema(trace_of, tmp_path, name):
    """A trace of a later pcsim is refused with both versions, not misread."""
    path = shutil.copy(trace_of("sequential"), tmp_path / "future.h5")
    with h5py.File(path, "a") as file:
        known = int(file.attrs["schema_version"])
        file.attrs["schema_version"] = 99
    with pytest.raises(TraceError, match=rf"schema version 99, this pcsim reads up to {known}"):
        export(path, name, tmp_path / "out", options_for(name))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_files_that_are_no_traces(tmp_path, name):
    """HDF5 of somebody else, text, nothing at all: one line each."""
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["data"] = np.arange(3)
    (tmp_path / "text.h5").write_text("hello")
    for path, message in (
        ("foreign.h5", "not a pcsim trace"),
        ("text.h5", "not an HDF5"),
        ("none.h5", "cannot read"),
    ):
        with pytest.raises(TraceError, match=message):
            export(tmp_path / path, name, tmp_path / "out", options_for(name))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_trace_without_rows(tmp_path, name):
    """A run that ended before its first record has nothing to export, and the error says what is missing."""
    with pcsim.tracing.TraceWriter(tmp_path / "empty.h5", {}) as writer:
        writer.flush()
    with pytest.raises(PcsimError, match=r"empty\.h5 "):
        export(tmp_path / "empty.h5", name, tmp_path / "out", options_for(name))


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_is_overwritten_unasked(trace_of, tmp_path, name):
    """An earlier export stays without --force and is replaced with it, whole."""
    path, out = trace_of("sequential"), tmp_path / "out"
    export(path, name, out, options_for(name))
    before = contents(out)
    with pytest.raises(ConfigurationError, match="exists; pass --force"):
        export(path, name, out, options_for(name))
    with pytest.raises(TraceError):
        export(tmp_path / "none.h5", name, out, options_for(name), overwrite=True)
    assert contents(out) == before
    export(trace_of("simultaneous"), name, out, options_for(name), overwrite=True)
    assert contents(out) != before
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def contents(path):
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return {file.name: file.read_bytes() for file in files}


def test_only_exports_are_replaced(trace_of, tmp_path):
    """--force deletes neither the trace, nor a folder with other files, nor what is behind a link."""
    path = Path(shutil.copy(trace_of("sequential"), tmp_path / "trace.h5"))
    export(path, "csv", tmp_path / "c")
    (tmp_path / "c/thesis.tex").write_text("years of work")
    (tmp_path / "own").mkdir()
    (tmp_path / "own/data.txt").write_text("mine")
    (tmp_path / "link").symlink_to(path)
    for name, out, message in (
        ("csv", "c", "holds thesis.tex"),
        ("csv", "own", "holds data.txt"),
        ("csv", "trace.h5", "is the trace itself"),
        ("npz", "trace.h5", "is the trace itself"),
        ("npz", "own", "is a folder"),
        ("npz", "link", "is the trace itself"),
        ("npz", "own/data.txt/x", "cannot write"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            export(path, name, tmp_path / out, overwrite=True)
    assert (tmp_path / "c/thesis.tex").read_text() == "years of work"
    assert (tmp_path / "own/data.txt").read_text() == "mine"
    pcsim.open_trace(path).close()


def test_an_export_that_does_not_get_its_name_leaves_the_one_before(trace_of, tmp_path, monkeypatch):
    """That had been moved out of the way already, and was removed with the rest."""
    path, real = trace_of("sequential"), os.replace
    export(path, "csv", tmp_path / "c")
    before = contents(tmp_path / "c")
    calls = []

    def replace(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(ConfigurationError, match="Input/output error"):
        export(path, "csv", tmp_path / "c", overwrite=True)
    assert contents(tmp_path / "c") == before
    assert [file.name for file in tmp_path.iterdir()] == ["c"]


def test_a_failing_export_leaves_nothing(trace_of, tmp_path, monkeypatch):
    """A disk that fills up half-way costs the export, not the one before, and leaves no rubbish."""
    import pcsim.export.csv as module

    path = trace_of("sequential")
    export(path, "csv", tmp_path / "c")
    before = contents(tmp_path / "c")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_lines", full)
    with pytest.raises(ConfigurationError, match="No space left on device"):
        export(path, "csv", tmp_path / "c", overwrite=True)
    assert contents(tmp_path / "c") == before
    assert len(list(tmp_path.iterdir())) == 1


def test_unknown_formats_and_options(trace_of, tmp_path):
    """A slip is answered with what there is."""
    path = trace_of("sequential")
    with pytest.raises(ConfigurationError, match="did you mean 'perfetto'"):
        export(path, "prefetto", tmp_path / "out")
    with pytest.raises(
        ConfigurationError, match="--layer with --to nir: this format's options are: --step, --lin"
    ):
        export(path, "nir", tmp_path / "out", Options(layer=1))


def test_a_missing_package(trace_of, tmp_path, monkeypatch):
    """Without `nir` the error says what to install."""
    monkeypatch.setitem(sys.modules, "nir", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'pcsim\[export\]'"):
        export(trace_of("sequential"), "nir", tmp_path / "out")


def run(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_command_line(trace_of, tmp_path):
    """The command says what it made and what the format leaves unsaid; scripts get the same as JSON."""
    path = trace_of("sequential")
    said = run(path, "--to", "testbench", "-o", tmp_path / "b", "--layer", 2, "--step", 3, "--format", "Q2.8")
    assert said.exit_code == 0, said.output
    assert str(tmp_path / "b/testbench.v") in said.stdout
    assert read(tmp_path / "b").manifest["step"] == 3
    assert {one.name for one in read(tmp_path / "b").numbers.values()} == {"Q2.8"}
    said = run(path, "--to", "nir", "-o", tmp_path / "n", "--linearise", 6, "--json")
    told = json.loads(said.stdout)
    assert told["files"][0] == str(tmp_path / "n/graph.nir")
    assert told["notes"][0].startswith("Plasticity: NIR has no learning rule")
    said = run(path, "--to", "nir", "-o", tmp_path / "n", "--linearise", 6, "--force")
    assert "Plasticity: NIR has no learning rule" in said.stdout


def test_command_line_says_how_good_the_words_are(trace_of, tmp_path):
    """A format a signal, repeated on the command line; the loss of each file, the tolerance, the warnings."""
    path = trace_of("sequential")
    formats = [part for one in ("Q3.12", "error=Q-4.6", "weight=Q1.2") for part in ("--format", one)]
    said = run(path, "--to", "testbench", "-o", tmp_path / "b", "--layer", 2, *formats)
    assert said.exit_code == 0, said.output
    names = {name: one.name for name, one in read(tmp_path / "b").numbers.items()}
    assert (names["error"], names["weight"], names["bias"]) == ("Q-4.6", "Q1.2", "Q3.12")
    for name in names:
        assert f"{name}.hex " in said.stdout
    assert "LSB of error.hex, whose largest word is " in said.stdout
    told = json.loads(run(path, "--to", "testbench", "-o", tmp_path / "c", "--layer", 2, "--json").stdout)
    assert len(told["summary"]) == len(names) + 1


@pytest.mark.parametrize(
    ("to", "options"),
    [
        ("nope", []),
        ("testbench", ["--layer", "2", "--format", "Q99.99"]),
        ("testbench", ["--layer", "9"]),
        ("csv", ["--layer", "1"]),
        ("nir", []),
        ("perfetto", ["--step", "3"]),
        ("npz", []),
    ],
)
def test_a_refusal_is_one_line(trace_of, tmp_path, to, options):
    """Nothing begins, so no progress bar does: standard error has the one line that says why."""
    (tmp_path / "out").write_text("")
    out = tmp_path / ("out" if to == "npz" else "new")
    command = [sys.executable, "-c", "from pcsim.cli import main; main()", "export", trace_of("sequential")]
    done = subprocess.run([*command, "--to", to, "-o", out, *options], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().split("\n")) == 1, done.stderr
    assert "%" not in done.stderr


DAMAGE = {
    "layer": -4,
    "target": 9,
    "name": 99,
    "kind": 7,
    "iteration": 1000,
    "start": np.nan,
}


@pytest.mark.parametrize("column", DAMAGE)
@pytest.mark.parametrize("name", ["perfetto", "traffic", "csv", "npz"])
def test_damaged_events(trace_of, tmp_path, name, column):
    """A code without a meaning, a layer that is not there: one line that names the column, and no file."""
    path = shutil.copy(trace_of("sequential"), tmp_path / "damaged.h5")
    with h5py.File(path, "a") as file:
        kinds = file["events/kind"][()]
        file[f"events/{column}"][np.flatnonzero(kinds == 1)[3]] = DAMAGE[column]
    with pytest.raises(TraceError, match=rf"damaged\.h5: table 'events', column '{column}'"):
        export(path, name, tmp_path / "out", options_for(name))
    assert list(tmp_path.iterdir()) == [Path(path)]


@pytest.mark.parametrize(("column", "value"), [("target", -1), ("end", 0.0)])
@pytest.mark.parametrize("name", ["perfetto", "traffic"])
def test_events_that_cannot_be(trace_of, tmp_path, name, column, value):
    """A message to nobody, or one that ends before it starts, is refused with its row."""
    path = shutil.copy(trace_of("sequential"), tmp_path / "damaged.h5")
    with h5py.File(path, "a") as file:
        row = np.flatnonzero((file["events/kind"][()] == 1) & (file["events/start"][()] > 0))[3]
        file[f"events/{column}"][row] = value
    with pytest.raises(TraceError, match=rf"table 'events', row {row}: e"):
        export(path, name, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [Path(path)]


@pytest.fixture(scope="module")
def convolutional(tmp_path_factory):
    """A trace of models/digits_conv.toml: a convolution with max pooling, then a dense connection."""
    path = tmp_path_factory.mktemp("conv") / "conv.h5"
    record = ["activity", "error", "prediction", "message", "weight", "bias", "update", "bias_update"]
    settings = ["training.epochs=1", "training.batch=256", "trace.every=1", "probe.p.every=1"]
    settings += [f"probe.p.record={json.dumps(record)}", "probe.p.dtype=float64"]
    command = ["run", str(ROOT / "models/digits_conv.toml"), "--engine", "event", "--trace", str(path)]
    done = CliRunner().invoke(app, [*command, *(part for one in settings for part in ("--set", one))])
    assert done.exit_code == 0, done.output
    return path


@pytest.mark.parametrize("name", ["csv", "npz", "perfetto", "traffic"])
def test_a_convolutional_network(convolutional, tmp_path, name):
    """What needs no equation takes any network."""
    export(convolutional, name, tmp_path / "out")
    look(name, tmp_path / "out")


def test_equations_of_a_convolutional_network(convolutional, tmp_path):
    """A test bench of a dense connection above a convolution holds; NIR gets the convolution as a matrix."""
    made = export(convolutional, "nir", tmp_path / "n", Options(linearise=2))
    assert any("Convolutions (from layer 0)" in note for note in made.notes)
    made = export(convolutional, "testbench", tmp_path / "b", Options(layer=1, step=2))
    assert all(one.holds and one.checked for one in read(tmp_path / "b").check()), made.notes
    assert sorted(file.name for file in tmp_path.iterdir()) == ["b", "n"]


def test_a_hidden_layer_below_a_convolution(tmp_path):
    """Its test bench would replay the wrong equations: refused."""
    network = pcsim.Network.of(["1x8x8", "conv 2 3x3/1 max 2", "conv 3 3x3/1", "dense 10"])
    data = pcsim.load_dataset("digits")
    probes = (pcsim.Probe("p", ("activity", "error", "prediction", "message", "weight", "bias"), every=1),)
    one = pcsim.Experiment(
        network,
        data,
        pcsim.SGD(0.01),
        pcsim.Schedule("sequential", 2, 0.05),
        probes=probes,
        batch=800,
        epochs=1,
    )
    pcsim.run(one, trace=tmp_path / "conv.h5")
    with pytest.raises(TraceError, match="connection from layer 1 to 2 is conv"):
        export(tmp_path / "conv.h5", "testbench", tmp_path / "out", Options(layer=1))


def test_command_line_lists_formats():
    """--list names every format; without a trace or a format the command says what it expects."""
    said = run("--list")
    assert all(name in said.stdout for name in FORMATS)
    assert set(json.loads(run("--list", "--json").stdout)) == set(FORMATS)
    assert isinstance(run().exception, ConfigurationError)
    assert "pcsim export traces/" in run("--help").stdout
