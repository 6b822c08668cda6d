"""The report as a file: whole, self-contained, honest about what is missing."""

import builtins
import json
import re
from html.parser import HTMLParser

import h5py
import numpy as np
import pytest
from matplotlib.figure import Figure
from report_traces import HOSTILE, RUNS, SIZES, train, write_by_hand
from typer.testing import CliRunner

from pcsim.cli import app
from pcsim.errors import ConfigurationError, PcsimError, TraceError
from pcsim.report.html import write_report
from pcsim.report.network import plot_network
from pcsim.report.numbers import read_error_flow
from pcsim.report.style import BROKEN
from pcsim.report.view import MOST_CELLS, MOST_NUMBERS, MOST_STEPS, thin
from pcsim.tracing.reader import open_trace
from pcsim.tracing.schema import SCHEMA_VERSION


class Page(HTMLParser):
    """What a page is made of: its elements, and the words between them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self.open = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.lasttag not in ("script", "style"):
            self.words += data


@pytest.fixture(scope="module")
def text(two):
    """The text of a report of the demo's two orders."""
    return two.read_text()


def make(tmp_path, *paths, **options):
    """Write a report of these traces and return its text."""
    out = tmp_path / "report.html"
    write_report([open_trace(path) for path in paths], out, overwrite=True, **options)
    return out.read_text()


def test_a_report_of_every_order_and_engine(runs, tmp_path):
    """All runs beside each other: facts, pictures, and a word where one has no events."""
    text = make(tmp_path, *runs.values())
    page = Page(text)
    for (order, engine), path in runs.items():
        assert str(path) in page.words
        assert f"{order}, T = 3" in page.words
        assert engine in page.words
    assert all(fact in page.words for fact in ("processor", "threads", "productsnumpy", "openblas auto"))
    fast = [run for run in RUNS if run[1] == "fast"]
    assert page.words.count("run with --engine event") == 2  # timeline and traffic, all runs in a sentence
    gap = next(line for line in page.words.splitlines() if line.startswith("No events in "))
    assert all(f"{order}, T = 3" in gap for order, _ in fast)
    drawn = [name for name, _ in page.elements].count("svg")
    events = len(RUNS) - len(fast)
    # Error flow, updates, two of angles a run; timeline, two of traffic an event run; two of energy, one of
    # learning; the same network without bytes, and with those of the event runs, of which five are alike.
    assert drawn == 4 * len(RUNS) + 3 * events + 3 + 3


def test_the_page_is_whole(text):
    """Nothing in the page points out of it, and it forbids itself to load anything."""
    page = Page(text)
    for name, attributes in page.elements:
        assert name not in ("link", "iframe", "base", "object", "embed")
        for key in ("src", "href", "xlink:href", "action", "srcset"):
            if attributes.get(key) is not None:
                assert attributes[key].startswith(("#", "data:")), (name, key, attributes[key][:80])
    style = "".join(re.findall(r"<style>.*?</style>", text, re.DOTALL))
    assert "@import" not in style
    assert "url(" not in style.replace("url(#", "")
    policy = next(a["content"] for n, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert len(text) < 2.5e6


def test_the_numbers_are_in_the_page(tmp_path):
    """Tables hold what the pictures show: ½‖e‖² = 8 is a norm of 4; the first error comes in iteration 1."""
    path = write_by_hand(tmp_path / "t.h5", [[[0, 8.0], [0.5, 8.0]]], layers=[3, 4, 5])
    text = re.sub(r"\s+", " ", make(tmp_path, path))
    assert '<th scope="row">layer 2</th><td>4</td><td>4</td><td>0</td>' in text
    assert '<th scope="row">layer 1</th><td>0</td><td>1</td><td>1</td>' in text


def test_how_it_was_made(runs, tmp_path):
    """The page says which command makes it again, and with which versions."""
    out = tmp_path / "r.html"
    path = runs["sequential", "event"]
    outcome = CliRunner().invoke(app, ["report", str(path), "-o", str(out), "--json"], catch_exceptions=False)
    assert outcome.exit_code == 0
    told = json.loads(outcome.stdout)
    assert told["bytes"] == out.stat().st_size
    assert told["missing"] == {}
    page = Page(out.read_text())
    assert f"pcsim report {path} -o {out}" in page.words
    for version in ("pcsim 0", "matplotlib 3", "bokeh 3", "Python 3"):
        assert version in page.words


def test_pictures_follow_the_page(text):
    """Text and paper of the drawings take the colours of a light or dark page."""
    drawings = "".join(re.findall(r"<svg.*?</svg>", text.partition("<script>")[0], re.DOTALL))
    assert "currentColor" in drawings
    assert "var(--paper)" in drawings
    assert "#17171a" not in drawings
    assert drawings.count('role="img" aria-label="') == drawings.count("<svg ")


def test_nothing_recorded(empty, runs, tmp_path):
    """A trace without rows still has a page, which says what is missing; others beside it are drawn."""
    alone = Page(make(tmp_path, empty))
    assert "No recorded training step in" in alone.words
    assert not [name for name, _ in alone.elements if name == "input"]
    beside = Page(make(tmp_path, empty, runs["sequential", "event"]))
    assert "No recorded training step in" in beside.words
    assert [name for name, _ in beside.elements if name == "input"]


def test_without_events(without_events, tmp_path):
    """A trace that lacks the table of events is drawn but for these."""
    out = tmp_path / "r.html"
    with open_trace(without_events) as trace:
        sections = {section.name: section for section in write_report([trace], out)}
    assert not sections["timeline"].pictures
    assert "--engine event" in sections["timeline"].gaps[0]
    assert all(sections[name].pictures for name in ("errors", "energy", "updates", "learning", "network"))


def test_a_killed_run(killed, tmp_path):
    """The page says that the run was not finished, and shows what it left."""
    page = Page(make(tmp_path, killed))
    assert "the trace is running, still being written, or its process was killed" in page.words
    assert [name for name, _ in page.elements].count("svg") == 9


def test_refused(from_the_future, foreign, tmp_path):
    """What is not a trace that we can read is refused in one line, and no page is written."""
    out = tmp_path / "r.html"
    for path, words in (
        (from_the_future, [f"version {SCHEMA_VERSION + 5}", f"up to {SCHEMA_VERSION}"]),
        (foreign, ["not a pcsim trace"]),
        (tmp_path / "nowhere.h5", ["cannot read"]),
    ):
        with pytest.raises(TraceError) as caught:
            CliRunner().invoke(app, ["report", str(path), "-o", str(out)], catch_exceptions=False)
        assert all(word in str(caught.value) for word in words)
        assert not out.exists()


def test_nothing_is_overwritten(runs, tmp_path):
    """An existing page stays without --force; a folder that is not there is said."""
    out, path = tmp_path / "r.html", runs["sequential", "event"]
    out.write_text("mine")
    with open_trace(path) as trace:
        with pytest.raises(ConfigurationError, match="--force"):
            write_report([trace], out)
        with pytest.raises(ConfigurationError, match="cannot write"):
            write_report([trace], tmp_path / "no" / "r.html")
        with pytest.raises(ConfigurationError, match="at least one"):
            write_report([], tmp_path / "s.html")
    assert out.read_text() == "mine"
    with pytest.raises(PcsimError, match=r"\.html"):
        CliRunner().invoke(app, ["report", str(path), "-o", "r.pdf"], catch_exceptions=False)


def test_without_bokeh(runs, tmp_path, monkeypatch):
    """Where the extra is not installed, one line says how to get it, before any work is done."""
    real = builtins.__import__

    def missing(name, *arguments, **options):
        if name == "bokeh" or name.startswith("bokeh."):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    line = r"needs bokeh.*pip install 'pcsim\[report\]'"
    with open_trace(runs["sequential", "event"]) as trace, pytest.raises(ConfigurationError, match=line):
        write_report([trace], tmp_path / "r.html")


def test_names_are_text(tmp_path):
    """A trace from a stranger cannot run code in the page: names are words wherever they appear."""
    described = {"learning": HOSTILE, "data": HOSTILE, "network": {"activation": [HOSTILE] * 3}}
    path = write_by_hand(
        tmp_path / "t.h5", order=HOSTILE, name=HOSTILE, layers=[3, 4, 5], experiment=described
    )
    text = make(tmp_path, path)
    page = Page(text)
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]
    assert len([name for name, _ in page.elements if name == "script"]) == 2
    assert text.count("</script>") == 2


def test_large_traces_are_thinned(tmp_path):
    """A long trace makes no longer page than the slider can use, and the page says what it leaves out."""
    rng = np.random.default_rng(0)
    path = write_by_hand(tmp_path / "t.h5", rng.random((700, 3, 2)), layers=[1, 1, 1])
    page = Page(make(tmp_path, path))
    assert f"{MOST_STEPS} of 700 recorded training steps" in page.words
    wide = write_by_hand(tmp_path / "u.h5", rng.random((30, 401, 50)))
    with open_trace(wide) as trace:
        flow = read_error_flow(trace)
    shown = thin(flow)
    assert shown.norms.shape == (15, 200, 50)
    assert shown.norms[0].size <= MOST_CELLS
    assert shown.norms.size <= MOST_NUMBERS
    assert shown.iterations[[0, -1]].tolist() == [0, 400]
    assert shown.steps[[0, -1]].tolist() == [0, 29]
    assert np.array_equal(shown.norms[-1, -1], flow.norms[-1, -1])


def test_what_is_not_finite_has_its_own_colour(tmp_path, two):
    """NaN is not the absence of an error: the page says which colour it has, and only where there is any."""
    path = write_by_hand(tmp_path / "t.h5", [[[0, 8.0], [np.nan, 8.0]], [[0, 8.0], [1e300, np.inf]]])
    text = make(tmp_path, path)
    words = re.sub(r"\s+", " ", Page(text).words)
    assert "magenta cell is not finite: NaN or infinite." in words
    assert "In magenta: the error is not finite" in words
    assert "No finite free energy in own, T = 1." in words
    drawing = re.search(r'<section id="errors">.*?</section>', text, re.DOTALL)[0]
    assert BROKEN in drawing
    plain = two.read_text()
    assert "magenta" not in Page(plain).words
    assert BROKEN not in plain.partition("<script>")[0]


def test_backprop_beside_inference_learning(runs, tmp_path):
    """A page with the baseline says what is what, and draws no error messages for it."""
    path = train(tmp_path / "backprop.h5", engine="backprop", epochs=1, probes=())
    page = Page(make(tmp_path, path, runs["simultaneous", "event"], runs["simultaneous", "fast"]))
    words = re.sub(r"\s+", " ", page.words)
    assert "2 runs of inference learning and 1 of backprop, drawn" in words
    assert "Backprop sends no messages, so there is nothing of backprop." in words
    assert "the sequential order takes" not in words  # there is none
    with open_trace(path) as trace:
        ax = plot_network(trace, ax=Figure().subplots())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["forward pass"]
    assert len([one for one in ax.texts if getattr(one, "arrow_patch", None)]) == len(SIZES) - 1


def test_the_command_has_the_title(runs, tmp_path):
    """What makes the page again makes it with its title."""
    out = tmp_path / "r.html"
    given = ["report", str(runs["sequential", "fast"]), "-o", str(out), "--title", "two words"]
    assert CliRunner().invoke(app, given, catch_exceptions=False).exit_code == 0
    assert "--title 'two words'" in Page(out.read_text()).words


def test_angles_only_where_there_is_a_probe(runs, tmp_path):
    """The section names the runs that cannot be in it, and is not there if none can."""
    without = train(tmp_path / "without.h5", engine="fast", epochs=1, probes=())
    page = make(tmp_path, without)
    assert '<section id="angles">' not in page
    beside = Page(make(tmp_path, without, runs["simultaneous", "fast"])).words
    assert (
        "No probe with activity, weight, update, bias and bias_update of all samples in sequential" in beside
    )
    assert "angle to backprop's update in degrees" in beside


def test_damaged_events(runs, tmp_path):
    """A layer that the network does not have is refused in one line, not indexed by."""
    path = tmp_path / "damaged.h5"
    path.write_bytes(runs["sequential", "event"].read_bytes())
    with h5py.File(path, "r+") as file:
        file["events/layer"][3] = -4
    with pytest.raises(TraceError, match=r"table 'events', column 'layer': -4, expected 0 to 3$"):
        make(tmp_path, path)
