"""`pcsim plot`: pictures of traces for print."""

from __future__ import annotations

import io
import json
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pcsim.commands import AsJson, Force
from pcsim.errors import ConfigurationError, TraceError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pcsim.report.figures import Traces


class KindChoice(StrEnum):
    """What a picture shows; the names of `pcsim.report.figures.KINDS`, and all of them."""

    ERRORS = "errors"
    ENERGY = "energy"
    UPDATES = "updates"
    ANGLES = "angles"
    LEARNING = "learning"
    TIMELINE = "timeline"
    TRAFFIC = "traffic"
    NETWORK = "network"
    ALL = "all"


class WidthChoice(StrEnum):
    """How wide a picture is in print."""

    SINGLE = "single"
    DOUBLE = "double"


def plot(
    traces: Annotated[list[Path], typer.Argument(metavar="TRACE.h5…", help="Trace files.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Picture: .png, .svg or .pdf; not needed with --json.")
    ] = None,
    kind: Annotated[
        KindChoice, typer.Option(help="What to draw; all: pages of a .pdf, else a file each.")
    ] = KindChoice.ERRORS,
    width: Annotated[
        WidthChoice, typer.Option(help="Columns of a printed page: 3.5 or 7 inches.")
    ] = WidthChoice.DOUBLE,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Draw traces: error flow, energy, updates, angles to backprop, learning, timeline, traffic, network.

    Example: `pcsim plot traces/digits-*.h5 --kind energy -o energy.pdf`
    """
    from pcsim.report.files import check_suffix, refuse_place
    from pcsim.report.style import style
    from pcsim.tracing.reader import open_trace

    if out is None and not as_json:
        raise ConfigurationError("plot: expected -o PICTURE, --json, or both")
    if out is not None:
        check_suffix(out)
    kinds = [one.value for one in KindChoice if one is not KindChoice.ALL and kind in (one, KindChoice.ALL)]
    for path in _paths(out, kinds) if out is not None else ():
        refuse_place(path, force)
    with ExitStack() as stack, style():
        readers = [stack.enter_context(open_trace(path)) for path in traces]
        figures = {} if out is None else _draw(readers, kinds, width)
        if out is not None:
            paths = _save(figures, out, len(kinds) > 1)
        if as_json:
            typer.echo(json.dumps(_numbers(readers, kinds), indent=2, allow_nan=False))
        elif out is not None:
            for path in paths:
                typer.echo(f"picture: {path}")


def _draw(readers: Traces, kinds: list[str], width: WidthChoice) -> dict[str, Figure]:
    """Return the figures by kind; of all kinds, those that the traces have something for."""
    from pcsim.report.figures import KINDS

    figures, missing = {}, []
    for name in kinds:
        try:
            figures[name] = KINDS[name].draw(_holding(readers, name), width.value)
        except TraceError as error:
            if len(kinds) == 1:
                raise
            missing.append(f"no {KINDS[name].title}: {error}")
    if not figures:
        raise TraceError(missing[0])
    for line in missing:
        typer.echo(line, err=True)
    return figures


def _holding(readers: Traces, kind: str) -> Traces:
    """Return the traces that hold anything of a kind, and name the others; all, if none does."""
    from pcsim.report.figures import KINDS

    able = [reader for reader in readers if KINDS[kind].has(reader)]
    for reader in readers:
        if able and reader not in able:
            typer.echo(f"{KINDS[kind].title} without {reader.path}: it has nothing of the kind", err=True)
    return able or readers


def _numbers(readers: Traces, kinds: list[str]) -> list[dict[str, object]]:
    """Return the numbers behind the pictures, trace by trace; None for what a trace does not hold."""
    from pcsim.report.figures import KINDS
    from pcsim.report.runs import labels, read_run

    found: list[dict[str, object]] = []
    errors: list[TraceError] = []
    for reader, label in zip(readers, labels([read_run(reader) for reader in readers]), strict=True):
        one: dict[str, object] = {"trace": str(reader.path), "label": label}
        for name in kinds:
            try:
                one[name] = KINDS[name].read(reader)
            except TraceError as error:
                errors.append(error)
                one[name] = None
        found.append(one)
    if len(kinds) == 1 and len(errors) == len(found):
        raise errors[0]
    return found


def _save(figures: dict[str, Figure], out: Path, several: bool) -> list[Path]:
    """Write the figures: pages of one PDF, or a file each; return the paths."""
    from matplotlib.backends.backend_pdf import PdfPages

    from pcsim.report.files import save_bytes

    contents: dict[Path, bytes] = {}
    if out.suffix.lower() == ".pdf":
        with io.BytesIO() as file:
            with PdfPages(file) as pages:
                for figure in figures.values():
                    pages.savefig(figure)
            contents[out] = file.getvalue()
    else:
        for name, figure in figures.items():
            with io.BytesIO() as file:
                figure.savefig(file, format=out.suffix.lower()[1:], dpi=300)
                contents[_path(out, name, several)] = file.getvalue()
    for path, content in contents.items():
        save_bytes(path, content)
    return list(contents)


def _path(out: Path, kind: str, several: bool) -> Path:
    """Return the file of one kind: of several, each has its name in it."""
    return out.with_name(f"{out.stem}-{kind}{out.suffix}") if several else out


def _paths(out: Path, kinds: list[str]) -> list[Path]:
    """Return the files that may be written."""
    return [out] if out.suffix.lower() == ".pdf" else [_path(out, name, len(kinds) > 1) for name in kinds]
