"""The paper's experiments again: what runs, what is resumed, what fails, and what the tables say."""

import fcntl
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from folders import somebody_in
from typer.testing import CliRunner

from pcsim.cli import app
from pcsim.config import load_model
from pcsim.errors import ConfigurationError, DataError, PcsimError
from pcsim.experiments.alone import FILE, alone
from pcsim.experiments.experiment import Experiment
from pcsim.experiments.reproduce import cost, page, tables
from pcsim.experiments.reproduce.figures import draw_curves, draw_updates
from pcsim.experiments.reproduce.jobs import MODELS, Job, Place, expected, failure, look, take
from pcsim.experiments.reproduce.plans import OURS, TARGETS, TASKS, Choice
from pcsim.experiments.reproduce.report import make, wanted, with_other_rates
from pcsim.experiments.reproduce.results import gather
from pcsim.experiments.reproduce.runs import run_all
from pcsim.experiments.reproduce.worker import from_request, to_request
from pcsim.experiments.run import run
from pcsim.experiments.significance import mean_sd, welch
from pcsim.learning import MQ, SGD, Adam
from pcsim.network.network import Network
from pcsim.report.style import style
from pcsim.tracing import open_trace
from pcsim.tracing.schema import Column
from pcsim.tracing.writer import TraceWriter
from pcsim.training.data import load_dataset

DIGITS = TASKS["digits-dense"]
CLOCK = "seconds"
TINY = ["reproduce", "table2", "fig2", "--task", "digits-dense", "--algorithm", "seqil-mq"]
TINY += ["--seeds", "0,1", "--epochs", "2", "--subset", "320", "--json"]


def job(folder, algorithm="seqil-mq", seed=0, epochs=2, subset=320, task=DIGITS):
    """Return a run on the digits, or of another task."""
    return Job(Place(folder, subset=subset), task, task.choose([algorithm])[0], seed, epochs)


def command(folder, *options):
    """Run the command in this process and return its exit code and what it printed."""
    result = CliRunner().invoke(app, [*TINY, "--runs", str(folder), *options])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Two seeds, really run; their folder and what the command printed."""
    folder = tmp_path_factory.mktemp("runs")
    code, text = command(folder)
    assert code == 0
    return folder, json.loads(text)


def test_results_are_the_traces(done):
    """What tables say is what an independent reading of the traces gives."""
    folder, found = done
    task = found["table2"]["tasks"][0]
    for row in task["rows"]:
        curves = []
        for seed in (0, 1):
            path = folder / "digits-dense-subset-320" / row["algorithm"] / f"seed{seed}" / "trace.h5"
            with open_trace(path) as trace:
                assert trace.state == "complete"
                assert (
                    trace.attributes["experiment"]["data"] == "digits, 320 training samples drawn with seed 0"
                )
                assert trace.attributes["seed"] == seed
                curves.append(100 * trace.table("learning").read("test_accuracy"))
        best = [max(curve) for curve in curves]
        assert row["best"] == pytest.approx(best)
        assert row["best_mean_sd"] == pytest.approx([np.mean(best), np.std(best, ddof=1)])
        assert row["last"] == pytest.approx([curve[-1] for curve in curves])
        assert (row["finished"], row["wanted"], row["epochs"]) == (2, 2, [2, 2])
    assert (
        found["fig2"]["updates"]["Digits 8×8, dense (320 training samples): SeqIL-MQ, seed 0"]["mean"][0] > 0
    )
    assert found["failed"] == []


def test_files_of_a_target(done):
    """Table, numbers, and the figure as PNG and SVG lie in the target's folder."""
    folder, found = done
    for name in ("table2", "fig2"):
        own = folder / f"{name}-subset-320"
        kinds = sorted(path.suffix for path in own.iterdir())
        assert kinds == [".json", ".md", ".png", ".svg"]
        assert json.loads((own / f"{name}.json").read_text()) == found[name]
        assert (own / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (own / f"{name}.svg").read_text()


def test_a_subset_is_never_taken_for_the_whole(done):
    """Titles, numbers and the list of runs say how many samples there were; real results keep their place."""
    folder, found = done
    assert not (folder / "table2").exists()
    words = "(320 training samples)"
    assert f"**Digits 8×8, dense {words}**" in (folder / "table2-subset-320/table2.md").read_text()
    for name in ("table2", "fig2"):
        assert found[name]["training_samples"] == 320
        assert found[name]["title"].endswith(words)
        assert [task["title"] for task in found[name]["tasks"]] == [f"Digits 8×8, dense {words}"]
    _, listed = command(folder, "--list")
    assert {row["training_samples"] for row in json.loads(listed)} == {320}
    shown = CliRunner().invoke(app, [*TINY[:-1], "--runs", str(folder), "--list"]).stdout
    assert f"Runs: 2 {words}" in shown
    assert Place(folder).folder("table2") == folder / "table2"


def test_finished_runs_are_not_repeated(done):
    """A second call changes no trace, and gives the same results."""
    folder, found = done
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("trace.h5")}
    code, text = command(folder)
    assert (code, json.loads(text)) == (0, found)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("trace.h5")} == before
    code, text = command(folder, "--list")
    rows = json.loads(text)
    assert (len(before), len(rows)) == (2, 2)
    assert {(row["state"], row["epochs"]) for row in rows} == {("finished", 2)}


def test_another_run_in_the_folder(done):
    """Other constants or more epochs than the run had: named, not taken for the run that was asked for."""
    folder, _ = done
    mine = job(folder)
    other = replace(mine, algorithm=replace(mine.algorithm, rate=2e-3))
    assert look(other).state == "other"
    assert re.search(r"learning is MQ\(rate=0.001.*expected MQ\(rate=0.002", look(other).why)
    longer = look(replace(mine, epochs=5))
    assert (longer.state, longer.epochs) == ("other epochs", 2)
    assert "give --epochs 2" in longer.why
    assert look(replace(mine, epochs=1)).state == "finished"
    outcome = run_all([replace(mine, epochs=5)], Watcher())[replace(mine, epochs=5)]
    assert outcome.kind == "failed"


class Watcher:
    """Keeps what it is told, and may kill a worker."""

    def __init__(self, kill=None):
        self.kill, self.begun, self.ended, self.epochs = kill, [], {}, 0

    def plan(self, epochs):
        """Note the work ahead."""
        self.epochs = epochs

    def begin(self, job, standing):
        """Note a run that begins."""
        self.begun.append((job, standing.epochs))

    def advance(self, job, done, steps, news):
        """Kill the worker once it has two epochs behind it."""
        assert 0 <= done <= steps
        number = re.match(r"epoch (\d+)", news)
        if job == self.kill and number and int(number[1]) >= 2:
            (child,) = children()
            os.kill(child, signal.SIGKILL)
            self.kill = None

    def end(self, job, outcome):
        """Note how it ended."""
        self.ended[job] = outcome


def children():
    """Return this process's children that are workers of ours."""
    threads = Path("/proc/self/task").iterdir()
    pids = [pid for thread in threads for pid in (thread / "children").read_text().split()]
    return [int(pid) for pid in pids if b"reproduce.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_killed_failing_and_going_on(tmp_path):
    """One run is killed, one blows up, the third is done all the same; then the killed one is resumed."""
    killed = job(tmp_path, epochs=40)
    good = job(tmp_path, "bp", epochs=1)
    bad = replace(good, algorithm=good.algorithm.at(1e30))
    watcher = Watcher(kill=killed)
    outcomes = run_all([killed, bad, good], watcher)
    assert watcher.epochs == 42
    assert watcher.ended == outcomes
    assert outcomes[killed].reason.startswith("ended by signal 9")
    assert "not finite" in outcomes[bad].reason
    assert outcomes[good].kind == "done"
    assert (failure(killed), failure(good)) == (outcomes[killed].reason, None)
    assert 2 <= look(killed).epochs < 40
    rows = gather(DIGITS, {bad.algorithm: [bad], good.algorithm: [good]}, 1).rows
    assert [row.finished for row in rows] == [0, 1]
    assert "not finite" in rows[0].notes[0]

    again = Watcher()
    outcomes = run_all([killed, good], again)
    assert [outcomes[one].kind for one in (killed, good)] == ["done", "finished"]
    assert again.begun == [(killed, again.begun[0][1])]
    assert again.begun[0][1] >= 2
    assert failure(killed) is None
    experiment = Experiment.from_model(killed.model())
    experiment = replace(experiment, dataset=take(experiment.dataset, 320))
    run(experiment, trace=tmp_path / "whole.h5")
    check_same(killed.trace, tmp_path / "whole.h5")


def check_same(path, other):
    """Two traces hold the same rows, wall clock apart."""
    with open_trace(path) as one, open_trace(other) as two:
        assert one.tables == two.tables
        for name in one.tables:
            for column in set(one.table(name).columns) - {CLOCK}:
                assert np.array_equal(one.table(name).read(column), two.table(name).read(column)), column


def test_interrupted(tmp_path):
    """Ctrl-C leaves a trace that says so, one line and exit code 130; --list knows how far it came."""
    options = ["reproduce", "table2", "--task", "digits-dense", "--algorithm", "seqil-mq", "--seeds", "3"]
    options += ["--epochs", "100000", "--runs", str(tmp_path)]
    start = [sys.executable, "-c", "from pcsim.cli import main; main()", *options]
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # also if these tests run in the background
    process = subprocess.Popen(start, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    trace = tmp_path / "digits-dense" / "seqil-mq" / "seed3" / "trace.h5"
    deadline = time.monotonic() + 60
    while not (trace.parent / "checkpoint.safetensors").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; run it again to go on" in said
    with open_trace(trace) as reader:
        assert reader.state == "interrupted"
        assert reader.table("learning").rows >= 1


def test_one_process_a_folder(tmp_path):
    """Two processes would spoil one checkpoint: the second is refused, and errors inside keep their name."""
    refused = pytest.raises(PcsimError, match="another process trains there")
    with somebody_in(tmp_path / "run"), refused, alone(tmp_path / "run"):
        pass
    with alone(tmp_path / "run"):
        with alone(tmp_path / "run"):  # a run in the folder that its job has
            pass
        with pytest.raises(BlockingIOError), (tmp_path / "run" / FILE).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    (tmp_path / "linked").mkdir()
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "linked" / FILE).symlink_to(tmp_path / "precious")
    with pytest.raises(PcsimError, match="cannot write"), alone(tmp_path / "linked"):
        pass
    assert (tmp_path / "precious").read_text() == "mine"
    with pytest.raises(BrokenPipeError), alone(tmp_path / "run"):
        raise BrokenPipeError
    (tmp_path / "file").write_text("mine")
    with pytest.raises(PcsimError, match="is a file: expected"), alone(tmp_path / "file"):
        pass


def test_file_systems_without_locks(tmp_path, monkeypatch):
    """Checkpoints worked there before there were locks, and still do."""
    asked = []

    def refuse(*_):
        asked.append(True)
        raise OSError(95, "not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with alone(tmp_path / "run"):
        assert asked


def write_trace(one, values, state_epochs=None, measure="test_accuracy"):
    """Write a run's trace with given accuracies, as a finished run of so many epochs leaves it."""
    given = expected(one)
    training = {"epochs": state_epochs or one.epochs, "batch": given["batch"], "seed": given["seed"]}
    described = {name: given[name] for name in ("schedule", "learning", "data")} | {"training": training}
    attributes = {"engine": given["engine"], "layers": given["layers"], "experiment": described}
    whole, real = Column((), "int64", "a number"), Column((), "float64", "a number")
    fields = {"epoch": whole, "training_steps": whole, "test_accuracy": real, "test_loss": real, CLOCK: real}
    one.folder.mkdir(parents=True)
    with TraceWriter(one.trace, attributes) as writer:
        table = writer.table("learning", "epoch", fields)
        for epoch, value in enumerate(values, 1):
            row = {"epoch": epoch, "training_steps": epoch, CLOCK: 36.0 * epoch, "test_loss": math.nan}
            table.append(**row | {"test_accuracy": math.nan, measure: value})


def by_hand(folder, curves, task=DIGITS, epochs=4):
    """Return the results of runs with given curves, by algorithm and seed."""
    jobs = {}
    for name, several in curves.items():
        made = [job(folder, name, seed, epochs, None, task) for seed in range(len(several))]
        for one, values in zip(made, several):
            if values:
                measure = "test_accuracy" if task.measure == "accuracy" else "test_loss"
                write_trace(one, values, measure=measure)
        jobs[made[0].algorithm] = made
    return gather(task, jobs, None), jobs


def test_statistics_by_hand(tmp_path):
    """Best, best epoch, last, mean, deviation, and the t-test, all worked out on paper."""
    curves = {
        "bp": [[0.1, 0.5, 0.3, 0.2], [0.2, 0.3, 0.7, 0.7], [0.2, 0.6, 0.5, 0.3]],
        "seqil": [[0.8, 0.7, 0.9, 0.6], [0.1, 0.2, 0.3, 0.7], [0.4, 0.8, 0.1, 0.2]],
    }
    results, jobs = by_hand(tmp_path, curves)
    bp, seqil = results.rows
    assert bp.best == pytest.approx((50, 70, 60))
    assert bp.best_epoch == (2, 3, 2)
    assert bp.last == pytest.approx((20, 70, 30))
    assert mean_sd(bp.best) == pytest.approx((60, 10))
    assert mean_sd(seqil.best) == pytest.approx((80, 10))
    # t = −20 / √(100/3 + 100/3) = −√6 with 4 degrees of freedom, where p has a closed form.
    t = math.sqrt(6)
    x = t / math.sqrt(4 + t**2)
    assert seqil.p == pytest.approx(1 - x * (1 + (1 - x**2) / 2), rel=1e-9)
    assert bp.p is None
    assert bp.hours == pytest.approx(3 * 4 * 36 / 3600)
    cells = tables.cells(results, seqil)
    assert cells[:5] == ("SeqIL", "1", "80.00 ± 10", "2–4", "50.00 ± 26")
    assert not tables.better(results, seqil)  # p = 0.07
    cut = gather(DIGITS, jobs, 2).rows[0]
    assert cut.best == pytest.approx((50, 30, 60))
    assert (cut.epochs, cut.finished) == ((2, 2, 2), 3)


def test_other_rates_are_shown_beside_the_published_one(tmp_path):
    """What a search has left is a row of its own without a published number, the smallest rate first."""
    _, jobs = by_hand(tmp_path, {"bp": [[0.5], [0.6]]}, epochs=1)
    ((bp, several),) = jobs.items()
    for rate in (10.0, 0.5):
        write_trace(replace(several[0], algorithm=bp.at(rate)), [0.7])
    (tmp_path / "digits-dense" / "bp-rate-mine").mkdir()
    shown = with_other_rates({"digits-dense": jobs})["digits-dense"]
    assert [one.rate for one in shown] == [bp.rate, 0.5, 10.0]
    assert [len(several) for several in shown.values()] == [2, 2, 2]
    rows = gather(DIGITS, shown, None).rows
    assert [row.finished for row in rows] == [2, 1, 1]
    assert with_other_rates({"digits-dense": shown})["digits-dense"].keys() == shown.keys()


def test_better_than_the_baseline_is_bold(tmp_path):
    """Only what is better with p < 0.05 is bold, not what is as surely worse."""
    near = {
        "bp": [[0.5], [0.51], [0.52]],
        "seqil": [[0.7], [0.71], [0.72]],
        "seqil-mq": [[0.1], [0.11], [0.12]],
    }
    results, _ = by_hand(tmp_path, near, epochs=1)
    assert [row.p is not None and row.p < 0.05 for row in results.rows] == [False, True, True]
    text = tables.markdown(results)
    assert re.findall(r"\*\*([\d.]+ ± [\d.]+)\*\*", text) == ["71.00 ± 1"]
    assert "SeqIL-MQ against BP: -40.00 points at the best epoch, -40.00 after the last." in text
    assert "SeqIL-MQ against SeqIL: -60.00 points" in text


def test_welch_needs_two_seeds_and_some_spread():
    """Where nothing can be tested there is no p; unequal spreads are not pooled."""
    assert welch([1.0], [1.0, 2.0]) is None
    assert welch([1.0, 1.0], [2.0, 2.0]) is None
    assert welch([0.0, 2.0], [5.0, 5.0]) == pytest.approx(
        2 * math.atan(1 / 4) / math.pi
    )  # 1 degree of freedom


def test_epochs_to_the_baselines_tenth(tmp_path):
    """The mark is the mean of BP's seeds after epoch 10; a run that stays below it says never."""
    rising = [epoch / 100 for epoch in range(1, 13)]
    curves = {"bp": [rising, [value + 0.02 for value in rising]]}  # 10 and 12 after epoch 10: 11
    curves["seqil-mq"] = [[2 * value for value in rising], [0.01] * 12]
    results, _ = by_hand(tmp_path, curves, epochs=12)
    assert results.rows[1].early == (6, None)
    assert results.rows[0].early == (11, 9)
    assert tables.cells(results, results.rows[1])[5] == "6, 1 never"


def test_unfinished_runs_do_not_count_beside_finished_ones(tmp_path):
    """A seed that is still going on must not spoil the mean; alone it is shown, and says so."""
    results, _ = by_hand(tmp_path, {"bp": [[0.1, 0.2, 0.3, 0.4], [0.9]], "seqil": [[0.5], []]})
    bp, seqil = results.rows
    assert (bp.seeds, bp.finished, bp.wanted) == ((0,), 1, 2)
    assert (seqil.seeds, seqil.finished, seqil.epochs, seqil.notes) == ((0,), 0, (1,), ())
    assert "0/2, going on" in tables.cells(results, seqil)


def test_autoencoders_compare_losses(tmp_path):
    """The best loss is the smallest, and the table says which loss it is."""
    curves = {"bp": [[9.0, 7.0, 8.0, 8.5]], "seqil-mq": [[6.0, 5.0, 5.5, 5.25]]}
    results, _ = by_hand(tmp_path, curves, task=TASKS["cifar10-autoencoder"])
    assert [row.best for row in results.rows] == [(7.0,), (5.0,)]
    assert [row.best_epoch for row in results.rows] == [(2,), (2,)]
    assert "½‖output − target‖²" in tables.markdown(results)
    assert "paper" not in tables.headings(results)


def test_figure_4_and_pictures_of_all_targets(tmp_path):
    """Every target draws what there is, also if that is little, and nothing if there is nothing."""
    by_hand(tmp_path, {"simultaneous-t1": [[0.2, 0.3]], "sequential-t1": [[0.3, 0.4]],
                       "sequential-t3": [[0.35, 0.45], [0.36, 0.47]]}, TASKS["figure4"], 2)  # fmt: skip
    by_hand(tmp_path, {"bp": [[9.0, 7.0]], "seqil-mq": [[6.0, 5.0]]}, TASKS["cifar10-autoencoder"], 2)
    by_hand(tmp_path, {"bp": [[0.1, 0.2], [0.2, 0.3]]}, TASKS["cifar10-conv"], 2)
    for name in ("table2", "fig3", "fig4", "fig5"):
        target = TARGETS[name]
        jobs = wanted(target, Choice(), Place(tmp_path), (0, 1), 2)
        make(target, jobs, 2, Place(tmp_path))
        assert (tmp_path / name / f"{name}.png").exists()
    make(TARGETS["fig2"], wanted(TARGETS["fig2"], Choice(), Place(tmp_path), (0,), 2), 2, Place(tmp_path))
    assert not (tmp_path / "fig2" / "fig2.png").exists()
    four = json.loads((tmp_path / "fig4" / "fig4.json").read_text())["tasks"][0]
    assert len(four["rows"]) == 8  # T = 1, 2, 3, 5 for either order
    only = Choice(algorithms=("sequential-t4",)).of(TARGETS["fig4"])
    assert [one.name for one in only["figure4"]] == ["sequential-t4"]


def test_a_single_epoch_is_drawn(tmp_path):
    """A line through one point is none: it has a marker, and the axis no epochs between epochs."""
    by_hand(tmp_path, {"bp": [[0.1], [0.2]], "seqil-mq": [[0.3], [0.4]]}, TASKS["cifar10-conv"], 1)
    jobs = wanted(TARGETS["fig3"], Choice(("cifar10-conv",)), Place(tmp_path), (0, 1), 1)["cifar10-conv"]
    (ax,) = draw_curves([gather(TASKS["cifar10-conv"], jobs, 1)]).axes
    assert [(line.get_marker(), len(line.get_xdata())) for line in ax.lines] == [("o", 1)] * 2
    low, high = ax.get_xlim()
    assert [tick for tick in ax.get_xticks() if low <= tick <= high] == [1]
    assert all(tick == round(tick) for tick in ax.get_xticks())


def test_titles_and_legends_of_many_panels_stay_apart(done):
    """Five runs beside each other, each with a long title: the layout gave up, legends lay on each other."""
    folder, _ = done
    path = folder / "digits-dense-subset-320" / "seqil-mq" / "seed0" / "trace.h5"
    title = "CIFAR-10, convolutional (640 training samples): SeqIL-Adam, seed 0"
    with style(), warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw_updates({f"{title}{n}": path for n in range(5)})
        figure.draw_without_rendering()
    axes = [ax for ax in figure.axes if ax.get_title()]
    titles = [ax.title.get_window_extent() for ax in axes]
    assert not any(one.overlaps(other) for one, other in combinations(titles, 2))
    assert len(figure.legends) == 1
    assert not any(ax.get_legend() for ax in axes)
    assert min(ax.get_window_extent().width for ax in axes) > 0.2 * figure.bbox.width


def test_sets_that_are_not_here(tmp_path, monkeypatch):
    """Without pixels a run is not tried, is no failure, and its row says what is missing."""
    monkeypatch.setenv("PCSIM_DATA", str(tmp_path / "nothing"))
    result = CliRunner().invoke(app, ["reproduce", "table2", "--task", "svhn-dense", "--runs", str(tmp_path)])
    assert result.exit_code == 0
    assert "no pixels here: pcsim data fetch svhn" in result.stdout
    assert "84.40" in result.stdout
    assert not (tmp_path / "svhn-dense").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["table2", "--task", "cifar"], "task 'cifar': did you mean 'cifar10-"),
        (["table2", "--algorithm", "seqil-qm"], "algorithm 'seqil-qm': did you mean 'seqil-mq'"),
        (["table2", "--seeds", "1,x"], "--seeds 1,x: expected whole numbers"),
        (["table2", "--rate", "bp=0"], "--rate bp=0: expected ALGORITHM=RATE"),
        (["fig1", "fig2"], "fig1: expected it alone"),
        (["fig1", "--seeds", "0,1,2"], "--seeds with fig1: expected it alone"),
        (["fig1", "--jobs", "2"], "--jobs with fig1: expected it alone"),
        (["fig1", "--markdown", "page.md"], "--markdown with fig1: expected it alone"),
        (["table2", "--report-only", "--markdown", "page.md"], "<!-- pcsim reproduce table2 -->"),
        (["cost", "--report-only"], "no measurement there"),
        (["table2", "--task", "digits-dense", "--models", "."], "no model file digits.toml"),
    ],
)
def test_bad_input(tmp_path, monkeypatch, options, said):
    """One line that says what was expected."""
    monkeypatch.chdir(tmp_path)
    Path("page.md").write_text("# A page without markers\n")
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        CliRunner().invoke(app, ["reproduce", *options], catch_exceptions=False)


def test_pages_change_between_their_markers_only(done, tmp_path):
    """What is written by hand stays; the table, its picture and its numbers come, twice the same."""
    folder, _ = done
    text = "# Mine\n\n<!-- pcsim reproduce table2 -->\nold\n<!-- end of table2 -->\n\nby hand\n"
    file = tmp_path / "here.md"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match="pcsim reproduce fig2"):  # TINY asks for two targets
        command(folder, "--report-only", "--markdown", str(file))
    assert file.read_text() == text
    options = [
        "reproduce",
        "table2",
        *TINY[3:],
        "--runs",
        str(folder),
        "--report-only",
        "--markdown",
        str(file),
    ]
    pages = []
    for _ in range(2):
        assert CliRunner().invoke(app, options).exit_code == 0
        pages.append(file.read_text())
    assert pages[0] == pages[1]
    assert pages[1].startswith("# Mine\n")
    assert pages[1].endswith("\n\nby hand\n")
    assert "old" not in pages[1]
    assert "| SeqIL-MQ | 0.001 |" in pages[1]
    assert "](here/table2.png)" in pages[1]
    assert sorted(path.name for path in page.pictures(file).iterdir()) == ["table2.json", "table2.png"]


def test_subset_is_the_same_for_all():
    """A subset is drawn once and for all, leaves the test set alone, and cannot exceed the set."""
    whole = load_dataset("digits")
    one, two = take(whole, 100), take(whole, 100)
    assert np.array_equal(one.train_inputs, two.train_inputs)
    assert len(one.train_inputs) == len(one.train_targets) == 100
    assert len(set(one.train_targets)) == 10
    assert one.test_inputs is whole.test_inputs
    assert "100 training samples" in one.name
    assert take(whole, None) is whole
    with pytest.raises(DataError, match="up to as many"):
        take(whole, 10_000)


def test_jobs_survive_the_way_to_the_worker(tmp_path):
    """A worker trains what was asked for."""
    one = Job(Place(tmp_path, data_dir=tmp_path, subset=7), DIGITS, DIGITS.algorithms[1].at(0.5), 3, 9)
    assert from_request(json.loads(json.dumps(to_request(one, 2)))) == one


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_plans_are_the_model_files(task):
    """A plan's data set, epochs and constants are its model file's, other rules' those of its comments."""
    path = MODELS / task.model
    model, text = load_model(path), path.read_text()
    assert (model.data.name, model.training.epochs) == (task.data, task.epochs)
    assert (model.data.target == "input") == (task.measure == "loss")
    for algorithm in task.algorithms:
        changed = load_model(path, algorithm.overrides)
        assert changed.learning.rate == algorithm.rate
        assert changed.learning.rule == algorithm.rule
        assert changed.network == model.network
        if algorithm.rule == "mq" and task.source != OURS:
            assert changed.learning == model.learning
    noted = {float(one) for one in re.findall(r"(?<![\w.])\d[\d.]*(?:e-\d+)?", re.sub(r"\.(?=\s)", "", text))}
    if "# The other algorithms" in text:
        assert {algorithm.rate for algorithm in task.algorithms} <= noted


def test_optimizer_state_is_counted():
    """SGD keeps nothing, MQ a number a matrix, Adam two a parameter; torch's Adam also counts its steps."""

    def network():
        return Network.dense([5, 4, 3])

    parameters = 5 * 4 + 4 + 4 * 3 + 3
    state = cost.optimizer_state
    assert state(network(), SGD(0.1), backprop=True) == state(network(), SGD(0.1), backprop=False) == 0
    assert state(network(), Adam(0.1), backprop=True) == 2 * parameters + 4
    assert 2 * parameters <= state(network(), Adam(0.1), backprop=False) <= 2 * parameters + 4
    assert 2 <= state(network(), MQ(0.1), backprop=False) <= 4  # v, and how many updates it has seen


def test_costs_side_by_side():
    """Real steps in turn, with the multiplications that the programs have and the baseline's as unit."""
    options = {"networks": ["conv"], "algorithms": ["BP", "SeqIL-MQ"], "tiny": True}
    report = cost.measure(rounds=1, burst_seconds=0.001, **options)
    (costs,) = report.networks.values()
    bp, mq = costs
    assert (bp.title, mq.title) == ("BP", "SeqIL-MQ")
    assert bp.ratio == 1
    assert 0 < bp.multiplications < mq.multiplications
    assert (bp.state, bp.numbers_a_parameter) == (0, 1)
    assert bp.parameters == mq.parameters == 2 * 4 * 9 + 4 + 4 * 5 * 4 + 5 + 5 * 9 * 4 + 4
    assert "| SeqIL-MQ |" in cost.markdown(report)
    json.dumps(report.to_dict(), allow_nan=False)
