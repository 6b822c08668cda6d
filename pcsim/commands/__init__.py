"""Commands of the command line that have a module of their own, and the options that they share."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pcsim.errors import ConfigurationError

if TYPE_CHECKING:
    from pcsim.config import ModelConfig

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Model file, or a name from `pcsim models`.")]
Set = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a key, repeatable.")]
ORDERS = "simultaneous, sequential, bottom-up, red-black, incremental, asynchronous"
Seed = Annotated[int | None, typer.Option(help="Override training.seed.")]
Backend = Annotated[str, typer.Option(help="Who does the arithmetic: cpu, cuda or reference.")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Folder with a folder for each data set [PCSIM_DATA, or ~/.cache/pcsim/data].",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of tables.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")]
Trace = Annotated[Path, typer.Argument(metavar="TRACE.h5", help="Trace file of a run.")]
GO_ON = "; run it again to go on"


def print_json(value: object) -> None:
    """Print a value for scripts; what JSON does not know as text."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False, default=str))


def refuse_given(context: typer.Context, names: Collection[str], why: str) -> None:
    """Refuse options that would do nothing.

    Args:
        context: of the command.
        names: of the parameters.
        why: goes on after the option's name: beside what it was given, and what was expected.

    Raises:
        ConfigurationError: one of them is given.
    """
    for one in context.command.params:
        source = context.get_parameter_source(one.name) if one.name in names else None
        if source is not None and source.name != "DEFAULT":
            raise ConfigurationError(f"{max(one.opts, key=len)} {why}")


def with_options(overrides: Sequence[str], seed: int | None, data_dir: Path | None) -> list[str]:
    """Options are overrides too, so that the trace keeps them."""
    from pcsim.experiments.sweep.settings import as_override

    found = list(overrides)
    if seed is not None:
        found.append(f"training.seed={seed}")
    if data_dir is not None:  # in quotes, or a folder named 7 would be a number
        found.append(as_override("data.directory", str(data_dir)))
    return found


def load_orders(model: Path, orders: Sequence[str], overrides: Sequence[str]) -> list[ModelConfig]:
    """Return a model once for each order that is given, or as it is."""
    from pcsim.config import load_model

    choices = [[f"schedule.order={name}"] for name in orders] or [[]]
    return [load_model(model, [*overrides, *choice]) for choice in choices]


def tell_unpriced(work: tuple[str, ...]) -> None:
    """Say what takes no simulated time only because the machine has no price for it."""
    if work:
        typer.echo(f"takes no time, as it has no price: {', '.join(work)}", err=True)


@contextmanager
def interruptible(tail: str = "") -> Iterator[None]:
    """Say after Ctrl-C that the command stops, and what then; leave with the exit code that shells expect."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"interrupted{tail}", err=True)
        raise typer.Exit(130) from None
