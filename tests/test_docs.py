"""The documentation: it builds strictly, its code runs, its drawings are fresh, it names what there is."""

from __future__ import annotations

import importlib.util
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from pages import run_page
from typer.main import get_command
from typer.testing import CliRunner

import pcsim
from pcsim.cli import app
from pcsim.config import load_model

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
HOW_TO = sorted((DOCS / "how-to").glob("*.md"))


def commands(group=None, above=("pcsim",)):
    """Every command and group of the program, as words and object."""
    group = group or get_command(app)
    yield above, group
    for name, command in getattr(group, "commands", {}).items():
        yield from (
            commands(command, (*above, name)) if hasattr(command, "commands") else [((*above, name), command)]
        )


COMMANDS = dict(commands())


@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: page.stem)
def test_how_to_pages_run(page, tmp_path, monkeypatch):
    """What a reader copies works, and prints what the page says that it prints."""
    monkeypatch.chdir(tmp_path)
    run_page(page)


def script(path):
    """A script beside the pages, as a module."""
    specification = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("order", ["sequential", "simultaneous"])
def test_drawings_are_what_the_engine_does(order):
    """The pictures of the two schedules come from the event engine; they must not fall behind it."""
    schedules = script(DOCS / "drawings" / "schedules.py")
    assert schedules.draw(order) == (DOCS / "drawings" / f"{order}.svg").read_text()


def test_every_key_of_a_model_file_is_in_the_reference():
    """Keys, types, defaults and ranges are those that models are checked with."""
    page = (DOCS / "model-file.md").read_text()
    assert script(DOCS / "model_file.py").renewed(page) == page, "run python docs/model_file.py"


def test_the_reference_reads_its_own_data(tmp_path, monkeypatch):
    """The arrays that the page makes are such as it describes, and its model file is one."""
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "model-file.md").read_text()
    text, code = (page.split(f"```{word}\n")[1] for word in ("toml", "python"))
    exec(code.split("```")[0], {})
    data = pcsim.load_dataset("npz", path="mine.npz")
    assert (data.features, data.classes, len(data.test_inputs)) == (20, 2, 200)
    (tmp_path / "mine.toml").write_text(text.split("```")[0])
    assert load_model("mine.toml").training.epochs == 5


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make docs` builds it, but in a copy and with all proxies pointing nowhere."""
    pytest.importorskip("zensical", reason="needs zensical, in pcsim[dev]")
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(DOCS, folder / "docs")
    (folder / "traces").mkdir()
    shutil.copy(ROOT / "traces" / "README.md", folder / "traces")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    (folder / "pcsim").symlink_to(ROOT / "pcsim")
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    build = [sys.executable, "-m", "zensical", "build", "--strict"]
    environment = os.environ | nowhere | {"NO_COLOR": "1"}
    outcome = subprocess.run(
        build, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr[-3000:]
    return folder / "site"


def test_the_site_builds_strictly(site):
    """No broken link, no reference to a name that is gone, a page for each page."""
    for page in PAGES:
        assert (site / page.relative_to(DOCS)).with_suffix(".html").is_file(), page


def test_the_site_loads_nothing_from_elsewhere(site):
    """It can be read on a train, and nobody learns who reads it."""
    loads = re.compile(
        r'<(?:script|img|iframe)[^>]*\ssrc="?(?:https?:)?//|<link[^>]*\bhref="?(?:https?:)?//[^>]*stylesheet'
        r'|<link[^>]*stylesheet[^>]*\bhref="?(?:https?:)?//'
    )
    for page in site.rglob("*.html"):
        assert not loads.search(page.read_text()), page
    assert 'src="drawings/sequential.svg"' in (site / "concepts.html").read_text()


def test_the_reference_has_every_public_name(site):
    """Whatever `import pcsim` gives is in the reference, under that name or where it lives."""
    html = "".join(page.read_text() for page in (site / "api").glob("*.html"))
    for name in pcsim.__all__:
        home = getattr(pcsim, name)
        ids = (f"pcsim.{name}", f"{home.__module__}.{name}")
        assert any(f'id="{one}"' in html or f"id={one}" in html for one in ids), name


def test_navigation():
    """Every page can be found, and every entry leads somewhere."""

    def leaves(entries):
        for entry in entries:
            (value,) = entry.values()
            yield from leaves(value) if isinstance(value, list) else [value]

    listed = list(leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in PAGES), "see nav in mkdocs.yml"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_help_has_an_example(words):
    """An example says what a list of options cannot; and it starts with the command itself."""
    if words == ("pcsim",):
        return
    said = COMMANDS[words].help or ""
    examples = re.findall(r"`(pcsim [^`]*)`", said[said.find("Example") :] if "Example" in said else "")
    assert examples, f"{' '.join(words)} --help has no `Example: ...`"
    assert all(example.split()[: len(words)] == list(words) for example in examples[:1]), examples


def test_the_first_screen_is_one_screen():
    """`pcsim --help` on a terminal of 80 columns and 24 lines, nothing cut short, a line for the prompt."""
    outcome = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    lines = outcome.stdout.rstrip("\n").split("\n")
    assert outcome.exit_code == 0
    assert len(lines) <= 24
    assert all(len(line) <= 80 for line in lines)
    assert not any(line.endswith("...") for line in lines)
    for words in COMMANDS:
        if len(words) == 2:
            assert any(line.startswith(f"  {words[1]} ") for line in lines), words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_documented_commands_exist(page):
    """A command in the documentation is one that the program has, with the options that it has."""
    text = page.read_text().replace("\\\n", " ")
    found = re.findall(r"`(pcsim [^`]+)`", text.replace("\n", " "))
    for block in re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        found += re.findall(r"^\s*(pcsim .*)$", block, re.MULTILINE)
    for command in found:
        words = command.split()
        if len(words) < 2 or not words[1].isidentifier():
            continue
        path = next((path for path in (tuple(words[:3]), tuple(words[:2])) if path in COMMANDS), None)
        assert path, f"{page.name}: {command}"
        options = {name for one in COMMANDS[path].params for name in (*one.opts, *one.secondary_opts)}
        named = set(re.findall(r"(?<=\s)--[a-z][a-z-]*", command.split(" | ")[0].split(" > ")[0]))
        assert named <= options | {"--help"}, f"{page.name}: {command}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_documented_names_exist(page):
    """A name of the package in the text is one that can be imported."""
    for name in re.findall(r"`(pcsim(?:\.[A-Za-z_]\w*)+)(?=[`(])", page.read_text()):
        assert pkgutil.resolve_name(name) is not None, name


def test_citation_and_version_agree():
    """Whoever cites pcsim cites the version that is there."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (cited["version"], cited["license"], cited["cff-version"]) == (version, "MIT", "1.2.0")


def test_pre_commit_and_ci_run_what_a_developer_runs():
    """One definition of what must hold: `make lint` and `.ci/run`."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [hook["entry"] for hook in hooks] == ["make lint"]
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert {"run": ".ci/run"} in jobs["check"]["steps"]
    assert jobs["check"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert "make lint" in (ROOT / ".ci" / "run").read_text()
