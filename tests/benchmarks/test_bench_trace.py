"""Keeps `pcsim bench trace` alive on a tiny network; no speed is asserted, for nothing here is quiet."""

import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from pcsim.cli import app
from pcsim.errors import ConfigurationError
from pcsim.experiments.bench import trace
from pcsim.experiments.bench.plan import BenchError
from pcsim.experiments.bench.trace import Plan, TraceBench, run_trace_bench


def test_both_write_the_same(tmp_path):
    """The comparison means something only if both files hold the same in the same layout."""
    bench = TraceBench(Plan.tiny(1), tmp_path)
    one, other = tmp_path / "one.h5", tmp_path / "other.h5"
    for compression in ("none", "gzip"):
        one.unlink(missing_ok=True)
        assert bench._record(one, compression, 3) > 0
        assert trace._write_plain(other, one, trace._first_row(one), 3) > 0
        trace._check_equal(one, other)
        with h5py.File(one, "r") as first, h5py.File(other, "r") as second:
            names = [name for name in second if name != "step"]
            assert len(names) == 9  # 5 activities, 4 errors
            assert sum(second[name][0].nbytes for name in names) + 8 == bench.step_bytes
            assert all(
                second[name].compression == first["probes/everything"][name].compression for name in names
            )
            assert any(np.any(np.diff(second[name][0], axis=0)) for name in names)  # iterations differ
    with h5py.File(other, "r+") as file:
        file["error_2"][2, 1] = 7
    with pytest.raises(BenchError, match="error_2 of the two files differs"):
        trace._check_equal(one, other)


def test_the_command_reports_and_cleans_up(tmp_path):
    """As CI runs it: JSON with rates, ratios and sizes, and not a byte left behind."""
    command = [
        sys.executable,
        "-c",
        "from pcsim.cli import main; main()",
        "bench",
        "trace",
        "--tiny",
        "--json",
    ]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert [rate["compression"] for rate in told["rates"]] == ["none", "gzip"]
    for rate, reached in zip(told["rates"], told["reached"], strict=True):
        assert rate["recorder"]["median"] > 0
        assert rate["file_megabytes"] > 0
        assert reached == (rate["ratio"]["median"] >= told["goal"])
    assert [way["recording"] for way in told["beside"]] == ["nothing", "by a thread", "at once"]
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_is_said_beforehand(monkeypatch):
    """A benchmark must not fill the disk."""
    usage = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr(trace.shutil, "disk_usage", lambda name: usage)
    with pytest.raises(BenchError, match=r"MB free: expected .*; set TMPDIR"):
        run_trace_bench(Plan.tiny(1), print)


@pytest.mark.parametrize("option", ["--batch 3", "--burst 0.3", "--network dense"])
def test_it_takes_no_other_options(option):
    """An option that does nothing would mislead, also with the value that it has anyhow."""
    with pytest.raises(ConfigurationError) as refusal:
        CliRunner().invoke(app, ["bench", "trace", *option.split()], catch_exceptions=False)
    name = option.split()[0]
    assert str(refusal.value) == f"{name} with bench trace: expected only --rounds, --tiny and --json"


@pytest.mark.parametrize(
    ("options", "rounds"),
    [([], 5), (["--rounds", "7"], 7), (["--tiny"], 2), (["--tiny", "--rounds", "3"], 3)],
)
def test_it_takes_as_many_rounds_as_it_is_told(options, rounds, monkeypatch):
    """More than 5 were cut to 5 without a word."""
    heard = []

    def told(plan, tell):
        heard.append(plan.rounds)
        raise BenchError("enough")

    monkeypatch.setattr(trace, "run_trace_bench", told)
    with pytest.raises(BenchError, match="enough"):
        CliRunner().invoke(app, ["bench", "trace", *options], catch_exceptions=False)
    assert heard == [rounds]
