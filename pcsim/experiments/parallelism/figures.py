"""Pictures of the study of parallelism, in pcsim's colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import EngFormatter

from pcsim.experiments.parallelism.needs import Need, smallest_enough
from pcsim.experiments.parallelism.pipelines import WINDOWS, Pipeline
from pcsim.experiments.parallelism.study import ASYNCHRONOUS, ORDERS, Row, Study
from pcsim.report.style import DASHES, EMPTY, FAINT, HATCH, INK, LINES
from pcsim.theory.parallelism import BACKPROP, STATIC

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "osD^vPX"
PANELS = 4
TIE = len(STATIC)  # the colour of a cell in which several orders are first


def look(order: str) -> dict[str, Any]:
    """Return how an order is drawn, the same in every picture."""
    if order == BACKPROP:
        return {"color": INK, "linestyle": ":", "marker": "", "lw": 1.6}
    index = ORDERS.index(order) - 1
    dashes = DASHES[1] if order == ASYNCHRONOUS else DASHES[0]
    return {"color": LINES[index], "linestyle": dashes, "marker": MARKERS[index], "ms": 3, "lw": 1.2}


def draw_speedup(result: Study) -> Figure:
    """Draw T₁/T_P over P, a panel a depth."""
    figure, axes = _panels(_some(result.depths), "cores", "speed-up over one core")
    for ax, hidden in axes:
        for order in ORDERS:
            row = next((row for row in result.at(hidden) if row.order == order), None)
            if row is not None:
                speed = [row.work / time for time in row.makespans]
                ax.plot(result.cores, speed, label=order, **look(order))
        ax.plot(result.cores, result.cores, color=FAINT, lw=0.6, zorder=0)
    _legend(figure, [ax for ax, _ in axes])
    return figure


def draw_time(result: Study) -> Figure:
    """Draw the time to equal accuracy, or of a sample without runs, over P: the better T of each order."""
    trained = sorted({need.hidden for need in result.needs} & set(result.depths)) or list(result.depths)
    title = "time to equal accuracy" if result.needs else "time of a sample"
    figure, axes = _panels(_some(trained), "cores", f"{title}, multiplications")
    for ax, hidden in axes:
        for order in ORDERS:
            times = [row.times for row in result.at(hidden) if row.order == order]
            if times:
                ax.plot(result.cores, np.min(times, axis=0), label=order, **look(order))
    _legend(figure, [ax for ax, _ in axes])
    return figure


def draw_map(result: Study) -> Figure:
    """Draw who is first at each depth and number of cores, with its time over backprop's there."""
    figure = Figure(figsize=(7, 1.3 + 0.28 * len(result.depths)), layout="constrained")
    ax = figure.subplots()
    cells = np.full((len(result.depths), len(result.cores)), -1)
    for (line, column), _ in np.ndenumerate(cells):
        firsts = result.first(result.depths[line], result.cores[column])
        if firsts:
            cells[line, column] = TIE if len(firsts) > 1 else STATIC.index(firsts[0].order)
            _label(ax, result, firsts[0], line, column)
    colours = [EMPTY, *(look(order)["color"] for order in STATIC), FAINT]
    ax.imshow(cells, cmap=ListedColormap(colours), vmin=-1, vmax=TIE, aspect="auto")
    ax.set_xticks(range(len(result.cores)), [str(one) for one in result.cores])
    ax.set_yticks(range(len(result.depths)), [str(one) for one in result.depths])
    what = "equal accuracy" if result.needs else "equal T"
    ax.set(xlabel="cores", ylabel="hidden layers", title=f"First at {what}, and its time over backprop's")
    seen = sorted({int(cell) for cell in cells.flat if cell >= 0})
    names = [*STATIC, "a tie"]
    handles = [Patch(color=colours[index + 1], label=names[index]) for index in seen]
    if any(row.basis == "extrapolated" for row in result.rows):
        handles.append(Patch(fill=False, hatch="////", edgecolor=HATCH, label="T extrapolated"))
    figure.legend(handles=handles, loc="outside lower center", ncols=5)
    return figure


def _label(ax: Axes, result: Study, first: Row, line: int, column: int) -> None:
    """Write a time over backprop's into a cell of the map; hatch it if T is extrapolated."""
    base = next((row for row in result.at(first.hidden) if row.order == BACKPROP), None)
    ratio = "" if base is None else f"{first.times[column] / base.times[column]:.2g}"
    ax.text(column, line, ratio, ha="center", va="center", color="w", fontsize=6.5)
    if first.basis == "extrapolated":
        corner = column - 0.5, line - 0.5
        ax.add_patch(Rectangle(corner, 1, 1, fill=False, hatch="////", lw=0, edgecolor=HATCH, alpha=0.6))


def draw_needs(rows: Sequence[Need]) -> Figure:
    """Draw the smallest T that is enough over depth, and what every T comes to at the deepest."""
    figure = Figure(figsize=(7, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    depths = sorted({row.hidden for row in rows})
    for order in ORDERS[1:]:
        found = [
            (hidden, row.iterations) for hidden in depths if (row := smallest_enough(rows, hidden, order))
        ]
        if found:
            left.plot(*zip(*found, strict=True), label=order, **look(order))
    left.plot(depths, depths, color=FAINT, lw=0.7, zorder=0)
    left.annotate(
        "T = hidden layers", (depths[-2], depths[-2]), color=FAINT, fontsize=7, ha="right", va="bottom"
    )
    left.set_xscale("log", base=2)
    left.set_yscale("log", base=2)
    left.set(xlabel="hidden layers", ylabel="smallest T that is enough")
    _accuracies(right, [row for row in rows if row.hidden == depths[-1]], depths[-1])
    for axis in (left.xaxis, left.yaxis, right.xaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    handles = {
        name: line for ax in (left, right) for line, name in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    return figure


def _accuracies(ax: Axes, rows: Sequence[Need], hidden: int) -> None:
    for order in ORDERS[1:]:
        own = [row for row in rows if row.order == order]
        if own:
            accuracies = [100 * float(np.mean(row.best)) for row in own]
            ax.plot([row.iterations for row in own], accuracies, label=order, **look(order))
    ax.axhline(100 * rows[0].goal, label="goal", **look(BACKPROP))
    ax.set_xscale("log", base=2)
    ax.set(
        xlabel="T", ylabel="best test accuracy, %", title=f"{hidden} hidden layers; a run ends at the goal"
    )


def draw_pipelines(rows: Sequence[Pipeline]) -> Figure:
    """Draw the time between mini-batches over the window, a panel a depth."""
    depths = sorted({row.hidden for row in rows})
    figure, axes = _panels(_some(depths), "mini-batches under way", "products a mini-batch")
    for ax, hidden in axes:
        for row in (row for row in rows if row.hidden == hidden):
            times = [time for time in row.intervals if time is not None]
            ax.plot(WINDOWS[: len(times)], times, label=row.order, **look(row.order))
        ax.set_xticks(WINDOWS, ["1: exact", *(str(window) for window in WINDOWS[1:])])
        ax.set_yscale("log", base=2)
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.minorticks_off()
    _legend(figure, [ax for ax, _ in axes])
    return figure


def _some(depths: Sequence[int]) -> list[int]:
    """Return at most four depths, spread evenly, the ends among them."""
    chosen = np.linspace(0, len(depths) - 1, min(PANELS, len(depths))).round().astype(int)
    return [sorted(depths)[index] for index in chosen]


def _panels(depths: Sequence[int], below: str, beside: str) -> tuple[Figure, list[tuple[Axes, int]]]:
    lines = (len(depths) + 1) // 2
    figure = Figure(figsize=(7, 0.5 + 2.3 * lines), layout="constrained")
    axes = list(np.atleast_1d(figure.subplots(lines, min(2, len(depths)), sharex=True)).flat)
    for ax in axes[len(depths) :]:
        ax.remove()
    for ax, hidden in zip(axes, depths, strict=False):
        ax.set(title=f"{hidden} hidden layers")
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.yaxis.set_major_formatter(EngFormatter(sep=" "))
    for ax in axes[max(0, len(depths) - 2) : len(depths)]:
        ax.set_xlabel(below)
        ax.tick_params(labelbottom=True)
    figure.supylabel(beside, fontsize=8)
    return figure, list(zip(axes, depths, strict=False))


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """Name every order once, in the order of `ORDERS`."""
    handles = {name: line for ax in axes for line, name in zip(*ax.get_legend_handles_labels(), strict=True)}
    names = sorted(handles, key=ORDERS.index)
    pinned = {ASYNCHRONOUS: "asynchronous (cores belong to layers)"}
    labels = [pinned.get(name, name) for name in names]
    figure.legend([handles[name] for name in names], labels, loc="outside lower center", ncols=4)
