"""Pictures of the event engine's traces: timeline, message raster, traffic matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from pcsim.report.numbers import Timeline, Traffic, read_timeline, read_traffic
from pcsim.report.style import (
    DOWN,
    FAINT,
    INK,
    LINES,
    MAP,
    PAPER,
    UP,
    in_bytes,
    ink_on,
    own_axes,
    whole_ticks,
)
from pcsim.times import seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pcsim.tracing.reader import TraceReader

MOST_BARS = 400  # operations and messages in a timeline that one can still read
MOST_TICKS = 20_000  # messages in a raster
COLOURS = {
    "initialise": LINES[4],
    "clamp": FAINT,
    "predict": UP,
    "compare": DOWN,
    "relax": LINES[2],
    "learn": LINES[3],
    "prediction": UP,
    "error": DOWN,
}
OTHER = LINES[5]  # a user's own operations
# How what went wrong is marked: the marker, what it is, and whether it lies at the end of the arrow.
MARKS = {
    "lost": ("x", "lost", True),
    "unsent": ("|", "not sent, core dead", True),
    "delayed": ("o", "delayed", True),
    "reordered": ("D", "reordered", True),
    "copy": ("s", "second copy", False),
}
BAR = 0.56  # height of an operation's bar; layers are 1 apart


def plot_timeline(
    trace: TraceReader | Timeline, *, step: int | None = None, most: int = MOST_BARS, ax: Axes | None = None
) -> Axes:
    """Draw who acts when in one training step: a bar an operation, an arrow a message.

    Args:
        trace: an open trace of the event engine, or what was read from it.
        step: training step; the first recorded one if not given.
        most: events to draw; the picture says what it leaves out.
        ax: where to draw; new axes if not given.

    Returns:
        The axes.

    Raises:
        TraceError: the trace has no events of that step.
    """
    timeline = trace if isinstance(trace, Timeline) else read_timeline(trace, step, most)
    ax = own_axes(ax, 7.0, 0.8 + 0.45 * timeline.total_layers)
    names = np.asarray(timeline.names)
    shown = np.arange(len(names)) < most
    for name in dict.fromkeys((*COLOURS, *timeline.names)):
        for draw, what in ((_bars, ~timeline.messages), (_arrows, timeline.messages)):
            chosen = shown & (names == name) & what
            if chosen.any():
                draw(ax, timeline, chosen, name)
    _marks(ax, timeline, shown)
    _by_layer(ax, timeline)
    cut = f", first {shown.sum():,} of {timeline.events:,} events" if timeline.events > shown.sum() else ""
    ax.set_title(f"Timeline of training step {timeline.step:,}{cut}")
    label_time(ax, timeline.unit)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, handlelength=1.2)
    return ax


def label_time(ax: Axes, unit: str) -> None:
    """Name the axis of time, in a unit that keeps the numbers at its ticks short; again if its end moves."""
    last = ax.get_xlim()[1]
    power, words = seconds(last) if unit == "ns" else (0, "")
    if not words and not 1e-3 <= last < 1e6:
        power = 3 * int(np.floor(np.log10(last or 1) / 3))
        words = f"units of 1e{power}"
    ax.xaxis.set_major_formatter(FuncFormatter(lambda time, _: f"{time / 10.0**power:,.6g}"))
    ax.set_xlabel(f"simulated time, {words}" if words else "simulated time")


def ends(timelines: Sequence[Timeline]) -> dict[str, float]:
    """Return where axes of time end, by unit: what takes longer looks longer."""
    last: dict[str, float] = {}
    for timeline in timelines:
        last[timeline.unit] = max(last.get(timeline.unit, 0.0), 1.02 * float(timeline.end.max(initial=0)))
    return {unit: time or 1.0 for unit, time in last.items()}


def _bars(ax: Axes, timeline: Timeline, chosen: npt.NDArray[np.bool_], name: str) -> None:
    start, length = timeline.start[chosen], timeline.end[chosen] - timeline.start[chosen]
    colour = COLOURS.get(name, OTHER)
    # An edge in the same colour keeps operations visible that take no time.
    ax.barh(timeline.layer[chosen], length, BAR, start, color=colour, ec=PAPER, lw=0.3, label=name)
    ax.vlines(
        start,
        timeline.layer[chosen] - BAR / 2,
        timeline.layer[chosen] + BAR / 2,
        color=colour,
        lw=0.6,
        zorder=1.5,
    )


def _arrows(ax: Axes, timeline: Timeline, chosen: npt.NDArray[np.bool_], name: str) -> None:
    source, target = timeline.layer[chosen], timeline.target[chosen]
    away = np.sign(target - source) * BAR / 2
    ax.quiver(
        timeline.start[chosen],
        source + away,
        timeline.end[chosen] - timeline.start[chosen],
        target - source - 2 * away,
        angles="xy",
        scale_units="xy",
        scale=1,
        units="inches",
        width=0.011,
        headwidth=5,
        headlength=6,
        headaxislength=5.5,
        minlength=0,
        color=COLOURS.get(name, OTHER),
        zorder=3,
    )
    ax.plot([], [], color=COLOURS.get(name, OTHER), marker=">", ms=3, lw=1, label=f"{name} message")


def _marks(ax: Axes, timeline: Timeline, shown: npt.NDArray[np.bool_]) -> None:
    """Mark what went wrong, at the end of an arrow (of a second copy at its foot) or of an operation."""
    fates = np.asarray(timeline.fates)
    for fate, (marker, name, at_end) in MARKS.items():
        chosen = shown & (fates == fate)
        if not chosen.any():
            continue
        time = (timeline.end if at_end else timeline.start)[chosen]
        source, target = timeline.layer[chosen], timeline.target[chosen]
        away = np.where(timeline.messages[chosen], np.sign(target - source) * BAR / 2, 0)
        height = np.where(at_end & timeline.messages[chosen], target - away, source + away)
        look: dict[str, Any] = {"mec": INK, "mfc": "none", "mew": 1.1, "ms": 7 if marker == "|" else 4.5}
        ax.plot(time, height, marker, label=name, ls="none", zorder=4, **look)


def plot_raster(trace: TraceReader | Timeline, *, step: int | None = None, ax: Axes | None = None) -> Axes:
    """Draw each message of one training step as a tick on its link, as high as its share of non-zero values.

    Args:
        trace: an open trace of the event engine, or what was read from it.
        step: training step; the first recorded one if not given.
        ax: where to draw; new axes if not given.

    Returns:
        The axes.

    Raises:
        TraceError: the trace has no events of that step.
    """
    timeline = trace if isinstance(trace, Timeline) else read_timeline(trace, step, MOST_TICKS)
    links = list(range(timeline.total_layers - 1))
    ax = own_axes(ax, 7.0, 0.8 + 0.3 * 2 * len(links))
    lower = np.minimum(timeline.layer, timeline.target)
    for name, shift in (("prediction", 0.25), ("error", -0.25)):
        chosen = timeline.messages & (np.asarray(timeline.names) == name)
        height = 0.4 * timeline.nonzero_values[chosen] / np.maximum(timeline.values[chosen], 1)
        foot = lower[chosen] + shift - 0.2
        # A dot at its foot shows a message of zeros only.
        look: dict[str, Any] = {"color": COLOURS[name], "rasterized": chosen.sum() > MOST_TICKS // 4}
        ax.plot(timeline.end[chosen], foot, ".", ms=1.8, **look)
        ax.vlines(timeline.end[chosen], foot, foot + height, lw=1, label=f"{name} message", **look)
    ax.set_yticks(links, [f"{link} ⇄ {link + 1}" for link in links])
    if len(links) > 16:
        whole_ticks(ax.yaxis, np.asarray(links))
    ax.set(ylim=(-0.6, len(links) - 0.4), ylabel="layers")
    label_time(ax, timeline.unit)
    ax.set_title("Messages; height: share not zero")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, handlelength=1.2)
    return ax


def plot_traffic(
    trace: TraceReader | Traffic,
    *,
    ax: Axes | None = None,
    norm: LogNorm | None = None,
    colorbar: bool = True,
) -> Axes:
    """Draw how many bytes layers send each other in a training step, mean over the recorded ones.

    Args:
        trace: an open trace of the event engine, or what was read from it.
        ax: where to draw; new axes if not given.
        norm: colour scale, to share it between pictures (`traffic_scale`).
        colorbar: add one.

    Returns:
        The axes.

    Raises:
        TraceError: the trace has no events.
    """
    traffic = trace if isinstance(trace, Traffic) else read_traffic(trace)
    ax = own_axes(ax, 3.5, 3.0)
    sums, norm = traffic.bytes, norm or traffic_scale([traffic])
    layers = np.arange(len(sums))
    bounds = np.append(layers - 0.5, len(sums) - 0.5)
    ax.pcolormesh(
        bounds,
        bounds,
        np.ma.masked_equal(sums, 0),
        cmap=MAP,
        norm=norm,
        rasterized=sums.size > 4000,
        edgecolors="face",
        linewidth=0.2,
    )
    if len(sums) <= 6:
        for (source, target), size in np.ndenumerate(sums):
            if size:
                ink = ink_on(colormaps[MAP](norm(size)))
                ax.text(
                    target, source, in_bytes(size), ha="center", va="center", fontsize="x-small", color=ink
                )
    ax.set(xlabel="to layer", ylabel="from layer", aspect="equal")
    ax.invert_yaxis()
    whole_ticks(ax.xaxis, layers)
    whole_ticks(ax.yaxis, layers)
    ax.set_title("Traffic between layers")
    if colorbar:
        bar = ax.figure.colorbar(ScalarMappable(norm, MAP), ax=ax, label="bytes a training step", shrink=0.8)
        bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda size, _: in_bytes(size)))
        bar.ax.yaxis.set_minor_locator(NullLocator())
    return ax


def traffic_scale(matrices: Sequence[Traffic]) -> LogNorm:
    """Return one logarithmic colour scale for several traffic matrices."""
    sums = np.concatenate([np.zeros(0), *(one.bytes.ravel() for one in matrices)])
    largest = float(sums.max(initial=0)) or 1.0
    smallest = float(sums[sums > 0].min(initial=largest))
    return LogNorm(min(smallest, largest / 10), largest)


def _by_layer(ax: Axes, timeline: Timeline) -> None:
    layers = np.arange(timeline.total_layers)
    whole_ticks(ax.yaxis, layers)
    ax.set(ylim=(-0.5, len(layers) - 0.5), ylabel="layer")
