"""A run that is really killed leaves a trace that everybody can open."""

import random
import time
from pathlib import Path

import h5py
import numpy as np
import xarray
from command_line import start

import pcsim

ROOT = Path(__file__).parents[2]
KILLS = 20


def test_sigkill_at_random_moments(tmp_path):
    """Whatever had been flushed is there: for h5py, for xarray, and for pcsim, with no repair step."""
    rng, data = np.random.default_rng(0), tmp_path / "data.npz"
    inputs, labels = rng.random((640, 64)), rng.integers(0, 10, 640)
    np.savez(data, x_train=inputs, y_train=labels, x_test=inputs[:20], y_test=labels[:20])
    moments, found = random.Random(1), 0
    for kill in range(KILLS):
        path = tmp_path / f"{kill}.h5"
        options = ["--set", "data.name=npz", "--set", f"data.path={data}", "--set", "training.epochs=100000"]
        options += ["--set", "trace.flush_seconds=0.02", "--set", "trace.every=1", "--engine", "event"]
        process = start("run", ROOT / "models/digits.toml", *options, "--trace", path)
        while not path.exists():
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.4))
        process.kill()
        process.join(60)
        found += check(path)
    assert found > KILLS * 10  # most kills came after many recorded steps


def check(path):
    """Open the file in three ways; return how many training steps it holds."""
    with pcsim.open_trace(path) as trace:
        assert trace.state == "running"
        trace.verify()
        steps = trace.table("summary").read("step")
        energy = trace.table("summary").read("free_energy")
        table = trace.table("events")
        names, start, end = table.decode("name"), table.read("start"), table.read("end")
    assert np.array_equal(steps, np.arange(len(steps)))
    assert np.isfinite(energy).all()
    assert len(names) == len(start) == len(end)
    assert (end >= start).all()
    with h5py.File(path, "r") as file:
        assert len(file["summary/step"]) >= len(steps)
    with xarray.open_dataset(path, group="summary", engine="h5netcdf") as summary:
        assert summary["free_energy"].dims == ("step", "iteration", "layer")
    return len(steps)
