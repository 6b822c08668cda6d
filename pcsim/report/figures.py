"""Whole pictures of one or several traces, by kind: what `pcsim plot` saves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal

from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from pcsim.analysis.backprop import has_angles
from pcsim.report import numbers
from pcsim.report.curves import (
    one_legend,
    plot_backprop_angles,
    plot_backprop_lengths,
    plot_energy,
    plot_energy_left,
    plot_learning,
    plot_updates,
)
from pcsim.report.error_flow import COLOUR_LABEL, error_scale, moments, plot_error_flow
from pcsim.report.events import (
    MOST_TICKS,
    ends,
    label_time,
    plot_raster,
    plot_timeline,
    plot_traffic,
    traffic_scale,
)
from pcsim.report.network import distinct_networks, plot_network
from pcsim.report.runs import labels, read_run, rows_of
from pcsim.report.seeds import distinct, seed_groups
from pcsim.report.style import INCHES, MAP, Width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pcsim.tracing.reader import TraceReader

Traces = Sequence["TraceReader"]
MOMENTS = {"single": 1, "double": 3}  # training steps of the error flow beside each other


@dataclass(frozen=True)
class Kind:
    """A kind of picture.

    Attributes:
        title: what it shows.
        draw: returns a figure of these traces at this width that has not been saved.
        read: returns the numbers behind one trace's part.
        has: tells at once whether a trace holds anything of the kind.
    """

    title: str
    draw: Callable[[Traces, Width], Figure]
    read: Callable[[TraceReader], dict[str, Any]]
    has: Callable[[TraceReader], bool]


def draw_errors(traces: Traces, width: Width = "double") -> Figure:
    """Draw error flows on one colour scale: a row a trace, a column a moment of the training."""
    flows = [numbers.read_error_flow(trace) for trace in traces]
    columns = min(MOMENTS[width], *(len(flow.steps) for flow in flows))
    figure = Figure(figsize=(INCHES[width], 0.5 + 1.55 * len(flows)), layout="constrained")
    axes = figure.subplots(len(flows), columns, squeeze=False)
    norm, names = error_scale(flows), labels([read_run(trace) for trace in traces])
    for row, flow, name in zip(axes, flows, names, strict=True):
        for ax, step in zip(row, moments(flow, columns), strict=True):
            plot_error_flow(flow, step=step, ax=ax, norm=norm, colorbar=False)
            ax.set(xlabel="", ylabel="")
        row[0].set_ylabel(f"{fill(name, 22)}\nlayer")
    for ax in axes[-1]:
        ax.set_xlabel("iterations done")
    figure.suptitle("Error norm of each layer, iteration by iteration")
    height = figure.get_figheight()
    figure.colorbar(
        ScalarMappable(norm, MAP),
        ax=axes,
        label=COLOUR_LABEL,
        extend="min",
        shrink=0.9,
        aspect=max(20, 8 * height),  # no wider in a tall picture
        extendfrac=min(0.05, 0.2 / height),
    )
    return figure


def draw_energy(traces: Traces, width: Width = "double") -> Figure:
    """Draw all traces' free energy, beside or above the share of it that the iterations leave."""
    beside = width == "double"
    figure = Figure(figsize=(INCHES[width], 2.8 if beside else 5.0), layout="constrained")
    left, right = figure.subplots(1, 2) if beside else figure.subplots(2, 1)
    plot_energy(traces, ax=left)
    plot_energy_left(traces, ax=right)
    one_legend(figure, (left, right))
    seeds = len(seed_groups(traces)) < len(traces)
    words = "Median and middle half of the recorded training steps"
    if seeds:
        words = "Median of the recorded training steps: mean, lowest and highest seed"
    figure.suptitle(words if beside else fill(words, 55))
    return figure


def draw_updates(traces: Traces, width: Width = "double") -> Figure:
    """Draw the update magnitudes of each run beside each other on one scale, seeds together."""
    return _each(plot_updates, seed_groups(traces), width, share=True)


def draw_angles(traces: Traces, width: Width = "double") -> Figure:
    """Draw angle and length of the updates against backprop's: a row a trace, or below each other."""
    found = [numbers.read_angles(trace) for trace in traces]
    columns = 2 if width == "double" else 1
    rows = len(found) * 2 // columns
    figure = Figure(figsize=(INCHES[width], 2.6 * rows), layout="constrained")
    axes = iter(figure.subplots(rows, columns, squeeze=False).flat)
    for one, name in zip(found, labels([read_run(trace) for trace in traces]), strict=True):
        for plot in (plot_backprop_angles, plot_backprop_lengths):
            ax = plot(one, ax=next(axes))
            ax.set_title(f"{name}\n{ax.get_title()}")
    one_legend(figure, figure.axes)
    return figure


def draw_learning(traces: Traces, width: Width = "double") -> Figure:
    """Draw all traces' learning curves in one picture, seeds together."""
    return _one(plot_learning, traces, width)


def draw_timeline(traces: Traces, width: Width = "double") -> Figure:
    """Draw timeline and message raster of each trace below each other; once for those with the same times."""
    read = {trace: numbers.read_timeline(trace, most=MOST_TICKS) for trace in traces}
    shown = distinct(traces, lambda trace: read[trace].times())
    timelines = [read[trace] for trace in shown.values()]
    layers = [timeline.total_layers for timeline in timelines]
    heights = [height for each in layers for height in (0.7 + 0.38 * each, 0.6 + 0.34 * (each - 1))]
    figure = Figure(figsize=(INCHES[width], sum(heights)), layout="constrained")
    axes = figure.subplots(len(heights), height_ratios=heights, squeeze=False)[:, 0]
    for upper, lower, timeline, name in zip(axes[::2], axes[1::2], timelines, shown, strict=True):
        plot_timeline(timeline, ax=upper)
        upper.set_title(f"{name}: {upper.get_title().lower()}")
        plot_raster(timeline, ax=lower)
    last = ends(timelines)
    for place, ax in enumerate(axes):
        unit = timelines[place // 2].unit
        ax.set_xlim(0, last[unit])
        label_time(ax, unit)
    one_legend(figure, figure.axes)
    return figure


def draw_traffic(traces: Traces, width: Width = "double") -> Figure:
    """Draw the traffic matrix of each trace beside each other on one scale; once where they are the same."""
    read = {trace: numbers.read_traffic(trace) for trace in traces}
    shown = distinct(traces, lambda trace: read[trace].bytes.tobytes())
    norm = traffic_scale(list(read.values()))
    matrices = {name: read[trace] for name, trace in shown.items()}
    return _each(lambda traffic, ax: plot_traffic(traffic, ax=ax, norm=norm), matrices, width)


def draw_network(traces: Traces, width: Width = "double") -> Figure:
    """Draw the network of each trace below each other; once where they are the same."""
    traffic = {trace: numbers.read_traffic(trace) for trace in traces if rows_of(trace, "events")}
    shown = distinct_networks(traces, traffic)
    figure = Figure(figsize=(INCHES[width], 2.0 * len(shown)), layout="constrained")
    for ax, (name, trace) in zip(figure.subplots(len(shown), squeeze=False).flat, shown.items(), strict=True):
        plot_network(trace, traffic=traffic.get(trace), name=name, ax=ax)
    return figure


def _rows_in(table: str) -> Callable[[TraceReader], bool]:
    return lambda trace: rows_of(trace, table) > 0


KINDS = {
    "errors": Kind(
        "error flow",
        draw_errors,
        lambda trace: numbers.read_error_flow(trace).to_dict(),
        _rows_in("summary"),
    ),
    "energy": Kind(
        "free energy", draw_energy, lambda trace: numbers.read_energy(trace).to_dict(), _rows_in("summary")
    ),
    "updates": Kind(
        "update magnitudes",
        draw_updates,
        lambda trace: numbers.read_updates(trace).to_dict(),
        _rows_in("summary"),
    ),
    "angles": Kind(
        "angles to backprop",
        draw_angles,
        lambda trace: numbers.read_angles(trace).to_dict(),
        has_angles,
    ),
    "learning": Kind(
        "learning curves",
        draw_learning,
        lambda trace: numbers.read_learning(trace).to_dict(),
        _rows_in("learning"),
    ),
    "timeline": Kind(
        "timeline",
        draw_timeline,
        lambda trace: numbers.read_timeline(trace, most=MOST_TICKS).to_dict(),
        _rows_in("events"),
    ),
    "traffic": Kind(
        "traffic", draw_traffic, lambda trace: numbers.read_traffic(trace).to_dict(), _rows_in("events")
    ),
    "network": Kind(
        "network",
        draw_network,
        lambda trace: _network_numbers(trace),
        lambda trace: bool(read_run(trace).sizes),
    ),
}


def _one(plot: Callable[..., Axes], traces: Traces, width: Width) -> Figure:
    figure = Figure(figsize=(INCHES[width], 2.6 if width == "single" else 3.2), layout="constrained")
    one_legend(figure, [plot(traces, ax=figure.subplots())])
    return figure


def _each(
    plot: Callable[..., Axes], shown: Mapping[str, object], width: Width, share: bool = False
) -> Figure:
    """Draw a picture each, by name, as many beside each other as the width has room for."""
    columns = min(len(shown), 1 if width == "single" else 2)
    rows = -(-len(shown) // columns)
    layout: Literal["constrained", "compressed"] = "constrained" if share else "compressed"  # fixed aspects
    figure = Figure(figsize=(INCHES[width], 2.7 * rows), layout=layout)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=share)
    for ax, (name, one) in zip(axes.flat, shown.items(), strict=False):
        plot(one, ax=ax)
        ax.set_title(f"{ax.get_title().partition(',')[0]}\n{name}")
    for ax in axes.flat[len(shown) :]:
        ax.set_axis_off()
    one_legend(figure, figure.axes)
    return figure


def _network_numbers(trace: TraceReader) -> dict[str, Any]:
    run = read_run(trace)
    traffic = numbers.read_traffic(trace).to_dict() if run.events else None
    return {"layers": list(run.sizes), "traffic": traffic}
