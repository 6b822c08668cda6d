"""Where the energy of a mini-batch goes, as a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from pcsim.report.style import FAINT, INCHES, LINES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pcsim.experiments.energy import Bills
    from pcsim.hardware.charge import Bill, Row

MOST_PARTS = len(LINES) - 1  # that have a colour of their own; the rest is "other"

_CORNERS: tuple[Literal["outside lower left", "outside lower right"], ...] = (
    "outside lower left",
    "outside lower right",
)


class _Bar(NamedTuple):
    """One bar: a bill as a share of its machine's dense total."""

    name: str
    place: float
    bill: Bill
    whole: float
    total: str


def draw_bills(
    orders: Sequence[tuple[str, Mapping[str, Bills]]], write: Callable[[float, str], str]
) -> Figure:
    """Draw stacked bars by operation and by term, dense above event-driven, a group a machine and order.

    Bars are shares of the machine's dense total (machines differ by orders of magnitude); the energy of one
    sample is written at the end of each, the source of a machine's prices below its two.

    Args:
        orders: name of an order, and its bills by machine.
        write: how an energy in a machine's unit is written.
    """
    import matplotlib.pyplot as plt

    bars = list(_bars(orders, write))
    height = 1.6 + 0.31 * len(bars)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(INCHES["double"], height), layout="constrained", sharey=True
    )
    _stack(left, bars, lambda row: row.operation, "by operation")
    _stack(right, bars, lambda row: row.term.replace("_", " "), "by what is charged")
    left.set_yticks([bar.place for bar in bars], [bar.name for bar in bars])
    for bar in bars[1::2]:  # below both bars of a machine, whose source it is
        left.text(1, bar.place + 0.7, bar.bill.machine.source, va="center", fontsize=6, color=FAINT)
    left.set_ylim(bars[-1].place + 1, -0.6)
    figure.suptitle("Energy of a sample in training")
    for ax, corner in zip((left, right), _CORNERS, strict=True):
        handles, names = ax.get_legend_handles_labels()
        figure.legend(handles, names, loc=corner, ncols=3, handlelength=1, columnspacing=1)
    return figure


def _bars(
    orders: Sequence[tuple[str, Mapping[str, Bills]]], write: Callable[[float, str], str]
) -> list[_Bar]:
    bars, place = [], 0.0
    for order, bills in orders:
        for name, both in bills.items():
            title = name if len(orders) == 1 else f"{name}, {order}"
            for way, bill in (("dense", both.dense), ("events", both.events)):
                total = write(bill.energy / bill.batch, bill.machine.prices.energy_unit)
                bars.append(_Bar(f"{title}, {way}", place, bill, both.dense.energy, total))
                place += 1
            place += 0.8
    return bars


def _stack(ax: Axes, bars: Sequence[_Bar], key: Callable[[Row], str], title: str) -> None:
    """Draw the bars, the parts that matter most first."""
    parts = [bar.bill.by(key) for bar in bars]
    shares = [
        {name: part / bar.whole for name, part in one.items()} if bar.whole else {}
        for bar, one in zip(bars, parts, strict=True)
    ]
    sums = {name: sum(one.get(name, 0.0) for one in shares) for one in shares for name in one}
    ranked = sorted((name for name in sums if sums[name]), key=lambda name: (-sums[name], name))
    chosen = ranked[:MOST_PARTS]
    rest = [name for name in ranked if name not in chosen]
    start = np.zeros(len(bars))
    places = [bar.place for bar in bars]
    for index, (name, members) in enumerate([*((one, [one]) for one in chosen), ("other", rest)]):
        width = np.array([sum(one.get(member, 0.0) for member in members) for one in shares])
        if members:
            ax.barh(places, 100 * width, left=100 * start, height=0.8, color=LINES[index], label=name)
        start += width
    for bar, end in zip(bars, start, strict=True):
        ax.text(100 * end + 1, bar.place, bar.total, va="center", fontsize=6, color=FAINT)
    ax.set(title=title, xlabel="% of the machine's dense energy", xlim=(0, 122))
    ax.set_xticks([0, 25, 50, 75, 100])
