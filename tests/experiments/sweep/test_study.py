"""A study in one process: rows and traces, failures, what is not repeated, kills, halving, tables."""

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pytest
from folders import somebody_in
from safetensors.numpy import load_file
from typer.testing import CliRunner

from pcsim.cli import app
from pcsim.config import model_from_dict
from pcsim.errors import PcsimError, StudyError
from pcsim.experiments.checkpoint import FILE as CHECKPOINT
from pcsim.experiments.experiment import Experiment
from pcsim.experiments.run import run as run_once
from pcsim.experiments.significance import mean_sd, welch
from pcsim.experiments.sweep.conduct import conduct
from pcsim.experiments.sweep.here import Here
from pcsim.experiments.sweep.index import FILE, RUNS, Index
from pcsim.experiments.sweep.job import Outcome
from pcsim.experiments.sweep.picture import draw
from pcsim.experiments.sweep.plan import read_plan
from pcsim.experiments.sweep.results import read_results, spread
from pcsim.report.style import style
from pcsim.tracing import open_trace

RATES = "seeds = [0, 1]\ngrid.learning.rate = [1e-3, 1e-2]"
PCSIM = [sys.executable, "-c", "from pcsim.cli import main; main()"]


class Watcher:
    """Keeps what it is told."""

    def __init__(self):
        self.epochs, self.rounds, self.ended, self.seen = 0, [], [], {}

    def plan(self, epochs, runs, done):
        """Note the work ahead."""
        self.epochs = epochs

    def begin_round(self, until, configurations, runs):
        """Note a round."""
        self.rounds.append((until, configurations, runs))

    def advance(self, run, epochs, news):
        """Note how far a run is."""
        assert epochs >= self.seen.get(run, 0)
        self.seen[run] = epochs

    def end(self, row, outcome):
        """Note how it ended."""
        self.ended.append(outcome)


def study(path, folder, **options):
    """Conduct a sweep in this process; return what it told, and the rows of its index."""
    watcher = Watcher()
    conduct(read_plan(path), folder, Here(watcher.advance), watcher, **options)
    with Index.open(folder) as index:
        return watcher, index.rows()


def check_whole(folder):
    """Every run is there once: a row, a trace that is whole, the trace's numbers in the index."""
    with Index.open(folder) as index:
        rows, epochs = index.rows(), index.epochs()
    for row in rows:
        assert (row.state, row.epochs_done) == ("finished", row.epochs)
        with open_trace(folder / row.trace) as trace:
            trace.verify()
            assert trace.state == "complete"
            table = trace.table("learning")
            assert table.read("epoch").tolist() == list(range(1, row.epochs + 1))
            for name in ("validation_accuracy", "test_accuracy", "test_loss"):
                assert table.read(name).tolist() == [one[name] for one in epochs[row.run]]
    assert sorted(path.name for path in (folder / RUNS).iterdir()) == sorted(row.run for row in rows)
    return rows


def check_undisturbed(row, folder, scratch):
    """The weights of a run are those of the same model trained alone."""
    experiment = Experiment.from_model(model_from_dict(row.model))
    run_once(experiment, checkpoint=scratch / row.run)
    ours, alone_ = (load_file(one / CHECKPOINT) for one in (folder / RUNS / row.run, scratch / row.run))
    assert ours.keys() == alone_.keys()
    assert all(ours[name].tobytes() == alone_[name].tobytes() for name in ours)


def test_rows_and_traces(sweep_file, tmp_path):
    """A row and a trace a run; a second call does nothing; a larger grid does what is new."""
    folder = tmp_path / "study"
    watcher, rows = study(sweep_file(RATES), folder)
    assert (watcher.epochs, len(rows), len(watcher.ended)) == (8, 4, 4)
    assert {row.run: 2.0 for row in rows} == watcher.seen
    check_whole(folder)
    check_undisturbed(rows[3], folder, tmp_path / "alone")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("trace.h5")}
    watcher, _ = study(sweep_file(RATES), folder)
    assert (watcher.epochs, watcher.ended) == (0, [])
    watcher, rows = study(sweep_file("seeds = [0, 1, 2]\ngrid.learning.rate = [1e-2]"), folder)
    assert [outcome.state for outcome in watcher.ended] == ["done"]
    assert len(check_whole(folder)) == 5
    assert before.items() <= {path: path.stat().st_mtime_ns for path in folder.rglob("trace.h5")}.items()


def test_a_failing_run_is_recorded_and_the_rest_goes_on(sweep_file, tmp_path):
    """One rate blows up: its row says why, others finish, exit code 1; it is tried again only on request."""
    path = sweep_file("grid.learning.rate = [1e-3, 1e30, 1e-2]\nset = ['learning.rule=\"sgd\"']")
    folder = tmp_path / "study"
    result = CliRunner().invoke(app, ["sweep", str(path), "--study", str(folder), "--json"])
    assert result.exit_code == 1
    found = json.loads(result.stdout)["configurations"]
    assert [one["states"] for one in found] == [{"finished": 1}, {"finished": 1}, {"failed": 1}]
    with Index.open(folder) as index:
        rows = index.rows()
    assert [row.state for row in rows] == ["finished", "failed", "finished"]
    assert "not finite" in rows[1].error
    assert "not finite" in found[2]["errors"][0]
    assert study(path, folder)[0].ended == []
    assert [outcome.run for outcome in study(path, folder, retry=True)[0].ended] == [rows[1].run]


def test_data_that_are_gone_fail_the_run(sweep_file, tmp_path):
    """What goes wrong before the first step is a failure of the run too, in one line."""
    path = sweep_file('set = ["data.path=/nowhere.npz"]')
    _, rows = study(path, tmp_path / "study")
    assert rows[0].state == "failed"
    assert rows[0].error.startswith("npz: ") or "nowhere.npz" in rows[0].error
    assert "\n" not in rows[0].error


def test_killed_and_resumed(sweep_file, tmp_path):
    """SIGKILL of the sweep in its first and second run: it goes on, repeats nothing, the same numbers."""
    path = sweep_file(RATES + '\nset = ["training.epochs=40"]')
    folder = tmp_path / "study"
    command = [*PCSIM, "sweep", str(path), "--study", str(folder)]
    finished: dict[str, int] = {}
    for kills in range(2):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(list(folder.glob(f"{RUNS}/*/{CHECKPOINT}"))) <= kills:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with Index.open(folder) as index:
            for row in index.rows():
                assert row.state in ("waiting", "finished")
                if row.state == "finished":
                    changed = (folder / row.trace).stat().st_mtime_ns
                    assert finished.setdefault(row.run, changed) == changed
    assert finished
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    rows = check_whole(folder)
    assert any(0 < row.resumed_from < 40 for row in rows)
    for row in rows[:2]:
        check_undisturbed(row, folder, tmp_path / "alone")


def test_a_run_that_was_whole_is_not_repeated(sweep_file, tmp_path):
    """Killed between a run's end and its row: the trace is read, not trained again."""
    path, folder = sweep_file(""), tmp_path / "study"
    _, rows = study(path, folder)
    before = (folder / rows[0].trace).stat().st_mtime_ns
    with sqlite3.connect(folder / FILE) as connection:
        connection.execute("DELETE FROM epochs")
        connection.execute("UPDATE runs SET state = 'waiting', epochs_done = 0")
    watcher, _ = study(path, folder)
    assert watcher.ended[0].resumed_from == 2
    assert (folder / rows[0].trace).stat().st_mtime_ns == before
    check_whole(folder)


def test_one_sweep_a_study(sweep_file, tmp_path):
    """Two would write to one index: the second is refused."""
    with somebody_in(tmp_path / "study"), pytest.raises(PcsimError, match="another process trains there"):
        study(sweep_file(""), tmp_path / "study")


def test_halving(sweep_file, tmp_path):
    """Rates that teach nothing are stopped after an epoch; who goes on is what the traces say."""
    path = sweep_file(
        'seeds = [0, 1]\nset = ["training.epochs=4"]\ngrid.learning.rate = [1e-9, 1e-2, 1e-8, 2e-2]\n'
        "[halving]\nfirst = 1\nfactor = 2"
    )
    folder = tmp_path / "study"
    watcher, rows = study(path, folder)
    assert watcher.rounds == [(1, 4, 8), (2, 2, 4), (4, 1, 2)]
    assert watcher.epochs == 8 + 4 + 4
    states = {row.settings["learning.rate"]: (row.state, row.epochs_done) for row in rows}
    assert states[1e-9] == states[1e-8] == ("stopped", 1)
    assert sorted([states[1e-2], states[2e-2]]) == [("finished", 4), ("stopped", 2)]
    winner = next(row for row in rows if row.state == "finished")
    check_undisturbed(winner, folder, tmp_path / "alone")  # paused twice, and the same bits
    with Index.open(folder) as index:
        epochs = index.epochs()
    best = {
        rate: np.mean([max(one["validation_accuracy"] for one in epochs[row.run][:2])
                       for row in rows if row.settings["learning.rate"] == rate])
        for rate in (1e-2, 2e-2)
    }  # fmt: skip
    assert best[winner.settings["learning.rate"]] == max(best.values())
    watcher, again = study(path, folder)
    assert (watcher.epochs, watcher.ended, again) == (0, [], rows)
    results = read_results(folder)
    assert results.best.settings == winner.settings
    assert [row.finished for row in results.rows] == [True, False, False, False]


def by_hand(path, folder, curves):
    """Make a study whose runs went as given: validation and test accuracy, epoch by epoch, run by run."""
    plan = read_plan(path)
    folder.mkdir()
    with Index.begin(folder) as index:
        index.add(plan, {"name": "by-hand", "model": "model.toml"})
        for run, curve in zip(plan.runs, curves):
            rows = tuple(
                {"epoch": place, "training_steps": place, "validation_accuracy": one, "test_accuracy": other,
                 "validation_loss": math.nan, "test_loss": 1.0, "energy": 0.0, "seconds": 2.0}
                for place, (one, other) in enumerate(curve, 1)
            )  # fmt: skip
            index.record(Outcome(run.run, "done", rows), "finished" if len(rows) == run.epochs else "waiting")
    return plan


def test_statistics_by_hand(sweep_file, tmp_path):
    """Best epochs by validation, test results there, means, deviations, t-test, order: all by hand."""
    path = sweep_file("seeds = [0, 1, 2]\ngrid.learning.rate = [1e-3, 1e-2, 1e-1]")
    bad = [[(0.5, 0.5), (0.6, 0.4)], [(0.7, 0.6), (0.7, 0.9)], [(0.4, 0.9), (0.8, 0.5)]]
    good = [[(0.9, 0.7), (0.8, 0.9)], [(0.8, 0.1), (0.9, 0.8)], [(0.9, 0.9), (0.8, 0.1)]]
    folder = tmp_path / "study"
    by_hand(path, folder, [*bad, *good, [(0.99, 0.99)]])
    results = read_results(folder)
    assert [row.settings["learning.rate"] for row in results.rows] == [1e-2, 1e-3, 1e-1]
    first, second, third = results.rows
    assert (first.best_epoch, second.best_epoch) == ((1, 2, 1), (2, 1, 2))
    assert first.test == pytest.approx((70, 80, 90))
    assert second.test == pytest.approx((40, 60, 50))
    assert mean_sd(second.validation) == pytest.approx((70, 10))
    assert (first.p, second.p) == (None, pytest.approx(welch((40, 60, 50), (70, 80, 90))))
    assert (third.states, third.validation, third.p) == (
        {"waiting": 3},
        (99.0,),
        None,
    )  # not finished: not best
    shown = CliRunner().invoke(app, ["study", "show", str(folder)]).stdout
    assert "0.01  90.00" in " ".join(shown.split("\n")[4].split()).replace(" ", "  ", 1)
    assert "80.00 ± 10" in shown
    assert f"{second.p:.1g}" in shown
    assert "best: pcsim run model.toml --set learning.rate=0.01" in shown
    assert " --set training.epochs=1 --seed 0\n" in shown
    assert "validation 90.00 %, test 70.00 %" in shown


def test_autoencoders_compare_losses(tmp_path, sweep_file):
    """Where there are no classes the smallest validation loss is best."""
    path = sweep_file('set = ["data.target=input", "network.layers=[16,8,16]", "network.output=sigmoid"]\n'
                      "grid.learning.rate = [1e-9, 1e-2]")  # fmt: skip
    study(path, tmp_path / "study")
    results = read_results(tmp_path / "study")
    assert results.measure == "loss"
    assert results.best.settings == {"learning.rate": 1e-2}
    assert results.rows[0].validation[0] < results.rows[1].validation[0]


def test_halving_beside_a_study_that_counts_otherwise(sweep_file, tmp_path):
    """Accuracies of another plan in the folder made accuracy the measure of autoencoders: none was left."""
    folder = tmp_path / "study"
    by_hand(sweep_file("seeds = [0]", "classifier"), folder, [[(0.5, 0.5), (0.6, 0.6)]])
    path = sweep_file(
        'set = ["data.target=input", "network.layers=[16,8,16]", "network.output=sigmoid"]\n'
        "grid.learning.rate = [1e-9, 1e-3, 1e-2]\nhalving = {first = 1, factor = 3}", "autoencoder"
    )  # fmt: skip
    _, rows = study(path, folder)
    assert [row.state for row in rows[1:]] == ["stopped", "stopped", "finished"]
    results = read_results(folder, set(read_plan(path).configurations))
    assert results.measure == "loss"
    assert results.best.settings == {"learning.rate": 1e-2}
    assert all(row.validation for row in results.rows)


def test_pictures(sweep_file, tmp_path):
    """A line over a number, dots over several, a ranking without any: each is drawn, none overwritten."""
    settings = {
        "line": "grid.learning.rate = [1e-3, 1e-2, 1e-1]",
        "dots": "[random]\ndraws = 8\n[random.keys]\nlearning.rate = {low = 1e-3, high = 1e-1}\n"
        "schedule.iterations = {low = 1, high = 3}",
        "ranking": 'grid.schedule.order = ["sequential", "simultaneous", "red-black"]',
    }
    marks = {"line": (".png", b"\x89PNG"), "dots": (".svg", b"<?xml"), "ranking": (".pdf", b"%PDF")}
    for name, text in settings.items():
        plan = by_hand(sweep_file(text, name), tmp_path / f"of-{name}", [[(0.5, 0.5), (0.6, 0.6)]] * 8)
        assert plan.runs
        suffix, mark = marks[name]
        out = tmp_path / f"{name}{suffix}"
        arguments = ["study", "show", str(tmp_path / f"of-{name}"), "-o", str(out), "--json"]
        assert CliRunner().invoke(app, arguments).exit_code == 0
        assert out.read_bytes().startswith(mark)
        again = CliRunner().invoke(app, arguments)
        assert "pass --force" in str(again.exception)
    empty = by_hand(sweep_file("seeds = [7]"), tmp_path / "empty", [])
    assert empty.runs
    nothing = CliRunner().invoke(
        app, ["study", "show", str(tmp_path / "empty"), "-o", str(tmp_path / "x.png")]
    )
    assert "has no results yet" in str(nothing.exception)


def test_legends_of_a_study_begin_at_one_height(sweep_file, tmp_path):
    """Each lies below its panel; rates over a decade have a logarithmic axis."""
    text = 'grid.learning.rate = [1e-3, 1e-2]\ngrid.schedule.order = ["sequential", "simultaneous"]'
    by_hand(sweep_file(text), tmp_path / "study", [[(0.5, 0.5), (0.6, 0.6)]] * 8)
    with style():
        figure = draw(read_results(tmp_path / "study"))
        figure.draw_without_rendering()
    left, right = figure.axes
    assert left.get_xscale() == "log"
    boxes = [ax.get_legend().get_window_extent() for ax in (left, right)]
    assert abs(boxes[0].y1 - boxes[1].y1) < 1
    assert all(box.y1 < ax.get_window_extent().y0 for box, ax in zip(boxes, (left, right)))


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ("0.02, 0.1, 0.4, 0.8", ["0.02", "0.1", "0.4", "0.8"]),
        ("1e-5, 1e-4, 1.1e-4, 1e-3", ["1e-05", "0.0001", "", "0.001"]),
        (", ".join(f"{0.01 * 1.3**n:.4f}" for n in range(12)), None),  # too many for a tick each
    ],
)
def test_ticks_of_a_logarithmic_axis_can_be_read(sweep_file, tmp_path, values, labels):
    """They stand at the swept values, and no label lies on another."""
    text = f"grid.learning.rate = [{values}]"
    by_hand(sweep_file(text), tmp_path / "study", [[(0.5, 0.5), (0.6, 0.6)]] * 12)
    with style():
        figure = draw(read_results(tmp_path / "study"))
        figure.draw_without_rendering()
    axis = figure.axes[0].xaxis
    low, high = axis.get_view_interval()
    ticks = [
        one for one in (*axis.get_major_ticks(), *axis.get_minor_ticks()) if low <= one.get_loc() <= high
    ]
    told = [one.label1 for one in ticks if one.label1.get_text()]
    assert len(told) >= 2
    boxes = sorted((one.get_window_extent() for one in told), key=lambda box: box.x0)
    assert all(one.x1 < other.x0 for one, other in pairwise(boxes))
    if labels is not None:
        assert [one.label1.get_text() for one in ticks] == labels
        assert [one.get_loc() for one in ticks] == pytest.approx([float(one) for one in values.split(",")])


def test_a_single_epoch_has_no_fractions(sweep_file, tmp_path):
    """The how-to's own sweep trains for one epoch: its axis has the tick 1 and none beside it."""
    by_hand(sweep_file("grid.learning.rate = [1e-3, 1e-2]"), tmp_path / "study", [[(0.5, 0.5)]] * 2)
    ax = draw(read_results(tmp_path / "study")).axes[-1]
    low, high = ax.get_xlim()
    assert [tick for tick in ax.get_xticks() if low <= tick <= high] == [1]


def test_deviations_have_the_decimals_of_means():
    """A column of them can be read from top to bottom."""
    assert spread([86.36, 87.86], "accuracy") == "87.11 ± 1.06"
    assert spread([0.21, 0.23], "loss") == "0.2200 ± 0.0141"
    assert spread([0.25], "loss") == "0.2500"


def test_indexes_that_are_none(tmp_path):
    """No index, a file of something else, one of another version, a cut one: one line each."""
    with (
        pytest.raises(StudyError, match=r"is no study: expected a folder with index\.sqlite"),
        Index.open(tmp_path),
    ):
        pass
    path = tmp_path / FILE
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StudyError, match="file is not a database"), Index.open(tmp_path):
        pass
    path.unlink()
    with Index.begin(tmp_path):
        pass
    whole = path.read_bytes()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(StudyError, match="version 9"), Index.open(tmp_path):
        pass
    path.write_bytes(whole[: len(whole) // 2])
    with (
        pytest.raises(StudyError, match=r"malformed|not a database|disk image"),
        Index.open(tmp_path) as index,
    ):
        index.rows()


WRITER = """
import sys
from pathlib import Path
from pcsim.experiments.sweep.index import Index
from pcsim.experiments.sweep.job import Outcome
folder = Path(sys.argv[1])
with Index.open(folder) as index:
    run = index.rows()[0].run
    print("ready", flush=True)
    for number in range(1, 10**9):
        row = {"training_steps": 1, "seconds": float(number)}
        rows = tuple({"epoch": epoch, **row} for epoch in range(1, 4 + number % 2))
        index.record(Outcome(run, "done", rows, resumed_from=number), "paused")
"""


def test_the_index_is_never_half_written(sweep_file, tmp_path):
    """SIGKILL of a process that writes all the time: row and epochs are of one and the same moment."""
    folder = tmp_path / "study"
    by_hand(sweep_file(""), folder, [])
    numbers = []
    for kill in range(4):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(0.05 + 0.037 * kill)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        with Index.open(folder) as index:
            (row,), epochs = index.rows(), index.epochs()
        assert row.epochs_done == len(epochs.get(row.run, []))
        if row.resumed_from:
            assert row.epochs_done == 3 + row.resumed_from % 2
            assert {one["seconds"] for one in epochs[row.run]} == {row.resumed_from}
        numbers.append(row.resumed_from)
    assert sum(number > 0 for number in numbers) >= 2


def test_interrupted(sweep_file, tmp_path):
    """Ctrl-C: one line, exit code 130, and the sweep goes on where it was."""
    path, folder = sweep_file('set = ["training.epochs=100000"]'), tmp_path / "study"
    process = subprocess.Popen(
        [*PCSIM, "sweep", str(path), "--study", str(folder)],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list(folder.glob(f"{RUNS}/*/{CHECKPOINT}")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; run it again to go on" in said
    (trace,) = folder.glob(f"{RUNS}/*/trace.h5")
    with open_trace(trace) as reader:
        assert reader.state == "interrupted"


def test_dry_run_makes_nothing(sweep_file, tmp_path, monkeypatch):
    """It says how many runs and rounds there would be."""
    monkeypatch.chdir(tmp_path)
    path = sweep_file('set = ["training.epochs=4"]\ngrid.learning.rate = [1e-3, 1e-2, 1e-1]\n[halving]')
    result = CliRunner().invoke(app, ["sweep", str(path), "--dry-run"])
    assert "round 1: 3 configurations up to epoch 1" in result.stdout
    assert "3 configurations, 1 seed, 3 runs; study: studies/study" in result.stdout
    found = json.loads(CliRunner().invoke(app, ["sweep", str(path), "--dry-run", "--json"]).stdout)
    assert [len(found["runs"]), len(found["rounds"])] == [3, 2]
    assert not (tmp_path / "studies").exists()
