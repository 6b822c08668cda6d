"""Pictures of what became of messages, from real runs with thresholds, number formats and faults."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest
from matplotlib.figure import Figure
from report_traces import train

from pcsim.report.events import MARKS, plot_timeline
from pcsim.report.html import write_report
from pcsim.report.messages import (
    MISHAPS,
    changes_table,
    draw_changes,
    draw_mishaps,
    mishaps_table,
    read_messages,
)
from pcsim.report.numbers import read_timeline
from pcsim.report.rounding import FLOATS, draw_rounding, rounded, rounding_table
from pcsim.schedule.channel import Channels, Dead, Faults, Messages, Rounding
from pcsim.schedule.number_format import FLOATS as FORMATS
from pcsim.tracing.reader import open_trace

FAULTS = Faults(
    loss=0.2, duplication=0.3, delay=0.3, reorder=0.3, delay_time=4.0, dead=Dead(1, step=8), seed=1
)
COARSE = Channels(Messages(numbers=Rounding("Q0.5")), Messages(numbers=Rounding("float16")))
PLANS = {
    "changes": Channels(Messages(0.05), Messages(1e-3)),
    "formats": Channels(COARSE.predictions, COARSE.errors, states=Rounding("Q2.8")),
    "faults": Channels(faults=FAULTS),
    "all": Channels(Messages(0.05, Rounding("Q3.6")), Messages(1e-3), FAULTS),
}


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    """A trace of each plan, by name."""
    folder = tmp_path_factory.mktemp("messages")
    return {name: train(folder / f"{name}.h5", epochs=1, channels=plan) for name, plan in PLANS.items()}


def read(path):
    """Read what became of the messages of a trace."""
    with open_trace(path) as trace:
        return read_messages(trace)


def test_shares_sent_are_those_of_the_rows(traces):
    """Entries by values of each link and iteration, straight from the table of events."""
    found = read(traces["changes"])
    assert found.changes
    assert found.names == ["0 → 1", "1 → 2", "2 → 3", "1 → 0", "2 → 1", "3 → 2"]
    with open_trace(traces["changes"]) as trace:
        events = trace.table("events")
        rows = {name: events.read(name) for name in events.columns}
    shares = found.sent()
    for (at, iteration), share in np.ndenumerate(shares):
        mine = (rows["layer"] == found.counts.source.values[at]) & (rows["iteration"] == iteration)
        mine &= rows["target"] == found.counts.target.values[at]
        if mine.any():
            assert share == rows["nonzero_values"][mine].sum() / rows["values"][mine].sum()
        else:
            assert np.isnan(share)
    assert changes_table(found, "run").rows[0][1] == f"{shares[0, 0]:.1%}"


def test_the_picture_of_changes_shows_each_cell(traces):
    """One cell with its number for each link and iteration that had a message, and two curves beside."""
    found = read(traces["changes"])
    cells, curve = draw_changes(found).axes
    assert len(cells.texts) == np.isfinite(found.sent()).sum()
    assert [line.get_label() for line in curve.lines] == ["predictions", "errors"]
    assert [label.get_text() for label in cells.get_yticklabels()] == found.names


def test_each_mishap_has_a_panel(traces):
    """Lost, unsent, delayed, reordered and doubled messages: a heat map each, and a curve each."""
    found = read(traces["faults"])
    assert found.mishaps == list(MISHAPS)
    *maps, curve = draw_mishaps(found).axes
    assert [ax.get_title() for ax in maps] == [f"Messages {words}" for words in MISHAPS.values()]
    assert len(curve.lines) == len(MISHAPS)
    head, first, *_ = mishaps_table(found, "run").head, *mishaps_table(found, "run").rows
    counts = found.counts.messages.sum("iteration").isel(link=0)
    shown = ["arrives", *MISHAPS]
    assert len(head) == len(first) == 2 + len(shown)
    assert [int(cell.replace(",", "")) for cell in first[2:]] == [int(counts.sel(fate=one)) for one in shown]


def test_shares_of_mishaps_leave_copies_out(traces):
    """Of 10 messages of which 3 went twice: 30 %, not 3 of 13."""
    found = read(traces["faults"])
    counts = found.counts.messages.sel(link=found.counts.source == 2).isel(link=0, iteration=1)
    originals = int(counts.sum()) - int(counts.sel(fate="copy"))
    at = found.counts.source.values.tolist().index(2)
    assert found.met("lost")[at, 1] == int(counts.sel(fate="lost")) / originals


def test_formats_in_the_picture(traces):
    """Largest numbers, rounding errors and the format's ends; what saturates has a mark of its own."""
    predictions, errors, activities = found = rounded(read(traces["formats"]))
    assert [(one.what, one.format) for one in found] == [
        ("predictions", "Q0.5"),
        ("errors", "float16"),
        ("activities", "Q2.8"),
    ]
    assert predictions.layers.tolist() == [0, 1, 2]
    assert errors.layers.tolist() == [1, 2, 3]
    assert (errors.error <= errors.largest * 2**-11).all()  # half a unit in the last place
    assert (activities.error <= 2**-9).all()
    assert predictions.largest.max() > 1 - 2**-5
    panels = draw_rounding(found).axes
    assert "saturates" in [line.get_label() for line in panels[0].lines]
    assert "saturates" not in [line.get_label() for line in panels[1].lines]
    table = rounding_table(found, "run")
    assert len(table.rows) == 3 + 3 + 4
    assert table.rows[0][-1] == "0.9688"


def test_formats_end_where_the_simulator_says():
    """The report may not import the simulator, so it knows the ends of floating-point formats itself."""
    assert {name: one.highest for name, one in FORMATS.items()} == {n: end for n, (_, end) in FLOATS.items()}
    assert {n: 2.0**-one.fraction_bits for n, one in FORMATS.items()} == {
        n: s for n, (s, _) in FLOATS.items()
    }


def test_marks_in_the_timeline(traces):
    """Each mark lies where its events are: as many points as messages of that fate."""
    with open_trace(traces["faults"]) as trace:
        timeline = read_timeline(trace, step=8)
    ax = plot_timeline(timeline, ax=Figure().subplots())
    drawn = {line.get_label(): len(line.get_xdata()) for line in ax.lines if line.get_label() in NAMES}
    assert drawn == {NAMES[fate]: timeline.fates.count(fate) for fate in MARKS if fate in timeline.fates}
    assert "unsent" in timeline.fates


NAMES = {fate: name for fate, (_, name, _) in MARKS.items()} | {n: n for _, n, _ in MARKS.values()}


def test_the_page_shows_them(traces, tmp_path):
    """A run with thresholds, formats and faults has a picture and a table of each."""
    page = tmp_path / "page.html"
    sections = write_report([open_trace(traces["all"])], page)
    (section,) = [one for one in sections if one.name == "messages"]
    assert len(section.pictures) == len(section.tables) == 3
    assert not section.gaps
    text = page.read_text(encoding="utf-8")
    assert all(what in text for what in ("entries sent over iterations", "rounding in", "fates of messages"))


def test_plain_runs_have_no_such_section(runs):
    """Nothing to say is not said; another run in the same page does not change that."""
    assert read(runs["sequential", "event"]) is None


def test_what_older_traces_do_not_say(traces, tmp_path):
    """A trace of version 2 of a run with faults: read as it is, and the page says what it lacks."""
    old = shutil.copy(traces["faults"], tmp_path / "old.h5")
    with h5py.File(old, "r+") as file:
        file.attrs["schema_version"] = 2
        del file["events/fate"]
    sections = write_report([open_trace(old)], tmp_path / "page.html")
    (section,) = [one for one in sections if one.name == "messages"]
    assert not section.pictures
    assert "of an older format" in section.gaps[0]


def test_traces_without_events_say_so(tmp_path):
    """The fast engine records none."""
    path = train(tmp_path / "fast.h5", engine="fast", epochs=1, channels=PLANS["changes"])
    (section,) = [
        one for one in write_report([open_trace(path)], tmp_path / "p.html") if one.name == "messages"
    ]
    assert "--engine event" in section.gaps[0]
