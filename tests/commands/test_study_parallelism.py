"""`pcsim study parallelism` and `pcsim study accuracy` on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pcsim.cli import app
from pcsim.errors import ConfigurationError
from pcsim.experiments.parallelism import runs as parallelism_runs
from pcsim.experiments.parallelism import search as parallelism_search
from pcsim.experiments.parallelism.needs import needs, smallest_enough
from pcsim.experiments.parallelism.runs import read_runs
from pcsim.theory.parallelism import counts

SMALL = ("study", "parallelism", "--depths", "2,3", "--cores", "1,8,64", "--width", "4")
PNG = b"\x89PNG\r\n\x1a\n"
RUNS = Path(__file__).parents[2] / "docs" / "parallelism" / "runs.jsonl"


def call(*arguments: str) -> str:
    """Run the command line and return what it prints."""
    outcome = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return outcome.stdout


def test_json_holds_the_numbers():
    """Scripts get what the tables round: work and span of every order, and the machine's name."""
    said = json.loads(call(*SMALL, "--json"))
    rows = {(row["hidden"], row["order"]): row for row in said["rows"]}
    for hidden in (2, 3):
        for order in ("backprop", "sequential", "simultaneous", "red-black", "bottom-up", "incremental"):
            form = counts(order, hidden + 1, 3)
            row = rows[hidden, order]
            assert (row["work"], row["span"], row["messages"]) == (
                16 * form.products,
                4 * form.span,
                form.messages,
            )
            assert row["makespans"][0] == row["work"]
    assert said["machine"]["name"] == "digital-45nm"
    assert said["batch"] == 64  # of which energies are
    assert {line["order"] for line in said["pipelines"]} >= {"sequential", "backprop"}


def test_tables_fit_a_terminal():
    """Nothing may be wider than 80 columns or cut off, and every order has its line."""
    said = call(*SMALL)
    assert max(map(len, said.splitlines())) <= 80 or "energies" in max(said.splitlines(), key=len)
    assert "…" not in said
    assert "energy of a mini-batch of 64" in said
    for order in ("backprop", "sequential", "simultaneous", "red-black", "bottom-up", "asynchronous"):
        assert order in said


def test_pictures_and_numbers_are_written(tmp_path):
    """Pictures must be real ones; a second run must not overwrite the numbers unasked."""
    out = tmp_path / "new" / "study"
    call(*SMALL, "-o", str(out))
    for name in ("speedup", "time", "map", "pipelines"):
        assert (out / f"{name}.png").read_bytes().startswith(PNG)
    before = (out / "numbers.json").read_bytes()
    with pytest.raises(ConfigurationError, match="--force"):
        call(*SMALL, "-o", str(out))
    call(*SMALL, "-o", str(out), "--force")
    assert (out / "numbers.json").read_bytes() == before, "the same question, the same bytes"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("--depths", "2,x"), "--depths"),
        (("--depths", "2,99999999"), "at most 4096 hidden layers"),
        (("--cores", "0"), "--cores"),
        (("--hardware", "loihi2019"), "loihi2018"),
        (("--accuracy-runs", "nothing.jsonl"), "nothing.jsonl"),
        (("-o", __file__), "folder"),
    ],
)
def test_bad_options_are_refused(arguments, hint):
    """A slip of the pen must be told in a line, before the work begins."""
    with pytest.raises(ConfigurationError, match=hint):
        call("study", "parallelism", *arguments)


def test_a_file_without_runs_is_refused(tmp_path):
    """Tables at equal T must not stand where somebody asked for T from trained runs."""
    nothing = tmp_path / "runs.jsonl"
    nothing.touch()
    outcome = CliRunner().invoke(app, [*SMALL, "--accuracy-runs", str(nothing)])
    assert isinstance(outcome.exception, ConfigurationError)
    assert str(outcome.exception).startswith(f"{nothing} holds no runs: expected a file that")


def test_exit_code_of_a_bad_option():
    """Scripts see exit code 2 and one line."""
    code = "from pcsim.cli import main; main()"
    outcome = subprocess.run(
        [sys.executable, "-c", code, "study", "parallelism", "--depths", "0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 2
    assert outcome.stderr.startswith("error: --depths 0")
    assert outcome.stderr.count("\n") == 1


def test_runs_of_the_documentation():
    """The committed runs must be readable and say what the page says of T."""
    rows = [need for need in needs(read_runs(RUNS)) if need.data == "digits"]

    def found(order: str) -> list[int]:
        smallest = (smallest_enough(rows, hidden, order) for hidden in (2, 4, 8))
        return [one.iterations for one in smallest if one is not None]

    assert found("sequential") == [1, 1, 1]
    assert found("simultaneous") == found("bottom-up") == [2, 4, 8]
    assert found("red-black") == [2, 3, 4]


def test_runs_set_the_iterations():
    """With runs the table shows the T that each order needs, and the time to the goal."""
    arguments = ("study", "parallelism", "--depths", "2", "--cores", "1,64", "--width", "4")
    said = call(*arguments, "--accuracy-runs", str(RUNS))
    assert "equal accuracy" in " ".join(said.split())
    assert "energy to the goal" in " ".join(said.split())
    assert "…" not in said


def test_accuracy_is_searched_for_and_gone_on_with(tmp_path, monkeypatch):
    """A small search really trains, and a second call finds everything in the file."""
    monkeypatch.setitem(parallelism_runs.EPOCHS, "digits", 2)
    monkeypatch.setattr(parallelism_search, "RATES", (3e-3,))
    monkeypatch.setattr(parallelism_search, "STEP_SIZES", (0.2,))
    monkeypatch.setattr("pcsim.experiments.parallelism.needs.RATES", (3e-3,))
    monkeypatch.setattr("pcsim.experiments.parallelism.needs.STEP_SIZES", (0.2,))
    file = tmp_path / "runs.jsonl"
    arguments = ("study", "accuracy", str(file), "--depths", "2", "--width", "16", "--most", "2")
    rows = json.loads(call(*arguments, "--json"))
    lines = file.read_text()
    assert {row["order"] for row in rows} >= {"backprop", "sequential", "simultaneous"}
    assert all(row["goal"] > 0.2 for row in rows)
    table = call(*arguments)
    assert file.read_text() == lines
    assert "2 hidden" in table
