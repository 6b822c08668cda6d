"""A drawing of the network: layers as blocks, links with what they carry."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pcsim.errors import TraceError
from pcsim.report.numbers import Traffic, read_traffic
from pcsim.report.runs import read_run, rows_of
from pcsim.report.seeds import distinct
from pcsim.report.style import DOWN, FAINT, UP, in_bytes, own_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pcsim.tracing.reader import TraceReader

MOST_BLOCKS = 9  # layers that are drawn; of more, the first and the last ones
PITCH, WIDTH = 1.9, 0.8


def plot_network(
    trace: TraceReader, *, traffic: Traffic | None = None, name: str = "", ax: Axes | None = None
) -> Axes:
    """Draw the layers with their sizes, predictions going up and errors going down.

    A trace of the event engine gives the bytes of each link, mean over the recorded training steps; without
    events the links have no numbers.

    Args:
        trace: an open trace.
        traffic: what was read from it already.
        name: what to call the run; its order and T if not given.
        ax: where to draw; new axes if not given.

    Returns:
        The axes.

    Raises:
        TraceError: the trace does not say how large the layers are.
    """
    run = read_run(trace)
    if not run.sizes:
        raise TraceError(f"{trace.path} has no attribute 'layers': expected the size of each layer")
    if traffic is None and rows_of(trace, "events"):
        traffic = read_traffic(trace)
    shown = _shown(len(run.sizes))
    ax = own_axes(ax, 7.0, 1.9)
    functions = _functions(run.experiment, len(run.sizes))
    for place, layer in enumerate(shown):
        if layer is None:
            ax.text(place * PITCH, 0, "…", ha="center", va="center", fontsize="x-large")
            continue
        _block(ax, place, layer, run.sizes, functions[layer])
        if place + 1 < len(shown) and (above := shown[place + 1]) is not None:
            _links(ax, place, layer, above, traffic, errors=not run.backprop)
    ax.plot([], [], color=UP, marker=">", ms=3, label="forward pass" if run.backprop else "predictions")
    if not run.backprop:
        ax.plot([], [], color=DOWN, marker="<", ms=3, label="errors")
    note = "bytes a training step" if traffic else "no events in the trace, so no bytes"
    if run.backprop:
        note = "no messages"
    ax.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 0.99),
        ncols=2,
        title=f"{name or run.title}; {note}",
        title_fontsize=8,
    )
    ax.set(xlim=(-0.75, (len(shown) - 1) * PITCH + 0.75), ylim=(-1.05, 0.75))
    ax.set_axis_off()
    return ax


def distinct_networks(
    traces: Sequence[TraceReader], traffic: Mapping[TraceReader, Traffic]
) -> dict[str, TraceReader]:
    """Return one trace of those whose drawings would be the same, by the names of all of them."""

    def key(trace: TraceReader) -> Hashable:
        run, sent = read_run(trace), traffic.get(trace)
        functions = _functions(run.experiment, len(run.sizes))
        return run.sizes, tuple(functions), run.backprop, None if sent is None else sent.bytes.tobytes()

    return distinct(traces, key)


def _shown(layers: int) -> list[int | None]:
    """Return the layers to draw, None for those between that are left out."""
    if layers <= MOST_BLOCKS:
        return list(range(layers))
    half = MOST_BLOCKS // 2
    return [*range(half), None, *range(layers - half, layers)]


def _functions(experiment: dict[str, Any], layers: int) -> list[str]:
    """Return what each layer applies: its non-linearity, the output's function."""
    network = experiment.get("network")
    if not isinstance(network, dict):
        return [""] * layers
    given = [network.get("activation"), network.get("output")]
    activation, output = (
        one if isinstance(one, list) and len(one) == layers else [None] * layers for one in given
    )
    words = [str(function or "") for function in activation]
    return ["input", *words[1:-1], str(output[-1] or "output")]


def _block(ax: Axes, place: int, layer: int, sizes: Sequence[int], function: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    height = 0.3 + 0.8 * np.log1p(sizes[layer]) / np.log1p(max(sizes))
    box = (place * PITCH - WIDTH / 2, -height / 2)
    ax.add_patch(
        FancyBboxPatch(box, WIDTH, height, "round,pad=0,rounding_size=0.12", fc="none", ec=FAINT, lw=1)
    )
    ax.text(place * PITCH, 0.02, f"{sizes[layer]:,}", ha="center", va="center")
    ax.text(place * PITCH, -0.68, f"layer {layer}", ha="center", va="top")
    ax.text(place * PITCH, -0.88, function, ha="center", va="top", fontsize="small", color=FAINT)


def _links(
    ax: Axes, place: int, layer: int, above: int, traffic: Traffic | None, errors: bool = True
) -> None:
    left, right = place * PITCH + WIDTH / 2 + 0.06, (place + 1) * PITCH - WIDTH / 2 - 0.06
    up = float(traffic.bytes[layer, above]) if traffic else None
    down = (float(traffic.bytes[above, layer]) if traffic else None) if errors else 0.0
    for ends, height, colour, size in (((left, right), 0.12, UP, up), ((right, left), -0.12, DOWN, down)):
        if size == 0:
            continue
        ax.annotate(
            "",
            (ends[1], height),
            (ends[0], height),
            arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.3, "shrinkA": 0, "shrinkB": 0},
        )
        if size is not None:
            text_place = ((left + right) / 2, height + (0.08 if height > 0 else -0.08))
            below = "bottom" if height > 0 else "top"
            ax.text(*text_place, in_bytes(size), ha="center", va=below, fontsize="x-small", color=colour)
