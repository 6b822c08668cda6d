"""Where pcsim keeps things when there is no home, or a stranger has been there."""

import os
from pathlib import Path

import pytest

from pcsim.kernels.cache import cache_folder, temporary_folder


@pytest.fixture(autouse=True)
def homeless(tmp_path, monkeypatch):
    """A user who has no home, and temporary folders of our own."""

    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("PCSIM_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_without_a_home(tmp_path):
    """Containers run under numbers that no user has; a run ended before it began."""
    assert cache_folder() == tmp_path / f"pcsim-{os.getuid()}"
    assert cache_folder().stat().st_mode & 0o777 == 0o700


def test_the_user_decides(tmp_path, monkeypatch):
    """What PCSIM_CACHE says goes before all else."""
    monkeypatch.setenv("PCSIM_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"


@pytest.mark.parametrize("kind", ["link", "file", "writable for all"])
def test_a_stranger_was_there(tmp_path, kind):
    """Code is loaded from it: a folder that others can write to is not trusted."""
    place, elsewhere = tmp_path / f"pcsim-{os.getuid()}", tmp_path / "elsewhere"
    elsewhere.mkdir()
    if kind == "link":
        place.symlink_to(elsewhere)
    elif kind == "file":
        place.touch()
    else:
        place.mkdir()
        place.chmod(0o777)
    folder = temporary_folder()
    assert folder != place
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not list(elsewhere.iterdir())
