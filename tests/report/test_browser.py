"""The report in a real browser: Debian's Chromium, driven by Playwright."""

import io
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_traces import HOSTILE, write_by_hand

from pcsim.report.html import write_report
from pcsim.tracing.reader import open_trace

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright's Python client is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"
)

LARGEST = sys.float_info.max  # what the page colours as not finite
WIDE, PHONE = {"width": 1200, "height": 900}, {"width": 375, "height": 800}


@pytest.fixture(scope="module")
def browser():
    """One headless Chromium for all tests."""
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """Where screenshots are kept."""
    folder = Path(os.environ.get("PCSIM_ARTIFACTS") or tmp_path_factory.mktemp("artifacts"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Visit:
    """A page that was opened, and everything that it said or asked for."""

    def __init__(self, browser, path, **context):
        self.page = browser.new_context(viewport=context.pop("viewport", WIDE), **context).new_page()
        self.said, self.asked = [], []
        self.page.on("console", lambda message: self.said.append((message.type, message.text)))
        self.page.on("pageerror", lambda error: self.said.append(("error", str(error))))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def ready(self):
        """Wait until the interactive view is there."""
        self.page.wait_for_selector("html[data-ready=yes]", timeout=30_000)
        self.page.wait_for_function(
            "document.querySelectorAll('.panel')[0].getBoundingClientRect().height > 100"
        )
        return self

    def shown(self):
        """Return the norms in the cells of each heat map, null where there is no error."""
        return self.page.evaluate(
            """Bokeh.documents[0].roots().map((plot) => Array.from(
                 plot.renderers[0].data_source.data.norm, (norm) => Number.isNaN(norm) ? null : norm))"""
        )

    def slide(self, place):
        """Move the slider, as a person with arrow keys does."""
        slider = self.page.locator("#error-flow-step")
        slider.focus()
        slider.press("Home")
        for _ in range(place):
            slider.press("ArrowRight")
        self.page.wait_for_timeout(200)

    def errors(self):
        """Return complaints on the console."""
        return [text for kind, text in self.said if kind in ("error", "warning", "assert")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_page_loads_offline(browser, two, artifacts, viewport, scheme):
    """No complaint on the console, no request but for the page, nothing wider than the screen."""
    visit = Visit(browser, two, viewport=viewport, color_scheme=scheme, offline=True).ready()
    name = f"report-{scheme}-{viewport['width']}.png"
    visit.page.screenshot(path=artifacts / name, full_page=True)
    assert (artifacts / name).stat().st_size > 50_000
    assert visit.errors() == []
    assert visit.asked == [two.as_uri()]
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    paper = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(253, 253, 254)", "dark": "rgb(23, 23, 26)"}[scheme]


def test_slider_changes_the_picture(browser, two, runs):
    """Each place of the slider shows the norms of its training step, and other pixels."""
    visit = Visit(browser, two).ready()
    with open_trace(runs["sequential", "event"]) as trace:
        table = trace.table("summary")
        steps, norms = table.read("step"), (2 * table.read("squared_error")) ** 0.5
    pictures = []
    for place in (0, 3):
        visit.slide(place)
        assert f"training step {steps[place]}" in visit.page.locator("#error-flow-label").inner_text()
        shown = [norm or 0.0 for norm in visit.shown()[0]]
        assert shown == pytest.approx(norms[place].ravel().tolist(), rel=1e-6)
        pictures.append(visit.page.locator(".panel").first.screenshot())
    assert pictures[0] != pictures[1]
    assert visit.errors() == []


def test_the_orders_differ_at_a_glance(browser, two):
    """After one iteration sequential has errors everywhere, simultaneous not yet in layer 1."""
    visit = Visit(browser, two).ready()
    sequential, simultaneous = visit.shown()
    layers = 3
    assert None not in sequential[layers : 2 * layers]
    assert [norm is None for norm in simultaneous[layers : 2 * layers]] == [True, False, False]


def test_hover_shows_the_numbers(browser, two, runs):
    """Pointing at a cell tells layer, iteration and norm; at a cell without error, that there is none."""
    visit = Visit(browser, two).ready()
    with open_trace(runs["simultaneous", "event"]) as trace:
        norms = (2 * trace.table("summary").read("squared_error")[-1]) ** 0.5
    panel = visit.page.locator(".panel").nth(1)
    panel.scroll_into_view_if_needed()
    for iteration, layer, words in ((3, 3, f"{norms[3, 2]:#.4g}"), (0, 1, "no error has come here")):
        x, y = place_of(visit, panel, 1, iteration, layer)
        visit.page.mouse.move(x - 3, y)
        visit.page.mouse.move(x, y)
        tooltip = visit.page.locator(".bk-Tooltip:visible, .bk-tooltip-row-value:visible").first
        tooltip.wait_for(timeout=10_000)
        told = " ".join(visit.page.locator(".bk-tooltip-row-value:visible").all_inner_texts())
        assert words in told
        assert told.split()[:2] == [str(layer), str(iteration)]
        visit.page.mouse.move(0, 0)
        visit.page.wait_for_timeout(100)


def place_of(visit, panel, root, iteration, layer):
    """Return where a cell's middle is on the screen."""
    left, top = visit.page.evaluate(
        """([root, iteration, layer]) => {
             const view = Bokeh.index.get_by_id(Bokeh.documents[0].roots()[root].id);
             const frame = view.frame, box = view.canvas_view.el.getBoundingClientRect();
             return [box.left + frame.x_scale.compute(iteration), box.top + frame.y_scale.compute(layer)];
           }""",
        [root, iteration, layer],
    )
    return left, top


def test_not_finite_is_seen(browser, tmp_path):
    """In the slider's view a cell without an error is grey, one that is not finite is magenta."""
    path = write_by_hand(tmp_path / "t.h5", [[[0, 8.0], [np.nan, np.inf]]], layers=[3, 4, 5])
    out = tmp_path / "r.html"
    write_report([open_trace(path)], out)
    visit = Visit(browser, out).ready()
    assert visit.shown() == [[None, 4, LARGEST, LARGEST]]
    visit.page.wait_for_timeout(300)
    picture = visit.page.locator(".panel").first.screenshot()
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).reshape(-1, 3)
    magenta = (np.abs(pixels.astype(int) - [0xD8, 0x1B, 0x60]) < 8).all(axis=1)
    assert 0.15 < magenta.mean() < 0.5
    assert not visit.errors()


def test_a_wide_table_of_runs_scrolls_in_its_box(browser, runs, tmp_path):
    """Many runs do not make the page itself wider, and the last of them can be reached."""
    out = tmp_path / "r.html"
    write_report([open_trace(path) for path in [*runs.values()] * 2], out)
    page = Visit(browser, out).ready().page
    width, inside, seen = page.evaluate(
        """() => { const box = document.getElementById('runs').parentElement; box.scrollLeft = 1e6;
             const last = document.querySelector('#runs thead th:last-child').getBoundingClientRect();
             return [document.documentElement.scrollWidth, box.scrollWidth - box.clientWidth,
                     box.getBoundingClientRect().right - last.right]; }"""
    )
    assert width <= WIDE["width"]
    assert inside > 0
    assert seen >= 0


def test_printed(browser, two, artifacts):
    """On paper the interactive view is left out, all drawings are there, on white."""
    visit = Visit(browser, two, color_scheme="dark").ready()
    visit.page.emulate_media(media="print")
    assert not visit.page.locator(".interactive").is_visible()
    assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    visit.page.pdf(path=artifacts / "report.pdf", format="A4")
    assert (artifacts / "report.pdf").read_bytes().startswith(b"%PDF")


def test_without_steps_there_is_nothing_interactive(browser, empty, tmp_path):
    """A report of a trace without rows is a plain page that complains about nothing."""
    out = tmp_path / "empty.html"
    with open_trace(empty) as trace:
        write_report([trace], out)
    visit = Visit(browser, out)
    assert "No recorded training step" in visit.page.inner_text("#errors")
    assert visit.errors() == []
    assert visit.asked == [out.as_uri()]


def test_hostile_names_run_nothing(browser, tmp_path):
    """A trace from a stranger cannot run code: its names are shown as they are."""
    path = write_by_hand(
        tmp_path / "t.h5",
        [[[0, 8.0], [0.5, 8.0]]] * 3,
        order=HOSTILE,
        name=HOSTILE,
        layers=[3, 4, 5],
        experiment={"learning": HOSTILE, "network": {"activation": [HOSTILE] * 3}},
    )
    out = tmp_path / "hostile.html"
    with open_trace(path) as trace:
        write_report([trace], out, title=HOSTILE, command=HOSTILE)
    visit = Visit(browser, out).ready()
    visit.slide(1)
    assert visit.page.title() == HOSTILE
    assert visit.page.locator("img").count() == 0
    assert visit.errors() == []
    assert visit.asked == [out.as_uri()]
