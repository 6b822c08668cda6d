"""Where files and folders may go: a name that is taken gets one answer, whoever asks."""

from __future__ import annotations

import os
from pathlib import Path

from pcsim.errors import ConfigurationError


def what_is(path: Path) -> str:
    """Say what has this name."""
    if path.is_file():
        return "a file"
    return "a folder" if path.is_dir() else "a device or a pipe"


def from_here(path: Path) -> str:
    """Write a path; of a relative one also the folder that it counts from."""
    return str(path) if path.is_absolute() else f"{path} (in {Path.cwd()})"


def check_new_file(path: Path, overwrite: bool) -> None:
    """Look whether a file may get this name; the file system may still refuse it.

    Raises:
        ConfigurationError: something else has the name, or a file that is not to be overwritten.
    """
    _check(path, overwrite, "a file")


def check_new_folder(path: Path, overwrite: bool) -> None:
    """Look whether a folder may get this name, or is to be written into.

    Raises:
        ConfigurationError: something else has the name, or a folder that is not to be overwritten.
    """
    _check(path, overwrite, "a folder")


def at_home(path: str | os.PathLike[str]) -> Path:
    """Return a path with ~ as the user's home.

    Raises:
        ConfigurationError: the user has none, as in some containers.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigurationError(f"{path}: this user has no home: expected a path without ~") from error


def taken(path: Path) -> str:
    """Say that a name is taken, and what to do about it."""
    return f"{path} exists; pass --force (in Python overwrite=True) to overwrite it"


def _check(path: Path, overwrite: bool, wanted: str) -> None:
    try:
        there = what_is(path) if path.exists() else wanted
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error
    if there != wanted:
        raise ConfigurationError(f"{path} is {there}: expected the name of {wanted}")
    if path.exists() and not overwrite:
        raise ConfigurationError(taken(path))
