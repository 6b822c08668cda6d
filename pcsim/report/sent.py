"""What layers send of what they could: entries and bits of each link, by those of dense messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.ticker import PercentFormatter

from pcsim.analysis.events import event_counts
from pcsim.report.runs import read_run
from pcsim.report.style import DOWN, INK, UP, in_digits, own_axes, whole_ticks
from pcsim.report.tables import NumberTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pcsim.tracing.reader import TraceReader

Floats = npt.NDArray[np.float64]
WIDTH = 0.38  # of a bar; layers are 1 apart


@dataclass(frozen=True)
class Sent:
    """What each link carried in the recorded training steps, a number a link.

    Attributes:
        source: layers that send, (links,).
        target: layers that receive.
        values: entries of the messages, had all been sent.
        numbers: entries sent, if there is a threshold; else entries that are not zero.
        bits: bits sent for each value; None if the network's dtype is not known.
        dense_bits: bits of a number of the network; None likewise.
        changes: whether the run sent changes only.
    """

    source: npt.NDArray[np.int64]
    target: npt.NDArray[np.int64]
    values: Floats
    numbers: Floats
    bits: Floats | None
    dense_bits: int | None
    changes: bool

    @property
    def shares(self) -> Floats:
        """Entries sent, or not zero, by all."""
        return self.numbers / self.values


def read_sent(trace: TraceReader) -> Sent | None:
    """Read what the links of a trace carried; None if it has no messages.

    Raises:
        TraceError: the file is damaged.
    """
    run = read_run(trace)
    if not run.events:
        return None
    found = event_counts(trace)
    values = found["link_values"].values.astype(float)
    source, target = np.nonzero(values)
    if not len(source):
        return None
    links = source, target
    bits = _dense_bits(run.experiment)
    return Sent(
        source,
        target,
        values[links],
        found["link_nonzero_values"].values.astype(float)[links],
        None if bits is None else 8 * found["link_bytes"].values[links] / values[links],
        bits,
        _sends_changes(run.experiment),
    )


def plot_sent(sent: Sent, *, ax: Axes | None = None) -> Axes:
    """Draw the share of its values that each link carries: a bar for predictions, one for errors.

    A dash marks the share of bits, where messages have a number format or a threshold of their own.

    Args:
        sent: what was read from a trace.
        ax: where to draw; new axes if not given.

    Returns:
        The axes.
    """
    ax = own_axes(ax)
    for up, colour, name in ((True, UP, "predictions"), (False, DOWN, "errors")):
        chosen = (sent.target > sent.source) == up
        place = np.minimum(sent.source, sent.target)[chosen] + (-WIDTH / 2 if up else WIDTH / 2)
        ax.bar(place, sent.shares[chosen], WIDTH * 0.94, color=colour, label=name)
        if sent.bits is not None and sent.dense_bits and (sent.bits != sent.dense_bits).any():
            share = sent.bits[chosen] / sent.dense_bits
            ends: dict[str, Any] = {"color": INK, "lw": 1.6, "label": "bits" if not up else None}
            ax.hlines(share, place - WIDTH / 2, place + WIDTH / 2, **ends)
    links = np.unique(np.minimum(sent.source, sent.target))
    ax.set_xticks(links, [f"{link} ⇄ {link + 1}" for link in links.tolist()])
    if len(links) > 8:
        whole_ticks(ax.xaxis, links)
    ax.axhline(1, color=INK, lw=0.6, ls=":")
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set(ylim=(0, 1.04 * max(1.0, *_heights(sent))), xlabel="layers", ylabel="of dense messages")
    ax.set_title("Entries sent" if sent.changes else "Entries that are not zero")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, handlelength=1.2)
    return ax


def table(sent: Sent, name: str) -> NumberTable:
    """Return the numbers behind the picture."""
    what = "sent" if sent.changes else "not zero"
    rows = tuple(
        (
            f"{source} → {target}",
            "predictions" if source < target else "errors",
            f"{sent.shares[index]:.1%}",
            "" if sent.bits is None else in_digits(float(sent.bits[index])),
        )
        for index, (source, target) in enumerate(zip(sent.source, sent.target, strict=True))
    )
    return NumberTable(f"{name}: entries {what}", ("link", "kind", what, "bits a value"), rows)


def _heights(sent: Sent) -> list[float]:
    bits = [] if sent.bits is None or not sent.dense_bits else (sent.bits / sent.dense_bits).tolist()
    return [*sent.shares.tolist(), *bits]


def _dense_bits(experiment: dict[str, Any]) -> int | None:
    """Return the bits of a number of the network, if the trace says."""
    network = experiment.get("network")
    dtype = network.get("dtype") if isinstance(network, dict) else None
    return {"float32": 32, "float64": 64}.get(str(dtype))


def _sends_changes(experiment: dict[str, Any]) -> bool:
    """Return whether a trace says that messages had a threshold."""
    channels = experiment.get("channels")
    kinds = [channels.get(kind) for kind in ("predictions", "errors")] if isinstance(channels, dict) else []
    return any(isinstance(kind, dict) and kind.get("threshold") is not None for kind in kinds)
