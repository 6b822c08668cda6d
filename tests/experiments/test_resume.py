"""Runs that are killed and taken up again, and what they refuse."""

import random
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import PCSIM, finished, start
from safetensors.numpy import load_file, save_file

from pcsim.config import load_model
from pcsim.errors import CheckpointError, ConfigurationError, PcsimError
from pcsim.experiments.alone import alone
from pcsim.experiments.checkpoint import FILE, Checkpoint
from pcsim.experiments.experiment import Experiment
from pcsim.experiments.run import run
from pcsim.experiments.task import Task
from pcsim.tracing import open_trace

DIGITS = Path(__file__).parents[2] / "models" / "digits.toml"
CLOCK = "seconds"  # the one column that may differ


def digits(*overrides):
    """Return the demo's experiment."""
    return Experiment.from_model(load_model(DIGITS, list(overrides)))


def tables(path):
    """Return all columns of a trace but the wall clock's."""
    with open_trace(path) as trace:
        assert trace.state == "complete"
        return {
            (name, column): trace.table(name).read(column)
            for name in trace.tables
            for column in trace.table(name).columns
            if column != CLOCK
        }


def check_same(one, other):
    """Two mappings hold the same bits."""
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.tobytes() == other[name].tobytes(), name


@pytest.mark.parametrize(
    ("kills", "overrides", "options"),
    [
        (20, ["training.epochs=60"], []),
        (3, ["training.epochs=3", "hardware.jitter=0.5"], ["--engine", "event"]),
        (3, ["training.epochs=40", "learning.rule=adam"], ["--engine", "backprop"]),
    ],
    ids=["fast", "event", "backprop"],
)
def test_killed_and_resumed(tmp_path, kills, overrides, options):
    """SIGKILL at random moments, start again: weights, learning rules' state and trace as if undisturbed."""
    settings = [part for override in overrides for part in ("--set", override)]
    chance, errors = random.Random(1), tmp_path / "errors"

    def command(folder):
        said = ["run", str(DIGITS), *settings, *options, "--threads", "1"]
        return [*said, "--trace", str(folder / "run.h5"), "--checkpoint", str(folder), "--resume"]

    finished(start("run", str(DIGITS), "--no-trace", "--set", "training.epochs=1", errors=errors), errors)
    begun = time.monotonic()  # all is loaded now
    finished(start(*command(tmp_path / "whole"), errors=errors), errors)
    needed = time.monotonic() - begun
    for _ in range(kills):
        process = start(*command(tmp_path / "killed"))
        time.sleep(chance.uniform(0.0, 0.5) * needed)
        process.kill()
        process.join(60)
    last = [*PCSIM, *command(tmp_path / "killed")]
    last = subprocess.run(last, capture_output=True, check=False, timeout=120)
    assert last.returncode == 0, last.stderr
    check_same(*(load_file(tmp_path / name / FILE) for name in ("whole", "killed")))
    check_same(*(tables(tmp_path / name / "run.h5") for name in ("whole", "killed")))


class StopError(Exception):
    """Ends a run in the middle."""


class Stopper:
    """Progress that goes no further than two epochs."""

    def begin(self, label, steps):
        """Let it begin."""

    def step(self):
        """Let it go on."""

    def epoch(self, epoch):
        """End it after the second."""
        if epoch.epoch == 2:
            raise StopError


def test_two_runs_in_one_folder(tmp_path):
    """The second is turned away in a line while the first lives, however that ends."""
    command = [
        *PCSIM,
        "run",
        str(DIGITS),
        "--set",
        "training.epochs=100000",
        "--checkpoint",
        str(tmp_path / "c"),
    ]
    command += ["--no-trace", "--resume"]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not (tmp_path / "c" / FILE).exists():
            assert first.poll() is None
            time.sleep(0.02)
        second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert second.returncode == 2
        assert "another process trains there" in " ".join(second.stderr.split())
        assert first.poll() is None
    finally:
        first.kill()
        first.wait()
    with alone(tmp_path / "c"):  # and free again
        pass


def test_resumed_in_python(tmp_path):
    """Half a run, then the rest with new objects: an undisturbed run's weights, and its learning curve."""
    whole, half, rest = (digits("training.epochs=4") for _ in range(3))
    undisturbed = run(whole)
    with pytest.raises(StopError):
        run(half, checkpoint=tmp_path, progress=Stopper())
    resumed = run(rest, checkpoint=tmp_path, resume=True)
    curves = [[(one.epoch, one.test_accuracy) for one in made.curve] for made in (undisturbed, resumed)]
    assert curves[0] == curves[1]
    assert curves[0][-1] == (4, undisturbed.test_accuracy)
    for pair, other in zip(whole.network.parameters, rest.network.parameters, strict=True):
        assert [array.tobytes() for array in pair] == [array.tobytes() for array in other]


def test_what_is_refused(tmp_path):
    """A checkpoint is neither overwritten nor taken for another run's, and resuming needs a folder."""
    run(digits("training.epochs=1"), checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match="holds a checkpoint: give --resume"):
        run(digits("training.epochs=1"), checkpoint=tmp_path)
    with pytest.raises(
        CheckpointError, match=r"another experiment: training.seed is 0 in the checkpoint and 7 in this run"
    ):
        run(digits("training.epochs=1", "training.seed=7"), checkpoint=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="engine is fast in the checkpoint and event in this run"):
        run(digits("training.epochs=1"), engine="event", checkpoint=tmp_path, resume=True)
    with pytest.raises(ConfigurationError, match="give --checkpoint"):
        run(digits("training.epochs=1"), resume=True)


@pytest.mark.parametrize("damage", ["cut", "garbage", "foreign", "version", "missing", "shape"])
def test_damaged_checkpoints(tmp_path, damage):
    """One line that says checkpoint, whatever is wrong with it; nothing is overwritten."""
    experiment = digits("training.epochs=1")
    run(experiment, checkpoint=tmp_path)
    path = tmp_path / FILE
    arrays, whole = load_file(path), path.read_bytes()
    described = Task.build(experiment, "fast", None).describe()
    kept = Checkpoint.load(tmp_path, described)
    match damage:
        case "cut":
            path.write_bytes(whole[: len(whole) // 2])
        case "garbage":
            path.write_bytes(b"\xff" * 64)  # a header of 2^64 bytes, if believed
        case "foreign":
            save_file(arrays, path)
        case "version":
            path.write_bytes(whole.replace(b'\\"version\\": 2', b'\\"version\\": 9'))
        case "missing":
            Checkpoint(described, {"weight_0": arrays["weight_0"]}, kept.facts).save(tmp_path)
        case "shape":
            Checkpoint(described, arrays | {"weight_0": np.zeros((2, 2))}, kept.facts).save(tmp_path)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="checkpoint"):
        run(digits("training.epochs=1"), checkpoint=tmp_path, resume=True)
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_written(tmp_path):
    """A file where the folder should be: one line, and the file stays."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(PcsimError, match="cannot write"):
        run(digits("training.epochs=1"), checkpoint=tmp_path / "file" / "folder")
    assert (tmp_path / "file").read_text() == "mine"
