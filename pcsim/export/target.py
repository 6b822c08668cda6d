"""Where an export goes: it appears at once and whole, and nothing that is not ours is ever replaced."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from pcsim.errors import ConfigurationError
from pcsim.hidden_file import replacing
from pcsim.places import check_new_file, check_new_folder

MANIFEST = "manifest.json"
MADE_BY = "pcsim export"


@contextmanager
def new_file(path: Path, overwrite: bool, *, keep: Path) -> Iterator[BinaryIO]:
    """Give a file to write to; it gets its name when the block has ended well.

    Args:
        path: the file to make; a missing folder is created.
        overwrite: replace an existing file.
        keep: the trace, which is never replaced.

    Raises:
        ConfigurationError: something is in the way, or nothing can be written there.
    """
    _refuse_foreign(path, keep)
    check_new_file(path, overwrite)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            yield file


@contextmanager
def new_folder(path: Path, overwrite: bool, *, keep: Path) -> Iterator[Path]:
    """Give an empty folder to write into; it gets its own name when the block has ended well.

    Args:
        path: the folder to make.
        overwrite: replace a folder that an earlier export has made.
        keep: the trace, which is never replaced.

    Raises:
        ConfigurationError: something is in the way, or nothing can be written there.
    """
    _refuse_foreign(path, keep)
    check_new_folder(path, overwrite)
    if path.exists():
        _check_ours(path)
    temporary = _beside(path)
    try:
        with _writing(path):
            temporary.mkdir(parents=True)
            yield temporary
            _appear(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refuse_foreign(path: Path, keep: Path) -> None:
    """Refuse the trace's own name, and names of other files."""
    if path.resolve() == keep.resolve():
        raise ConfigurationError(f"{path} is the trace itself: expected another name")
    if path.is_symlink():
        raise ConfigurationError(f"{path} is a symbolic link: expected a name of its own")


def _check_ours(folder: Path) -> None:
    """Refuse to replace a folder that holds anything but an earlier export."""
    found = {file.name for file in folder.iterdir()}
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        ours = {MANIFEST, *manifest["files"]} if manifest["made_by"] == MADE_BY else set()
    except (OSError, ValueError, KeyError, TypeError):
        ours = set()
    if foreign := sorted(found - ours):
        raise ConfigurationError(
            f"{folder} holds {foreign[0]}, which no export has made: expected a new name or an earlier export"
        )


def _appear(folder: Path, path: Path) -> None:
    """Give a folder its name; an earlier export of that name is removed only when it has got it.

    Raises:
        OSError: the name cannot be given; what had it has it again.
    """
    if not path.exists():
        os.replace(folder, path)
        return
    old = _beside(path)
    try:
        os.replace(path, old)
        os.replace(folder, path)
    except BaseException:
        with suppress(OSError):
            os.replace(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _beside(path: Path) -> Path:
    """Return a hidden name on the same disk."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what a disk can raise into one line."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror or error}") from error
