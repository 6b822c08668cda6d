"""Writing files whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pcsim.errors import ConfigurationError
from pcsim.hidden_file import replacing
from pcsim.places import check_new_file
from pcsim.report.style import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".png", ".svg", ".pdf")


def save_bytes(out: Path, content: bytes) -> None:
    """Write a file, or leave what was there.

    Raises:
        ConfigurationError: it cannot be written.
    """
    try:
        with replacing(out) as file:
            file.write(content)
    except OSError as error:
        raise ConfigurationError(f"cannot write {out}: {error.strerror}") from error


def refuse_place(out: Path, overwrite: bool) -> None:
    """Look before the work begins whether a file could be written.

    Raises:
        ConfigurationError: something is in the way, or its folder does not exist.
    """
    check_new_file(out, overwrite)
    if not out.parent.is_dir():
        raise ConfigurationError(f"cannot write {out}: expected an existing folder, '{out.parent}' is none")


def check_suffix(out: Path) -> None:
    """Look whether the name is that of a picture.

    Raises:
        ConfigurationError: it ends in something else than `PICTURES`.
    """
    if out.suffix.lower() not in PICTURES:
        *others, last = PICTURES
        raise ConfigurationError(f"{out}: expected a name that ends in {', '.join(others)} or {last}")


def check_picture(out: Path | None, overwrite: bool) -> None:
    """Look before the work begins whether a picture, if there is to be one, could be written.

    Raises:
        ConfigurationError: its name or its place would not do.
    """
    if out is not None:
        check_suffix(out)
        refuse_place(out, overwrite)


def save_picture(draw: Callable[[], Figure], out: Path, dpi: int) -> None:
    """Draw in our style and save, in the format that the name ends in.

    Raises:
        ConfigurationError: it cannot be written.
    """
    with style(), io.BytesIO() as file:
        draw().savefig(file, format=out.suffix.lower()[1:], dpi=dpi)
        save_bytes(out, file.getvalue())
