"""Writing files whole or not at all."""

from __future__ import annotations

from pathlib import Path

from pcsim.errors import ConfigurationError


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
        ConfigurationError: it exists, or its folder does not.
    """
    if out.exists() and not overwrite:
        raise ConfigurationError(f"{out} exists; pass --force to overwrite it")
    if out.exists() and not (out.is_file() or out.is_dir()):
        raise ConfigurationError(f"cannot write {out}: it is a device or a pipe: expected the name of a file")
    if out.is_dir() or not out.parent.is_dir():
        what = "it is a folder" if out.is_dir() else f"there is no folder {out.parent}"
        raise ConfigurationError(
            f"cannot write {out}: {what}: expected the name of a file in an existing folder"
        )
