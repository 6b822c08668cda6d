"""What number formats do to messages and activities: their range and rounding error, layer by layer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from pcsim.report.messages import Messages
from pcsim.report.style import BROKEN, FAINT, INCHES, INK, LINES, in_digits, whole_ticks
from pcsim.report.tables import NumberTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]
FIXED = re.compile(r"[Qq](-?\d+)\.(-?\d+)")
# Smallest number above 0 and largest: of IEEE 754's binary16 and binary32, and binary32 less 16 bits.
FLOATS = {
    "float16": (2.0**-24, 65504.0),
    "bfloat16": (2.0**-133, (2 - 2.0**-7) * 2.0**127),
    "float32": (2.0**-149, (2 - 2.0**-23) * 2.0**127),
}
NAMES = ("rounding_error", "root_mean_square", "largest")
DECADES = 12  # that a picture shows at most, of formats that have more


@dataclass(frozen=True)
class Rounded:
    """Numbers of one kind in a format, by the layer that sends or keeps them.

    Attributes:
        what: predictions, errors or activities.
        format: its name.
        layers: (layers,).
        error: root mean square of what rounding changes numbers by, (layers,).
        size: root mean square of the numbers before, (layers,).
        largest: of their absolute values, (layers,).
    """

    what: str
    format: str
    layers: npt.NDArray[np.int64]
    error: Floats
    size: Floats
    largest: Floats

    @property
    def decibels(self) -> Floats:
        """Signal-to-noise ratio, (layers,); infinite where nothing was changed."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(20 * np.log10(self.size / self.error))


def rounded(messages: Messages) -> list[Rounded]:
    """Return what was rounded; nothing if the trace does not say, as older ones do not."""
    return list(_rounded(messages)) if "largest" in messages.counts else []


def draw_rounding(found: list[Rounded]) -> Figure:
    """Draw for each layer how large its numbers are, and how large their rounding errors, in the format."""
    figure = Figure(figsize=(INCHES["double"], 2.5), layout="constrained")
    axes = figure.subplots(1, len(found), squeeze=False)[0]
    for ax, one in zip(axes, found, strict=True):
        _draw(ax, one)
    axes[0].set_ylabel("absolute value")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), handlelength=1)
    return figure


def rounding_table(found: list[Rounded], name: str) -> NumberTable:
    """Return the numbers behind the picture."""
    rows = tuple(
        (
            f"{one.what}, {one.format}",
            str(layer),
            *(in_digits(float(value[at])) for value in (one.largest, one.size, one.error)),
            f"{one.decibels[at]:.1f} dB" if np.isfinite(one.decibels[at]) else "",
            f"{_span(one.format)[1]:.4g}",
        )
        for one in found
        for at, layer in enumerate(one.layers)
    )
    head = ("what", "layer", "largest", "RMS", "rounding error, RMS", "signal to noise", "format ends at")
    return NumberTable(f"{name}: rounding", head, rows)


def _rounded(messages: Messages) -> Iterator[Rounded]:
    """Yield what has a format of its own: predictions, errors, activities."""
    counts, channels = messages.counts, messages.channels
    for what, up in (("predictions", True), ("errors", False)):
        form = channels.get(what, {}).get("numbers", {}).get("format")
        if form:
            chosen = np.flatnonzero(messages.up == up)
            error, size, largest = (counts[name].values[chosen] for name in NAMES)
            weight, layers = counts["values"].values[chosen], counts.source.values[chosen]
            means = _mean(error, weight), _mean(size, weight)
            yield Rounded(what, form, layers, *means, np.nanmax(largest, axis=1))
    if form := channels.get("states", {}).get("format"):
        error, size, largest = (counts[f"activity_{name}"].values for name in NAMES)
        there = np.flatnonzero(np.isfinite(largest).any(axis=1))
        weight = np.isfinite(largest[there]).astype(float)
        means = _mean(error[there], weight), _mean(size[there], weight)
        yield Rounded("activities", form, there, *means, np.nanmax(largest[there], axis=1))


def _mean(roots: Floats, weight: npt.NDArray[Any]) -> Floats:
    """Return the root of the mean square over the iterations, of (layers, T + 1)."""
    return np.asarray(np.sqrt(np.nansum(roots**2 * weight, axis=1) / weight.sum(axis=1)))


def _span(form: str) -> tuple[float, float]:
    """Return the smallest number above 0 and the largest of a format."""
    match = FIXED.fullmatch(form)
    if match is None:
        return FLOATS.get(form, (0.0, float("inf")))
    step = 2.0 ** -int(match[2])
    return step, 2.0 ** int(match[1]) - step


def _draw(ax: Axes, one: Rounded) -> None:
    step, highest = _span(one.format)
    sizes = np.concatenate([one.largest, one.size, one.error])
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    low, high = (float(sizes.min()), float(sizes.max())) if sizes.size else (step, highest)
    bottom = min(low, step if step >= high / 10.0**DECADES else low) / 3
    top = max(high, highest if highest <= low * 10.0**DECADES else high) * 3
    ax.set_yscale("log")
    ax.axhspan(max(step, bottom), min(highest, top), color=FAINT, alpha=0.18, lw=0, label="format")
    over = one.largest > highest
    ax.vlines(one.layers, one.error, one.largest, color=FAINT, lw=0.8)
    for values, marker, colour, label in (
        (np.where(over, np.nan, one.largest), "^", INK, "largest"),
        (one.size, "o", LINES[0], "root mean square"),
        (one.error, "v", LINES[1], "rounding error, root mean square"),
    ):
        ax.plot(one.layers, values, marker, color=colour, ms=4, label=label)
    if over.any():
        ax.plot(one.layers[over], one.largest[over], "x", color=BROKEN, ms=5, label="saturates")
    ax.set(ylim=(bottom, top), xlabel="layer", xlim=(one.layers.min() - 0.5, one.layers.max() + 0.5))
    whole_ticks(ax.xaxis, one.layers)
    ax.set_title(f"{one.what.capitalize()} in {one.format}")
