"""The command line as a user meets it: real processes, exit codes, one line an error."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import h5py
import numpy as np
import pytest

import pcsim as pcsim_api
from pcsim.experiments.summary import RunSummary
from pcsim.terminal import show_runs

ROOT = Path(__file__).parents[1]
DIGITS = ROOT / "models" / "digits.toml"
QUICK = ["--set", "training.epochs=1", "--set", "probe.error-flow.every=10"]


def pcsim(*arguments, cwd):
    """Run the program in a folder; return the finished process."""
    command = [sys.executable, "-c", "from pcsim.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def refused(*arguments, cwd, saying):
    """Check that the program leaves with code 2 and one line, and return the line."""
    outcome = pcsim(*arguments, cwd=cwd)
    lines = outcome.stderr.splitlines()
    assert outcome.returncode == 2, outcome.stderr
    assert len(lines) == 1, outcome.stderr
    assert lines[0].startswith("error: ")
    for part in saying:
        assert part in lines[0], lines[0]
    assert "Traceback" not in outcome.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which one short run of each schedule of the demo has left its trace."""
    folder = tmp_path_factory.mktemp("trained")
    orders = ["--order", "sequential", "--order", "simultaneous"]
    outcome = pcsim("run", DIGITS, *QUICK, *orders, "--engine", "event", "--json", cwd=folder)
    assert outcome.returncode == 0, outcome.stderr
    return folder, json.loads(outcome.stdout)


def test_run_leaves_a_trace_a_schedule(trained):
    """The demo's promise: a row and a trace for each schedule."""
    folder, runs = trained
    assert [run["order"] for run in runs] == ["sequential", "simultaneous"]
    for run in runs:
        assert run["training_steps"] == 44
        assert run["messages"] == 44 * 18
        assert 0 < run["nonzero_values"] < run["values"]
        with h5py.File(folder / run["trace"]) as file:
            assert file.attrs["state"] == b"complete"
            assert len(file["summary/step"]) == 5


def test_run_prints_a_table(tmp_path):
    """People get a table with the schedule, and the path of the trace."""
    outcome = pcsim("run", DIGITS, *QUICK, cwd=tmp_path)
    assert outcome.returncode == 0
    assert "sequential" in outcome.stdout
    assert "traces/digits-sequential.h5" in outcome.stdout


def test_run_shows_validation_results(capsys):
    """Who holds samples out wants to read what they say; all columns fit 80 characters."""
    plain = RunSummary(
        "x", "simultaneous", 12, "fast", 1, 1, 0.5, 1.0, 23_760, 9, 3, 10**9, 35_640.0, 12.3, None
    )
    show_runs([plain, dataclasses.replace(plain, validation_accuracy=0.75, validation_loss=1.0)])
    shown = capsys.readouterr().out
    assert "75.00%" in shown
    assert "…" not in shown
    show_runs([plain])
    assert "ation" not in capsys.readouterr().out.replace("cations", "")


def test_same_seed_same_bits(tmp_path):
    """A run can be repeated: summary and probes are the same bits, another seed gives others."""
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        outcome = pcsim("run", DIGITS, *QUICK, "--seed", seed, "--trace", f"{name}.h5", cwd=tmp_path)
        assert outcome.returncode == 0
    read = {}
    for name in "abc":
        with h5py.File(tmp_path / f"{name}.h5") as file:
            read[name] = file["summary/free_energy"][:], file["probes/error-flow/activity_1"][:]
    for ours, repeated, other in zip(read["a"], read["b"], read["c"], strict=True):
        assert np.array_equal(ours, repeated)
        assert not np.array_equal(ours, other)


def test_engines_give_the_same_run(tmp_path):
    """The fast engine's trace and totals equal those that the event engine counted."""
    summaries = {}
    for engine in ("fast", "event"):
        outcome = pcsim(
            "run", DIGITS, *QUICK, "--engine", engine, "--trace", f"{engine}.h5", "--json", cwd=tmp_path
        )
        summaries[engine] = json.loads(outcome.stdout)[0]
    for key in ("test_accuracy", "messages", "values", "multiplications", "simulated_time"):
        assert summaries["fast"][key] == summaries["event"][key], key
    assert summaries["fast"]["nonzero_values"] is None
    assert summaries["fast"]["curve"][-1]["test_accuracy"] == summaries["event"]["test_accuracy"]
    with h5py.File(tmp_path / "fast.h5") as fast, h5py.File(tmp_path / "event.h5") as event:
        assert np.array_equal(fast["summary/free_energy"], event["summary/free_energy"])
        assert not len(fast["events/start"])
        assert len(event["events/start"])


def test_simulate(tmp_path):
    """The timeline of one mini-batch, for people and for scripts."""
    shown = pcsim("simulate", DIGITS, "--limit", "5", cwd=tmp_path)
    assert "simulated time 27" in shown.stdout
    outcome = pcsim("simulate", DIGITS, "--json", cwd=tmp_path)
    simulated = json.loads(outcome.stdout)
    assert simulated["totals"]["messages"] == 18
    assert len(simulated["timeline"]) == simulated["totals"]["operations"] + 18


def test_simulate_in_seconds(tmp_path):
    """A machine with prices in time has seconds, with a prefix; scripts are told the unit."""
    options = ["--set", "hardware.model=loihi2018"]
    shown = pcsim("simulate", DIGITS, "--limit", "2", *options, cwd=tmp_path).stdout
    assert "times in ms" in shown
    told = json.loads(pcsim("simulate", DIGITS, "--json", *options, cwd=tmp_path).stdout)
    assert told["time_unit"] == "ns"
    assert f"simulated time {told['totals']['simulated_time'] / 1e6:.3g} ms" in shown


def test_simulate_asynchronous_with_jitter(tmp_path):
    """An order without a list, on links with latency and seeded jitter."""
    options = ["--set", "schedule.order=asynchronous", "--set", "hardware.latency=2.0"]
    options += ["--set", "hardware.jitter=1.5", "--set", 'hardware.link_latency={"2-1"=7.0}', "--json"]
    times = [
        json.loads(pcsim("simulate", DIGITS, *options, "--set", f"hardware.seed={seed}", cwd=tmp_path).stdout)
        for seed in (1, 1, 2)
    ]
    assert times[0] == times[1]
    assert times[0] != times[2]
    slow = [e for e in times[0]["timeline"] if e["kind"] == "message" and (e["layer"], e["target"]) == (2, 1)]
    assert slow
    assert all(7.0 <= e["end"] - e["start"] <= 8.5 for e in slow)


def test_info(trained):
    """What a trace holds, for people and for scripts."""
    folder, runs = trained
    shown = pcsim("info", runs[0]["trace"], cwd=folder)
    assert "probes/error-flow" in shown.stdout
    assert "summary: iteration 4, layer 3, connection 3" in shown.stdout
    facts = {line.split()[0]: line.split()[1:] for line in shown.stdout.splitlines() if line.split()}
    assert (facts["threads"], facts["products"]) == (["1"], ["8", "by", "pcsim"])
    told = json.loads(pcsim("info", runs[0]["trace"], "--json", cwd=folder).stdout)
    assert told["attributes"]["order"] == "sequential"
    assert told["attributes"]["configuration"]["network"]["layers"] == [64, 128, 128, 10]
    assert told["tables"]["summary"]["rows"] == 5


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_plot(trained, suffix):
    """The picture is written in the format that its name says."""
    folder, runs = trained
    outcome = pcsim("plot", *(run["trace"] for run in runs), "-o", f"flow.{suffix}", "--force", cwd=folder)
    assert outcome.returncode == 0, outcome.stderr
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix]
    assert (folder / f"flow.{suffix}").read_bytes().startswith(start)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("engine", ["fast", "event"])
def test_verify(tmp_path, engine, backend):
    """All golden cases hold; exit code 1 where one does not."""
    cases = sorted((ROOT / "tests" / "golden").glob("*.npz"))
    outcome = pcsim("verify", *cases, "--engine", engine, "--backend", backend, "--json", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    told = json.loads(outcome.stdout)
    assert len(told) == len(cases) >= 4
    assert all(one["largest"] <= 1e-10 for one in told)
    strict = pcsim("verify", cases[0], "--tolerance", "0", cwd=tmp_path)
    assert strict.returncode == 1
    assert "differs" in strict.stdout


def test_existing_traces_are_kept(trained):
    """An hour of training must not end in, or overwrite, an existing file."""
    folder, runs = trained
    before = (folder / runs[0]["trace"]).read_bytes()
    refused("run", DIGITS, *QUICK, cwd=folder, saying=["digits-sequential.h5 exists", "--force"])
    assert (folder / runs[0]["trace"]).read_bytes() == before


@pytest.mark.parametrize("force", [[], ["--force"]], ids=["first", "forced"])
def test_a_folder_is_no_trace_to_overwrite(trained, tmp_path, force):
    """Whoever is told to pass --force must not then be told that it does not help."""
    folder, runs = trained
    (tmp_path / "there.png").mkdir()
    saying = ["there.png is a folder: expected the name of a file"]
    refused("run", DIGITS, *QUICK, "--trace", "there.png", *force, cwd=tmp_path, saying=saying)
    trace = folder / runs[0]["trace"]
    refused("plot", trace, "-o", "there.png", *force, cwd=tmp_path, saying=saying)
    refused("export", trace, "--to", "npz", "-o", "there.png", *force, cwd=tmp_path, saying=saying)
    refused("analyze", trace, "-o", "there.png", *force, cwd=tmp_path, saying=saying)


def test_force_spares_foreign_files(tmp_path):
    """--force replaces traces, never something else that happens to bear the name."""
    (tmp_path / "notes.h5").write_text("my notes")
    refused("run", DIGITS, *QUICK, "--trace", "notes.h5", "--force", cwd=tmp_path, saying=["notes.h5"])
    assert (tmp_path / "notes.h5").read_text() == "my notes"


@pytest.mark.parametrize(
    ("options", "saying"),
    [
        (["--set", "schedule.order=sequental"], ["sequental", "did you mean 'sequential'"]),
        (["--set", "schedule.ordr=sequential"], ["ordr", "did you mean 'order'"]),
        (["--set", "schedule.iterations=-1"], ["schedule.iterations = -1", "at least 0"]),
        (["--set", "network.layers=[64,32,9]"], ["digits", "10", "9", "network.layers"]),
        (["--set", "network.layers=[63,32,10]"], ["digits", "64", "63"]),
        (["--set", "training.batch=100000"], ["batch", "100000"]),
        (["--order", "asynchronous"], ["asynchronous", "--engine event"]),
        (["--order", "sequential", "--order", "simultaneous", "--trace", "x.h5"], ["--trace"]),
        (["--set", "data.name=fashion-mnist", "--set", "data.path=/nowhere"], ["fashion-mnist", "/nowhere"]),
        (["--set", "schedule"], ["section.key=value"]),
        (["--order", "sequential", "--order", "sequential"], ["each order once"]),
        (["--set", "name=../x"], ["name"]),
        (["--set", "network.output=sigmoid", "--set", "data.target=input"], ["network.layers"]),
        (
            ["--set", "data.target=input", "--set", "network.layers=[64,9,64]"],
            ["values as targets", "network.output"],
        ),
    ],
)
def test_bad_models_get_one_line(tmp_path, options, saying):
    """Each slip is named with what was expected, and nothing is written."""
    refused("run", DIGITS, *QUICK, *options, cwd=tmp_path, saying=saying)
    assert not list(tmp_path.rglob("*.h5"))


@pytest.mark.parametrize(
    ("inputs", "labels", "saying"),
    [
        (np.full((8, 4), np.nan), np.zeros(8, int), ["x_train", "nan", "finite"]),
        (np.where(np.eye(8, 4) > 0, np.inf, 0.0), np.zeros(8, int), ["x_train", "inf"]),
        (np.zeros((8, 4)), np.array([0, 1, 2, -1] * 2), ["y_train", "-1"]),
        (np.zeros((8, 4)), np.zeros(7, int), ["8", "7"]),
    ],
)
def test_bad_data_get_one_line(tmp_path, inputs, labels, saying):
    """NaN, infinite, out of range, ill-fitting: named with array, place and value."""
    good = {"x_test": np.zeros((2, 4)), "y_test": np.zeros(2, int)}
    np.savez(tmp_path / "data.npz", x_train=inputs, y_train=labels, **good)
    options = ["--set", "data.name=npz", "--set", "data.path=data.npz", "--set", "network.layers=[4,3,3]"]
    refused("run", DIGITS, *options, cwd=tmp_path, saying=saying)


@pytest.mark.parametrize("damage", ["missing", "truncated", "foreign", "text", "empty"])
def test_bad_traces_get_one_line(trained, tmp_path, damage):
    """A file that is no whole trace is named, by info and by plot."""
    folder, runs = trained
    whole = (folder / runs[0]["trace"]).read_bytes()
    path = tmp_path / "t.h5"
    if damage == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "foreign":
        with h5py.File(path, "w") as file:
            file["x"] = [1, 2, 3]
    elif damage != "missing":
        path.write_text("" if damage == "empty" else "no trace")
    refused("info", path, cwd=tmp_path, saying=["t.h5"])
    refused("plot", path, "-o", "p.png", cwd=tmp_path, saying=["t.h5"])
    assert not (tmp_path / "p.png").exists()


def test_blown_up_run_keeps_its_trace(tmp_path):
    """A run that diverges names step, layer and iteration; what was recorded can be read."""
    options = ["--set", "learning={rule='sgd',rate=1e6}", "--trace", "t.h5"]
    refused(
        "run", DIGITS, *QUICK, *options, cwd=tmp_path, saying=["training step", "layer", "iteration", "kept"]
    )
    told = json.loads(pcsim("info", "t.h5", "--json", cwd=tmp_path).stdout)
    assert told["attributes"]["state"].startswith("failed: NonFiniteError")
    with h5py.File(tmp_path / "t.h5") as file:
        energy = file["summary/free_energy"][:]
    assert np.isfinite(energy[0]).all()
    assert not np.isfinite(energy[-1]).all()


def test_blowing_up_in_the_last_step_is_seen(tmp_path):
    """One mini-batch only: no later one would notice that the weights are gone."""
    options = ["--set", "learning={rule='sgd',rate=1e38}", "--set", "training.batch=1400", "--threads", "1"]
    refused("run", DIGITS, *QUICK, *options, "--no-trace", "--json", cwd=tmp_path, saying=["layer", "step 0"])


def test_interruption_keeps_the_trace(tmp_path):
    """Ctrl-C ends with a line and code 130; the trace says that it was interrupted."""
    command = [sys.executable, "-c", "from pcsim.cli import main; main()", "run", DIGITS]
    options = ["--set", "training.epochs=100000", "--trace", "t.h5", "--checkpoint", "kept"]
    process = subprocess.Popen([*command, *options], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "t.h5").exists():
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted; the trace is kept: t.h5; run it again with --resume to go on" in told
    assert "Traceback" not in told
    with pcsim_api.open_trace(tmp_path / "t.h5") as trace:
        assert trace.state == "interrupted"


def test_version(tmp_path):
    """The first thing that a bug report needs."""
    assert pcsim("--version", cwd=tmp_path).stdout.strip() == metadata.version("pcsim")


def test_no_epochs(tmp_path):
    """Zero epochs is a valid, empty run, as an empty trace is of use; it says that it trains nothing."""
    outcome = pcsim("run", DIGITS, "--set", "training.epochs=0", "--json", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    assert "training.epochs = 0: nothing is trained" in outcome.stderr
    assert json.loads(outcome.stdout)[0]["test_accuracy"] is None
    refused("plot", "traces/digits-sequential.h5", "-o", "p.png", cwd=tmp_path, saying=["no recorded"])


def test_machine(tmp_path):
    """The self-test says which library is fastest for each product, and how many threads help."""
    told = json.loads(pcsim("info", "--machine", "--json", cwd=tmp_path).stdout)
    assert {line["product"] for line in told["products"]} == {"predict", "feedback", "hebbian"}
    assert all(line["gflops"] > 0 for line in told["products"])
    assert str(told["best_threads"]) in told["threads"]
    assert "numpy" in pcsim("info", "--machine", cwd=tmp_path).stdout
    refused("info", cwd=tmp_path, saying=["either a trace, a model file or --machine"])


def test_an_interrupt_before_a_command_has_begun(monkeypatch, capsys):
    """While Python loads and Typer reads signatures Ctrl-C gave a traceback."""
    from pcsim import __main__, cli

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "main", interrupted)
    with pytest.raises(SystemExit) as left:
        __main__.main()
    assert (left.value.code, capsys.readouterr().err) == (130, "interrupted\n")


def module(*arguments, **changes):
    """Run `python -m pcsim` in a process of its own."""
    command = [sys.executable, "-m", "pcsim", *arguments]
    return subprocess.run(command, capture_output=True, check=False, env=os.environ | changes)


def test_terminals_that_know_fewer_letters():
    """A run ended with UnicodeEncodeError in place of its table, after hours of training."""
    done = module("energy", "digits", "--hardware", "loihi2018", PYTHONIOENCODING="ascii", COLUMNS="100")
    assert done.returncode == 0, done.stderr
    assert b"?" in done.stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_output_that_cannot_be_written():
    """One line, whatever was to be printed."""
    command = [sys.executable, "-m", "pcsim", "info", "digits", "--json"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: output: No space left on device")
    assert "Traceback" not in done.stderr
