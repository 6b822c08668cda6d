"""How all pictures look: print widths, colours that colour-blind people can tell apart, scales, numbers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

Width = Literal["single", "double"]
# Widths of one and two columns of a printed page, in inches.
INCHES: dict[Width, float] = {"single": 3.5, "double": 7.0}

# Okabe and Ito's colours, without black and yellow, which vanish on a dark or a light page.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DASHES = ("-", "--", "-.", ":")
UP, DOWN = "#0072B2", "#D55E00"  # predictions go up, errors go down
# Colours that a report replaces by those of a light or dark page; no other part of a picture has them.
INK, PAPER, FAINT, EMPTY, HATCH = "#17171a", "#fdfdfe", "#8a8a8f", "#e7e7ea", "#b9b9bd"
MAP = "cividis"
BROKEN, BROKEN_WORD = "#d81b60", "magenta"  # not finite: in no part of the colour map
MIDDLE = 0.179  # luminance that is as far from black as from white
DECADES = 10  # of a logarithmic axis, below the largest value

# Any, because matplotlib's type stubs list hundreds of literal names.
_SETTINGS: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "figure.titlesize": 9,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.facecolor": PAPER,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "hatch.linewidth": 0.5,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "pcsim",
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


def style() -> AbstractContextManager[None]:
    """Return a context in which matplotlib draws as `pcsim plot` does: small type, few lines, vector text."""
    from matplotlib import rc_context

    return rc_context(_SETTINGS)


def own_axes(ax: Axes | None, width: float = INCHES["single"], height: float = 2.4) -> Axes:
    """Return `ax`, or new axes on a pyplot figure of so many inches."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def line_look(index: int) -> dict[str, Any]:
    """Return colour and dashes of the line with this number; 24 of them differ."""
    return {
        "color": LINES[index % len(LINES)],
        "linestyle": DASHES[index // len(LINES) % len(DASHES)],
    }


def layer_colours(number: int) -> npt.NDArray[np.float64]:
    """Return a colour for each of so many layers, from blue to green, fit for light and dark, (number, 4)."""
    from matplotlib import colormaps

    return np.asarray(colormaps["viridis"](np.linspace(0.3, 0.8, number)))


def ink_on(colour: Sequence[float]) -> str:
    """Return black or white, whichever can be read better on a colour; its luminance is WCAG 2's."""
    sent = np.asarray(colour[:3])
    linear = np.where(sent <= 0.04045, sent / 12.92, ((sent + 0.055) / 1.055) ** 2.4)
    return "black" if linear @ (0.2126, 0.7152, 0.0722) > MIDDLE else "white"


def share_y(axes: Sequence[Axes]) -> None:
    """Give axes of several figures one vertical scale."""
    if any(ax.get_yscale() == "log" for ax in axes):
        for ax in axes:
            ax.set_yscale("log", nonpositive="mask")
    limits = [ax.get_ylim() for ax in axes]
    for ax in axes:
        ax.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def scale_y(ax: Axes, values: npt.ArrayLike) -> None:
    """Make the vertical scale logarithmic if the values span a decade or more; ten decades at most."""
    numbers = np.asarray(values, dtype=float).ravel()
    positive = numbers[np.isfinite(numbers) & (numbers > 0)]
    if positive.size and positive.max() >= 10 * positive.min() and not (numbers < 0).any():
        ax.set_yscale("log", nonpositive="mask")
        if positive.max() > 10.0**DECADES * positive.min():
            ax.set_ylim(bottom=positive.max() / 10.0**DECADES)


def whole_ticks(axis: Axis, values: Sequence[int] | npt.NDArray[Any], most: int = 10) -> None:
    """Put ticks on an axis at whole numbers: each of them, or every second, fifth, … if there are many."""
    count = len(values)
    stride = next((s for p in range(9) for s in (10**p, 2 * 10**p, 5 * 10**p) if count <= most * s), count)
    chosen = [int(value) for value in values if int(value) % stride == 0] or [int(value) for value in values]
    axis.set_ticks(chosen)
    axis.set_ticks([], minor=True)


def count_ticks(axis: Axis, most: int = 9) -> None:
    """Let an axis that counts have ticks at whole numbers only, also where it shows a single one."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(most, integer=True, min_n_ticks=1))


def in_bytes(size: float) -> str:
    """Return a size for people: 12.8 kB."""
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size:.3g} B"


def in_digits(number: float) -> str:
    """Return a number of three digits for people: 0.0123, 1.2e-05, 12,300."""
    if number == 0:
        return "0"
    if 1e-3 <= abs(number) < 1000:
        return f"{number:.3g}"
    return f"{number:,.0f}" if 1000 <= abs(number) < 1e6 else f"{number:.2e}"
