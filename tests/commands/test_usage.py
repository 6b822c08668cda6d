"""What all commands share: wrong arguments get one line and exit code 2, Ctrl-C a line and 130."""

import sys

import pytest

from pcsim import cli


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
        (["run", "digits", "--engine", "wrong"], ["--engine", "'wrong'", "'backprop'"]),
        (["run", "digits", "--engine", "two\nlines"], ["--engine", "'event'"]),
        (["run", "digits", "--threads", "0"], ["--threads", "1"]),
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
