"""Pictures of the study of messages: accuracy against events, against bits, and against fault rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from pcsim.experiments.messages.study import AXES, Summary
from pcsim.report.style import FAINT, INCHES, LINES, line_look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "osD^vP"
SHARES = (0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)  # of entries, for ticks
LINE = 0.033  # of the width of the axes, which the name of a point takes
TITLES = {
    "threshold": "Accuracy against what is sent, by θ of predictions/of errors",
    "format": "Quantised messages: accuracy against bits",
    "state": "Quantised activities: accuracy against their format",
    "loss": "Lost messages",
    "duplication": "Duplicated messages",
    "delay": "Delayed messages",
    "reorder": "Messages out of order",
    "dead": "A core that sends nothing",
}


def draw(axis: str, found: Sequence[Summary]) -> Figure:
    """Draw one axis of a study: a line an order, in a band from the worst to the best seed.

    Args:
        axis: name of one of `AXES`.
        found: its points, all orders.

    Returns:
        The figure, a printed page wide.
    """
    named = axis in ("threshold", "format")
    height = 3.6 if named else 2.9
    figure = Figure(figsize=(INCHES["double"] * 0.72, height), layout="constrained")
    ax = figure.subplots()
    places = _places(axis, found)
    for index, order in enumerate(dict.fromkeys(one.order for one in found)):
        mine = [one for one in found if one.order == order and one in places]
        _line(ax, index, order, mine, [places[one] for one in mine])
    note = " (×: at least one run diverged)" if any(one.diverged for one in places) else ""
    ax.set(xlabel=AXES[axis].title + note, ylabel="test accuracy")
    figure.suptitle(TITLES[axis], fontsize="medium")  # above the names of points
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    _scale(ax, axis, list(places.values()))
    if named:
        _name_points(ax, axis, [one for one in places if one.accuracy is not None], places)
    if axis == "state":
        values = list(dict.fromkeys(one.value for one in found))
        ax.set_xticks(range(len(values)), values)
    if len({one.order for one in found}) > 1:
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)
    return figure


def _places(axis: str, found: Sequence[Summary]) -> dict[Summary, float]:
    """Return where on the horizontal axis each point lies; points of which nothing is known lie nowhere."""
    values = list(dict.fromkeys(one.value for one in found))
    places: dict[Summary, float] = {}
    for one in found:
        match axis:
            case "threshold":
                place = 1.0 if one.value == "none" else one.share
            case "format":
                place = one.bits_a_value
            case "state":
                place = float(values.index(one.value))
            case _:
                place = 0.0 if one.value == "none" else float(one.value)
        if place is not None:
            places[one] = place
    return places


def _line(ax: Axes, index: int, order: str, mine: Sequence[Summary], places: Sequence[float]) -> None:
    by_place = sorted(zip(places, mine, strict=True), key=lambda pair: pair[0])
    where, look = [place for place, _ in by_place], line_look(index)
    # Where no run is left the line is broken.
    means, worst, best = (
        [np.nan if not one.accuracies else float(of(one.accuracies)) for _, one in by_place]
        for of in (np.mean, min, max)
    )
    ax.plot(where, means, marker=MARKERS[index % len(MARKERS)], ms=3.5, label=order, **look)
    ax.fill_between(where, worst, best, color=look["color"], alpha=0.15, lw=0)
    bad = [(place, one.accuracy or 0.0) for place, one in by_place if one.diverged]
    if bad:
        ax.plot(*zip(*bad, strict=True), ls="none", marker="x", ms=6, color=look["color"], clip_on=False)


def _scale(ax: Axes, axis: str, places: Sequence[float]) -> None:
    """Let rates that span decades have a scale on which one can tell them apart, with 0 on it."""
    positive = [place for place in places if place > 0]
    if axis == "threshold" and positive:
        ax.set_xscale("log")
        ticks = [one for one in SHARES if min(positive) * 0.9 <= one <= 1]
        ax.set_xticks(ticks, [f"{one:.0%}" if one >= 0.01 else f"{one:.1%}" for one in ticks])
        ax.set_xticks([], minor=True)
        ax.set_xlim(0.9 * min(positive), 1.08)
    elif axis not in ("format", "state") and positive and max(positive) > 30 * min(positive):
        smallest = min(positive)
        if min(places) == 0:
            ax.set_xscale("symlog", linthresh=smallest, linscale=0.4)
            ax.set_xlim(left=0)
        else:
            ax.set_xscale("log")
    bottom, top = ax.get_ylim()
    ax.set_ylim(max(0.0, bottom - 0.03 * (top - bottom)), min(1.0, top + 0.06 * (top - bottom)))


def _name_points(ax: Axes, axis: str, shown: Sequence[Summary], places: dict[Summary, float]) -> None:
    """Write above the axes, where no curve is, what the points of the first order are."""
    first = [one for one in shown if one.order == shown[0].order] if shown else []
    groups: dict[float, list[Summary]] = {}
    for one in sorted(first, key=lambda one: places[one]):
        groups.setdefault(round(places[one], 2), []).append(one)
    plain = "all" if axis == "threshold" else "as it is"
    to_share = ax.transScale + ax.transLimits  # of the width of the axes
    free = -1.0
    for group in groups.values():
        point = places[group[0]], max(one.accuracy or 0.0 for one in group)
        half = LINE * len(group) / 2
        share = max(float(to_share.transform(point)[0]), free + half)
        free = share + half
        ax.annotate(
            "\n".join(plain if one.value == "none" else one.value for one in group),
            point,
            xytext=(share, 1.03),
            textcoords="axes fraction",
            ha="center",
            va="bottom",
            rotation=90,
            fontsize=6.5,
            color=LINES[0],
            arrowprops={"arrowstyle": "-", "color": FAINT, "lw": 0.5, "relpos": (0.5, 0), "shrinkB": 3},
        )
