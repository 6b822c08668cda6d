"""The options of distributed runs, without starting any."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from pcsim.cli import app
from pcsim.errors import ConfigurationError

RUN = ["run", "digits", "--no-trace"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--processes", "2"], "--processes with --engine fast: expected --engine distributed"),
        (["--engine", "event", "--timeout", "3"], "--timeout with --engine event"),
        (["--engine", "distributed", "--order", "sequential", "--order", "red-black"], "at most one --order"),
        (["--engine", "distributed", "--timeout", "0"], "timeout = 0.0: expected seconds above 0"),
        (["--engine", "distributed", "--processes", "5"], "5 processes for 4 layers: expected 1 to 4"),
        (["--engine", "distributed", "--replicas", "3"], "3 replicas of a mini-batch of 32"),
        (["--engine", "distributed", "--order", "asynchronous"], "use --engine event"),
        (["--engine", "distributed", "--set", "messages.threshold=0.1"], "sends messages as they are"),
    ],
)
def test_what_is_refused(options, expected):
    """One line that says what to do, before any process is started."""
    result = CliRunner().invoke(app, [*RUN, *options])
    assert isinstance(result.exception, ConfigurationError)
    assert expected in str(result.exception)


def test_one_process_and_its_share():
    """One process is a team, too: its summary says what it did, for scripts."""
    options = ["--engine", "distributed", "--processes", "1", "--set", "training.epochs=1", "--json"]
    result = CliRunner().invoke(app, [*RUN, *options])
    assert result.exit_code == 0, result.output
    (summary,) = json.loads(result.stdout)
    (share,) = summary["shares"]
    assert share["layers"] == [0, 3]
    assert share["compute"] > 0
    assert share["communication"] == 0
