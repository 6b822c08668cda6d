"""`pcsim compare`: whether two traces say the same, and where they first do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pcsim.commands import AsJson, Trace

if TYPE_CHECKING:
    from rich.table import Table

    from pcsim.analysis.places import Place
    from pcsim.analysis.verdict import ColumnComparison, Comparison

MOST_NAMES = 3  # of columns, or reasons, in the verdict
MOST_ULPS = 10**6  # beyond that the other two measures say more
COLOURS = {"equal bits": "green", "equal within tolerance": "green"}


def compare(
    trace_a: Trace,
    trace_b: Trace,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Largest |a - b| / max(|a|, |b|) that counts as equal.")
    ] = 0.0,
    absolute: Annotated[
        float, typer.Option(min=0, help="Largest |a - b| that counts as equal, added to it.")
    ] = 0.0,
    table: Annotated[
        list[str],
        typer.Option(
            "--table", help="Compare only this, such as summary or probes, repeatable [all and attributes]."
        ),
    ] = [],  # noqa: B006 - typer copies it
    as_json: AsJson = False,
) -> None:
    """Compare two traces number by number; exit code 1 if they differ.

    Wall-clock times and what made the traces when are shown but do not count.

    Example: `pcsim compare traces/digits-sequential.h5 traces/digits-simultaneous.h5 --table summary`
    """
    from pcsim.analysis.comparison import compare as compare_traces
    from pcsim.commands import print_json
    from pcsim.commands.analyze import plain
    from pcsim.terminal import ProgressBar

    with ProgressBar() as progress:
        found = compare_traces(
            trace_a, trace_b, tolerance=tolerance, absolute=absolute, tables=table, progress=progress
        )
    if as_json:
        print_json(plain(found.to_dict()))
    else:
        _show(found)
    if not found.equal:
        raise typer.Exit(1)


def _show(found: Comparison) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console()
    console.print(f"A: {found.a}\nB: {found.b}\n", highlight=False, soft_wrap=True)
    console.print(_verdicts(found), "")
    if found.attributes:
        console.print(_attributes(found), "")
    if found.equal:
        console.print("[green]equal[/]")
        return
    parts = [f"{verdict}: {_names(names)}" for verdict, names in found.unmatched.items()]
    if found.first is not None:
        parts.append(f"first in {_words(found.first)}")
    console.print("; ".join(["[red]differ[/]", *map(escape, parts)]))
    if reasons := found.likely_reasons:
        words = [f"{name} ({a or 'none'} in A, {b or 'none'} in B)" for name, (a, b) in reasons.items()]
        console.print(escape(f"a likely reason, if only last bits differ: {_names(words)}"), highlight=False)


def _names(names: list[str]) -> str:
    """Name the first of several things, and how many more there are."""
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more:,} more" if more > 0 else "")


def _verdicts(found: Comparison) -> Table:
    from pcsim.terminal import new_table

    table = new_table("Columns")
    for heading in ("column", "verdict"):
        table.add_column(heading, overflow="fold")
    for heading in ("differ", "max\n|a − b|", "max\nrelative", "max\nULPs"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in found.columns:
        colour = COLOURS.get(one.verdict, "red" if one.counted else "yellow")
        notes = [one.note] if one.note else []
        if not one.counted:
            notes.append("does not count")
        table.add_row(
            f"{one.table}/{one.column}",
            f"[{colour}]{one.verdict}[/]" + "".join(f" ({note})" for note in notes),
            f"{one.differing:,}" if one.differing else "",
            *_measures(one),
        )
    return table


def _measures(one: ColumnComparison) -> tuple[str, str, str]:
    """Return the largest differences; nothing where there are none, dashes where no finite numbers differ."""
    from pcsim.terminal import NOTHING

    if not one.compared or one.first is None:
        return "", "", ""
    if not one.max_absolute and one.differing:
        return NOTHING, NOTHING, NOTHING
    few = one.max_ulps is not None and one.max_ulps < MOST_ULPS
    return f"{one.max_absolute:.2g}", f"{one.max_relative:.2g}", f"{one.max_ulps:,}" if few else NOTHING


def _attributes(found: Comparison) -> Table:
    from pcsim.terminal import new_table

    table = new_table("Attributes that differ", "attribute", "counts")
    table.add_column("A", overflow="fold")
    table.add_column("B", overflow="fold")
    for name, (a, b) in found.attributes.items():
        table.add_row(name, "yes" if name in found.counted_attributes else "no", *_differing(a, b))
    return table


def _differing(a: object, b: object) -> tuple[str, str]:
    """Return two values in short: of mappings only the entries that differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        names = [name for name in {**a, **b} if a.get(name) != b.get(name)]
        parts = [_differing(a.get(name), b.get(name)) for name in names]
        named = [zip(names, side, strict=True) for side in zip(*parts, strict=True)]
        one, other = ("; ".join(f"{name}: {value}" for name, value in side) for side in named)
        return one, other
    return ("missing" if a is None else str(a)), ("missing" if b is None else str(b))


def _words(place: Place) -> str:
    """Say where it is: probes/x/error_2 at step 10, iteration 3, …: 0.5 in A, 0.4 in B."""
    at = ", ".join(f"{name} {value}" for name, value in place.at.items())
    where = f"{place.table}/{place.column} at {at or f'row {place.row}'}"
    return f"{where}: {place.a!r} in A, {place.b!r} in B"
