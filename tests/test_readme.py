"""The README's examples are run as they stand."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda code: code.split("\n")[-2][:30])
def test_python_examples_run(example, tmp_path, monkeypatch, capsys):
    """What a reader copies must work: it runs without an error and prints something."""
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_commands_exist():
    """Every command that the README names is one that the program has."""
    from typer.main import get_command

    from pcsim.cli import app

    named = set(re.findall(r"`pcsim (\w+)", (ROOT / "README.md").read_text()))
    assert named == set(get_command(app).commands)


def test_every_command_has_json():
    """The README promises it of each, so a script never has to read a table."""
    from typer.main import get_command

    from pcsim.cli import app

    def lacking(group, above=""):
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from lacking(command, f"{above}{name} ")
            elif not any("--json" in one.opts for one in command.params):
                yield f"{above}{name}"

    assert list(lacking(get_command(app))) == []
