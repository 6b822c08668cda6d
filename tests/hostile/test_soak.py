"""A short soak, and that it sees what it looks for; `python tests/hostile/soak.py` is the long one."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from hostile import soak_processes, soak_report, soak_runs
from hostile.soak import TESTS, soak
from hostile.soak_files import differences, fingerprint, names_in, unreadable
from safetensors.numpy import load_file, save_file

import pcsim
from pcsim.experiments.checkpoint import FILE as CHECKPOINT
from pcsim.kernels import reference

SOAK = [sys.executable, str(TESTS / "hostile" / "soak.py")]


def test_a_short_soak(tmp_path, monkeypatch):
    """One round of a real run, really killed and resumed, beside the long-lived process: nothing is lost."""
    monkeypatch.setattr(soak_runs, "ALL", [soak_runs.Settings("fast", "mq", "sequential")])
    monkeypatch.setattr(soak_runs, "EPOCHS", {"fast": 40})
    monkeypatch.setattr(soak_runs, "KILLS", 1)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(TESTS), str(TESTS.parent))))
    soak(tmp_path, seconds=1, seed=1)
    report = soak_report.report(soak_report.read_lines(tmp_path))
    assert report.problems == []
    assert report.good
    assert (report.state, report.rounds) == ("complete", {"run": 1})
    assert 1 <= sum(report.kills.values()) < report.starts
    json.dumps(report.to_dict(), allow_nan=False)
    shown = subprocess.run(
        [*SOAK, "--show", str(tmp_path), "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(shown.stdout)["rounds"] == {"run": 1}


def test_an_interrupted_soak_says_what_it_saw(tmp_path):
    """Ctrl-C: the table up to then, no process left behind; the folder is not taken for a new soak."""
    command = [*SOAK, "--hours", "1", "-o", str(tmp_path), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not (tmp_path / "whole.log").exists():
        assert time.monotonic() < end
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert json.loads(out)["state"] == "interrupted"
    assert said.strip().splitlines()[-1] == "interrupted"
    assert psutil.wait_procs(children, timeout=20)[1] == []
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "holds a soak: give another folder" in again.stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the folder of a small run that has ended."""
    folder = tmp_path_factory.mktemp("soak") / "whole"
    experiment = pcsim.Experiment(
        network=pcsim.Network.dense([64, 8, 10], seed=1),
        dataset=pcsim.load_dataset("digits"),
        rule=pcsim.MQ(1e-3),
        schedule=pcsim.Schedule("sequential", iterations=2),
        batch=256,
        epochs=2,
    )
    pcsim.run(experiment, kernels=reference, trace=folder / soak_runs.TRACE, checkpoint=folder)
    return folder


def compared(folder, whole):
    """Return what the soak says of a run, beside the undisturbed one."""
    arrays = fingerprint(whole, soak_runs.TRACE)
    return soak_runs.compare(folder, soak_runs.Whole(arrays, names_in(whole), 1.0))


def test_another_bit_and_left_over_files_are_seen(whole, tmp_path):
    """A soak that misses a bit of one weight or a hidden file would praise anything."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    assert compared(folder, whole) == []
    (folder / f".{CHECKPOINT}.01234567.partial").touch()
    assert compared(folder, whole) == [f"left over: .{CHECKPOINT}.01234567.partial"]
    arrays = load_file(folder / CHECKPOINT)
    name = next(name for name, array in arrays.items() if array.size > 1)
    arrays[name] = arrays[name].copy()
    arrays[name].flat[1] = np.nextafter(arrays[name].flat[1], np.float32(9))
    save_file(arrays, folder / CHECKPOINT)
    assert compared(folder, whole)[0] == f"checkpoint {name} differs"


def test_lost_and_damaged_traces_are_seen(whole, tmp_path):
    """Rows of a trace that are missing, another column, a file that is cut off."""
    arrays = fingerprint(whole, soak_runs.TRACE)
    some = next(name for name in arrays if name.startswith("trace"))
    assert differences({**arrays, "trace x/y": "1"}, arrays) == ["trace x/y is too much"]
    assert differences(arrays, {**arrays, some: "0"}) == [f"{some} differs"]
    assert differences({}, {some: "0"}) == [f"{some} is missing"]
    cut = tmp_path / "cut.h5"
    assert unreadable(cut) == []  # a kill before the first flush leaves none
    cut.write_bytes((whole / soak_runs.TRACE).read_bytes()[:3000])
    assert "cannot be read after a kill" in unreadable(cut)[0]


def test_processes_that_stay_and_tracebacks_are_seen(tmp_path, monkeypatch):
    """What outlives its master is named and killed; Ctrl-C while Python starts is nobody's fault."""
    monkeypatch.setattr(soak_processes, "GONE", 0.5)
    log = tmp_path / "run.log"
    process = soak_processes.start(["sh", "-c", "sleep 300 & exit 0"], log)
    assert soak_processes.ended(process) == 0
    (said,) = soak_processes.orphans(process)
    assert "has outlived its master for 0 s: sleep 300" in said
    assert soak_processes.ended(soak_processes.start(["sleep", "300"], log), 0.2) is None
    head = "Traceback (most recent call last):\n  File x\n"
    log.write_text(f"{head}KeyboardInterrupt\nfine\n")
    assert soak_processes.complaints(log) == []
    log.write_text(f"{head}ValueError: no\n")
    assert soak_processes.complaints(log) == ["a traceback in run.log: ValueError: no"]


def samples(grows):
    """Return an hour of samples that grow by so many MiB an hour, after a start that does not count."""
    return [
        {
            "kind": "memory",
            "at": at,
            "own": 2**20 * (100 + grows * at / 3600 - 50 * (at < 300)),
            "files": 5,
            "threads": 2,
        }
        for at in range(5, 3600, 5)
    ]


def test_memory_that_grows_is_seen():
    """The warm-up does not count; 20 MiB an hour is not flat, 1 is; the slope is right."""
    for grows, flat in ((1, True), (20, False)):
        memory = soak_report.memory(samples(grows))
        assert memory.flat == flat
        assert memory.slope == pytest.approx(grows)
        assert memory.steady == pytest.approx(100 + grows * 540 / 3600, abs=0.1)
        assert memory.later == pytest.approx(100 + grows * 0.775, abs=0.2)
    assert soak_report.memory(samples(0)[:1]) is None


def test_the_report_counts():
    """Kills by what was killed, problems with their time; anything wrong makes the soak bad."""
    begin = {"kind": "begin", "at": 0, "seed": 3, "version": "x"}
    kills = [{"victim": "worker", "signal": "SIGKILL"}, {"victim": "run", "signal": "SIGINT"}]
    line = {"kind": "run", "kills": kills, "starts": 3, "checked": 2, "problems": [], "at": 7}
    lived = {"kind": "lived", "turns": 4, "runs": 8, "problems": [], "at": 8}
    report = soak_report.report([begin, line, line, lived])
    assert (report.state, report.good, report.starts, report.read, report.runs) == ("running", True, 6, 4, 8)
    assert report.kills == {"run, SIGINT": 2, "worker of a run, SIGKILL": 2}
    bad = soak_report.report([begin, line | {"problems": ["a differs"]}])
    assert (bad.good, list(bad.problems)) == (False, ["at 7 s: a differs"])
