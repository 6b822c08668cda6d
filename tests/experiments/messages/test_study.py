"""The study of messages, runs through channels that are put aside and resumed, and suggested formats."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text
from typer.testing import CliRunner

from pcsim.cli import app
from pcsim.config import load_model
from pcsim.errors import ConfigurationError, PcsimError
from pcsim.experiments.experiment import Experiment
from pcsim.experiments.messages import study as messages
from pcsim.experiments.messages.formats import as_toml, suggest_formats
from pcsim.experiments.messages.pictures import draw
from pcsim.experiments.messages.study import (
    FILE,
    Point,
    Summary,
    engine_for,
    plan_study,
    points,
    study,
    summaries,
)
from pcsim.experiments.run import run
from pcsim.kernels import reference
from pcsim.report.style import style
from pcsim.schedule.channel import PLAIN, Dead
from pcsim.tracing.probes import Probe
from pcsim.tracing.reader import open_trace
from pcsim.tracing.schema import Column
from pcsim.tracing.writer import TraceWriter

DIGITS = Path(__file__).parents[3] / "models" / "digits.toml"
SMALL = ["network.layers=[64,16,10]", "training.epochs=1", "training.batch=64"]
EVERYTHING = [
    "messages.threshold=0.01",
    "messages.error_threshold=1e-4",
    'messages.format="Q4.11"',
    "messages.rounding=stochastic",
    'states.format="bfloat16"',
    "faults.loss=0.02",
    "faults.dead_layer=1",
    "faults.dead_share=0.1",
    "faults.dead_step=20",
    "learning.rule=adam",
]


def experiment(*overrides):
    """The demo with a small network."""
    return Experiment.from_model(load_model(DIGITS, [*SMALL, *overrides]))


# ------------------------------------------------------------------------------------------- model files


def test_a_model_file_says_what_happens_to_messages():
    """Each key reaches its place; errors take the keys of predictions unless they have their own."""
    channels = experiment(*EVERYTHING, "messages.seed=3", "states.seed=4", "faults.seed=5").channels
    assert (channels.predictions.threshold, channels.errors.threshold) == (0.01, 1e-4)
    assert channels.predictions.numbers == channels.errors.numbers
    assert (channels.errors.numbers.format, channels.errors.numbers.rounding) == ("Q4.11", "stochastic")
    assert (channels.states.format, channels.states.rounding, channels.states.seed) == (
        "bfloat16",
        "nearest",
        4,
    )
    assert (channels.faults.loss, channels.faults.seed) == (0.02, 5)
    assert channels.faults.dead == Dead(1, 0.1, 20)
    assert experiment('messages.error_format="Q0.7"').channels.predictions.numbers.format is None
    assert experiment("messages.threshold=0.5").channels.errors.threshold == 0.5


def test_a_model_that_says_nothing_is_described_as_ever():
    """Checkpoints and traces of plain runs stay what they were."""
    assert experiment().channels == PLAIN
    assert "channels" not in experiment().describe()
    assert experiment("faults.loss=0.1").describe()["channels"]["faults"]["loss"] == 0.1


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("messages.threshold=-1", "messages.threshold = -1: expected a number of at least 0"),
        ("messages.format=Q40.40", "messages.format = 'Q40.40': expected float16, bfloat16, float32 or Qm.n"),
        ("faults.loss=2", "faults.loss = 2: expected a number of at most 1"),
        ("faults.delay=0.5", "faults.delay_time = 0.0: expected a number greater than 0"),
        ("faults.dead_layer=7", "faults.dead_layer = 7: expected one of the layers 0 to 2"),
        ("messages.tresh=1", "messages.tresh = 1: unknown key: did you mean 'threshold'?"),
    ],
)
def test_what_a_model_file_cannot_say(override, said):
    """One line that names the key."""
    with pytest.raises(ConfigurationError) as caught:
        experiment(override)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "engine", "said"),
    [
        (["faults.duplication=0.1"], "fast", "use the event engine"),
        (["messages.threshold=0"], "backprop", "backprop sends no messages"),
        (['states.format="Q20.20"'], "fast", "Q20.20 has 40 significant bits, float32 24"),
    ],
)
def test_runs_are_refused_before_a_trace_is_made(tmp_path, overrides, engine, said):
    """Nothing is in the way of the next try."""
    with pytest.raises(ConfigurationError, match=said):
        run(experiment(*overrides), engine=engine, kernels=reference, trace=tmp_path / "run.h5")
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------------------------------- whole runs


@pytest.mark.parametrize("engine", ["fast", "event"])
def test_a_run_through_channels_resumes_bit_for_bit(tmp_path, engine):
    """Two epochs, then two more with new objects: weights and counts of an undisturbed run."""
    whole, half, rest = (experiment(*EVERYTHING, "training.epochs=4") for _ in range(3))
    undisturbed = run(whole, engine=engine, kernels=reference)
    run(half, engine=engine, kernels=reference, checkpoint=tmp_path, until=2)
    resumed = run(rest, engine=engine, kernels=reference, checkpoint=tmp_path, resume=True)
    for pair, other in zip(whole.network.parameters, rest.network.parameters, strict=True):
        assert [array.tobytes() for array in pair] == [array.tobytes() for array in other]
    names = ("messages", "values", "nonzero_values", "bytes", "lost", "test_accuracy")
    assert [getattr(undisturbed, n) for n in names] == [getattr(resumed, n) for n in names]
    assert undisturbed.lost > 0


def test_engines_count_the_same_messages():
    """What the fast engine counts in its channels is what the event engine counts on its links."""
    fast, event = (run(experiment(*EVERYTHING), engine=one, kernels=reference) for one in ("fast", "event"))
    for name in ("messages", "values", "nonzero_values", "bytes", "lost", "test_accuracy", "test_loss"):
        assert getattr(fast, name) == getattr(event, name), name


def test_a_threshold_of_zero_trains_to_the_same_weights():
    """A whole run, on the fast engine: changes only, and the bits of the dense one."""
    dense, changes = experiment(), experiment("messages.threshold=0")
    run(dense, kernels=reference)
    sent = run(changes, kernels=reference)
    for pair, other in zip(dense.network.parameters, changes.network.parameters, strict=True):
        assert [array.tobytes() for array in pair] == [array.tobytes() for array in other]
    assert sent.nonzero_values < sent.values


# ---------------------------------------------------------------------------------------------- the study


def test_points_of_a_study():
    """Each axis begins with the model as it is; every order and seed has a run of its own."""
    found = points({"loss": ["0.1", "0.1"], "threshold": []}, ["sequential", "simultaneous"], 2)
    assert len(found) == 2 * 2 * 2
    assert {point.value for point in found} == {"none", "0.1"}
    assert "faults.loss=0.1" in found[-1].overrides()
    assert "messages.error_threshold=0.01" in Point("threshold", "1/0.01", "sequential", 0).overrides()
    with pytest.raises(ConfigurationError, match=r"--loss 1/2: expected 1 value, for faults\.loss"):
        Point("loss", "1/2", "sequential", 0).overrides()


@pytest.mark.parametrize(
    ("override", "engine"), [("faults.loss=0.1", "fast"), ("faults.duplication=0.1", "event")]
)
def test_the_engine_that_can(override, engine):
    """The fast one where it may."""
    assert engine_for(load_model(DIGITS, [override])) == engine
    assert engine_for(load_model(DIGITS, ["schedule.order=asynchronous"])) == "event"


def test_a_study_goes_on_where_it_was(tmp_path, monkeypatch):
    """Finished runs are read, a line that was cut off is done again, and what was kept is the same."""
    chosen = points({"loss": ["0.05"], "threshold": ["0.01"]}, ["sequential"], 1)
    done = []
    original = messages._train

    def counting(point, *others):
        done.append(point)
        return original(point, *others)

    monkeypatch.setattr(messages, "_train", counting)
    first = study(plan_study(DIGITS, chosen, SMALL, tmp_path), reference)
    assert len(done) == 3  # the model as it is belongs to both axes
    again = study(plan_study(DIGITS, chosen, SMALL, tmp_path), reference)
    assert again == first
    assert len(done) == 3
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:-20])
    last = study(plan_study(DIGITS, chosen, SMALL, tmp_path), reference)
    assert len(done) == 4
    assert [row.test_accuracy for row in last] == [row.test_accuracy for row in first]
    assert len(path.read_text().splitlines()) == 3
    study(plan_study(DIGITS, chosen, [*SMALL, "learning.rate=2e-3"], tmp_path), reference)
    assert len(done) == 7


def test_a_run_that_diverges_is_a_result(tmp_path):
    """It has a step instead of an accuracy, and the table and the picture show it."""
    wild = [*SMALL, "learning.rule=sgd", "learning.rate=1e30"]
    rows = study(plan_study(DIGITS, points({"loss": ["0.5"]}, ["sequential"], 1), wild, tmp_path), reference)
    assert all(row.test_accuracy is None and row.diverged_at is not None for row in rows)
    found = summaries(rows)
    assert [one.diverged for one in found] == [1, 1]
    assert [one.accuracy for one in found] == [None, None]
    draw("loss", found).savefig(tmp_path / "loss.png")


def test_no_curve_crosses_the_names_of_points():
    """A steep curve struck through the upright names beside it; now they stand above the axes, apart."""
    accuracies = {
        "none": 0.95,
        "Q4.5/Q-1.16": 0.1,
        "Q4.5/Q0.16": 0.94,
        "Q4.7/Q0.15": 0.95,
        "Q4.7/Q0.18": 0.95,
    }
    bits = {"none": 32.0, "Q4.5/Q-1.16": 13.0, "Q4.5/Q0.16": 13.5, "Q4.7/Q0.15": 14.0, "Q4.7/Q0.18": 15.5}
    found = [
        Summary("format", value, "sequential", (accuracy,), 0, 1.0, bits[value], 0.0)
        for value, accuracy in accuracies.items()
    ]
    with style():
        figure = draw("format", found)
        figure.draw_without_rendering()
    (ax,) = figure.axes
    names = [Text.get_window_extent(text) for text in ax.texts]  # an annotation's has its line in it
    assert len(names) == 5
    assert all(box.y0 > ax.get_window_extent().y1 for box in names)
    assert not any(one.overlaps(other) for one, other in combinations(names, 2))
    title = figure.get_suptitle()
    assert "Quantised messages" in title
    assert max(box.y1 for box in names) < figure._suptitle.get_window_extent().y0


def test_a_folder_with_something_else(tmp_path):
    """One line, and the file stays."""
    (tmp_path / FILE).write_text("mine\n")
    with pytest.raises(ConfigurationError, match="line 1 is no row of this study"):
        study(plan_study(DIGITS, points({"loss": ["0.1"]}, ["sequential"], 1), SMALL, tmp_path), reference)
    assert (tmp_path / FILE).read_text() == "mine\n"


def test_the_command(tmp_path):
    """Table, rows as JSON, a picture for each axis; an existing picture is not overwritten."""
    settings = [part for one in SMALL for part in ("--set", one)]
    command = ["study", "messages", str(DIGITS), "--loss", "0.1", "--threshold", "0,0.1/1e-3", "--seeds", "1"]
    command += ["--format", "bfloat16", "--state", "Q4.7", "--dead", "0.5", "-o", str(tmp_path), *settings]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.output
    assert "Test accuracy by threshold" in shown.stdout
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert pictures == {f"messages-{axis}.png" for axis in ("loss", "threshold", "format", "state", "dead")}
    before = (tmp_path / FILE).read_bytes()
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 0, "the same command goes on"
    assert (tmp_path / FILE).read_bytes() == before, "and repeats nothing"
    (tmp_path / FILE).rename(tmp_path / "elsewhere")
    foreign = CliRunner().invoke(app, command)
    assert "no runs.jsonl of a study beside it; pass --force" in str(foreign.exception)
    (tmp_path / "elsewhere").rename(tmp_path / FILE)
    as_json = CliRunner().invoke(app, [*command, "--json"])
    rows = json.loads(as_json.stdout)
    halves = {row["value"]: row["bits_a_value"] for row in rows if row["axis"] == "format"}
    assert halves == {"none": 32.0, "bfloat16": 16.0}
    zero = next(row for row in rows if row["value"] == "0")
    plain = next(row for row in rows if row["value"] == "none")
    assert zero["test_accuracy"] == plain["test_accuracy"]
    nothing = CliRunner().invoke(app, ["study", "messages", str(DIGITS)])
    assert "expected something to vary" in str(nothing.exception)


# ---------------------------------------------------------------------------------------- suggested formats


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--format", "Q9"), "messages.format = 'Q9': expected float16"),
        (("--format", "Q40.12"), "format Q40.12 has 52 significant bits, float32 24"),
        (("--loss", "2"), "faults.loss = 2"),
        (("--loss", "0.1", "--set", "network.layers=[63, 9, 10]"), "has 64 values at the input"),
    ],
)
def test_what_cannot_be_is_told_before_the_first_run(options, said, monkeypatch):
    """No progress bar appears, and no run is done."""
    monkeypatch.setattr("pcsim.terminal.ProgressBar.__init__", None)
    outcome = CliRunner().invoke(app, ["study", "messages", str(DIGITS), *options])
    assert isinstance(outcome.exception, PcsimError), outcome.exception
    assert said in str(outcome.exception)


@pytest.mark.parametrize("folder", ["it's my data", "7", "[1]", 'so "called"'])
def test_any_folder_of_data_reaches_the_model(folder, monkeypatch):
    """As an override without quotes a folder named 7 was a number, and one in brackets a list."""
    found = []

    def plan(model, chosen, overrides, out):
        found.append(load_model(model, overrides).data.directory)
        raise PcsimError("this is enough")

    monkeypatch.setattr(messages, "plan_study", plan)
    CliRunner().invoke(app, ["study", "messages", str(DIGITS), "--loss", "0.1", "--data-dir", folder])
    assert found == [folder]


def test_suggested_formats_by_hand(tmp_path):
    """Errors in [−1/4, 1/4) need −2 integer bits, predictions up to 3 need 2; layers share the longest."""
    values = {
        "error_message_1": np.array([-0.25, 0.125, 0.2]),
        "error_message_2": np.array([-0.01, 0.02, 0.015]),
        "prediction_message_0": np.array([3.0, -1.0, 2.0]),
    }
    columns = {name: Column(("n",), "float64", name) for name in values}
    with TraceWriter(tmp_path / "run.h5", {}) as writer:
        writer.table("probes/all", "step", columns, {"n": np.arange(3)}).append(**values)
    with open_trace(tmp_path / "run.h5") as trace:
        found = {one.what: one for one in suggest_formats(trace, 20.0)}
    # 20 dB: 2^(2b) ≥ 100 / (12 · power). Errors of layer 2 have power 2.4e-4, so b = 8; predictions b = 1.
    assert found["errors"].format == "Q-2.8"
    assert found["predictions"].format == "Q2.1"
    assert (found["errors"].minimum, found["errors"].maximum) == (-0.25, 0.2)
    text = as_toml(list(found.values()))
    assert text == '[messages]\nformat = "Q2.1"\nerror_format = "Q-2.8"'


def test_suggested_formats_can_be_pasted(tmp_path):
    """What the command prints is a model file's lines, and a run with them works."""
    probe = Probe("all", ("message", "activity"), samples=64, every=5)
    recorded = experiment()
    object.__setattr__(recorded, "probes", (probe,))
    run(recorded, kernels=reference, trace=tmp_path / "run.h5")
    shown = CliRunner().invoke(app, ["study", "formats", str(tmp_path / "run.h5"), "--snr", "30"])
    assert shown.exit_code == 0, shown.output
    lines = [line for line in shown.stdout.splitlines() if not line.startswith("#")]
    text = DIGITS.read_text() + "\n" + "\n".join(lines)
    (tmp_path / "model.toml").write_text(text)
    channels = Experiment.from_model(load_model(tmp_path / "model.toml", SMALL)).channels
    assert channels.states.format.startswith("Q")
    assert channels.errors.numbers.format != channels.predictions.numbers.format


def test_activities_have_the_fraction_bits_of_their_errors(tmp_path):
    """E = ĥ − p: with the bits of its own size alone an activity buries the error in its rounding.

    And one more integer bit than each of its arrays alone, as finer numbers just below −1 are not −1.
    """
    values = {
        "activity_1": np.array([-1.012, 0.9, 0.5]),
        "activity_2": np.array([-1.012, 0.9, 0.7]),
        "error_1": np.array([-0.01, 0.02, 0.015]),
    }
    columns = {name: Column(("n",), "float64", name) for name in values}
    network = {"experiment": {"network": {"dtype": "float32"}}}
    with TraceWriter(tmp_path / "run.h5", network) as writer:
        writer.table("probes/all", "step", columns, {"n": np.arange(3)}).append(**values)
    with open_trace(tmp_path / "run.h5") as trace:
        (states,) = suggest_formats(trace, 20.0)
        (finer,) = suggest_formats(trace, 120.0)
    assert (states.what, states.format, states.signals, states.held) == ("activities", "Q1.8", 2, True)
    assert finer.format.startswith("Q1.2")  # beyond the 24 bits of float32
    assert not finer.held
    assert not as_toml([finer])
    shown = CliRunner().invoke(app, ["study", "formats", str(tmp_path / "run.h5"), "--snr", "120"])
    assert "has more bits than the network's numbers, so no line" in shown.stdout


def test_what_is_suggested_learns(tmp_path):
    """The lines are to be pasted: a run of five epochs with them loses little; it learnt nothing (10 %)."""
    overrides = ["training.epochs=5", "probe.error-flow.every=40", "probe.error-flow.samples=32"]
    record = ["probe.error-flow.record=['activity','message']"]
    run(Experiment.from_model(load_model(DIGITS, overrides + record)), trace=tmp_path / "run.h5")
    with open_trace(tmp_path / "run.h5") as trace:
        suggested = as_toml(suggest_formats(trace, 40.0))
    (tmp_path / "model.toml").write_text(DIGITS.read_text() + "\n" + suggested)
    pasted = Experiment.from_model(load_model(tmp_path / "model.toml", overrides))
    assert pasted.channels.states.format is not None
    assert run(pasted).test_accuracy > 0.75


def test_dense_messages_are_not_said_to_be_left_out(tmp_path):
    """Without a threshold everything is sent: the column counts what is not zero, and says so."""
    options = ["--format", "Q4.7/Q0.15", "--seeds", "1", "--epochs", "1"]
    shown = CliRunner().invoke(app, ["study", "messages", str(DIGITS), *options], env={"COLUMNS": "120"})
    assert shown.exit_code == 0, shown.output
    assert "else those that are not zero" in " ".join(shown.stdout.split())


def test_formats_without_messages_say_what_lacks(tmp_path):
    """Half an answer is no whole one: a line says that messages were not recorded, and how to."""
    recorded = experiment()
    object.__setattr__(recorded, "probes", (Probe("states", ("activity", "error"), every=5),))
    run(recorded, kernels=reference, trace=tmp_path / "run.h5")
    shown = CliRunner().invoke(app, ["study", "formats", str(tmp_path / "run.h5")])
    assert "[states]" in shown.stdout
    assert "no messages were recorded" in shown.stderr
    assert """--set 'probe.formats.record=["message","activity"]'""" in shown.stderr


@pytest.mark.parametrize("recorded_alone", ["weight", "activity"])
def test_formats_need_a_probe(tmp_path, recorded_alone):
    """One line that says which; activities alone do not tell how fine they have to be."""
    recorded = experiment()
    object.__setattr__(recorded, "probes", (Probe("alone", (recorded_alone,), every=5),))
    run(recorded, kernels=reference, trace=tmp_path / "run.h5")
    shown = CliRunner().invoke(app, ["study", "formats", str(tmp_path / "run.h5")])
    assert "no recorded messages, nor activities with their errors: add a probe" in str(shown.exception)
