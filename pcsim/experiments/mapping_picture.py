"""A picture of a network on a mesh: who sits where, which links carry how much, and who is busy when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pcsim.experiments.mapping import Mapped
from pcsim.hardware.chip import Chip
from pcsim.hardware.mapping import Mapping
from pcsim.hardware.routes import link_ends
from pcsim.report.style import EMPTY, FAINT, MAP, PAPER, in_bytes, layer_colours
from pcsim.times import seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

BINS = 240
CELL, LANE = 0.58, 0.1  # size of a core, and how far a link lies beside the middle of its lane
HEAT = LinearSegmentedColormap.from_list("traffic", ["#f3c9a5", "#D55E00", "#5a1a00"])
MOST_LABELLED = 260  # cores on a mesh whose layers are written into them
MOST_EMPTY = 4096  # cores on a mesh that is drawn whole; of a larger one only the part that is used
MOST_LINES = 20_000  # links that are drawn, those with the most bytes
LEAST_GAP = 0.07  # of the strip's height, between the numbers of two layers
MOST_LINKS = 24  # rows of the strip below


def draw_mapping(mapped: Mapped) -> Figure:
    """Draw the mesh with its traffic; beside it, how busy cores and links are over time.

    Cores have the colour of their layer, links a width and a colour by the bytes of one mini-batch; each of
    the two links between neighbours lies on the right of its direction.
    """
    window = _window(mapped)
    height = float(np.clip(1.1 + 4.4 * window.rows / window.columns, 3.0, 5.2))
    figure = Figure(figsize=(9.6, height), layout="constrained")
    mesh, strips = figure.subfigures(1, 2, width_ratios=(1.25, 1), squeeze=False)[0]
    _draw_mesh(mesh.subplots(), mapped, window)
    cores, links = strips.subplots(2, 1, sharex=True, height_ratios=(1.4, 1))
    _draw_use(cores, links, mapped)
    schedule = mapped.schedule
    figure.suptitle(
        f"{mapped.model} on {mapped.machine.name}, {schedule.name}, T = {schedule.iterations}, "
        f"mini-batch {mapped.batch}, placement {mapped.mapping.placement}"
    )
    return figure


@dataclass(frozen=True)
class Window:
    """The part of a mesh that is drawn.

    Attributes:
        top: its first row.
        left: its first column.
        rows: how many.
        columns: how many.
    """

    top: int
    left: int
    rows: int
    columns: int


def _window(mapped: Mapped) -> Window:
    """Return the whole mesh, or of a large one the rectangle that holds all tiles and their packets' ways."""
    chip = mapped.mapping.chip
    if chip.cores <= MOST_EMPTY:
        return Window(0, 0, chip.rows, chip.columns)
    # XY routes stay within the rectangle of their ends.
    rows, columns = np.divmod(np.array(mapped.mapping.cores), chip.columns)
    top, left = int(rows.min()), int(columns.min())
    return Window(top, left, int(rows.max()) - top + 1, int(columns.max()) - left + 1)


def _draw_mesh(ax: Axes, mapped: Mapped, window: Window) -> None:
    """Draw cores and links where they are on the chip."""
    mapping = mapped.mapping
    chip, layers = mapping.chip, len(mapping.sizes)
    colours = layer_colours(layers)
    held: dict[int, list[int]] = {}
    for tile in mapping.tiles:
        held.setdefault(tile.core, []).append(tile.layer)
    boxes, faces = [], []
    empty = window.rows * window.columns <= MOST_EMPTY
    for core in _cores_in(window, chip) if empty else mapping.cores:
        row, column = chip.place(core)
        boxes.append(Rectangle((column - CELL / 2, row - CELL / 2), CELL, CELL))
        faces.append(colours[held[core][0]] if core in held else EMPTY)
        if core in held and window.rows * window.columns <= MOST_LABELLED:
            _label(ax, column, row, sorted(set(held[core])), window.columns)
    ax.add_collection(PatchCollection(boxes, facecolors=faces, edgecolors="none", zorder=2))
    carried = mapped.traffic.link_bytes
    if carried.any():
        _draw_links(ax, mapping, carried, max(window.rows, window.columns))
    right, bottom = window.left + window.columns, window.top + window.rows
    ax.set(xlim=(window.left - 0.6, right - 0.4), ylim=(bottom - 0.4, window.top - 0.6), aspect="equal")
    ax.set_axis_off()
    used = f"{len(mapping.cores):,} of {chip.cores:,} cores, {mapped.traffic.packets:,} messages"
    part = f"\nonly rows {window.top} to {bottom - 1}, columns {window.left} to {right - 1} of {chip.rows}x"
    part = "" if window.rows * window.columns == chip.cores else f"{part}{chip.columns} are shown"
    ax.set_title(f"{used}, {in_bytes(mapped.traffic.bytes_times_hops)} × hops a mini-batch{part}")


def _cores_in(window: Window, chip: Chip) -> Iterator[int]:
    """Yield the cores of a part of a mesh."""
    for row in range(window.top, window.top + window.rows):
        first = row * chip.columns + window.left
        yield from range(first, first + window.columns)


def _label(ax: Axes, column: int, row: int, layers: list[int], columns: int) -> None:
    """Write the layers of a core into it."""
    text = str(layers[0]) if len(layers) == 1 else f"{layers[0]}…{layers[-1]}"
    size = min(14.0, 150 / columns / max(1.0, len(text) / 2))
    ax.text(
        column, row, text, ha="center", va="center", color="white", fontsize=size, weight="bold", zorder=4
    )


def _draw_links(
    ax: Axes, mapping: Mapping, carried: np.ndarray[Any, np.dtype[np.int64]], across: int
) -> None:
    """Draw the links that carry anything, the thickest last, with a scale."""
    chip = mapping.chip
    chosen = np.flatnonzero(carried)
    chosen = chosen[np.argsort(carried[chosen], kind="stable")][-MOST_LINES:]
    segments = []
    for link in chosen.tolist():
        ends = [chip.place(core) for core in link_ends(chip, link)]
        (row, column), (to_row, to_column) = ends
        down, right = to_row - row, to_column - column
        beside = np.array([-down, right]) * LANE  # to the right of the direction, rows counted downwards
        along = np.array([right, down])
        start = np.array([column, row]) + beside + along * CELL / 2
        segments.append([start, start + along * (1 - CELL)])
    share = carried[chosen] / carried.max()
    reach = 72 * 4.6 * LANE * 1.4 / across  # points: the two links of a lane do not touch
    collection = LineCollection(
        segments,
        linewidths=np.maximum(0.35 * reach, reach * np.sqrt(share)),
        cmap=HEAT,
        zorder=3,
        capstyle="butt",
    )
    collection.set_array(carried[chosen].astype(float))
    collection.set_clim(0, float(carried.max()))
    ax.add_collection(collection)
    assert ax.figure is not None
    bar = ax.figure.colorbar(collection, ax=ax, location="bottom", fraction=0.05, pad=0.02, aspect=35)
    ticks = np.linspace(0, float(carried.max()), 5)
    bar.set_ticks(ticks.tolist(), labels=[in_bytes(one) for one in ticks])
    bar.set_label(
        "bytes over each link; of two beside each other, each lies on the right of its direction,\n"
        "as traffic keeps right; numbers and colours of cores are layers"
    )
    bar.outline.set_visible(False)


def _draw_use(cores: Axes, links: Axes, mapped: Mapped) -> None:
    """Draw how busy used cores and the busiest links are over time, a row each."""
    mapping, timing = mapped.mapping, mapped.timing
    order = list(dict.fromkeys(tile.core for tile in mapping.tiles))
    power, unit = seconds(timing.makespan)
    end = timing.makespan / 10.0**power
    look: dict[str, Any] = {"aspect": "auto", "cmap": MAP, "vmin": 0, "vmax": 1, "interpolation": "nearest"}
    image = cores.imshow(timing.core_use(BINS, np.array(order)), extent=(0, end, len(order), 0), **look)
    _name_layers(cores, mapping, order)
    mean, busiest = (
        one / (timing.makespan or 1) for one in (timing.core_busy[order].mean(), timing.core_busy.max())
    )
    cores.set_title(f"cores: busy {mean:.0%}, the busiest {busiest:.0%}")
    chosen = np.argsort(-timing.link_busy, kind="stable")[:MOST_LINKS]
    chosen = chosen[timing.link_busy[chosen] > 0]
    if len(chosen):
        use = timing.link_use(BINS, chosen)
        brightest = float(use.max())
        drawn = links.imshow(use, extent=(0, end, len(chosen), 0), **(look | {"vmax": brightest}))
        share = timing.link_busy.max() / timing.makespan
        links.set_title(f"busiest {len(chosen)} links: busy {share:.1%} the first")
        _bar(links, drawn, {0: "idle", brightest: f"busy\n{brightest:.1%}"})
        links.set_yticks([])
    else:
        links.text(
            0.5,
            0.5,
            "links take no time here",
            ha="center",
            va="center",
            transform=links.transAxes,
            color=FAINT,
        )
        links.set_yticks([])
    links.set(xlabel=f"time, {unit}", ylabel="links")
    _bar(cores, image, {0: "idle", 0.5: "half", 1: "busy"})


def _bar(ax: Axes, image: AxesImage, ticks: dict[float, str]) -> None:
    """Add a panel's own scale of colours."""
    assert ax.figure is not None
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.045, pad=0.02)
    bar.set_ticks(list(ticks), labels=list(ticks.values()))
    bar.outline.set_visible(False)


def _name_layers(ax: Axes, mapping: Mapping, order: list[int]) -> None:
    """Put each layer's number beside the middle of its rows; of many layers, some."""
    first: dict[int, list[int]] = {}
    rows = {core: row for row, core in enumerate(order)}
    for tile in mapping.tiles:
        first.setdefault(tile.layer, []).append(rows[tile.core])
    middle = {layer: (min(rows) + max(rows) + 1) / 2 for layer, rows in first.items()}
    shown: list[int] = []
    for layer, place in middle.items():
        if not shown or place - middle[shown[-1]] >= LEAST_GAP * len(order):
            shown.append(layer)
    ax.set_yticks([middle[one] for one in shown], [str(one) for one in shown])
    ax.tick_params(axis="y", length=0)
    for layer in first:
        if len(order) <= 80 and layer:
            ax.axhline(min(first[layer]), color=PAPER, lw=0.7)
    ax.set_ylabel("layer")
