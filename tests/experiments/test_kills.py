"""Runs that are really killed, twenty times, and taken up again: not a bit is lost.

Processes are forked, so that no kill costs the start of an interpreter. Half of the kills come at random
moments, half at a chosen point within the writing of a checkpoint.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import pcsim
from pcsim.errors import CheckpointError
from pcsim.experiments.checkpoint import FILE, VERSION
from pcsim.experiments.run import run
from pcsim.kernels import reference
from pcsim.tracing import open_trace

KILLS = 10  # an engine
CLOCK = "seconds"  # the one column that may differ
DATA = Path(__file__).parent / "data"


def experiment(epochs=12, seed=0):
    """Return a run of some tenths of a second that draws random numbers and carries state."""
    rng = np.random.default_rng(3)
    classes = rng.integers(0, 3, 200)
    inputs = rng.random((200, 6)) + classes[:, np.newaxis]
    dataset = dataset_of(inputs, classes)
    return pcsim.Experiment(
        network=pcsim.Network.dense([6, 5, 4, 3], seed=1),
        dataset=dataset,
        rule=pcsim.MQ(1e-2),
        schedule=pcsim.Schedule("sequential", iterations=2),
        batch=20,
        epochs=epochs,
        seed=seed,
        record_every=3,
        flush_seconds=0.01,
    )


def dataset_of(inputs, classes):
    """Return a data set of a file that is made for it."""
    folder = Path(os.environ["PCSIM_TEST_FOLDER"])
    path = folder / "data.npz"
    if not path.exists():
        np.savez(path, x_train=inputs, y_train=classes, x_test=inputs[:40], y_test=classes[:40])
    return pcsim.load_dataset("npz", path=str(path))


@pytest.fixture(autouse=True)
def folder_of_data(tmp_path_factory, monkeypatch):
    """Keep the data of all tests of a session in one place."""
    monkeypatch.setenv("PCSIM_TEST_FOLDER", str(tmp_path_factory.getbasetemp()))


def train(folder, engine, fatal):
    """Run, or go on; `fatal` is where within the writing of which checkpoint to die, None nowhere."""
    if fatal is not None:
        die_within(*fatal)
    run(
        experiment(),
        engine=engine,
        kernels=reference,
        trace=folder / "run.h5",
        checkpoint=folder,
        resume=True,
    )


def die_within(where, countdown):
    """Let this process kill itself in the middle of a checkpoint: no handler, no cleaning up."""
    left = [countdown]

    def fatal(real):
        def call(*arguments, **named):
            left[0] -= 1
            if left[0]:
                return real(*arguments, **named)
            if where == "half":  # of the file is written
                os.ftruncate(arguments[0], 100)
            if where == "after":
                real(*arguments, **named)
            os.kill(os.getpid(), signal.SIGKILL)
            return None

        return call

    if where == "half":
        os.fsync = fatal(os.fsync)
    else:
        Path.replace = fatal(Path.replace)


def start(folder, engine, fatal=None):
    """Fork a process that trains."""
    process = multiprocessing.get_context("fork").Process(target=train, args=(folder, engine, fatal))
    process.start()
    return process


def tables(path):
    """Return all columns of a trace but the wall clock's; the trace must be whole."""
    with open_trace(path) as trace:
        assert trace.state == "complete"
        trace.verify()
        return {
            (name, column): trace.table(name).read(column).tobytes()
            for name in trace.tables
            for column in trace.table(name).columns
            if column != CLOCK
        }


@pytest.mark.parametrize("engine", ["fast", "event"])
def test_killed_ten_times_an_engine(tmp_path, engine):
    """Weights, the rule's state and the whole trace are those of a run that nobody disturbed."""
    chance = random.Random(f"kills of {engine}")
    whole = made(tmp_path / "whole")
    begun = time.monotonic()
    assert ended(start(whole, engine)) == 0
    needed = time.monotonic() - begun
    deaths, runs = 0, 1
    killed = made(tmp_path / "killed-1")
    while deaths < KILLS:
        if deaths % 2:
            process = start(
                killed, engine, (chance.choice(["half", "before", "after"]), chance.randint(1, 2))
            )
        else:
            process = start(killed, engine)
            time.sleep(chance.uniform(0.05, 0.3) * needed)
            process.kill()
        code = ended(process)
        assert code in (0, -signal.SIGKILL)
        deaths += code != 0
        if code == 0:  # it was faster than the kill: the next kills are another run's
            check_same(killed, whole)
            runs += 1
            killed = made(tmp_path / f"killed-{runs}")
    assert ended(start(killed, engine)) == 0
    check_same(killed, whole)


def made(folder):
    """Return a new folder."""
    folder.mkdir()
    return folder


def ended(process):
    """Wait for a process; return how it has ended."""
    process.join(60)
    return process.exitcode


def check_same(folder, whole):
    """The same bits in checkpoint and trace, and nothing beside them that somebody could take for either."""
    ours, expected = load_file(folder / FILE), load_file(whole / FILE)
    assert ours.keys() == expected.keys()
    assert [name for name in ours if ours[name].tobytes() != expected[name].tobytes()] == []
    assert tables(folder / "run.h5") == tables(whole / "run.h5")
    others = {path.name for path in folder.iterdir()} - {FILE, "run.h5"}
    assert [name for name in others if not name.startswith(".")] == []


@pytest.mark.parametrize("version", [0, VERSION + 1, "1.0", None])
def test_other_versions_are_refused_by_name(tmp_path, version):
    """What another pcsim has written is neither misread nor overwritten."""
    run(experiment(epochs=1), kernels=reference, checkpoint=tmp_path)
    path = tmp_path / FILE
    whole = path.read_bytes()
    name = {None: "null", "1.0": '\\"1.0\\"'}.get(version, str(version))
    old, new = f'\\"version\\": {VERSION}'.encode(), f'\\"version\\": {name}'.encode()
    assert old in whole
    length = int.from_bytes(whole[:8], "little")
    header = whole[8 : 8 + length].replace(old, new)
    damaged = len(header).to_bytes(8, "little") + header + whole[8 + length :]
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=f"checkpoint version {version}: expected {VERSION}"):
        run(experiment(epochs=2), kernels=reference, checkpoint=tmp_path, resume=True)
    assert path.read_bytes() == damaged


def test_a_checkpoint_of_version_1_loads(tmp_path):
    """A file of the time when there was no other version: a new format must not lose old runs."""
    shutil.copy(DATA / "checkpoint-v1.safetensors", tmp_path / FILE)
    resumed, whole = experiment(), experiment()
    run(resumed, kernels=reference, checkpoint=tmp_path, resume=True)
    run(whole, kernels=reference)
    for pair, other in zip(resumed.network.parameters, whole.network.parameters, strict=True):
        for ours, expected in zip(pair, other, strict=True):
            assert np.allclose(ours, expected, rtol=1e-5, atol=1e-6)
