"""`pcsim energy`: what a mini-batch of a model's training costs on machines, and the machines there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pcsim.commands import (
    ORDERS,
    AsJson,
    DataDir,
    Force,
    Set,
    load_orders,
    print_json,
    refuse_given,
    with_options,
)
from pcsim.errors import ConfigurationError

if TYPE_CHECKING:
    from pcsim.commands.energy_orders import Charged
    from pcsim.hardware.machine import Machine


def energy(
    context: typer.Context,
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL|TRACE.h5", help="Model file or name, or a trace.")
    ] = None,
    hardware: Annotated[
        list[str],
        typer.Option("--hardware", metavar="NAME|FILE.toml", help="Machine, repeatable [loihi2018]."),
    ] = [],  # noqa: B006 - typer copies it
    order: Annotated[
        list[str],
        typer.Option(
            "--order", metavar="ORDER", help=f"Schedule instead of the model's, repeatable: {ORDERS}."
        ),
    ] = [],  # noqa: B006
    mini_batches: Annotated[
        int, typer.Option("--mini-batches", min=1, help="Mini-batches of training that are measured.")
    ] = 10,
    mapping: Annotated[
        Path | None, typer.Option(metavar="MAP.json", help="Where the network lies; see `pcsim map`.")
    ] = None,
    overrides: Set = [],  # noqa: B006
    data_dir: DataDir = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="PICTURE", help="Draw it: .png, .svg or .pdf.")
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="List the machines there are instead.")] = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Charge a mini-batch of training to machines: energy, time, and where they go.

    dense: every multiplication is done and every value sent. events: multiplications by zero are left out and
    zeros are not sent; how many there are is measured on the first mini-batches of the model's own data.

    Of a trace the messages that its events count are charged; it does not tell which products are of zeros.

    Example: `pcsim energy digits --hardware loihi2018 --hardware digital-45nm -o energy.png`

    The machines: `pcsim energy --list`
    """
    if listing:
        from pcsim.commands.energy_machines import list_machines

        list_machines(as_json)
        return
    if model is None:
        raise ConfigurationError("energy: expected a model file, or --list")
    from pcsim.report.files import check_picture

    check_picture(out, force)
    machines = _machines(hardware, order)
    if model.suffix == ".h5":
        from pcsim.commands.energy_trace import trace_energy

        models_own = ("order", "mini_batches", "mapping", "overrides", "data_dir")
        refuse_given(context, models_own, "with a trace: expected a model; a trace is what it is")
        trace_energy(model, machines, out, as_json)
        return
    from pcsim.commands.energy_orders import charge_orders
    from pcsim.experiments.experiment import Experiment

    models = load_orders(model, order, with_options(overrides, None, data_dir))
    experiments = [Experiment.from_model(one) for one in models]
    _tell(model, charge_orders(experiments, machines, mapping, mini_batches), out, as_json)


def _machines(hardware: Sequence[str], order: Sequence[str]) -> list[Machine]:
    """Load the machines; like orders, each may be named once. Files of one name are told apart by folders."""
    from pcsim.hardware.machine import load_machine

    given = hardware or ["loihi2018"]
    machines = [load_machine(name) for name in given]
    files = {str(Path(name).resolve()) if name.endswith(".toml") else name for name in given}
    if len(files) < len(given) or len(set(order)) < len(order):
        raise ConfigurationError(f"--hardware {' '.join(given)}: expected each machine and order once")
    stems = Counter(machine.name for machine in machines)
    alike = [Path(name) for name, machine in zip(given, machines, strict=True) if stems[machine.name] > 1]
    return [
        replace(machine, name=_told_apart(Path(name), alike)) if stems[machine.name] > 1 else machine
        for name, machine in zip(given, machines, strict=True)
    ]


def _told_apart(path: Path, others: Sequence[Path]) -> str:
    """Return the end of a path that no other has, as short as can be."""
    parts = 1
    while sum(one.parts[-parts:] == path.parts[-parts:] for one in others) > 1:
        parts += 1
    return str(Path(*path.parts[-parts:]))


def _tell(model: Path, charged: Sequence[Charged], out: Path | None, as_json: bool) -> None:
    """Draw what orders cost, and print it or tell scripts."""
    from pcsim.commands.energy_tables import draw

    if out is not None:
        draw([(one.experiment.schedule.name, one.bills) for one in charged], out)
    if as_json:
        print_json({"model": str(model), "orders": [one.to_dict() for one in charged]})
        return
    for one in charged:
        one.show()
        typer.echo("zeros are those of hardly trained weights; later there are others")
    if out is not None:
        typer.echo(f"picture: {out}")
