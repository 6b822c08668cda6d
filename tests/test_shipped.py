"""Model files by name: found from any folder, and never taken for something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from pcsim.config import load_model
from pcsim.errors import ConfigurationError
from pcsim.shipped import find_model, models_folder, names_model

MODELS = Path(__file__).parents[1] / "models"


def test_every_model_by_its_name(tmp_path, monkeypatch):
    """`pcsim run digits` works in any folder, even where there is a folder of that name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert models_folder() == MODELS
    for path in MODELS.glob("*.toml"):
        assert find_model(path.stem) == path
        assert names_model(Path(path.stem))
    assert load_model("digits").name == "digits"


def test_own_files_come_first(tmp_path, monkeypatch):
    """A file, with or without suffix, is what is meant; a path is never replaced by a shipped model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").write_text((MODELS / "digits_conv.toml").read_text())
    assert load_model("digits").network.layers == load_model("digits_conv").network.layers
    assert not names_model(Path("digits"))
    for path in ("digits.toml", "./digits.toml", "models/digits", str(MODELS / "digits")):
        assert find_model(path) == Path(path)
    with pytest.raises(ConfigurationError, match=r"digits\.toml: No such file"):
        load_model("digits.toml")


def test_a_name_that_is_none(tmp_path, monkeypatch):
    """One line with the nearest name."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"model 'digts': no such file.* did you mean 'digits'"):
        find_model("digts")
    assert not names_model(Path("run.h5"))


def test_a_name_that_no_file_can_have(tmp_path, monkeypatch):
    """Python asks the system for such a file, which refuses the question: no traceback comes of it."""
    monkeypatch.chdir(tmp_path)
    long = "x" * 300
    assert not names_model(Path(long))
    with pytest.raises(ConfigurationError, match="no such file"):
        find_model(long)
