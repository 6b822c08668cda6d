"""`pcsim energy`: what a mini-batch of a model's training costs on machines, and the machines there are."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pcsim.commands import AsJson, DataDir, Force, print_json
from pcsim.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.table import Table

    from pcsim.experiments.energy import Bills, Measured
    from pcsim.experiments.experiment import Experiment
    from pcsim.hardware.charge import Bill, Row
    from pcsim.hardware.machine import Machine
    from pcsim.hardware.mapping import Mapping as Placed

SUFFIXES = (".png", ".svg", ".pdf")
MOST_MACHINES, WIDEST = 3, 16  # beside each other in a table of 80 columns, and letters of a name


def energy(
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL|TRACE.h5", help="Model file or name, or a trace.")
    ] = None,
    hardware: Annotated[
        list[str],
        typer.Option("--hardware", metavar="NAME|FILE.toml", help="Machine, repeatable [loihi2018]."),
    ] = [],  # noqa: B006 - typer copies it
    order: Annotated[
        list[str], typer.Option("--order", help="Schedule instead of the model's, repeatable.")
    ] = [],  # noqa: B006
    mini_batches: Annotated[
        int, typer.Option("--mini-batches", min=1, help="Mini-batches of training that are measured.")
    ] = 10,
    mapping: Annotated[
        Path | None, typer.Option(metavar="MAP.json", help="Where the network lies; see `pcsim map`.")
    ] = None,
    overrides: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a key, repeatable.")
    ] = [],  # noqa: B006
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
    from pcsim.commands.energy_trace import trace_energy
    from pcsim.experiments.energy import check_mapping, check_measurable
    from pcsim.hardware.machine import load_machine
    from pcsim.hardware.mapping import Mapping as Placed
    from pcsim.report.files import refuse_place

    if listing:
        _list(as_json)
        return
    if model is None:
        raise ConfigurationError("energy: expected a model file, or --list")
    if out is not None:
        if out.suffix.lower() not in SUFFIXES:
            raise ConfigurationError(f"{out}: expected a name that ends in .png, .svg or .pdf")
        refuse_place(out, force)
    machines = [load_machine(name) for name in hardware or ["loihi2018"]]
    names = [machine.name for machine in machines]
    if len(set(names)) < len(names) or len(set(order)) < len(order):
        raise ConfigurationError(f"--hardware {' '.join(names)}: expected each machine and order once")
    if model.suffix == ".h5":
        own = {"--order": order, "--mapping": mapping, "--set": overrides}
        for option, given in own.items():
            if given:
                raise ConfigurationError(f"{option} with a trace: expected a model; a trace is what it is")
        trace_energy(model, machines, out, as_json)
        return
    experiments = _experiments(model, order, overrides, data_dir)
    if mapping is not None and len(machines) > 1:
        raise ConfigurationError(f"--mapping {mapping} is for one machine: expected one --hardware")
    placed = None if mapping is None else Placed.load(mapping)
    for experiment in experiments:  # what cannot be is told before any work begins
        check_measurable(experiment, mini_batches)
        if placed is not None:
            check_mapping(experiment, machines[0], placed)
    charged = [_charge(experiment, machines, placed, mini_batches) for experiment in experiments]
    pairs = list(zip(experiments, charged, strict=True))
    if out is not None:
        draw([(one.schedule.name, bills) for one, (bills, _) in pairs], out)
    if as_json:
        print_json({"model": str(model), "orders": [_facts(one, *rest, mini_batches) for one, rest in pairs]})
        return
    for experiment, (bills, measured) in pairs:
        _show(experiment, bills, measured, mini_batches)
        typer.echo("zeros are those of hardly trained weights; later there are others")
    if out is not None:
        typer.echo(f"picture: {out}")


def _experiments(
    model: Path, orders: Sequence[str], overrides: Sequence[str], data_dir: Path | None
) -> list[Experiment]:
    from pcsim.config import load_model
    from pcsim.experiments.experiment import Experiment

    folder = [] if data_dir is None else [f"data.directory={json.dumps(str(data_dir), ensure_ascii=False)}"]
    choices = [[f"schedule.order={name}"] for name in orders] or [[]]
    return [Experiment.from_model(load_model(model, [*overrides, *folder, *choice])) for choice in choices]


def _charge(
    experiment: Experiment, machines: Sequence[Machine], placed: Placed | None, mini_batches: int
) -> tuple[dict[str, Bills], Measured]:
    from pcsim.experiments.energy import charge_machines, charge_mapped
    from pcsim.schedule.program import Reaction
    from pcsim.terminal import ProgressBar

    runs = len(machines) if isinstance(experiment.schedule.plan(experiment.network), Reaction) else 1
    with ProgressBar() as bar:
        bar.begin(experiment.schedule.name, runs * mini_batches)
        if placed is None:
            return charge_machines(experiment, machines, mini_batches, bar.step)
        bills, measured = charge_mapped(experiment, machines[0], placed, mini_batches, bar.step)
        return {machines[0].name: bills}, measured


def _facts(
    experiment: Experiment, bills: Mapping[str, Bills], measured: Measured, mini_batches: int
) -> dict[str, Any]:
    """Return what there is to know of one order, fit for JSON."""
    return {
        "order": experiment.schedule.name,
        "iterations": experiment.schedule.iterations,
        "batch": experiment.batch,
        "mini_batches": mini_batches,
        "metrics": dict(measured.metrics),
        "machines": [describe(both) for both in bills.values()],
    }


def describe(both: Bills) -> dict[str, Any]:
    """Return a machine with its prices and bills, fit for JSON."""
    return _describe(both.dense.machine) | {"dense": both.dense.to_dict(), "events": both.events.to_dict()}


def _describe(machine: Machine) -> dict[str, Any]:
    """Return a machine and its prices, fit for JSON."""
    from dataclasses import asdict

    prices = machine.prices
    return {
        "machine": machine.name,
        "title": machine.title,
        "source": machine.source,
        "notes": machine.notes.strip(),
        "evidence": [str(one) for one in prices.evidence],
        "energy_unit": prices.energy_unit,
        "time_unit": prices.time_unit,
        "chip": None if machine.chip is None else asdict(machine.chip),
        "prices": {
            kind: {
                str(term): asdict(price) | {"includes": sorted(map(str, price.includes))}
                for term, price in listed.items()
            }
            for kind, listed in (("energy", prices.energy), ("time", prices.time))
        },
    }


def _list(as_json: bool) -> None:
    """Print the machines, one line each with the source."""
    from rich.console import Console

    from pcsim.hardware.machine import load_machine, machine_names
    from pcsim.terminal import NOTHING, new_table

    machines = [load_machine(name) for name in machine_names()]
    if as_json:
        print_json([_describe(machine) for machine in machines])
        return
    table = new_table("Machines, and where their prices come from", "machine", "source")
    table.add_column("weakest evidence", no_wrap=True)
    table.add_column("prices\nin time", justify="right", no_wrap=True)
    for machine in machines:
        prices = machine.prices
        table.add_row(
            machine.name,
            machine.source,
            str(prices.evidence[-1]),
            str(len(prices.time)) if prices.time else NOTHING,
        )
    Console().print(table)
    typer.echo("--json shows every price; a file of your own: docs/hardware.md")


def _show(experiment: Experiment, bills: Mapping[str, Bills], measured: Measured, mini_batches: int) -> None:
    """Print totals, where they go, and what has no price."""
    from rich.console import Console

    console, schedule = Console(), experiment.schedule
    samples = "1 sample" if experiment.batch == 1 else f"{experiment.batch} samples"
    measured_on = "1 mini-batch" if mini_batches == 1 else f"{mini_batches} mini-batches"
    title = (
        f"A mini-batch of {samples}, {experiment.name}, {schedule.name}, "
        f"T = {schedule.iterations}\nevents: measured on {measured_on} from the start of training"
    )
    show_bills(title, list(bills.values()))
    metrics = measured.metrics
    console.print(
        f"events, a sample: {metrics['Effective_MACs']:,.0f} of {metrics['Dense']:,.0f} multiplications with "
        f"weights; {metrics['ActivationSparsity']:.1%} of f(activity) are 0",
        highlight=False,
    )


def show_bills(title: str, several: Sequence[Bills]) -> None:
    """Print what machines charge, where it goes, and what they leave out."""
    from rich.console import Console

    console = Console()
    console.print(_totals(title, several))
    for first in range(0, len(several), MOST_MACHINES):
        console.print(_shares(several[first : first + MOST_MACHINES]))
    for both in several:
        for line in _remarks(both.dense):
            console.print(f"{both.dense.machine.name}: {line}", highlight=False)


def _totals(title: str, several: Sequence[Bills]) -> Table:
    from pcsim.terminal import new_table

    table = new_table(title)
    table.add_column("machine\nsource")
    table.add_column("", no_wrap=True)
    for heading in ("energy", "a sample", "time", "energy·\ndelay"):
        table.add_column(heading, justify="right", no_wrap=True)
    for both in several:
        machine = both.dense.machine
        table.add_row(machine.name, "dense", *_cells(both.dense))
        table.add_row(f"  {machine.source}", "events", *_cells(both.events), style="dim")
    return table


def _cells(bill: Bill) -> list[str]:
    """Return energy, energy of a sample, time, and energy-delay product."""
    from pcsim.terminal import NOTHING

    units = bill.machine.prices.energy_unit, bill.machine.prices.time_unit
    energies = [quantity(energy, units[0]) for energy in (bill.energy, bill.energy / bill.batch)]
    if bill.latency is None:
        return [*energies, NOTHING, NOTHING]
    return [*energies, quantity(bill.latency, units[1]), quantity(bill.energy * bill.latency, *units)]


def _shares(several: Sequence[Bills]) -> Table:
    """Return the shares of energy by operation and by what is charged, machines beside each other."""
    from pcsim.terminal import NOTHING, new_table

    table = new_table("Shares of the dense energy: dense → events", "")
    for both in several:
        name = both.dense.machine.name
        heading = name if len(name) <= WIDEST else name.replace("-", "-\n", 1)
        table.add_column(heading, justify="right", no_wrap=True)
    for key in (_operation, _term):
        parts = [(both.dense.by(key), both.events.by(key), both.dense.energy) for both in several]
        names = sorted({name for dense, _, _ in parts for name, energy in dense.items() if energy})
        for name in names:
            cells = [
                f"{dense[name] / total:.1%} → {events.get(name, 0) / total:5.1%}"
                if dense.get(name)
                else NOTHING
                for dense, events, total in parts
            ]
            table.add_row(name, *cells, end_section=name == names[-1])
    return table


def _operation(row: Row) -> str:
    return row.operation


def _term(row: Row) -> str:
    return row.term.replace("_", " ")


def _remarks(bill: Bill) -> list[str]:
    """Return what a total leaves out or takes for granted."""
    machine, lines = bill.machine, []
    lines.append(f"{', '.join(machine.prices.evidence)} ({machine.source})")
    if bill.unpriced_energy:
        lines.append(f"no price, not in the energy: {_named(bill.unpriced_energy)}")
    if bill.latency is not None and bill.unpriced_time:
        lines.append(f"no price, not in the time: {_named(bill.unpriced_time)}")
    if not machine.prices.time:
        lines.append("no price in time at all")
    if bill.far:
        lines.append("weights do not fit near the arithmetic: all are far")
    if not bill.mapped and any(row.term.startswith("hop_") and row.energy for row in bill.rows):
        lines.append("every message takes one hop along a row, as there is no mapping")
    return lines


def _named(terms: Sequence[str]) -> str:
    return ", ".join(terms).replace("_", " ")


def quantity(value: float, *units: str) -> str:
    """Write an energy in pJ, a time in ns, their product, or a plain count, with a prefix: 82.1 µJ."""
    from pcsim.terminal import scaled

    if "1" in units:
        return scaled(float(f"{value:.3g}")).strip()
    names = {"pJ": (1e-12, "J"), "ns": (1e-9, "s")}
    for unit in units:
        value *= names[unit][0]
    name = "·".join(names[unit][1] for unit in units)
    for factor, prefix in (
        (1, ""),
        (1e-3, "m"),
        (1e-6, "µ"),
        (1e-9, "n"),
        (1e-12, "p"),
        (1e-15, "f"),
        (1e-18, "a"),
    ):
        if value >= factor * 0.9995:
            return f"{value / factor:.3g} {prefix}{name}"
    return f"{value:.3g} {name}"


def draw(orders: Sequence[tuple[str, Mapping[str, Bills]]], out: Path) -> None:
    """Save the picture of several orders' bills."""
    from pcsim.experiments.energy_figure import draw_bills
    from pcsim.report.files import save_bytes
    from pcsim.report.style import style

    with style(), io.BytesIO() as file:
        draw_bills(orders, quantity).savefig(file, format=out.suffix.lower()[1:], dpi=160)
        save_bytes(out, file.getvalue())
