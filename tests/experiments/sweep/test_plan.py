"""Sweep files: what they come to, and one line for each thing that can be wrong with them."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pcsim.cli import app
from pcsim.errors import ConfigurationError, DataError
from pcsim.experiments.sweep.plan import HELD_OUT, read_plan


def test_what_a_sweep_comes_to(sweep_file):
    """Two grids, draws for each of their combinations, seeds for all; what comes twice is done once."""
    path = sweep_file(
        'set = ["training.epochs=3"]\nseeds = [0, 1]\n'
        "[[grid]]\nlearning.rate = [1e-3, 1e-2]\n"
        '[[grid]]\nlearning.rate = [1e-3]\nschedule.order = "simultaneous"\n'
        "[random]\ndraws = 2\n[random.keys]\nschedule.iterations = {low = 1, high = 9}\n"
    )
    plan = read_plan(path)
    assert len(plan.configurations) == 6
    assert len(plan.runs) == 12
    assert {run.epochs for run in plan.runs} == {3}
    assert plan.epochs == 3
    for run in plan.runs:
        assert run.model["training"]["seed"] == run.seed
        assert run.model["learning"]["rate"] == run.settings["learning.rate"]
        assert run.model["schedule"]["iterations"] == run.settings["schedule.iterations"]
    twice = sweep_file("grid.learning.rate = [1e-3, 0.001]", "twice")
    assert len(read_plan(twice).runs) == 1


def test_a_run_keeps_its_name(sweep_file, tmp_path):
    """Where data lie, what the study is called and how a setting came about do not matter; numbers do."""
    one = read_plan(sweep_file("grid.learning.rate = 1e-2", "one")).runs[0]
    for text in ('set = ["learning.rate=0.01"]', 'set = ["learning.rate=1e-2", "description=other"]'):
        assert read_plan(sweep_file(text), tmp_path).runs[0].run == one.run
    for text in ('set = ["learning.rate=0.02"]', "seeds = [1]", 'engine = "event"'):
        assert read_plan(sweep_file(text)).runs[0].run != one.run
    seeds = read_plan(sweep_file("seeds = [0, 1]")).runs
    assert seeds[0].configuration == seeds[1].configuration
    assert seeds[0].run != seeds[1].run


def test_samples_are_held_out(sweep_file):
    """A model that holds none out does so in a sweep; one that does keeps its share."""
    assert read_plan(sweep_file("")).runs[0].model["data"]["validation_fraction"] == 0.2
    path = sweep_file('set = ["data.validation_fraction=0.0"]')
    assert read_plan(path).runs[0].model["data"]["validation_fraction"] == HELD_OUT
    shipped = path.with_name("shipped.toml")
    shipped.write_text('model = "digits"\n')
    assert f"data.validation_fraction={HELD_OUT}" in read_plan(shipped).runs[0].overrides


BAD = {
    "grid = 3": r"grid = 3: expected a table of model-file keys",
    "seeds = []": r"seeds = \[\]: expected a list of whole numbers",
    "seeds = [-1]": r"seeds.0 = -1: expected a list of whole numbers",
    "seed = [0]": r"seed = \[0\]: unknown key: did you mean 'seeds'",
    "[halving]\nfactor = 1": r"halving.factor = 1: expected a whole number from 2",
    "[halving]\nfirst = 2": r"halving.first = 2: expected fewer than training.epochs = 2",
    "[halving]\n[grid]\ntraining.epochs = [2, 4]": r"training.epochs from 2 to 4: expected the same",
    "grid.learning.rat = [1.0]": r"learning.rat = 1.0: unknown key: did you mean 'rate'",
    "grid.learning.rate = [-1.0]": r"override 'learning.rate=-1.0'.*expected a number greater than 0",
    "grid.training.seed = [1]": r"training.seed is swept: expected seeds =",
    'set = ["training.seed=1"]': r"set holds training.seed: expected seeds =",
    'set = ["nonsense"]': r"expected section.key=value",
    "set = [3]": r"set.0 = 3: expected a list of",
    "[random]\nkeys = {}": r"random.draws is missing: expected how many draws",
    "[random]\ndraws = 1\nkeys = {}": r"random.keys = \{\}: expected a table",
    "[random]\ndraws = 1\nkeys.learning.rate = {low = 1, high = 0}": r"keys.learning.rate = .*low < high",
    "grid.learning.rate = 1.0\n[random]\ndraws = 1\nkeys.learning.rate = [1.0]": r"in grid and random",
    "grid.engine = 'quantum'": r"engine = 'quantum': expected one of fast, event, backprop",
    "grid.training.epochs = [0]": r"training.epochs = 0: expected at least 1",
    "[random]\ndraws = 100000\nkeys.learning.rate = [1.0]": r"more than 20,000 runs",
    "grid = {": r"broken TOML",
    "name = 'a/b'": r"name = 'a/b': expected a name of letters",
    "slurm.walltime = 3": r"slurm.walltime = 3: expected text such as",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_files_get_one_line(sweep_file, text):
    """File, key, what was given and what was expected, before anything is run."""
    path = sweep_file(text)
    with pytest.raises(ConfigurationError, match=BAD[text]) as caught:
        read_plan(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_bad_files_end_the_command(sweep_file, tmp_path, monkeypatch):
    """Nothing is made of a bad file, of one that is missing, or where something else lies already."""
    monkeypatch.chdir(tmp_path)
    missing = tmp_path / "none.toml"
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    for arguments, said in (
        ([str(sweep_file("seed = 1", "bad"))], "unknown key"),
        ([str(missing)], "No such file or directory: expected a readable sweep file"),
        ([str(sweep_file("")), "--study", str(other)], "is no study and not empty"),
        ([str(sweep_file("")), "--study", str(other / "thesis.txt")], "expected a folder"),
        ([str(sweep_file("")), "--scheduler", "tcp://x:1", "--workers", "2"], "workers of its own"),
    ):
        result = CliRunner().invoke(app, ["sweep", *arguments])
        assert type(result.exception).__name__ in ("ConfigurationError", "StudyError")
        assert re.search(said, str(result.exception))
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]
    assert not (tmp_path / "studies").exists()


def test_data_that_are_not_there_end_the_command(sweep_file, tmp_path, monkeypatch):
    """Every run would fail with the same line, after the folder of the study was made."""
    monkeypatch.chdir(tmp_path)
    path = sweep_file('grid.data.path = ["data.npz", "gone.npz"]\nset = ["data.name=npz"]')
    outcome = CliRunner().invoke(app, ["sweep", str(path)])
    assert isinstance(outcome.exception, DataError)
    assert f"data.npz (in {tmp_path}): no such file" in str(outcome.exception)
    assert not (tmp_path / "studies").exists()


def test_shipped_sweeps_have_names(tmp_path, monkeypatch):
    """The help's example works in any folder."""
    monkeypatch.chdir(tmp_path)
    outcome = CliRunner().invoke(app, ["sweep", "digits_rates", "--dry-run", "--json"])
    assert len(json.loads(outcome.stdout)["runs"]) == 45


def test_examples():
    """The sweep files that pcsim ships come to the runs that their comments promise."""
    folder = Path(__file__).parents[3] / "models" / "sweeps"
    found = {path.stem: read_plan(path) for path in folder.glob("*.toml")}
    sizes = {name: (len(plan.configurations), len(plan.runs)) for name, plan in found.items()}
    assert sizes == {"cifar10_rates": (15, 45), "digits_random": (24, 48), "digits_rates": (15, 45)}
    assert sum(run.engine == "backprop" for run in found["cifar10_rates"].runs) == 18
