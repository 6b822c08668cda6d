"""What `pcsim energy` tells of machines: their prices, and for scripts what they charge."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from pcsim.commands import print_json
from pcsim.hardware.machine import Machine, load_machine, machine_names
from pcsim.terminal import NOTHING, new_table

if TYPE_CHECKING:
    from pcsim.experiments.energy import Bills


def list_machines(as_json: bool) -> None:
    """Print the machines, one line each with the source."""
    machines = [load_machine(name) for name in machine_names()]
    if as_json:
        print_json([describe_machine(machine) for machine in machines])
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


def describe_bills(both: Bills) -> dict[str, Any]:
    """Return a machine with its prices and bills, fit for JSON."""
    return describe_machine(both.dense.machine) | {
        "dense": both.dense.to_dict(),
        "events": both.events.to_dict(),
    }


def describe_machine(machine: Machine) -> dict[str, Any]:
    """Return a machine and its prices, fit for JSON."""
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
