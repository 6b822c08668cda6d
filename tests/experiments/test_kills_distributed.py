"""A process of a distributed run dies or hangs: it ends in time, says who, and can be resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from pcsim.experiments.checkpoint import FILE
from pcsim.tracing import open_trace

PCSIM = [sys.executable, "-c", "from pcsim.cli import main; main()"]
CLOCK = "seconds"  # the one column that may differ
MODEL = """
[network]
layers = [6, 5, 4, 3]
dtype = "float64"
[data]
name = "npz"
path = "{data}"
[learning]
rule = "mq"
rate = 1e-2
[training]
epochs = {epochs}
batch = 20
[trace]
every = 3
[probe.all]
record = ["activity", "error", "prediction", "message", "update", "bias"]
every = 5
"""
START = 120  # s that a loaded machine may take to start processes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a model, and what a run in one process makes of it."""
    path = tmp_path_factory.mktemp("distributed")
    rng = np.random.default_rng(3)
    classes = rng.integers(0, 3, 200)
    inputs = rng.random((200, 6)) + classes[:, np.newaxis]
    np.savez(path / "data.npz", x_train=inputs, y_train=classes, x_test=inputs[:40], y_test=classes[:40])
    (path / "model.toml").write_text(MODEL.format(data=path / "data.npz", epochs=20))
    process = start(path, "whole", "--engine", "fast")
    assert process.wait(START) == 0, process.stderr.read()
    return path


def start(folder, name, *options, launcher=PCSIM):
    """Start a run that keeps its trace and its checkpoint in a folder of that name."""
    files = ["--trace", str(folder / name / "run.h5"), "--checkpoint", str(folder / name), "--resume"]
    (folder / name).mkdir(exist_ok=True)
    command = [*launcher, "run", str(folder / "model.toml"), "--backend", "reference", *files, *options]
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    )


def distributed(folder, name, processes, *options):
    """Start a run in so many processes."""
    return start(folder, name, "--engine", "distributed", "--processes", str(processes), *options)


def workers(pid):
    """Return the process ids of the workers of a run, by rank."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        for entry in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            if entry.startswith(b"RANK="):
                found[int(entry[5:])] = int(child)
    return found


def wait_for(condition, process):
    """Wait until something is there, while the run goes on."""
    end = time.monotonic() + START
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.01)


def check_same(folder, name):
    """Weights, the rule's state and all that the trace holds are those of a run in one process."""
    ours, expected = (load_file(folder / one / FILE) for one in (name, "whole"))
    assert ours.keys() == expected.keys()
    assert [key for key in ours if ours[key].tobytes() != expected[key].tobytes()] == []
    traces = [tables(folder / one / "run.h5") for one in (name, "whole")]
    assert traces[0].keys() == traces[1].keys()
    assert [key for key in traces[0] if traces[0][key] != traces[1][key]] == []


def tables(path):
    """Return all columns of a trace but the wall clock's."""
    with open_trace(path) as trace:
        assert trace.state == "complete"
        return {
            (name, column): trace.table(name).read(column).tobytes()
            for name in trace.tables
            for column in trace.table(name).columns
            if column != CLOCK
        }


def last_line(process):
    """Return the last thing a run has said, which is all that it says of an error."""
    text = process.stderr.read()
    assert "Traceback" not in text
    return text.strip().splitlines()[-1]


def test_a_killed_worker(folder):
    """SIGKILL of rank 2 of 3: named at once; resumed in two processes to the bits of one process."""
    process = distributed(folder, "killed", 3, "--timeout", "60")
    wait_for((folder / "killed" / FILE).exists, process)
    os.kill(workers(process.pid)[2], signal.SIGKILL)
    assert process.wait(30) == 2  # long before the timeout: a connection that closes is seen at once
    assert "error: rank 2 (layer" in (line := last_line(process))
    assert "was killed by SIGKILL" in line
    assert "--resume" in line
    resumed = distributed(folder, "killed", 2)
    assert resumed.wait(START) == 0, resumed.stderr.read()
    check_same(folder, "killed")


def test_a_hung_worker_and_a_killed_master(folder):
    """SIGSTOP of rank 1: named within the timeout. SIGKILL of rank 0: no worker stays behind."""
    process = distributed(folder, "hung", 2, "--timeout", "3")
    wait_for((folder / "hung" / FILE).exists, process)
    os.kill(workers(process.pid)[1], signal.SIGSTOP)
    begun = time.monotonic()
    assert process.wait(60) == 2
    assert time.monotonic() - begun < 15  # 3 s, and what a loaded machine needs to end two processes
    assert "error: rank 1 (layer" in (line := last_line(process))
    assert "has not been heard of for" in line
    again = distributed(folder, "hung", 2, "--timeout", "3")
    wait_for(lambda: workers(again.pid), again)
    orphan = workers(again.pid)[1]
    time.sleep(2)  # while it starts, joins or trains
    again.kill()
    again.wait(30)
    end = time.monotonic() + 30
    while Path(f"/proc/{orphan}").exists() and "Z" not in Path(f"/proc/{orphan}/stat").read_text().split()[2]:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_under_torchrun(folder):
    """The same command, started by torchrun in two processes: the same bits again."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launcher += ["--no-python", *PCSIM]
    process = start(folder, "torchrun", "--engine", "distributed", launcher=launcher)
    assert process.wait(START) == 0, process.stderr.read()
    check_same(folder, "torchrun")
