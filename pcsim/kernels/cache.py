"""Where pcsim keeps what it has found out about a machine."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """Return `PCSIM_CACHE`, else `~/.cache/pcsim`, else, for a user without a home, a temporary folder."""
    given = os.environ.get("PCSIM_CACHE")
    if given:
        return Path(given)
    try:
        return Path.home() / ".cache" / "pcsim"
    except RuntimeError:  # a number that no user has, as containers like to run under
        return temporary_folder()


def temporary_folder() -> Path:
    """Return this user's own folder among the temporary ones, made if it is not there.

    Code is loaded from it, so a folder that somebody else has put in its place is left alone.

    Raises:
        OSError: nothing can be written anywhere.
    """
    folder = Path(tempfile.gettempdir()) / f"pcsim-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or shared:
            return Path(tempfile.mkdtemp(prefix="pcsim-"))
    return folder
