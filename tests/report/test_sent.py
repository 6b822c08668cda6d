"""The picture of what links carry: shares by hand, from a trace of real runs, and in the report."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from report_traces import train

from pcsim.report.html import write_report
from pcsim.report.sent import Sent, plot_sent, read_sent, table
from pcsim.schedule.channel import Channels, Messages, Rounding
from pcsim.tracing.reader import open_trace


@pytest.fixture(scope="module")
def thresholded(tmp_path_factory):
    """A run that sends changes only, of 16 bits."""
    path = tmp_path_factory.mktemp("sent") / "changes.h5"
    numbers = Rounding("Q4.11")
    return train(path, epochs=1, channels=Channels(Messages(0.05, numbers), Messages(1e-3, numbers)))


def test_shares_are_those_of_the_events(thresholded):
    """Entries sent by values of each link, summed over the recorded events."""
    with open_trace(thresholded) as trace:
        sent, events = read_sent(trace), trace.table("events")
        columns = {
            name: events.read(name) for name in ("layer", "target", "values", "nonzero_values", "bytes")
        }
    assert sent.changes
    assert sent.dense_bits == 32
    assert len(sent.source) == 6
    for index, link in enumerate(zip(sent.source, sent.target)):
        mine = (columns["layer"] == link[0]) & (columns["target"] == link[1])
        values, carried, size = (columns[name][mine].sum() for name in ("values", "nonzero_values", "bytes"))
        assert sent.shares[index] == carried / values < 1
        assert sent.bits[index] == 8 * size / values
        # 16 bits and the address of one of 12 or 10 neurons, which takes 4; up to a byte a message more.
        assert 20 * carried <= 8 * size <= 20 * carried + 8 * mine.sum()


def test_dense_runs_show_what_is_not_zero(runs):
    """Of a run that sends everything: 32 bits a value, and the share of non-zero ones."""
    with open_trace(runs["sequential", "event"]) as trace:
        sent = read_sent(trace)
    assert not sent.changes
    assert (sent.bits == 32).all()
    assert "not zero" in table(sent, "run").caption
    with open_trace(runs["sequential", "fast"]) as trace:
        assert read_sent(trace) is None


def test_bars_and_dashes():
    """A bar a link, as high as its share; a dash a link where messages have bits of their own."""
    links = np.array([0, 1]), np.array([1, 0])
    sent = Sent(*links, np.array([100.0, 50.0]), np.array([25.0, 50.0]), np.array([8.0, 16.0]), 32, True)
    ax = plot_sent(sent, ax=Figure().subplots())
    assert [bar.get_height() for bar in ax.patches] == [0.25, 1.0]
    assert [lines.get_segments()[0][0][1] for lines in ax.collections] == [0.25, 0.5]
    dense = Sent(*links, np.array([100.0, 50.0]), np.array([25.0, 50.0]), np.array([32.0, 32.0]), 32, False)
    assert not plot_sent(dense, ax=Figure().subplots()).collections
    assert table(sent, "run").rows == (
        ("0 → 1", "predictions", "25.0%", "8"),
        ("1 → 0", "errors", "100.0%", "16"),
    )


def test_deep_networks_keep_their_labels_apart():
    """Many links: fewer labels."""
    source = np.repeat(np.arange(40), 2)
    target = source + 1
    sent = Sent(source, target, np.full(80, 4.0), np.full(80, 2.0), None, None, False)
    assert len(plot_sent(sent, ax=Figure().subplots()).get_xticks()) <= 10


def test_the_report_shows_it(thresholded, tmp_path):
    """The traffic section gains a picture and a table."""
    page = tmp_path / "page.html"
    with open_trace(thresholded) as trace:
        write_report([trace], page)
    text = page.read_text(encoding="utf-8")
    assert "entries sent of" in text
    assert "bits a value" in text
