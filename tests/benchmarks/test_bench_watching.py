"""Keeps the benchmark of looking on alive on a tiny network; no speed is asserted: nothing here is quiet."""

import json
import subprocess
import sys

import pytest

COMMAND = [
    sys.executable,
    "-m",
    "pcsim.experiments.bench.watching",
    "--tiny",
    "--rounds",
    "3",
    "--steps",
    "2",
]


@pytest.mark.parametrize("batch", ["1", "5"])
def test_everybody_is_timed(batch):
    """All four take turns on the same layers; the bare engine is one of itself."""
    found = json.loads(subprocess.check_output([*COMMAND, "--batch", batch, "--json"]))
    assert len(found) == 4
    assert all(one["milliseconds"]["median"] > 0 for one in found.values())
    assert next(iter(found.values()))["ratio"]["maximum"] == 1


def test_people_get_a_table():
    """A line each, in 80 columns."""
    lines = subprocess.check_output(COMMAND, text=True).splitlines()
    assert len(lines) == 6
    assert max(map(len, lines)) <= 80
