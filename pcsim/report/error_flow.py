"""The picture of the error flow: layer by iteration, in colour the error norm."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, to_rgba

from pcsim.report.numbers import ErrorFlow, read_error_flow
from pcsim.report.style import BROKEN, BROKEN_WORD, EMPTY, HATCH, INK, MAP, ink_on, own_axes, whole_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pcsim.tracing.reader import TraceReader

DECADES = 6  # of the colour scale, below the largest norm
MOST_CELLS = 4000  # drawn one by one; beyond that as an image within the vector drawing
LETTERS = (4, 5)  # of a norm that is written into the map, at most; fewer are better
MOST_LETTERS = 36  # of all norms beside each other, where each has a power of its own
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
COLOUR_LABEL = "root mean square of ‖error‖"


def plot_error_flow(
    trace: TraceReader | ErrorFlow,
    *,
    step: int | None = None,
    ax: Axes | None = None,
    norm: LogNorm | None = None,
    values: bool | None = None,
    colorbar: bool = True,
) -> Axes:
    """Draw the error norms of one training step as a heat map; layers without any error are hatched.

    What is not finite has a colour of its own, and the title says so. Norms that are written into the map
    are by a power of ten, which the title says.

    Args:
        trace: an open trace, or what was read from it.
        step: training step, the nearest recorded one is drawn; the last if not given.
        ax: where to draw; new axes if not given.
        norm: colour scale, to share it between pictures (`error_scale`).
        values: write the norms into the map; if not given, where there is room.
        colorbar: add one.

    Returns:
        The axes.

    Raises:
        TraceError: the trace has no recorded training step.
    """
    flow = trace if isinstance(trace, ErrorFlow) else read_error_flow(trace)
    ax, norm = own_axes(ax), norm or error_scale([flow])
    moment = -1 if step is None else int(np.abs(flow.steps - step).argmin())
    norms = flow.norms[moment].T
    # Zero means that no error has come that far, which is not the same as a small one.
    ax.set_facecolor(EMPTY)
    ax.patch.set(hatch="////", edgecolor=HATCH)
    broken = ~np.isfinite(norms)
    looks: list[tuple[npt.NDArray[np.bool_], Any]] = [(~broken & (norms != 0), {"cmap": MAP, "norm": norm})]
    if broken.any():
        looks.append((broken, {"cmap": ListedColormap([BROKEN]), "vmin": 0, "vmax": 1}))
    for shown, look in looks:
        ax.pcolormesh(
            edges(flow.iterations),
            edges(flow.layers),
            np.ma.masked_array(np.where(broken, 1.0, norms), ~shown),
            rasterized=norms.size > MOST_CELLS,
            edgecolors="face",  # without, viewers show seams between the cells
            linewidth=0.2,
            **look,
        )
    power = _power(norms)
    if _has_room(norms, power) if values is None else values:
        _write_values(ax, flow, norms, norm, power)
        scale = f", norms in 10{str(power).translate(RAISED)}" if power else ""
    else:
        scale = ""
    told = f"\n{BROKEN_WORD}: not finite" if broken.any() else ""
    ax.set_title(f"training step {flow.steps[moment]:,}{scale}{told}")
    ax.set(xlabel="iterations done", ylabel="layer")
    whole_ticks(ax.xaxis, flow.iterations)
    whole_ticks(ax.yaxis, flow.layers)
    if colorbar:
        ax.figure.colorbar(ScalarMappable(norm, MAP), ax=ax, label=COLOUR_LABEL, extend="min")
    return ax


def error_scale(flows: Sequence[ErrorFlow]) -> LogNorm:
    """Return one logarithmic colour scale for several error flows, of six decades at most."""
    norms = np.concatenate([np.zeros(0), *(flow.norms.ravel() for flow in flows)])
    positive = norms[np.isfinite(norms) & (norms > 0)]
    largest = float(positive.max(initial=0)) or 1.0
    smallest = positive.min(initial=largest)
    smallest = max(float(smallest), largest * 10.0**-DECADES, np.finfo(float).tiny)
    return LogNorm(smallest if smallest < largest else largest / 10, largest)


def moments(flow: ErrorFlow, number: int) -> list[int]:
    """Return so many recorded training steps, evenly spaced: the last, or the first to the last."""
    if number == 1:
        return [int(flow.steps[-1])]
    chosen = np.linspace(0, len(flow.steps) - 1, min(number, len(flow.steps))).round().astype(int)
    return [int(flow.steps[index]) for index in chosen]


def edges(centres: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the bounds of cells around whole numbers, one more than cells."""
    return np.append(centres - 0.5, centres[-1] + 0.5)


def _power(norms: npt.NDArray[np.float64]) -> int | None:
    """Return a power of ten that makes all norms short numbers; None if there is none."""
    sizes = norms[np.isfinite(norms) & (norms != 0)].tolist()
    for most in LETTERS:
        for power in (0, -3, -6, -9, -12, 3, 6, 9):
            if all(len(two_digits(size / 10.0**power)) <= most for size in sizes):
                return power
    return None


def _has_room(norms: npt.NDArray[np.float64], power: int | None) -> bool:
    """Whether norms can be written into the map, also where three maps lie beside each other."""
    if norms.shape[1] > 6 or norms.size > 60:
        return False
    longest = max(len(own_power(value)) for value in norms.ravel().tolist())
    return power is not None or norms.shape[1] * longest <= MOST_LETTERS


def _write_values(
    ax: Axes, flow: ErrorFlow, norms: npt.NDArray[np.float64], norm: LogNorm, power: int | None
) -> None:
    """Write the norms into their cells, all in one notation: by a power of ten, or each with its own."""
    for (layer, iteration), value in np.ndenumerate(norms):
        place = float(flow.iterations[iteration]), float(flow.layers[layer])
        shown = two_digits(float(value) / 10.0**power) if power is not None else own_power(float(value))
        colour = colormaps[MAP](norm(value)) if np.isfinite(value) else to_rgba(BROKEN)
        ink = INK if value == 0 else ink_on(colour)
        size = "small" if power is not None else "x-small"
        ax.text(*place, shown, ha="center", va="center", fontsize=size, color=ink)


def two_digits(value: float) -> str:
    """Return a number with two digits, so that a slow growth shows: 0.40, 0.39, 43, NaN."""
    if not np.isfinite(value):
        return "NaN" if np.isnan(value) else "∞"
    if value == 0:
        return "0"
    # The digits are counted after rounding: 0.0996 is 0.10.
    power = int(f"{abs(value):.1e}".partition("e")[2])
    return f"{value:.{max(0, 1 - power)}f}"


def own_power(value: float) -> str:
    """Return a number with two digits and its power of ten, so that a column of them is in one notation."""
    if not np.isfinite(value) or value == 0:
        return two_digits(value)
    return re.sub(r"e([+-])0*(?=\d)", lambda sign: "e" + sign[1].replace("+", ""), f"{value:.1e}")
