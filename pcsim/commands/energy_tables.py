"""What `pcsim energy` shows of bills: tables, remarks and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pcsim.experiments.energy import Bills
from pcsim.hardware.charge import Bill, Row
from pcsim.terminal import NOTHING, new_table, scaled

MOST_MACHINES, WIDEST = 3, 16  # beside each other in a table of 80 columns, and letters of a name
UNITS = {"pJ": (1e-12, "J"), "ns": (1e-9, "s")}
PREFIXES = ((1, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"), (1e-15, "f"), (1e-18, "a"))


def show_bills(title: str, several: Sequence[Bills]) -> None:
    """Print what machines charge, where it goes, and what they leave out."""
    console = Console()
    console.print(_totals(title, several))
    for first in range(0, len(several), MOST_MACHINES):
        console.print(_shares(several[first : first + MOST_MACHINES]))
    for both in several:
        for line in _remarks(both):
            console.print(f"{both.dense.machine.name}: {line}", highlight=False)


def _totals(title: str, several: Sequence[Bills]) -> Table:
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
    units = bill.machine.prices.energy_unit, bill.machine.prices.time_unit
    energies = [quantity(energy, units[0]) for energy in (bill.energy, bill.energy / bill.batch)]
    if bill.latency is None:
        return [*energies, NOTHING, NOTHING]
    return [*energies, quantity(bill.latency, units[1]), quantity(bill.energy * bill.latency, *units)]


def _shares(several: Sequence[Bills]) -> Table:
    """Return the shares of energy by operation and by what is charged, machines beside each other."""
    table = new_table("Shares of the dense energy: dense → events", "")
    for both in several:
        name = both.dense.machine.name
        between = "/" if "/" in name else "-"
        heading = name if len(name) <= WIDEST else name.replace(between, f"{between}\n", 1)
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


def _remarks(both: Bills) -> list[str]:
    """Return what totals leave out or take for granted."""
    bill, lines = both.dense, []
    machine, timed = bill.machine, bill.latency is not None or both.events.latency is not None
    lines.append(f"{', '.join(machine.prices.evidence)} ({machine.source})")
    if bill.unpriced_energy:
        lines.append(f"no price, not in the energy: {_named(bill.unpriced_energy)}")
    if timed and bill.unpriced_time:
        lines.append(f"no price, not in the time: {_named(bill.unpriced_time)}")
    for way, one in (("dense", bill), ("events", both.events)):
        if one.untimed is not None:
            lines.append(f"no time of {way}: {one.untimed}")
    if not machine.prices.time:
        lines.append("no price in time at all")
    if bill.far:
        lines.append("weights do not fit near the arithmetic: all are far")
    if bill.misfit is not None:
        lines.append(f"does not fit the chip: {bill.misfit} (pcsim map)")
    if not bill.mapped and any(row.term.startswith("hop_") and row.energy for row in bill.rows):
        lines.append("every message takes one hop along a row, as there is no mapping")
    return lines


def _named(terms: Sequence[str]) -> str:
    return ", ".join(terms).replace("_", " ")


def quantity(value: float, *units: str) -> str:
    """Write an energy in pJ, a time in ns, their product, or a plain count, with a prefix: 82.1 µJ."""
    if "1" in units:
        return scaled(float(f"{value:.3g}")).strip()
    for unit in units:
        value *= UNITS[unit][0]
    name = "·".join(UNITS[unit][1] for unit in units)
    for factor, prefix in PREFIXES:
        if value >= factor * 0.9995:
            return f"{value / factor:.3g} {prefix}{name}"
    return f"{value:.3g} {name}"


def draw(orders: Sequence[tuple[str, Mapping[str, Bills]]], out: Path) -> None:
    """Save the picture of several orders' bills."""
    from pcsim.experiments.energy_figure import draw_bills
    from pcsim.report.files import save_picture

    save_picture(lambda: draw_bills(orders, quantity), out, 160)
