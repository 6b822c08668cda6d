"""What all commands share: wrong arguments get one line and exit code 2, Ctrl-C a line and 130."""

import os
import pty
import re
import sys
from typing import get_args

import numpy as np
import pytest

import pcsim
from pcsim import cli
from pcsim.config import ScheduleConfig
from pcsim.errors import PcsimError
from pcsim.kernels import reference
from pcsim.terminal import ProgressBar


def call(*arguments, monkeypatch):
    """Run the program in this process; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["pcsim", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code or 0


@pytest.mark.parametrize(
    ("arguments", "saying"),
    [
        (["run", "digits", "--bogus"], ["pcsim run", "--bogus", "see pcsim run --help"]),
        (["run"], ["pcsim run", "MODEL", "see pcsim run --help"]),
        (["run", "digits", "--trace"], ["--trace"]),
        (
            ["run", "digits", "--engine", "wrong"],
            ["--engine = 'wrong': expected one of fast, event,", "backprop; see"],
        ),
        (["run", "digits", "--engine", "two\nlines"], ["--engine = 'two\\nlines'", "event"]),
        (["run", "digits", "--threads", "0"], ["--threads = '0': expected a number of at least 1"]),
        (["run", "digits", "--threads", "two"], ["--threads = 'two': expected a whole number"]),
        (["analyze", "x.h5", "--only", "errors"], ["--only = 'errors': expected one of", "'error-flow'?"]),
        (
            ["plot", "x.h5", "--kind", "erors"],
            ["--kind = 'erors': expected one of errors,", "'errors'?"],
        ),
        (["bench", "x"], ["= 'x': expected one of"]),
        (
            ["run", "digits", "--trace", "x", "--no-trace"],
            ["--trace x with --no-trace: it names", "leave out one"],
        ),
        (["run", "digits", "--trace", "x", "--order", "a", "--order", "b"], ["--trace x with 2 orders"]),
        (["run", "digits", "--threads", "2", "--backend", "cuda"], ["--threads 2", "expected --backend cpu"]),
        (["run", "digits", "--threads", "1", "--backend", "reference"], ["--threads 1", "no --threads"]),
        (["reproduce"], ["pcsim reproduce", "TARGET", "table2, fig1"]),
        (["bunch"], ["'bunch'", "Did you mean 'bench'", "see pcsim --help"]),
        (["study", "mesages"], ["pcsim study", "Did you mean 'messages'", "see pcsim study --help"]),
        (["study", "messages", "--bogus"], ["pcsim study messages", "--bogus"]),
        (["data", "fetch"], ["pcsim data fetch", "NAME"]),
    ],
    ids=" ".join,
)
def test_bad_arguments_get_one_line(arguments, saying, monkeypatch, capsys):
    """Typer would draw a frame of six lines around what the README promises in one."""
    assert call(*arguments, monkeypatch=monkeypatch) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1, told.err
    for part in saying:
        assert part in told.err


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["study"], 2), (["data"], 2)], ids=str)
def test_nothing_asked_shows_what_there_is(arguments, code, monkeypatch, capsys):
    """A newcomer types the bare name first: `pcsim` alone printed nothing at all."""
    assert call(*arguments, monkeypatch=monkeypatch) == code
    told = capsys.readouterr()
    assert "Usage: pcsim" in told.out
    assert told.err == ""


def test_every_command_says_that_it_was_interrupted(monkeypatch, capsys):
    """A command without a word of its own must not end as if it had crashed: `pcsim models` has none."""

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("pcsim.config.load_model", interrupted)
    assert call("models", monkeypatch=monkeypatch) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_help_says_what_to_type(monkeypatch, capsys):
    """`--force <bool>` made users type `--force true`; orders could be read nowhere else."""
    orders = get_args(ScheduleConfig.model_fields["order"].annotation)
    for command in (["run"], ["analyze"], ["data", "fetch"]):
        assert call(*command, "--help", monkeypatch=monkeypatch) == 0
        shown = capsys.readouterr().out
        assert "<bool>" not in shown
        assert "<list" not in shown
        assert command != ["run"] or all(order in shown for order in orders)


@pytest.fixture(scope="module")
def plain_trace(tmp_path_factory):
    """The trace of a run without probes."""
    place = tmp_path_factory.mktemp("plain") / "plain.h5"
    x, y = np.zeros((4, 3)), np.array([0, 1, 0, 1])
    data = pcsim.Dataset("zeros", x, y, x, y, 1.0, 2)
    experiment = pcsim.Experiment(pcsim.Network.dense([3, 2, 2]), data, pcsim.SGD(0.1), batch=4)
    pcsim.run(experiment, kernels=reference, trace=place)
    return place


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "digits", "--set", "training.batch=2000", "--no-trace"],
        ["analyze", "plain.h5", "--only", "backprop"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
def test_an_error_is_one_line_wherever_it_goes(arguments, terminal, plain_trace, monkeypatch):
    """A progress bar that had nothing to show left an empty line, or moved the cursor, before the error."""
    monkeypatch.chdir(plain_trace.parent)
    reader, writer = pty.openpty() if terminal else os.pipe()
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(writer, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        assert call(*arguments, monkeypatch=monkeypatch) == 2
    told = os.read(reader, 4096).decode()
    os.close(reader)
    assert re.fullmatch(r"error: [^\r\n\x1b]+\r?\n", told), told


def test_a_bar_vanishes_before_an_error(capsys):
    """A run that blows up half way has had a bar; in a file, too, only the line stays."""

    def blow_up():
        with ProgressBar() as bar:
            bar.begin("run", 10)
            bar.step()
            raise PcsimError("it blew up")

    with pytest.raises(PcsimError):
        blow_up()
    assert capsys.readouterr().err == ""
    with ProgressBar() as bar:
        bar.begin("run", 10)
    assert "run" in capsys.readouterr().err
