"""`pcsim study show`: what a sweep came to, as a table, as JSON, or as a picture."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pcsim.commands import AsJson, Force
from pcsim.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from pcsim.experiments.sweep.results import Configuration, StudyResults

MOST_ROWS = 20


def show(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="Folder that `pcsim sweep` made.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="PICTURE", help="Draw it: .png, .svg or .pdf.")
    ] = None,
    rows: Annotated[int, typer.Option(min=0, help="Configurations to print; 0 prints all.")] = MOST_ROWS,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Show the study of a sweep, also while it runs: the best by validation first.

    validation, test: mean ± standard deviation of the seeds, each at its best epoch by validation; p: of
    Welch's t-test of the test results against the first row's, not corrected for how many rows there are.

    Example: `pcsim study show studies/digits_rates -o rates.png`
    """
    from pcsim.report.files import check_picture

    check_picture(out, force)
    show_study(study, as_json=as_json, rows=rows, out=out)


def show_study(
    folder: Path,
    *,
    as_json: bool,
    configurations: set[str] | None = None,
    rows: int = MOST_ROWS,
    out: Path | None = None,
) -> None:
    """Print a study, or its JSON, and draw it if there is a place for the picture.

    Args:
        folder: of the study.
        as_json: JSON instead of a table.
        configurations: names of those that are shown; all if not given.
        rows: how many of them are printed; 0 prints all.
        out: place of the picture.
    """
    from pcsim.commands import print_json
    from pcsim.experiments.sweep.results import read_results

    results = read_results(folder, configurations)
    if out is not None and results.best is None:
        raise ConfigurationError(
            f"{folder} has no results yet: expected at least one epoch of one run to draw"
        )
    if as_json:
        print_json(results.to_dict())
    else:
        _print(results, rows or len(results.rows))
    if out is not None:
        from pcsim.experiments.sweep.picture import draw
        from pcsim.report.files import save_picture

        save_picture(lambda: draw(results), out, 300)
        typer.echo(f"picture: {out}", err=as_json)


def _print(results: StudyResults, most: int) -> None:
    from rich.console import Console

    console = Console(markup=False)  # settings may hold brackets
    console.print(f"{results.name}: {len(results.rows)} configurations, the best by validation first")
    console.print(_table(results, results.rows[:most]))
    hidden = len(results.rows) - most
    if hidden > 0:
        console.print(
            f"… {hidden} more; pcsim study show {shlex.quote(str(results.folder))} --rows 0 shows all",
            highlight=False,
        )
    if stopped := sum("stopped" in row.states for row in results.rows):
        console.print(f"{stopped} of them were stopped early by halving", highlight=False)
    for row in results.rows:
        if row.errors:
            name = ", ".join(f"{key} {value}" for key, value in row.settings.items()) or row.configuration
            more = f" (and {len(row.errors) - 1} more)" if len(row.errors) > 1 else ""
            console.print(f"failed: {name}: {row.errors[0]}{more}", highlight=False, soft_wrap=True)
    if results.best is not None:
        _print_command(console, results, results.best)
    console.print(f"study: {results.folder}", highlight=False, soft_wrap=True)


def _print_command(console: Console, results: StudyResults, best: Configuration) -> None:
    """Print how to repeat the best run of a configuration, up to the epoch that the table counts."""
    better = max if results.measure == "accuracy" else min
    place = best.validation.index(better(best.validation))
    kept = [one for one in best.overrides if not one.startswith("training.epochs=")]
    epochs = f"training.epochs={best.best_epoch[place]}"
    settings = " ".join(f"--set {shlex.quote(one)}" for one in (*kept, epochs))
    engine = "" if best.engine == "fast" else f" --engine {best.engine}"
    command = f"pcsim run {shlex.quote(results.model)} {settings}{engine} --seed {best.seeds[place]}"
    console.print(f"best: {command}", highlight=False, soft_wrap=True)
    form = "{:.2f} %" if results.measure == "accuracy" else "loss {:.4g}"
    validation, test = (form.format(values[place]) for values in (best.validation, best.test))
    console.print(
        f"repeats its best seed up to the best epoch: validation {validation}, test {test}",
        highlight=False,
        soft_wrap=True,
    )


def _table(results: StudyResults, rows: tuple[Configuration, ...]) -> Table:
    from pcsim.experiments.sweep.results import NOTHING, headings, setting, spread
    from pcsim.terminal import new_table

    unit = "%" if results.measure == "accuracy" else "loss"
    table = new_table("", names=max(1, len(results.keys)))
    for heading in headings(results.keys):
        table.add_column(heading, overflow="fold")
    for name in (f"validation\n{unit}", f"test\n{unit}", "p", "runs ×\nepochs"):
        table.add_column(name, justify="right", no_wrap=True)
    spreads = [
        _aligned([spread(values, results.measure) for values in column])
        for column in ([row.validation for row in rows], [row.test for row in rows])
    ]
    for row, validation, test in zip(rows, *spreads, strict=True):
        table.add_row(
            *(setting(row.settings.get(key)) for key in results.keys),
            validation,
            test,
            NOTHING if row.p is None else f"{row.p:.1g}",
            _runs(row),
            style="bold" if row is results.best else "" if row.finished else "dim",
        )
    return table


def _aligned(spreads: list[str]) -> list[str]:
    """Return means with their deviations, the decimals of both below each other."""
    parts = [one.partition(" ± ") for one in spreads]
    room = max((len(deviation) for *_, deviation in parts), default=0)
    return [f"{mean}{sign}{deviation:>{room}}" if sign else mean for mean, sign, deviation in parts]


def _runs(row: Configuration) -> str:
    """Say how many runs have results and after how many epochs, and how many have none or failed."""
    lines = [f"{number} {state}" for state, number in row.states.items() if state in ("failed", "waiting")]
    if row.epochs:
        low, high = min(row.epochs), max(row.epochs)
        lines.insert(0, f"{len(row.epochs)} × {low if low == high else f'{low}–{high}'}")
    return "\n".join(lines)
