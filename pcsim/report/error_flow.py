"""The picture of the error flow: layer by iteration, one row a run, one column a moment of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from pcsim.analysis.error_flow import ErrorFlow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

MOMENTS = 3  # first, middle and last recorded training step
DECADES = 6  # of the colour scale, below the largest norm


def plot_error_flow(flows: Sequence[ErrorFlow]) -> Figure:
    """Draw error norms as heat maps on one logarithmic colour scale; layers without any error are hatched.

    Args:
        flows: one row of heat maps each.

    Returns:
        A figure that has not been saved.
    """
    moments = min(MOMENTS, *(len(flow.steps) for flow in flows))
    figure = Figure(figsize=(2.9 * moments + 1.7, 2.3 * len(flows) + 0.8), layout="constrained")
    axes = figure.subplots(len(flows), moments, squeeze=False)
    scale = _scale(flows)
    image = None
    for row, flow in zip(axes, flows, strict=True):
        for ax, moment in zip(row, _moments(len(flow.steps), moments), strict=True):
            image = draw_error_flow(flow, moment, ax=ax, norm=scale)
        row[0].set_ylabel(f"{flow.title}\n\nlayer")
    for ax in axes[-1]:
        ax.set_xlabel("iterations done")
    figure.suptitle("Error flow: error norm of each layer, iteration by iteration")
    if image is not None:
        figure.colorbar(image, ax=axes, label="root mean square of ‖error‖", shrink=0.8, extend="min")
    return figure


def draw_error_flow(flow: ErrorFlow, moment: int, *, ax: Axes, norm: LogNorm) -> AxesImage:
    """Draw one recorded training step into `ax`, with the norms written into small maps."""
    norms = flow.norms[moment].T
    ax.set_facecolor("0.92")
    ax.patch.set(hatch="///", edgecolor="0.75")
    shown = np.ma.masked_equal(norms, 0)
    image = ax.imshow(shown, origin="lower", aspect="auto", cmap="cividis", norm=norm)
    ax.set_title(f"training step {flow.steps[moment]}", fontsize="medium")
    ax.set_xticks(range(norms.shape[1]))
    ax.set_yticks(range(norms.shape[0]), [str(layer) for layer in flow.layers])
    if norms.size <= 60:
        _write_values(ax, norms, norm)
    return image


def _write_values(ax: Axes, norms: npt.NDArray[np.float64], norm: LogNorm) -> None:
    for (layer, iteration), value in np.ndenumerate(norms):
        text = "0" if value == 0 else f"{value:.1g}" if value < 0.01 else f"{value:.2f}"
        bright = value > 0 and norm(value) > 0.5
        ink = "black" if bright or value == 0 else "white"
        ax.text(iteration, layer, text, ha="center", va="center", fontsize="small", color=ink)


def _moments(recorded: int, wanted: int) -> list[int]:
    return [int(moment) for moment in np.linspace(0, recorded - 1, wanted).round()]


def _scale(flows: Sequence[ErrorFlow]) -> LogNorm:
    """Return one colour scale for all maps."""
    largest = max(float(flow.norms.max()) for flow in flows) or 1.0
    positive = [flow.norms[flow.norms > 0].min() for flow in flows if (flow.norms > 0).any()]
    smallest = min(positive, default=largest / 10)
    return LogNorm(max(smallest, largest * 10.0**-DECADES, np.finfo(float).tiny), largest)
