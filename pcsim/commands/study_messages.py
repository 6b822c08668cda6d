"""`pcsim study messages`: what thresholds, number formats and faults of messages cost, in real runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pcsim.commands import ORDERS, AsJson, DataDir, Force, Model, Set, Trace, print_json, with_options
from pcsim.errors import ConfigurationError
from pcsim.places import check_new_folder

if TYPE_CHECKING:
    from pcsim.experiments.messages.study import Row, Summary

ALL = "all"
UNRECORDED = (
    "no messages were recorded, so no [messages]: "
    """run with --set 'probe.formats.record=["message","activity"]'"""
)


def _values(help_text: str) -> object:
    return typer.Option(metavar="LIST", help=f"{help_text}, separated by commas.")


def messages(
    model: Model,
    threshold: Annotated[str, _values("Thresholds θ, or θ of predictions/of errors")] = "",
    format_: Annotated[
        str,
        typer.Option(
            "--format", metavar="LIST", help="Formats of messages, or of predictions/errors, by commas."
        ),
    ] = "",
    state: Annotated[str, _values("Formats of activities")] = "",
    loss: Annotated[str, _values("Probabilities of loss")] = "",
    duplication: Annotated[str, _values("Probabilities of duplication")] = "",
    delay: Annotated[str, _values("Probabilities of delay")] = "",
    reorder: Annotated[str, _values("Probabilities of being overtaken")] = "",
    dead: Annotated[str, _values("Shares of layer 1 that send nothing")] = "",
    order: Annotated[
        list[str],
        typer.Option(
            "--order", metavar="ORDER", help=f"Schedule, repeatable: {ORDERS}, or all of them [the model's]."
        ),
    ] = [],  # noqa: B006 - typer copies it
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each point.")] = 3,
    epochs: Annotated[int | None, typer.Option(min=1, help="Override training.epochs.")] = None,
    overrides: Set = [],  # noqa: B006
    data_dir: DataDir = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="DIR", help="Folder for rows and pictures; goes on from there."),
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Train with thresholded, quantised or faulty messages: accuracy against events, bits and fault rates.

    Each list begins with the model as it is. Rows are kept in DIR/runs.jsonl: a finished run is not repeated,
    and the same command goes on and draws its pictures anew.

    Example: `pcsim study messages digits --threshold 0,0.01,0.1 -o runs/messages`

    Robustness: `pcsim study messages digits --loss 0.001,0.01,0.1 --order all --set learning.rule=adam`
    """
    from pcsim.experiments.messages.study import plan_study, points, study, summaries
    from pcsim.kernels.backends import make_kernels
    from pcsim.terminal import ProgressBar

    given = {
        "threshold": threshold,
        "format": format_,
        "state": state,
        "loss": loss,
        "duplication": duplication,
        "delay": delay,
        "reorder": reorder,
        "dead": dead,
    }
    values = _split(given)
    pictures = [] if out is None else [out / f"messages-{axis}.png" for axis in values]
    _refuse(out, pictures, force)
    changed = with_options(overrides, None, data_dir)
    if epochs is not None:
        changed.append(f"training.epochs={epochs}")
    plan = plan_study(model, points(values, _orders(model, order, changed), seeds), changed, out)
    kernels = make_kernels("cpu", _dtype(model, changed))
    with ProgressBar() as bar:
        bar.begin("runs", len(plan.runs))
        rows = study(plan, kernels, bar.step)
    found = summaries(rows)
    if out is not None:
        _draw(found, list(values), out)
    if as_json:
        _print_rows(rows)
        return
    for axis in values:
        _show(axis, [one for one in found if one.axis == axis])
    for path in pictures:
        typer.echo(f"picture: {path}")


def _split(given: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the values of each axis that is varied.

    Raises:
        ConfigurationError: there is none.
    """
    values = {axis: [part.strip() for part in text.split(",")] for axis, text in given.items() if text}
    if not values:
        raise ConfigurationError(
            "study messages: expected something to vary, such as --threshold 0,0.01 or --loss 0.01"
        )
    return values


def _print_rows(rows: Sequence[Row]) -> None:
    from dataclasses import asdict

    print_json([asdict(row) | {"share": row.share, "bits_a_value": row.bits_a_value} for row in rows])


def _refuse(out: Path | None, pictures: Sequence[Path], force: bool) -> None:
    """Refuse to replace pictures that are not this study's own: those beside its rows are drawn again."""
    from pcsim.experiments.messages.study import FILE

    if out is None:
        return
    check_new_folder(out, overwrite=True)
    for path in pictures:
        if path.exists() and not (force or (out / FILE).exists()):
            raise ConfigurationError(
                f"{path} exists, but no {FILE} of a study beside it; pass --force to overwrite it"
            )


def _orders(model: Path, order: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """Return the orders to run."""
    from pcsim.config import load_model
    from pcsim.schedule.orders import ORDERS

    if ALL in order:
        return list(ORDERS)
    return list(dict.fromkeys(order)) or [load_model(model, overrides).schedule.order]


def _dtype(model: Path, overrides: Sequence[str]) -> str:
    from pcsim.config import load_model

    return load_model(model, overrides).network.dtype


def _draw(found: Sequence[Summary], axes: Sequence[str], out: Path) -> None:
    """Write a picture for each axis."""
    from pcsim.experiments.messages.pictures import draw
    from pcsim.report.files import save_picture

    for axis in axes:
        here = [one for one in found if one.axis == axis]
        save_picture(partial(draw, axis, here), out / f"messages-{axis}.png", 160)


def _show(axis: str, found: Sequence[Summary]) -> None:
    """Print one axis: a row a value, of several orders a column each."""
    from rich.console import Console

    from pcsim.terminal import NOTHING, new_table

    orders = list(dict.fromkeys(one.order for one in found))
    title = f"Test accuracy by {axis}; ! runs that diverged"
    if len(orders) == 1:
        title += "; events: values sent with a threshold, else those that are not zero"
    table = new_table(title, axis)
    for heading in ("events,\nof values", "bits a\nvalue", "lost") if len(orders) == 1 else ():
        table.add_column(heading, justify="right", no_wrap=True)
    for order in orders:
        table.add_column(order if len(orders) > 1 else "accuracy", justify="right")
    for value in dict.fromkeys(one.value for one in found):
        here = {one.order: one for one in found if one.value == value}
        first = here[orders[0]]
        counts = [
            NOTHING if first.share is None else f"{first.share:.1%}",
            NOTHING if first.bits_a_value is None else f"{first.bits_a_value:.2f}",
            f"{first.lost:,.0f}",
        ]
        shown = [_accuracy(here[order], len(orders) == 1) for order in orders]
        table.add_row(value, *(counts if len(orders) == 1 else ()), *shown)
    Console(markup=False).print(table)


def _accuracy(one: Summary, wide: bool) -> str:
    """Return mean and range over the seeds, and how many diverged."""
    bad = f" {one.diverged}!" if one.diverged else ""
    if one.accuracy is None:
        return f"diverged{bad}" if wide else bad.strip()
    low, high = min(one.accuracies), max(one.accuracies)
    return f"{one.accuracy:.2%} ({low:.2%} to {high:.2%}){bad}" if wide else f"{one.accuracy:.1%}{bad}"


def formats(
    trace: Trace,
    snr: Annotated[float, typer.Option(help="Signal-to-noise ratio that each layer is to have, dB.")] = 40.0,
    as_json: AsJson = False,
) -> None:
    """Say which fixed-point formats messages and activities of a run need, as lines for a model file.

    The trace needs a probe with record = ["message", "activity"]. Activities get the fraction bits that the
    errors need, which are small differences of activities.

    Example: `pcsim study formats traces/digits-sequential.h5 --snr 30`
    """
    from pcsim.experiments.messages.formats import as_toml, suggest_formats
    from pcsim.terminal import ProgressBar
    from pcsim.tracing.reader import open_trace

    with open_trace(trace) as reader, ProgressBar() as progress:
        found = suggest_formats(reader, snr, progress)
    if as_json:
        from dataclasses import asdict

        print_json([asdict(one) for one in found])
        return
    if not {"predictions", "errors"} & {one.what for one in found}:
        typer.echo(UNRECORDED, err=True)
    for one in found:
        arrays = f"{one.signals} recorded array{'s' if one.signals > 1 else ''}"
        typer.echo(f"# {one.what}: {arrays}, from {one.minimum:.4g} to {one.maximum:.4g}, {snr:g} dB")
        if not one.held:
            typer.echo(
                f"# {one.what}: {one.format} has more bits than the network's numbers, so no line: "
                'lower --snr, or take network.dtype = "float64"'
            )
    typer.echo(as_toml(found))
