"""The parts of a report: pictures of one kind as SVG, the numbers behind them, and why some are missing."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from pcsim.analysis.backprop import has_angles
from pcsim.analysis.stream import NotRecordedError
from pcsim.report import tables
from pcsim.report.curves import (
    one_legend,
    plot_backprop_angles,
    plot_backprop_lengths,
    plot_energy,
    plot_energy_left,
    plot_learning,
    plot_updates,
)
from pcsim.report.error_flow import error_scale, moments, plot_error_flow
from pcsim.report.events import (
    MOST_TICKS,
    ends,
    label_time,
    plot_raster,
    plot_timeline,
    plot_traffic,
    traffic_scale,
)
from pcsim.report.messages import (
    changes_table,
    draw_changes,
    draw_mishaps,
    mishaps_table,
    read_messages,
)
from pcsim.report.network import distinct_networks, plot_network
from pcsim.report.numbers import ErrorFlow, Traffic, read_angles, read_timeline
from pcsim.report.rounding import draw_rounding, rounded, rounding_table
from pcsim.report.runs import Run
from pcsim.report.seeds import distinct, seed_groups
from pcsim.report.sent import plot_sent, read_sent
from pcsim.report.sent import table as sent_table
from pcsim.report.style import BROKEN_WORD, EMPTY, HATCH, INCHES, INK, PAPER, share_y
from pcsim.report.tables import NumberTable

if TYPE_CHECKING:
    from pcsim.tracing.reader import TraceReader

FATES_SINCE = 3  # version of the trace format that says what became of messages
# What light and dark pages choose themselves; see the page's style sheet.
PAGE_COLOURS = {INK: "currentColor", PAPER: "var(--paper)", EMPTY: "var(--empty)", HATCH: "var(--hatch)"}


@dataclass(frozen=True)
class Picture:
    """A drawing in the page: an SVG element, a line above it, and whether it begins a row."""

    svg: str
    caption: str = ""
    begins: bool = False


@dataclass
class Section:
    """Pictures of one kind.

    Attributes:
        name: of the section, its anchor in the page.
        title: above it.
        words: how to read the pictures.
        wide: whether each picture needs the whole width.
        pairs: whether two pictures belong together, in a row.
        pictures: the drawings.
        tables: the numbers behind them.
        gaps: what the traces do not hold, and how to record it.
    """

    name: str
    title: str
    words: str
    wide: bool = False
    pairs: bool = False
    pictures: list[Picture] = field(default_factory=list)
    tables: list[NumberTable] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """An open trace and what was read from it; None where it has nothing of the kind."""

    trace: TraceReader
    run: Run
    name: str
    flow: ErrorFlow | None
    traffic: Traffic | None


def svg(figure: Figure, description: str) -> str:
    """Return a figure as an SVG element that takes its colours from the page and says what it shows."""
    # Otherwise savefig draws everything twice, the first time only to arrange it.
    if (layout := figure.get_layout_engine()) is not None:
        layout.execute(figure)
        figure.set_layout_engine("none")
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    for colour, ours in PAGE_COLOURS.items():
        text = text.replace(colour, ours)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1)


def _error_flow(sources: Sequence[Source]) -> Section:
    section = Section(
        "errors",
        "Error flow",
        "Error norm of each layer after each inference iteration, at up to three moments of the training, "
        "all on one colour scale. Hatched: no error has come there.",
    )
    flows = [source.flow for source in sources if source.flow is not None]
    if not all(np.isfinite(flow.norms).all() for flow in flows):
        section.words += f" In {BROKEN_WORD}: the error is not finite, NaN or infinite."
    norm = error_scale(flows)
    for source in _with_steps(sources, section):
        assert source.flow is not None
        steps = moments(source.flow, 3)
        figure = _figure(0.6 + 1.35 * len(steps))
        axes = figure.subplots(len(steps), sharex=True, squeeze=False)[:, 0]
        for ax, step in zip(axes, steps, strict=True):
            plot_error_flow(source.flow, step=step, ax=ax, norm=norm, colorbar=False)
            ax.set_xlabel("iterations done" if ax is axes[-1] else "")
        figure.colorbar(axes[0].collections[0], ax=axes, label="root mean square of ‖error‖", extend="min")
        section.pictures.append(Picture(svg(figure, f"error flow of {source.name}"), source.name))
        section.tables.append(tables.error_flow(source.flow, source.name))
    return section


def _energy(sources: Sequence[Source]) -> Section:
    section = Section(
        "energy",
        "Free energy",
        "Median over the recorded training steps, in a band that holds the middle half of them; and the "
        "share that the iterations leave of the energy after the forward sweep.",
    )
    if len(seed_groups([source.trace for source in sources])) < len(sources):
        section.words += (
            " Runs that differ only in their seed share a curve: the mean of their medians, in a "
        )
        section.words += "band from the lowest to the highest."
    drawn, broken = [], []
    for source in _with_steps(sources, section):
        try:
            section.tables.append(tables.energy(source.trace, source.name))
            drawn.append(source)
        except NotRecordedError:
            broken.append(source)
    _note(section, "No finite free energy in", broken)
    if drawn:
        for plot in (plot_energy, plot_energy_left):
            _add(section, "free energy over the iterations", plot, [source.trace for source in drawn])
    return section


def _updates(sources: Sequence[Source]) -> Section:
    section = Section(
        "updates",
        "Updates",
        "Mean absolute change of weight and bias of each layer, training step by step, all on one scale. "
        "Runs that differ only in their seed share a picture: their mean, in a band from the lowest to the "
        "highest.",
    )
    drawn = list(_with_steps(sources, section))
    figures = {}
    for name, group in seed_groups([source.trace for source in drawn]).items():
        figures[name] = _figure(2.8)
        plot_updates(group, ax=figures[name].subplots())
    share_y([figure.axes[0] for figure in figures.values()])
    for name, figure in figures.items():
        figure.axes[0].set_title("")  # the caption has it
        _draw(section, figure, f"update magnitudes of {name}", name)
    section.tables += [tables.updates(source.trace, source.name) for source in drawn]
    return section


def _angles(sources: Sequence[Source]) -> Section:
    section = Section(
        "angles",
        "Updates against backprop's",
        "Angle between each connection's weight update and the step that backprop would make, in degrees "
        "(0° is the same direction), and the length of the update, which contains the learning rate, by that "
        "of backprop's gradient.",
        pairs=True,
    )
    drawn = [source for source in sources if has_angles(source.trace)]
    for source in drawn:
        angles = read_angles(source.trace)
        for plot, what in ((plot_backprop_angles, "angles"), (plot_backprop_lengths, "lengths")):
            figure = _figure(2.8)
            plot(angles, ax=figure.subplots())
            drawing = svg(figure, f"{what} of {source.name}")
            section.pictures.append(Picture(drawing, source.name, begins=what == "angles"))
        section.tables += tables.angles(angles, source.name)
    if drawn:
        others = [source for source in sources if source not in drawn and not source.run.backprop]
        _note(
            section, "No probe with activity, weight, update, bias and bias_update of all samples in", others
        )
    return section


def _learning(sources: Sequence[Source]) -> Section:
    section = Section(
        "learning",
        "Learning",
        "Test result after each epoch; test loss is half the squared distance to the target, whatever the "
        "free energy of the output is. Runs that differ only in their seed share a curve: their mean, in "
        "a band from the worst to the best.",
    )
    drawn = [source for source in sources if source.run.epochs]
    _note(section, "No finished epoch in", [source for source in sources if source not in drawn])
    if drawn:
        _add(section, "learning curves", plot_learning, [source.trace for source in drawn])
        section.tables += [tables.learning(source.trace, source.name) for source in drawn]
    return section


def _timeline(sources: Sequence[Source]) -> Section:
    section = Section(
        "timeline",
        "Timeline",
        "The first recorded training step in simulated time: when layers act, and when messages arrive. On "
        "one scale of time where they have the same unit; runs with the same times share a picture.",
        wide=True,
    )
    read = {s.trace: read_timeline(s.trace, most=MOST_TICKS) for s in _with_events(sources, section)}
    shown = distinct(list(read), lambda trace: read[trace].times())
    timelines = {name: read[trace] for name, trace in shown.items()}
    last = ends(list(timelines.values()))
    for name, timeline in timelines.items():
        layers = timeline.total_layers
        heights = (0.7 + 0.38 * layers, 0.6 + 0.34 * (layers - 1))
        figure = _figure(sum(heights), INCHES["double"])
        upper, lower = figure.subplots(2, sharex=True, height_ratios=heights)
        plot_timeline(timeline, ax=upper)
        plot_raster(timeline, ax=lower)
        upper.set(xlim=(0, last[timeline.unit]))
        label_time(lower, timeline.unit)
        upper.set_xlabel("")
        one_legend(figure, (upper, lower))
        section.pictures.append(Picture(svg(figure, f"timeline of {name}"), name))
        section.tables.append(tables.timeline(timeline, name))
    return section


def _traffic(sources: Sequence[Source]) -> Section:
    section = Section(
        "traffic",
        "Traffic",
        "Bytes from layer to layer a training step, mean over the recorded ones; and what the links carry of "
        "the values that dense messages would have.",
        pairs=True,
    )
    drawn = list(_with_events(sources, section))
    norm = traffic_scale([source.traffic for source in drawn if source.traffic is not None])
    for source in drawn:
        assert source.traffic is not None
        figure = _figure(2.8)
        plot_traffic(source.traffic, ax=figure.subplots(), norm=norm)
        drawing = svg(figure, f"traffic of {source.name}")
        section.pictures.append(Picture(drawing, source.name, begins=True))
        section.tables.append(tables.traffic(source.traffic, source.name))
        if (sent := read_sent(source.trace)) is not None:
            figure = _figure(2.2)
            plot_sent(sent, ax=figure.subplots())
            section.pictures.append(Picture(svg(figure, f"entries sent of {source.name}"), source.name))
            section.tables.append(sent_table(sent, source.name))
    return section


def _messages(sources: Sequence[Source]) -> Section:
    section = Section(
        "messages",
        "Messages",
        "Of runs with thresholds, number formats or faults: which share of its entries a message carries; "
        "how large numbers and their rounding errors are beside what the format has (grey: from its smallest "
        "number above 0 to its largest); and which share of the messages was lost, late, doubled or never "
        "sent. Predictions are below the white line, errors above it. All recorded training steps together; "
        "grey cells had no message.",
        wide=True,
    )
    told = [source for source in sources if source.run.experiment.get("channels")]
    for source in _with_events(told, section):
        found = read_messages(source.trace)
        if found is None:
            continue
        old = (source.run.schema_version or 0) < FATES_SINCE
        if found.changes:
            _draw(section, draw_changes(found), f"entries sent over iterations by {source.name}", source.name)
            section.tables.append(changes_table(found, source.name))
        if formats := rounded(found):
            _draw(section, draw_rounding(formats), f"rounding in {source.name}", source.name)
            section.tables.append(rounding_table(formats, source.name))
        if found.mishaps:
            _draw(section, draw_mishaps(found), f"fates of messages of {source.name}", source.name)
        if found.faulty and not old:
            section.tables.append(mishaps_table(found, source.name))
        if old and (found.faulty or found.rounds):
            _note(section, "What rounding and faults did is not in", [source], "it is of an older format")
    return section


def _network(sources: Sequence[Source]) -> Section:
    section = Section(
        "network", "Network", "Layers with their sizes; predictions go up, errors go down.", wide=True
    )
    _note(section, "No sizes of the layers in", [source for source in sources if not source.run.sizes])
    sized = [source.trace for source in sources if source.run.sizes]
    traffic = {source.trace: source.traffic for source in sources if source.traffic is not None}
    for name, trace in distinct_networks(sized, traffic).items():
        figure = _figure(1.9, INCHES["double"])
        plot_network(trace, traffic=traffic.get(trace), name=name, ax=figure.subplots())
        section.pictures.append(Picture(svg(figure, f"network of {name}")))
    return section


def _with_steps(sources: Sequence[Source], section: Section) -> Iterator[Source]:
    """Yield the traces that hold training steps; note the others."""
    _note(section, "No recorded training step in", [one for one in sources if not one.run.recorded])
    yield from (source for source in sources if source.run.recorded)


def _with_events(sources: Sequence[Source], section: Section) -> Iterator[Source]:
    """Yield the traces that hold events; note the others."""
    without = [source for source in sources if not source.run.events]
    advice = "run with --engine event and trace.events = true"
    _note(section, "No events in", [source for source in without if not source.run.backprop], advice)
    _note(
        section, "Backprop sends no messages, so there is nothing of", [s for s in without if s.run.backprop]
    )
    yield from (source for source in sources if source.run.events)


def _note(section: Section, what: str, lacking: Sequence[Source], advice: str = "") -> None:
    """Say in one sentence which runs lack something."""
    if lacking:
        names = "; ".join(source.name for source in lacking)
        section.gaps.append(f"{what} {names}{': ' if advice else ''}{advice}.")


def _add(
    section: Section,
    description: str,
    plot: Callable[..., object],
    traces: TraceReader | Sequence[TraceReader],
    caption: str = "",
) -> None:
    figure = _figure(2.8)
    plot(traces, ax=figure.subplots())
    section.pictures.append(Picture(svg(figure, description), caption))


def _draw(section: Section, figure: Figure, description: str, caption: str) -> None:
    section.pictures.append(Picture(svg(figure, description), caption))


def _figure(height: float, width: float = INCHES["single"]) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


# In the order of the page; each takes the traces and returns its part.
SECTIONS: tuple[Callable[[Sequence[Source]], Section], ...] = (
    _error_flow,
    _energy,
    _updates,
    _angles,
    _learning,
    _timeline,
    _traffic,
    _messages,
    _network,
)
