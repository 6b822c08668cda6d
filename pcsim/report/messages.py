"""What became of messages: how much of them was sent, and which were lost, late, doubled or never sent.

One row a link, one column an inference iteration; beside it the same over the training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from pcsim.analysis.messages import message_counts
from pcsim.analysis.stream import Progress
from pcsim.report.runs import read_run
from pcsim.report.style import DOWN, EMPTY, INCHES, MAP, UP, count_ticks, ink_on, line_look, whole_ticks
from pcsim.report.tables import NumberTable

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

    from pcsim.tracing.reader import TraceReader

Floats = npt.NDArray[np.float64]

# What can go wrong, in words; the names of `pcsim.analysis.messages.FATES` but the first.
MISHAPS = {
    "lost": "lost",
    "unsent": "unsent by a dead core",
    "delayed": "delayed",
    "reordered": "reordered",
    "copy": "sent twice",
}
MOST_MARKED = 60  # cells that have their number written in them
MOST_NAMED = 12  # links that have their name beside them


@dataclass(frozen=True)
class Messages:
    """What became of the messages of a run; links are predictions from below, then errors from above.

    Attributes:
        counts: what `pcsim.analysis.message_counts` finds, links in that order.
        up: whether a link carries predictions, (links,).
        channels: settings of the run: thresholds, number formats, faults.
        recorded: training steps with events.
    """

    counts: xarray.Dataset
    up: npt.NDArray[np.bool_]
    channels: dict[str, Any]
    recorded: int

    @property
    def names(self) -> list[str]:
        """Return a name for each link: 0 → 1."""
        ends = zip(self.counts.source.values, self.counts.target.values, strict=True)
        return [f"{source} → {target}" for source, target in ends]

    @property
    def changes(self) -> bool:
        """Whether layers sent only what had changed."""
        return any(
            self.channels.get(kind, {}).get("threshold") is not None for kind in ("predictions", "errors")
        )

    @property
    def faulty(self) -> bool:
        """Whether anything could go wrong."""
        faults = self.channels.get("faults", {})
        rates = any(faults.get(rate) for rate in ("loss", "duplication", "delay", "reorder"))
        return rates or faults.get("dead") is not None

    @property
    def rounds(self) -> bool:
        """Whether messages or activities have a number format of their own."""
        kinds = [self.channels.get(kind, {}).get("numbers", {}) for kind in ("predictions", "errors")]
        return any(numbers.get("format") for numbers in (*kinds, self.channels.get("states", {})))

    @property
    def mishaps(self) -> list[str]:
        """Return what went wrong with at least one message."""
        return [fate for fate in MISHAPS if self.counts.messages.sel(fate=fate).values.any()]

    def sent(self) -> Floats:
        """Return the entries sent by those of dense messages, (links, T + 1); NaN where there are none."""
        return _share(self.counts.nonzero_values.values, self.counts["values"].values)

    def sent_over_training(self, up: bool) -> Floats:
        """Return the entries that predictions, or errors, carry by those of dense messages, (moments,)."""
        chosen = self.up == up
        entries, dense = (
            self.counts[name].values[chosen].sum(axis=0)
            for name in ("moment_nonzero_values", "moment_values")
        )
        return _share(entries, dense)

    def met(self, fate: str) -> Floats:
        """Return the share of messages that meet a fate, (links, T + 1); NaN where there are none."""
        counts = self.counts.messages
        return _share(counts.sel(fate=fate).values, _originals(counts))

    def met_over_training(self, fate: str) -> Floats:
        """Return the share of all links' messages that meet a fate, (moments,)."""
        counts = self.counts.moment_messages.sum("link")
        return _share(counts.sel(fate=fate).values, _originals(counts))


def read_messages(trace: TraceReader, progress: Progress | None = None) -> Messages | None:
    """Read what became of messages; None if the run sent all numbers as they were, or has no events.

    Raises:
        TraceError: the file is damaged.
    """
    run = read_run(trace)
    channels = run.experiment.get("channels")
    if not run.events or not isinstance(channels, dict):
        return None
    found = message_counts(trace, progress=progress)
    up = found.target.values > found.source.values
    order = np.lexsort((found.source.values, ~up))
    settings = {name: value for name, value in channels.items() if isinstance(value, dict)}
    return Messages(found.isel(link=order), up[order], settings, int(found.attrs["recorded_steps"]))


def draw_changes(messages: Messages) -> Figure:
    """Draw which share of its entries each link sent, over iterations, and all of them over the training."""
    figure = Figure(figsize=(INCHES["double"], _height(messages)), layout="constrained")
    maps, curve = figure.subplots(1, 2, width_ratios=(3, 2))
    shares = messages.sent()
    norm = Normalize(0, max(0.01, float(np.nanmax(shares, initial=0))))
    _map(maps, messages, shares, norm)
    maps.set_title("Entries sent, of dense messages")
    for up, colour, name in ((True, UP, "predictions"), (False, DOWN, "errors")):
        over = messages.sent_over_training(up)
        curve.plot(messages.counts.moment.values, over, color=colour, label=name, marker=_dot(over))
    _over_training(curve, "of dense messages")
    return figure


def draw_mishaps(messages: Messages) -> Figure:
    """Draw which share of each link's messages went wrong, over iterations, and of all over the training."""
    mishaps = messages.mishaps
    panels = len(mishaps) + 1
    columns = 2 if panels in (2, 4) else 3
    rows = -(-panels // columns)
    figure = Figure(figsize=(INCHES["double"], rows * _height(messages)), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    shares = {fate: messages.met(fate) for fate in mishaps}
    most = max((float(np.nanmax(share, initial=0)) for share in shares.values()), default=0.0)
    norm = Normalize(0, most or 1)
    for fate, ax in zip(mishaps, axes, strict=False):
        _map(ax, messages, shares[fate], norm)
        ax.set_title(f"Messages {MISHAPS[fate]}")
    curve = axes[len(mishaps)]
    for index, fate in enumerate(mishaps):
        over = messages.met_over_training(fate)
        look = line_look(index + 1)
        curve.plot(messages.counts.moment.values, over, label=MISHAPS[fate], marker=_dot(over), **look)
    _over_training(curve, "of all messages")
    for ax in list(axes)[len(mishaps) + 1 :]:
        ax.set_axis_off()
    return figure


def changes_table(messages: Messages, name: str) -> NumberTable:
    """Return the share of entries that each link sent in each iteration."""
    return _table(messages, messages.sent(), f"{name}: entries sent, of dense messages")


def mishaps_table(messages: Messages, name: str) -> NumberTable:
    """Return how many messages of each link came to what."""
    counts = messages.counts.messages.sum("iteration")
    fates = ["arrives", *messages.mishaps]
    rows = tuple(
        (link, "predictions" if up else "errors", *(f"{int(counts[at].sel(fate=one)):,}" for one in fates))
        for at, (link, up) in enumerate(zip(messages.names, messages.up, strict=True))
    )
    head = ("link", "kind", "in order", *(MISHAPS[one] for one in fates[1:]))
    return NumberTable(f"{name}: messages of {messages.recorded:,} recorded training steps", head, rows)


def _table(messages: Messages, shares: Floats, caption: str) -> NumberTable:
    chosen = np.unique(np.linspace(0, shares.shape[1] - 1, min(10, shares.shape[1])).round().astype(int))
    rows = tuple(
        (link, *("" if np.isnan(shares[at, column]) else f"{shares[at, column]:.1%}" for column in chosen))
        for at, link in enumerate(messages.names)
    )
    return NumberTable(caption, ("link", *(f"iteration {column}" for column in chosen)), rows)


def _map(ax: Axes, messages: Messages, shares: Floats, norm: Normalize) -> None:
    """Draw a heat map: a row a link, a column an iteration; a line parts predictions from errors."""
    links, iterations = shares.shape
    ax.set_facecolor(EMPTY)
    ax.pcolormesh(
        np.arange(iterations + 1) - 0.5,
        np.arange(links + 1) - 0.5,
        np.ma.masked_invalid(shares),
        cmap=MAP,
        norm=norm,
        rasterized=shares.size > 4000,
    )
    marked = shares.size <= MOST_MARKED
    for (link, iteration), share in np.ndenumerate(shares) if marked else ():
        if not np.isnan(share):
            ink = ink_on(colormaps[MAP](norm(share)))
            text = f"{share:.0%}" if share >= 0.0995 or share == 0 else f"{share:.1%}"
            ax.text(iteration, link, text, ha="center", va="center", color=ink, fontsize=6)
    if 0 < (parting := int(messages.up.sum())) < links:
        ax.axhline(parting - 0.5, color="white", lw=2)
    if links <= MOST_NAMED:
        ax.set_yticks(range(links), messages.names)
    else:
        half = [parting / 2 - 0.5, parting + (links - parting) / 2 - 0.5]
        ax.set_yticks(half, ["predictions", "errors"], rotation=90, va="center")
    ax.tick_params(length=0)
    ax.set(xlabel="iteration", ylabel="from → to layer" if links <= MOST_NAMED else "layers, upwards")
    whole_ticks(ax.xaxis, np.arange(iterations))
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    if not marked:
        bar = ax.figure.colorbar(ScalarMappable(norm, MAP), ax=ax, shrink=0.8)
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1))


def _over_training(ax: Axes, words: str) -> None:
    ax.set(ylim=(0, 1.3 * ax.get_ylim()[1]), xlabel="training step", ylabel=words)  # room for the legend
    ax.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.3g}%"))
    count_ticks(ax.xaxis, 5)
    ax.set_title("Over the training")
    ax.legend(loc="best", handlelength=1.4)


def _height(messages: Messages) -> float:
    """Return the height of a heat map in inches."""
    return float(np.clip(0.9 + 0.22 * len(messages.up), 2.1, 5.0))


def _dot(values: Floats) -> str:
    """Return the marker of a curve: a single point would be no line."""
    return "o" if len(values) < 2 else ""


def _originals(counts: xarray.DataArray) -> npt.NDArray[np.int64]:
    """Return how many messages there were, or should have been; copies not counted."""
    return np.asarray(counts.sum("fate").values - counts.sel(fate="copy").values)


def _share(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Floats:
    shares = np.full(np.shape(part), np.nan)
    np.divide(part, whole, out=shares, where=np.asarray(whole) > 0)
    return shares
