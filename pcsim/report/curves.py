"""Pictures with curves: free energy, update magnitudes, learning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import PercentFormatter
from matplotlib.transforms import ScaledTranslation

from pcsim.report.numbers import (
    Angles,
    Energy,
    Floats,
    Ints,
    read_angles,
    read_energy,
    read_learning,
    read_updates,
)
from pcsim.report.runs import read_run
from pcsim.report.seeds import aligned, seed_groups, spread
from pcsim.report.style import (
    DASHES,
    FAINT,
    count_ticks,
    layer_colours,
    line_look,
    own_axes,
    scale_y,
    whole_ticks,
)
from pcsim.tracing.reader import TraceReader

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BELOW = 30  # points from the axes down to a legend: room for the ticks and their label
LETTERS_AN_INCH = 14  # of a legend
ROOM = 52  # letters of a legend in a line below axes; a line and its gap take 6


def plot_energy(traces: TraceReader | Sequence[TraceReader], *, ax: Axes | None = None) -> Axes:
    """Draw the free energy over the inference iterations: median and middle half of the recorded steps.

    Runs that differ only in their seed share a curve: the mean of their medians, in a band from the lowest
    to the highest; then no other curve has a band.

    Args:
        traces: one or several, a curve each.
        ax: where to draw; new axes if not given.

    Returns:
        The axes.

    Raises:
        TraceError: a trace has no recorded training step.
    """
    ax = own_axes(ax)
    bounds = _energy_curves(ax, as_traces(traces), lambda one: (one.lower, one.median, one.upper))
    scale_y(ax, bounds)
    ax.set(ylabel="free energy, batch mean", title="Free energy")
    return with_legend(ax)


def plot_energy_left(traces: TraceReader | Sequence[TraceReader], *, ax: Axes | None = None) -> Axes:
    """Draw which share of the free energy at iteration 0 is left after each iteration.

    As `plot_energy`, without the fall over the training, which can hide the fall over the iterations.

    Args:
        traces: one or several, a curve each.
        ax: where to draw; new axes if not given.

    Returns:
        The axes.

    Raises:
        TraceError: a trace has no recorded training step.
    """
    ax = own_axes(ax)
    bounds = _energy_curves(ax, as_traces(traces), lambda one: (one.left_lower, one.left, one.left_upper))
    scale_y(ax, bounds)
    if ax.get_yscale() == "linear":
        _in_percent(ax)
    ax.set(ylabel="share of that at iteration 0", title="Free energy that is left")
    return with_legend(ax)


def _energy_curves(
    ax: Axes, traces: Sequence[TraceReader], choose: Callable[[Energy], tuple[Floats, Floats, Floats]]
) -> Floats:
    """Draw a curve in its band for each run, seeds together; return the bounds of all bands."""
    groups = {name: [read_energy(trace) for trace in group] for name, group in seed_groups(traces).items()}
    several = len(groups) < len(traces)
    drawn: list[Floats] = []
    for index, (name, group) in enumerate(groups.items()):
        iterations, look = group[0].iterations, line_look(index)  # the same T
        if several:
            lower, middle, upper = spread(np.stack([choose(one)[1] for one in group]))
        else:
            lower, middle, upper = choose(group[0])
        marker = "o" if len(iterations) <= 20 else None
        ax.plot(iterations, middle, label=name, marker=marker, ms=3, **look)
        if len(group) > 1 or not several:
            ax.fill_between(iterations, lower, upper, color=look["color"], alpha=0.16, lw=0)
        drawn += [lower, middle, upper]
    whole_ticks(ax.xaxis, max((group[0].iterations for group in groups.values()), key=len))
    ax.set_xlabel("iterations done")
    return np.concatenate(drawn)


def plot_updates(traces: TraceReader | Sequence[TraceReader], *, ax: Axes | None = None) -> Axes:
    """Draw the update magnitude of each connection over the training.

    Args:
        traces: one, or several that differ only in their seed: their mean, in a band from the lowest to the
            highest.
        ax: where to draw; new axes if not given.

    Returns:
        The axes.

    Raises:
        TraceError: a trace has no recorded training step.
    """
    ax, several = own_axes(ax), as_traces(traces)
    read = [read_updates(trace) for trace in several]
    steps, magnitudes = aligned([one.steps for one in read], [one.magnitudes for one in read])
    _by_connection(ax, steps, read[0].connections, magnitudes)
    scale_y(ax, magnitudes)
    seeds = f", {len(several)} seeds" if len(several) > 1 else ""
    ax.set(ylabel="mean of |ΔW| and |Δb|", title=f"Updates, {read_run(several[0]).title}{seeds}")
    return with_legend(ax)


def plot_backprop_angles(trace: TraceReader | Angles, *, ax: Axes | None = None) -> Axes:
    """Draw the angle between each connection's weight update and backprop's over the training, degrees.

    0° is backprop's direction, at 90° an update has nothing of it; see `pcsim.analysis.backprop_angles`.

    Args:
        trace: an open trace, or what was read from it.
        ax: where to draw; new axes if not given.

    Returns:
        The axes.

    Raises:
        TraceError: the trace has no probe with what it takes.
    """
    ax, angles = own_axes(ax), trace if isinstance(trace, Angles) else read_angles(trace)
    _by_connection(ax, angles.steps, angles.connections, angles.angles[None])
    largest = angles.angles[np.isfinite(angles.angles)].max(initial=0)
    if largest > 60:
        ax.axhline(90, color=FAINT, lw=0.7, ls=":")
    ax.set(ylabel="angle to backprop's update, °", title="Angle to backprop")
    ax.set_ylim(0, 1.06 * largest or 1)
    return with_legend(ax)


def plot_backprop_lengths(trace: TraceReader | Angles, *, ax: Axes | None = None) -> Axes:
    """Draw the length of each connection's weight update by that of backprop's gradient over the training.

    The update contains the learning rate, the gradient does not.

    Args:
        trace: an open trace, or what was read from it.
        ax: where to draw; new axes if not given.

    Returns:
        The axes.

    Raises:
        TraceError: the trace has no probe with what it takes.
    """
    ax, angles = own_axes(ax), trace if isinstance(trace, Angles) else read_angles(trace)
    _by_connection(ax, angles.steps, angles.connections, angles.ratios[None])
    scale_y(ax, angles.ratios)
    ax.set(ylabel="‖ΔW‖ / ‖∂Loss/∂W‖\nΔW contains the learning rate", title="Length by backprop's gradient")
    return with_legend(ax)


def _by_connection(ax: Axes, steps: Ints, connections: Ints, values: Floats) -> None:
    """Draw a line a connection over the training steps, values of (runs, steps, connections)."""
    lower, mean, upper = spread(values)
    colours, few = layer_colours(len(connections)), len(connections) <= 8
    for index, (connection, colour) in enumerate(zip(connections, colours, strict=True)):
        shown = few or connection in (connections[0], connections[-1])
        ax.plot(
            steps,
            mean[:, index],
            color=colour,
            linestyle=DASHES[index % len(DASHES)] if few else "-",
            lw=1.2,
            marker="o" if len(steps) <= 30 else None,
            ms=2.5,
            label=f"layer {connection} → {connection + 1}" if shown else None,
        )
        if len(values) > 1:
            ax.fill_between(steps, lower[:, index], upper[:, index], color=colour, alpha=0.16, lw=0)
    count_ticks(ax.xaxis, 6)
    ax.set_xlabel("training step")


def plot_learning(traces: TraceReader | Sequence[TraceReader], *, ax: Axes | None = None) -> Axes:
    """Draw test accuracy (test loss where there are no classes) over the epochs.

    Runs that differ only in their seed share a curve: their mean, in a band from the worst to the best.

    Args:
        traces: one or several.
        ax: where to draw; new axes if not given.

    Returns:
        The axes.

    Raises:
        TraceError: a trace has no finished epoch.
    """
    ax = own_axes(ax)
    groups = {
        name: [read_learning(trace) for trace in group]
        for name, group in seed_groups(as_traces(traces)).items()
    }
    accurate = all(one.test_accuracy is not None for group in groups.values() for one in group)
    drawn = []
    for index, (name, group) in enumerate(groups.items()):
        results = [one.test_accuracy if accurate else one.test_loss for one in group]
        known = [one for one in results if one is not None]
        epochs, curves = aligned([one.epochs for one in group], known)
        (lower, mean, upper), look = spread(curves), line_look(index)
        marker = "o" if len(epochs) <= 40 else None
        ax.plot(epochs, mean, label=name, marker=marker, ms=3, **look)
        if len(group) > 1:
            ax.fill_between(epochs, lower, upper, color=look["color"], alpha=0.16, lw=0)
        drawn.append(curves.ravel())
    if accurate:
        _in_percent(ax)
    else:
        scale_y(ax, np.concatenate(drawn))
    whole_ticks(ax.xaxis, np.arange(1, max(int(g.epochs[-1]) for gs in groups.values() for g in gs) + 1))
    ax.set(xlabel="epochs", ylabel="test accuracy" if accurate else "test loss, half the squared distance")
    seeds = max(len(group) for group in groups.values())
    ax.set_title("Learning: mean, worst and best seed" if seeds > 1 else "Learning")
    return with_legend(ax)


def _in_percent(ax: Axes) -> None:
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))


def as_traces(traces: TraceReader | Sequence[TraceReader]) -> list[TraceReader]:
    """Return one or several traces as a list."""
    return [traces] if isinstance(traces, TraceReader) else list(traces)


def with_legend(ax: Axes, title: str | None = None) -> Axes:
    """Add a legend below the axes, where no curve is, if there is anything to tell apart."""
    _, names = ax.get_legend_handles_labels()
    if len(names) > 1:
        assert ax.figure is not None
        columns = max(1, min(len(names), ROOM // (max(map(len, names)) + 6)))
        below = ax.transAxes + ScaledTranslation(0, -BELOW / 72, ax.figure.dpi_scale_trans)
        place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": below}
        ax.legend(ncols=columns, borderaxespad=0, title=title, title_fontsize="small", **place)
    return ax


def one_legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """Replace the legends of panels by one below all, which names each thing once."""
    handles: dict[str, Any] = {}
    for ax in axes:
        for handle, name in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
        if (legend := ax.get_legend()) is not None:
            legend.remove()
    if len(handles) > 1:
        width = figure.get_figwidth()
        fit = int(width * LETTERS_AN_INCH / (max(map(len, handles)) + 6))
        rows = -(-len(handles) // max(1, fit))
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=-(-len(handles) // rows)
        )
