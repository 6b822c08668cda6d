"""The picture of a study: what the settings do, and how the runs learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pcsim.experiments.significance import mean_sd
from pcsim.experiments.sweep.results import Configuration, StudyResults, setting, short_keys
from pcsim.report.curves import with_legend
from pcsim.report.style import FAINT, INCHES, count_ticks, line_look, scale_y

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINES = 6  # groups of configurations that a colour each can tell apart
MOST_ROWS = 20  # configurations in a ranking
MOST_NUMBERS = 5  # swept numbers with a panel each
BEST = 3  # learning curves that are named
WIDE = 10  # a span of values from which on its logarithm is drawn, a decade
LABEL = 0.16  # of a logarithmic axis, which a number below it takes
MOST_TICKS = 10  # whole numbers at an axis, each of which is marked


def draw(results: StudyResults) -> Figure:
    """Draw a study: validation results over what was swept, or as a ranking; and the learning curves.

    Dots are seeds, lines and bars their means; hollow dots have not trained to the end.
    """
    from matplotlib.figure import Figure

    shown = [row for row in results.rows if row.validation]
    numbers = _numbers(results.keys, shown)
    lines = _groups(results.keys, shown, numbers[:1])
    one_panel = not numbers or len(lines) <= MOST_LINES
    panels = 2 if one_panel else len(numbers) + 1
    columns = 2 if panels in (2, 4) else 3
    rows = -(-panels // columns)
    figure = Figure(figsize=(INCHES["double"], 0.8 + 2.5 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in axes[panels:]:
        ax.set_axis_off()
    if not numbers:
        _ranking(axes[0], results, shown[:MOST_ROWS])
    elif one_panel:
        _over(axes[0], results, numbers[0], lines)
    else:
        _scatters(axes, results, numbers, shown)
    _curves(axes[panels - 1], results, shown)
    with_legend(axes[panels - 1], "best learning curves")
    last_row = (rows - 1) * columns
    with_legend(axes[last_row if last_row < panels - 1 else 0])  # of all panels but the last
    figure.suptitle(f"{results.name}: {len(results.rows)} configurations")
    return figure


def _numbers(keys: Sequence[str], rows: Sequence[Configuration]) -> list[str]:
    """Return the swept keys that have at least two different numbers, those with the most first."""
    found: dict[str, int] = {}
    for key in keys:
        values = [row.settings[key] for row in rows if key in row.settings]
        if values and all(isinstance(one, int | float) and not isinstance(one, bool) for one in values):
            found[key] = len(set(values))
    several = [key for key in found if found[key] > 1]
    return sorted(several, key=lambda key: -found[key])[:MOST_NUMBERS]


def _groups(
    keys: Sequence[str], rows: Sequence[Configuration], without: Sequence[str]
) -> dict[str, list[Configuration]]:
    """Return the configurations by their other settings, the best first."""
    groups: dict[str, list[Configuration]] = {}
    for row in rows:
        if row.settings.keys() >= set(without):
            groups.setdefault(_name(row, keys, without), []).append(row)
    return groups


def _name(row: Configuration, keys: Sequence[str], without: Sequence[str] = ()) -> str:
    short = short_keys(keys)
    named = [(short[key], row.settings[key]) for key in keys if key in row.settings and key not in without]
    return ", ".join(
        setting(value) if isinstance(value, str | dict) else f"{name} {setting(value)}"
        for name, value in named
    )


def _over(ax: Axes, results: StudyResults, number: str, groups: dict[str, list[Configuration]]) -> None:
    """Draw validation results over a number, a line a group."""
    for place, (name, rows) in enumerate(groups.items()):
        look = line_look(place)
        ordered = sorted(rows, key=lambda row: row.settings[number])
        at = [row.settings[number] for row in ordered]
        ax.plot(at, [mean_sd(row.validation)[0] for row in ordered], lw=1.2, label=name, **look)
        _dots_over(ax, number, ordered, look["color"])
    _axes_over(ax, results, number, [row for rows in groups.values() for row in rows])
    ax.set_title("Best epoch by validation")


def _scatters(
    axes: Sequence[Axes], results: StudyResults, numbers: Sequence[str], rows: Sequence[Configuration]
) -> None:
    """Draw validation results over each of several numbers, dots alone; a colour for all else that is set."""
    groups = _groups(results.keys, rows, numbers)
    if len(groups) > MOST_LINES:
        groups = {"": list(rows)}
    for ax, number in zip(axes, numbers, strict=False):
        for place, (name, several) in enumerate(groups.items()):
            colour = line_look(place)["color"]
            ax.plot([], [], "o", ms=3.5, color=colour, label=name)
            _dots_over(ax, number, several, colour)
        _axes_over(ax, results, number, rows)


def _dots_over(ax: Axes, number: str, rows: Sequence[Configuration], colour: str) -> None:
    for row in rows:
        if number in row.settings:
            _dots(ax, [row.settings[number]] * len(row.validation), row.validation, row, colour)


def _axes_over(ax: Axes, results: StudyResults, number: str, rows: Sequence[Configuration]) -> None:
    """Name and scale the axes of a panel over a number."""
    drawn = [row.settings[number] for row in rows if number in row.settings]
    whole = all(isinstance(one, int) for one in drawn)
    if whole and max(drawn) - min(drawn) <= 2 * MOST_TICKS and len(set(drawn)) <= MOST_TICKS:
        ax.set_xticks(sorted(set(drawn)))
    elif min(drawn) > 0 and max(drawn) >= WIDE * min(drawn) * (1 - 1e-9):
        _logarithmic(ax, sorted(set(drawn)))
    elif whole and len(set(drawn)) <= MOST_TICKS:
        ax.set_xticks(sorted(set(drawn)))
    else:
        ax.locator_params(axis="x", nbins=4)  # numbers such as 0.00125 need room
    ax.set(xlabel=number, ylabel=_label(results))
    _scale(ax, results, [value for row in rows for value in row.validation])


def _logarithmic(ax: Axes, values: Sequence[float]) -> None:
    """Make the axis logarithmic, with ticks at the values if they are few; no label touches another."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set_xscale("log")
    ax.xaxis.set_minor_formatter(NullFormatter())
    if len(values) > MOST_TICKS:
        wide = values[-1] >= 10 * WIDE * values[0]
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 3.0), numticks=6))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        return
    labels, free = [], 0.0
    for value in values:
        labels.append(f"{value:g}" if value >= free else "")
        if labels[-1]:
            free = value * (values[-1] / values[0]) ** LABEL
    ax.set_xticks(values, labels)
    ax.set_xticks([], minor=True)


def _ranking(ax: Axes, results: StudyResults, rows: Sequence[Configuration]) -> None:
    """Draw validation results, a line a configuration, the best on top."""
    colour = line_look(0)["color"]
    for place, row in enumerate(rows):
        _dots(ax, row.validation, [place] * len(row.validation), row, colour)
        ax.plot([mean_sd(row.validation)[0]] * 2, [place - 0.3, place + 0.3], color=colour)
    names = [_name(row, results.keys) or row.configuration for row in rows]
    ax.set_yticks(range(len(rows)), names, fontsize=6)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set(xlabel=_label(results), title="Best epoch by validation")


def _dots(ax: Axes, x: npt.ArrayLike, y: npt.ArrayLike, row: Configuration, colour: str) -> None:
    """Draw the seeds of a configuration; hollow if it has not trained to the end."""
    face: dict[str, Any] = {} if row.finished else {"mfc": "none"}
    ax.plot(x, y, "o", ms=3.5, color=colour, alpha=0.7, **face)


def _curves(ax: Axes, results: StudyResults, rows: Sequence[Configuration]) -> None:
    """Draw the mean learning curve of each configuration; the best ones in colour."""
    values: list[float] = []
    for place, row in enumerate(rows):
        look: dict[str, Any] = {"color": FAINT, "lw": 0.6, "alpha": 0.6, "zorder": 1.5}
        if place < BEST:  # the best lies above the others
            look = {
                **line_look(place),
                "lw": 1.4,
                "zorder": 2.5 - place / 10,
                "label": _name(row, results.keys) or row.configuration,
            }
        longest = max(len(one) for one in row.curves)
        curves = np.full((len(row.curves), longest), np.nan)
        for line, one in zip(curves, row.curves, strict=True):
            line[: len(one)] = one
        mean = np.nanmean(curves, axis=0)
        values += mean.tolist()
        ax.plot(np.arange(1, longest + 1), mean, marker="o" if longest == 1 else None, ms=2.5, **look)
    ax.set(xlabel="epochs", ylabel=_label(results), title="Learning, mean of the seeds")
    count_ticks(ax.xaxis)
    _scale(ax, results, values)


def _scale(ax: Axes, results: StudyResults, values: Sequence[float]) -> None:
    if results.measure == "loss":
        scale_y(ax, values)


def _label(results: StudyResults) -> str:
    return "validation accuracy, %" if results.measure == "accuracy" else "validation loss"
