"""`pcsim export`: a trace in the formats of other tools."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pcsim.commands import AsJson, Force
from pcsim.errors import ConfigurationError

if TYPE_CHECKING:
    from pcsim.export import Exported, Options, Prices

MACHINE = "sanafe-loihi"


def export(
    trace: Annotated[Path | None, typer.Argument(metavar="TRACE.h5", help="Trace file of a run.")] = None,
    to: Annotated[str, typer.Option(metavar="FORMAT", help="See --list.")] = "",
    out: Annotated[Path | None, typer.Option("-o", "--out", help="File or folder to make.")] = None,
    listing: Annotated[bool, typer.Option("--list", help="List the formats and leave.")] = False,
    step: Annotated[
        int | None, typer.Option(min=0, help="Only this training step (nir, perfetto, sanafe, testbench).")
    ] = None,
    layer: Annotated[int | None, typer.Option(min=0, help="Hidden layer (testbench).")] = None,
    numbers: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="[SIGNAL=]Qm.n",
            help="Fixed-point format of all signals or of one, repeatable (testbench) [Q3.12].",
        ),
    ] = None,
    linearise: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="STEP", help="Replace functions by tangents at this training step's state (nir)."
        ),
    ] = None,
    mapping: Annotated[
        Path | None,
        typer.Option(metavar="MAP.json", help="Placement of `pcsim map` (sanafe, traffic) [a core a layer]."),
    ] = None,
    hardware: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.toml",
            help=f"Machine with the prices (sanafe) [that of MAP.json, else {MACHINE}].",
        ),
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write a trace in the format of another tool.

    Example: `pcsim export traces/digits-sequential.h5 --to perfetto -o timeline.json`
    """
    from pcsim.export import Options
    from pcsim.export import export as export_trace

    if listing:
        _list(as_json)
        return
    if trace is None or out is None or not to:
        raise ConfigurationError("export: expected TRACE.h5 --to FORMAT -o PATH, or --list")
    prices = _prices(mapping, hardware) if hardware or to == "sanafe" else None
    options = Options(step, layer, tuple(numbers) if numbers else None, linearise, mapping, prices)
    if as_json:
        made = export_trace(trace, to, out, options, overwrite=force)
        typer.echo(json.dumps(made.to_dict(), indent=2))
    else:
        _show(_with_bar(trace, to, out, options, force))


def _prices(mapping: Path | None, hardware: str | None) -> Prices:
    """Return the prices of a machine: the one named, else that of the mapping."""
    from pcsim.export import Prices
    from pcsim.hardware.machine import load_machine, machine_names, option_of
    from pcsim.hardware.mapping import Mapping

    name = hardware or (Mapping.load(mapping).machine if mapping else MACHINE)
    if not hardware and name not in machine_names():
        raise ConfigurationError(
            f"{mapping} is for the machine {name}, which is no preset: expected its file too; "
            f"name it with --hardware {option_of(name)}"
        )
    machine = load_machine(name)
    kinds = (machine.prices.energy, machine.prices.time)
    energy, time = ({str(term): price.value for term, price in kind.items()} for kind in kinds)
    if machine.passed_bytes != machine.packet_bytes:  # the time of a byte, and a packet is a number
        del time["message"]
    return Prices(machine.name, machine.source, energy, time, machine.packet_bytes)


def _with_bar(trace: Path, to: str, out: Path, options: Options, force: bool) -> Exported:
    """Export with a bar that begins with the work: one that is refused before shows none."""
    from pcsim.export import export as export_trace
    from pcsim.terminal import ProgressBar

    with ExitStack() as stack:
        bar = ProgressBar()
        shown = -1

        def move(share: float) -> None:
            nonlocal shown
            if shown < 0:
                stack.enter_context(bar)
                bar.begin(f"{trace.name} to {to}", 100)
                shown = 0
            for _ in range(shown, int(100 * share)):
                bar.step()
            shown = max(shown, int(100 * share))

        return export_trace(trace, to, out, options, overwrite=force, progress=move)


def _show(made: Exported) -> None:
    """Say what was made, and what the user must know about it."""
    from rich.console import Console

    console = Console()
    for line in made.summary:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for note in made.notes:
        console.print(note, highlight=False, markup=False)
    for file in made.files:
        console.print(f"{made.format}: {file}", highlight=False, markup=False, soft_wrap=True)


def _list(as_json: bool) -> None:
    from dataclasses import asdict

    from rich.console import Console

    from pcsim.export import FLAGS, FORMATS
    from pcsim.terminal import new_table

    if as_json:
        typer.echo(json.dumps({name: asdict(one) for name, one in FORMATS.items()}, indent=2))
        return
    table = new_table("Formats of pcsim export", "format", "makes")
    for heading in ("what", "from", "options"):
        table.add_column(heading, overflow="fold")
    for name, one in FORMATS.items():
        flags = " ".join(FLAGS[option] for option in one.options)
        table.add_row(name, "folder" if one.folder else "file", one.summary, one.reads, flags)
    Console().print(table)
