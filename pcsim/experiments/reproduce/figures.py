"""The figures, drawn from results and traces in the style of all pcsim's pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from pcsim.experiments.reproduce.plans import FIGURE_4
from pcsim.experiments.reproduce.results import Curve, Results, Row
from pcsim.experiments.significance import mean_sd
from pcsim.report.curves import one_legend, plot_updates
from pcsim.report.numbers import read_updates
from pcsim.report.style import INCHES, count_ticks, line_look, scale_y
from pcsim.tracing.reader import open_trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LETTERS = 105  # of titles beside each other, which the width has room for
MOST_STEPS = 200  # of update magnitudes that are written down


def draw_table(several: Sequence[Results]) -> Figure:
    """Draw best values beside the paper's: a panel a task."""
    figure, axes = _panels(len(several), 2.4)
    for ax, results in zip(axes, several, strict=True):
        rows = [row for row in results.rows if row.seeds or row.paper is not None]
        for index, row in enumerate(rows):
            look = {"color": line_look(0)["color"], "alpha": 0.45, "lw": 0}
            ax.plot([index] * len(row.best), row.best, "o", ms=4, **look)
            if row.best:
                ax.plot([index - 0.2, index + 0.2], [mean_sd(row.best)[0]] * 2, color=look["color"])
            if row.paper is not None:
                ax.plot([index], [row.paper], "D", ms=4, mfc="none", color=line_look(1)["color"])
        ax.set_xticks(range(len(rows)), [row.title for row in rows], rotation=30, ha="right")
        ax.set(ylabel=_label(results))
        _title(ax, results.task.title)
    figure.suptitle("Best epoch: ours (dots a seed, bar their mean), the paper's (diamonds)")
    return figure


def draw_curves(several: Sequence[Results]) -> Figure:
    """Draw learning curves: mean of the seeds in a band from worst to best, a panel a task."""
    figure, axes = _panels(len(several), 2.8)
    for ax, results in zip(axes, several, strict=True):
        for index, row in enumerate(row for row in results.rows if results.curves[row.algorithm]):
            _curve(ax, results.curves[row.algorithm], row.title, line_look(index))
        ax.set(xlabel="epochs", ylabel=_label(results))
        _title(ax, results.task.title)
        count_ticks(ax.xaxis)
        if results.task.measure == "loss":
            scale_y(ax, [value for row in results.rows for value in (*row.best, *row.last)])
        if ax.get_legend_handles_labels()[0]:
            ax.legend()
    return figure


def draw_orders(results: Results) -> Figure:
    """Draw figure 4: best accuracy over T for each order, and all learning curves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(INCHES["double"], 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    for index, order in enumerate(FIGURE_4):
        rows = [row for row in results.rows if row.algorithm.startswith(f"{order}-t") and row.seeds]
        spreads = np.array([mean_sd(row.best) for row in rows]).reshape(-1, 2)
        look = line_look(index)
        left.errorbar(
            [_iterations(row) for row in rows],
            spreads[:, 0],
            np.nan_to_num(spreads[:, 1]),
            marker="o",
            ms=3,
            label=order,
            **look,
        )
        for row in rows:
            shade = {**look, "linestyle": ("-", "--", "-.", ":", (0, (1, 3)))[_iterations(row) - 1]}
            _curve(right, results.curves[row.algorithm], row.title, shade)
    left.set(xlabel="T, inference iterations", ylabel=f"best {_label(results)}", title="Best epoch")
    left.set_xticks(sorted({_iterations(row) for row in results.rows}))
    right.set(xlabel="epochs", ylabel=_label(results), title="Learning")
    count_ticks(right.xaxis)
    if left.get_legend_handles_labels()[0]:
        left.legend()
        right.legend(loc="center left", bbox_to_anchor=(1, 0.5))  # eight curves leave no room
    return figure


def draw_updates(traces: Mapping[str, Path]) -> Figure:
    """Draw update magnitudes by layer along the training: a panel a run, on one scale."""
    figure, axes = _panels(len(traces), 2.6, sharey=True)
    for ax, (title, path) in zip(axes, traces.items(), strict=True):
        with open_trace(path) as trace:
            plot_updates(trace, ax=ax)
        _title(ax, title)
    one_legend(figure, axes)
    return figure


def update_numbers(path: Path) -> dict[str, Any]:
    """Return a run's update magnitudes, fit for JSON: their means, and a thinned course of the training."""
    with open_trace(path) as trace:
        updates = read_updates(trace)
    stride = max(1, len(updates.steps) // MOST_STEPS)
    return {
        "mean": [float(one) for one in updates.magnitudes.mean(axis=0)],
        "steps": updates.steps[::stride].tolist(),
        "magnitudes": [[float(f"{one:.4g}") for one in row] for row in updates.magnitudes[::stride]],
    }


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG and SVG; return the paths."""
    import io

    from pcsim.report.files import save_bytes

    paths = []
    for kind in ("png", "svg"):
        with io.BytesIO() as file:
            figure.savefig(file, format=kind, dpi=200, metadata={"Date": None} if kind == "svg" else None)
            paths.append(folder / f"{name}.{kind}")
            save_bytes(paths[-1], file.getvalue())
    return paths


def _panels(number: int, height: float, *, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """Return a figure with so many axes, two in a row at most, or three of many."""
    from matplotlib.figure import Figure

    columns = min(number, 3 if number > 4 else 2)
    rows = -(-number // columns)
    figure = Figure(figsize=(INCHES["double"], height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey=sharey).flat)
    for ax in axes[number:]:
        ax.set_axis_off()
    return figure, axes[:number]


def _title(ax: Axes, text: str) -> None:
    """Put a title above a panel, in as many lines as keep it from those beside it."""
    place = ax.get_subplotspec()
    assert place is not None
    ax.set_title(fill(text, LETTERS // place.get_gridspec().ncols))


def _curve(ax: Axes, curves: Sequence[Curve], title: str, look: dict[str, Any]) -> None:
    """Draw mean and band of some runs, as far as each has come."""
    longest = max(len(one.values) for one in curves)
    values = np.full((len(curves), longest), np.nan)
    for line, one in zip(values, curves, strict=True):
        line[: len(one.values)] = one.values
    epochs = np.arange(1, longest + 1)
    marker = "o" if longest == 1 else None  # a single point would be no line
    ax.plot(epochs, np.nanmean(values, axis=0), label=title, lw=1.2, marker=marker, ms=3, **look)
    if len(curves) > 1:
        low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
        ax.fill_between(epochs, low, high, color=look["color"], alpha=0.16, lw=0)


def _iterations(row: Row) -> int:
    return int(row.algorithm.partition("-rate-")[0].rpartition("-t")[2])


def _label(results: Results) -> str:
    return "test accuracy, %" if results.task.measure == "accuracy" else "test loss"
