"""The tutorial is run as it stands: every block in order, in an empty folder."""

import json
import re
from pathlib import Path

import matplotlib as mpl
from pages import run_page

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.md"


def test_every_block_runs_and_prints_what_it_says(tmp_path, monkeypatch):
    """What a reader copies works, and prints the text below it, if the tutorial quotes any."""
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    names = run_page(TUTORIAL)
    for trace in names["traces"]:
        trace.close()
    made = {path.name for path in tmp_path.iterdir()}
    assert made >= {"error-flow.png", "mine.pdf", "learning.svg", "report.html", "timeline.json"}
    assert "simultaneous, T = 3" in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "timeline.json").read_text())["traceEvents"]


def test_it_names_only_what_there_is():
    """Files that the tutorial links to exist."""
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", TUTORIAL.read_text()):
        assert (TUTORIAL.parent / link).exists(), link
