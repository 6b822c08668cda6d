"""Where compiled code is kept: never may code of yesterday's sources be run."""

import ast
import os
import time
from pathlib import Path

import numba
import pytest

from pcsim.engine import timing_kernels
from pcsim.engine.mesh import kernels as mesh_kernels
from pcsim.kernels import blocked, compiler, conv_loops, loops, mail, passes

MODULES = [blocked, conv_loops, loops, mail, mesh_kernels, passes, timing_kernels]
DECORATORS = {"compiled", "in_order", "instruction", "intrinsic"}


@pytest.fixture
def nowhere_yet(monkeypatch):
    """The folder is looked for anew, and forgotten afterwards."""
    monkeypatch.setattr(compiler, "code_folder", compiler.code_folder.__wrapped__)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_code_is_kept_in_our_folder(module):
    """Numba's own choice looks at the file of one function only: an update of another one then crashed."""
    dispatchers = [one for one in vars(module).values() if hasattr(one, "py_func")]
    assert dispatchers
    for one in dispatchers:
        assert Path(one._cache.cache_path).parent == compiler.code_folder()
    assert os.environ.get("NUMBA_CACHE_DIR", "") == numba.config.CACHE_DIR  # of the user's own functions


@pytest.mark.parametrize("source", compiler.SOURCES)
def test_each_source_counts(source, tmp_path, monkeypatch):
    """A change in any of them means another folder."""
    for one in compiler.SOURCES:
        (tmp_path / one).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / one).write_bytes((compiler.PACKAGE / one).read_bytes())
    before = compiler.fingerprint()
    monkeypatch.setattr(compiler, "PACKAGE", tmp_path)
    assert compiler.fingerprint() == before
    with (tmp_path / source).open("a") as file:
        file.write("# later\n")
    assert compiler.fingerprint() != before


def test_no_source_is_missing():
    """Whatever compiled functions take from a file of pcsim is in the list, and so are they."""
    for path in sorted(compiler.PACKAGE.rglob("*.py")):
        name, tree = path.relative_to(compiler.PACKAGE).as_posix(), ast.parse(path.read_text())
        taken = {
            alias.asname or alias.name: node.module
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("pcsim")
            for alias in node.names
        }
        for function in ast.walk(tree):
            decorators = getattr(function, "decorator_list", [])
            if not DECORATORS & {one.id for one in decorators if isinstance(one, ast.Name)}:
                continue
            assert name in compiler.SOURCES
            for used in ast.walk(function):
                if isinstance(used, ast.Name) and used.id in taken:
                    assert files(taken[used.id], used.id) & set(compiler.SOURCES), (name, used.id)


def files(module, name):
    """Return what files a name of a module may come from."""
    place = module.removeprefix("pcsim").lstrip(".").replace(".", "/")
    return {f"{place}.py", f"{place}/__init__.py", f"{place}/{name}.py"}


def test_a_folder_is_found_where_hardly_anything_can_be_written(tmp_path, monkeypatch, nowhere_yet):
    """The user's folder, the package, the cache, a temporary one; and at last code is not kept at all."""
    file = tmp_path / "no folder"
    file.touch()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(compiler, "fingerprint", lambda: "0")
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "user"))
    monkeypatch.setattr(compiler, "PACKAGE", tmp_path / "package")
    monkeypatch.setenv("PCSIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    found = [tmp_path / "user", tmp_path / "package" / "__pycache__", tmp_path / "cache"]
    found.append(tmp_path / "tmp" / f"pcsim-{os.getuid()}")
    assert compiler.code_folder() == found[0] / "pcsim-code-0"
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(file))
    assert compiler.code_folder() == found[1] / "pcsim-code-0"
    monkeypatch.setattr(compiler, "PACKAGE", file)
    assert compiler.code_folder() == found[2] / "pcsim-code-0"
    monkeypatch.setenv("PCSIM_CACHE", str(file / "below"))
    assert compiler.code_folder() == found[3] / "pcsim-code-0"
    monkeypatch.setattr(compiler, "temporary_folder", lambda: file)
    assert compiler.code_folder() is None
    assert compiler.jit(lambda x: x + 1)(1) == 2


def test_old_code_is_removed(tmp_path, monkeypatch, nowhere_yet):
    """An update leaves hundreds of files behind; code that is still used, and what is not ours, stays."""
    names = ["pcsim-code-old", "pcsim-code-used", "others"]
    for name in names:
        (tmp_path / name / "below").mkdir(parents=True)
    for name in ("pcsim-code-old", "others"):
        os.utime(tmp_path / name, (0, time.time() - compiler.KEPT - 60))
    monkeypatch.setattr(compiler, "fingerprint", lambda: "new")
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    compiler.code_folder()
    assert {path.name for path in tmp_path.iterdir()} == {"pcsim-code-used", "pcsim-code-new", "others"}


def test_use_keeps_a_folder(tmp_path, monkeypatch, nowhere_yet):
    """Code that is only loaded writes nothing, and must not look as if nobody used it."""
    monkeypatch.setattr(compiler, "fingerprint", lambda: "used")
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    folder = compiler.code_folder()
    os.utime(folder, (0, 0))
    compiler.code_folder()
    assert time.time() - folder.stat().st_mtime < 3600
