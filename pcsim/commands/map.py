"""`pcsim map`: a network on the cores of a chip."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pcsim.commands import AsJson, Force, Model, Set, print_json
from pcsim.errors import ConfigurationError

if TYPE_CHECKING:
    from pcsim.experiments.mapping import Mapped


def map_network(
    model: Model,
    overrides: Set = [],  # noqa: B006 - typer copies it
    hardware: Annotated[
        str, typer.Option(metavar="NAME|FILE.toml", help="Machine with a chip: a preset or a file.")
    ] = "loihi2018",
    placement: Annotated[
        str, typer.Option(metavar="NAME|FILE.json", help="row, snake, traffic, or a mapping's file.")
    ] = "traffic",
    order: Annotated[str | None, typer.Option(help="Schedule to map instead of the model's.")] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="MAP.json", help="Write the mapping.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="PICTURE", help="Draw it: .png, .svg or .pdf.")
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Split a network over the cores of a chip, place it, and simulate one mini-batch on its mesh.

    Example: `pcsim map digits --hardware loihi2018 --set training.batch=1 -o map.json --picture map.png`
    """
    from pcsim.config import load_model
    from pcsim.experiments.mapping import map_model
    from pcsim.experiments.mapping_picture import draw_mapping
    from pcsim.report.files import check_picture, refuse_place, save_picture

    check_picture(picture, force)
    if out is not None:
        if out.suffix != ".json":
            raise ConfigurationError(f"{out}: expected a name that ends in .json, as mappings do")
        if out.resolve() == Path(placement).resolve():
            raise ConfigurationError(f"{out} is the placement itself: expected another name")
        refuse_place(out, force)
    choice = [] if order is None else [f"schedule.order={order}"]
    mapped = map_model(load_model(model, [*overrides, *choice]), hardware, placement)
    if out is not None:
        mapped.mapping.save(out, overwrite=force)
    if picture is not None:
        save_picture(lambda: draw_mapping(mapped), picture, 300)
    if as_json:
        print_json(mapped.to_dict())
        return
    _show(mapped)
    for name, path in (("mapping", out), ("picture", picture)):
        if path is not None:
            typer.echo(f"{name}: {path}")


def _show(mapped: Mapped) -> None:
    from rich.console import Console

    from pcsim.terminal import new_table

    mesh, schedule = mapped.mapping.chip, mapped.schedule
    console = Console(markup=False)  # file names may hold brackets
    console.print(
        f"{mapped.model} on {mapped.machine.name}: {mesh.rows}x{mesh.columns} cores, placement "
        f"{mapped.mapping.placement}\n{schedule.name}, T = {schedule.iterations}, mini-batch {mapped.batch}; "
        f"prices in time: {mapped.machine.source}",
        highlight=False,
    )
    table = new_table("Fill", "capacity")
    for heading in ("fullest core", "holds", "can hold", "full"):
        table.add_column(heading, justify="right", no_wrap=True)
    used, cores = len(mapped.mapping.cores), mesh.cores
    table.add_row("cores", "", f"{used:,}", f"{cores:,}", f"{used / cores:.1%}")
    for fill in mapped.fills:
        limit = ("any", "") if fill.limit is None else (f"{fill.limit:,}", f"{fill.most / fill.limit:.1%}")
        table.add_row(fill.what, str(fill.core), f"{fill.most:,}", *limit)
    console.print(table)
    console.print(_one_mini_batch(mapped), highlight=False)


def _one_mini_batch(mapped: Mapped) -> str:
    """Say in a few lines what happens on the mesh."""
    from pcsim.hardware.routes import link_ends
    from pcsim.report.style import in_bytes
    from pcsim.terminal import scaled
    from pcsim.times import in_seconds

    timing, traffic = mapped.timing, mapped.traffic
    (core, core_share), (link, link_share) = mapped.busiest_core, mapped.busiest_link
    lines = [
        f"one mini-batch: {traffic.packets:,} messages between tiles, {traffic.hops:,} hops "
        f"({traffic.hops_horizontal:,} along rows)",
        f"traffic: {in_bytes(traffic.bytes_times_hops)} × hops; heads of messages waited "
        f"{in_seconds(timing.waiting)} for links",
        f"makespan {in_seconds(timing.makespan)}; at least its span, {in_seconds(timing.span)}, and work "
        f"over cores, {in_seconds(timing.plan.work / len(mapped.mapping.cores))}",
        f"busiest core {core}: {core_share:.1%} of the time",
    ]
    if traffic.hops:
        source, target = link_ends(mapped.mapping.chip, link)
        size = in_bytes(float(traffic.link_bytes[link]))
        lines[-1] += f"; busiest link {source} → {target}: {link_share:.1%}, {size}"
    if traffic.merged_values:
        lines.append(f"additions of part sums: {scaled(traffic.merged_values)}")
    if mapped.unpriced:
        unpriced = ", ".join(mapped.unpriced).replace("_", " ")
        lines.append(f"without a price in time, and so not counted: {unpriced}")
    if mapped.left_out:
        lines.append(f"sums over the tiles of one layer, not simulated: {', '.join(mapped.left_out)}")
    return "\n".join(lines)
