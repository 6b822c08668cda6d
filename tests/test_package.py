"""What is built is what is installed: wheel and sdist, tried out in an empty environment far from here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytest.importorskip("hatchling", reason="needs hatchling, in pcsim[dev]")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel that is made of the unpacked sdist, as an installer would make it."""
    folder = tmp_path_factory.mktemp("built")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder), "-t"]
    subprocess.run([*build, "sdist"], cwd=ROOT, check=True, capture_output=True)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    source = folder / sdist.name.removesuffix(".tar.gz")
    subprocess.run([*build, "wheel"], cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """Where `pcsim` of an environment lies that has the wheel, and our dependencies but not our checkout."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    packages = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*map(str, install), "--ignore-installed", str(built[1])], check=True, capture_output=True)
    return folder / "bin" / "pcsim"


def run(program, *arguments, cwd):
    """Run the installed program without anything of ours in its environment."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    outcome = subprocess.run(
        [str(program), *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


def files_of(wheel):
    """Names in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_the_package(built):
    """Every module, the models, the template of the report, py.typed, the licence; no tests, no caches."""
    names = files_of(built[1])
    ours = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "pcsim").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    ours |= {f"pcsim/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "models").rglob("*.toml")}
    assert {"pcsim/py.typed", "pcsim/report/report.html.jinja", "pcsim/models/digits.toml"} <= ours
    rest = names - ours
    assert not ours - names
    assert all(".dist-info/" in name for name in rest)
    assert any(name.endswith("licenses/LICENSE") for name in rest)


def test_the_metadata_is_what_pyproject_says(built):
    """What a package index shows, and what an installer decides by."""
    (name,) = (one for one in files_of(built[1]) if one.endswith("METADATA"))
    with zipfile.ZipFile(built[1]) as archive:
        told = Parser().parsestr(archive.read(name).decode())
    assert (told["Name"], told["License-Expression"], told["Requires-Python"]) == ("pcsim", "MIT", ">=3.11")
    classifiers = told.get_all("Classifier")
    assert all(f"Programming Language :: Python :: 3.{minor}" in classifiers for minor in (11, 12, 13))
    assert "Typing :: Typed" in classifiers


def test_the_sdist_holds_what_the_tests_need(built):
    """Somebody who packages pcsim for a distribution runs the tests from the sdist."""
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "CITATION.cff", "Makefile"}
    wanted |= {"constraints.txt", "mkdocs.yml", "tests/conftest.py", "docs/tutorial.md", "models/digits.toml"}
    assert wanted <= names
    assert {f"tests/golden/{path.name}" for path in (ROOT / "tests" / "golden").glob("*.npz")} <= names
    assert not any("__pycache__" in name or name.startswith((".venv", ".git/", ".ci/art")) for name in names)


def test_an_installed_pcsim_trains_anywhere(installed, tmp_path):
    """Outside the repository, by a bare name: the promise of the first line that a newcomer types."""
    # The fast kernels would be compiled first, which takes half a minute in a new environment.
    command = ["run", "digits", "--set", "training.epochs=1", "--backend", "reference", "--json"]
    (summary,) = json.loads(run(installed, *command, cwd=tmp_path))
    assert summary["training_steps"] == 44
    assert (tmp_path / "traces" / "digits-sequential.h5").is_file()
    where = run(installed.with_name("python"), "-c", "import pcsim; print(pcsim.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parents[1])


def test_an_installed_pcsim_lists_its_models(installed, tmp_path):
    """All of them, from its own folder, and each can be shown."""
    told = json.loads(run(installed, "models", "--json", cwd=tmp_path))
    assert {one["name"] for one in told} == {path.stem for path in (ROOT / "models").glob("*.toml")}
    assert all(Path(one["path"]).is_relative_to(installed.parents[1]) for one in told)
    assert "941 k" in run(installed, "info", "cifar10_conv", cwd=tmp_path)
