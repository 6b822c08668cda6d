"""Writing files whole or not at all."""

from __future__ import annotations

from pathlib import Path

from pcsim.errors import ConfigurationError
from pcsim.places import check_new_file


def save_bytes(out: Path, content: bytes) -> None:
    """Write a file under another name first, so that a failure leaves what was there.

    Raises:
        ConfigurationError: it cannot be written.
    """
    beside = out.with_name(f".{out.name}.partial")
    try:
        beside.write_bytes(content)
        beside.replace(out)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ConfigurationError(f"cannot write {out}: {error.strerror}") from error


def refuse_place(out: Path, overwrite: bool) -> None:
    """Look before the work begins whether a file could be written.

    Raises:
        ConfigurationError: something is in the way, or its folder does not exist.
    """
    check_new_file(out, overwrite)
    if not out.parent.is_dir():
        raise ConfigurationError(f"cannot write {out}: expected an existing folder, '{out.parent}' is none")
