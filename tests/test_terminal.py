"""Tables on a terminal: what does not fit is split, and nothing is cut."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pcsim.terminal import new_table


def printed(table, width):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(table)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [200, 80, 40, 20])
def test_no_number_is_cut(width):
    """A number without its exponent is another number, so a table that does not fit becomes several."""
    table = new_table("Norms of all layers")
    table.add_column("layer", overflow="fold")
    numbers = [[f"{place + 1}.{row}1e-{place:02}" for place in range(12)] for row in range(3)]
    for place in range(12):
        table.add_column(f"at {place}", justify="right", no_wrap=True)
    for row, texts in enumerate(numbers):
        table.add_row(f"hidden_{row}", *texts)
    text = printed(table, width)
    lines = text.splitlines()
    assert all(len(line) <= width for line in lines)
    assert "…" not in text
    assert all(text.split().count(number) == 1 for row in numbers for number in row)
    for row, texts in enumerate(numbers):
        held = [line.split() for line in lines if line.startswith(f"hidden_{row}")]
        assert [one for line in held for one in line[1:]] == texts
        assert len(held) == sum(line.startswith("layer") for line in lines)  # a part each
    assert " ".join(text.split()).startswith("Norms of all layers")


def test_words_wrap_before_names_break():
    """A remark gives way to the name that a reader looks for."""
    table = new_table("", names=1)
    for heading in ("column", "verdict"):
        table.add_column(heading, overflow="fold")
    table.add_column("differ", justify="right", no_wrap=True)
    table.add_row("probes/all/prediction_message_10", "differs (does not count)", "1,234")
    assert "probes/all/prediction_message_10 " in printed(table, 55)
    assert "column" in printed(table, 55)
    assert "prediction_message_10" not in printed(table, 20)  # alone wider than the terminal: it breaks


def test_a_little_too_wide_moves_closer():
    """One table with narrow gaps is easier to read than two."""
    table = new_table("", "case")
    for place in range(5):
        table.add_column(f"number{place}", justify="right", no_wrap=True)
    table.add_row("x", *["1.0e-10"] * 5)
    assert len(printed(table, 50).splitlines()) == 3
    assert len(printed(table, 45).splitlines()) == 3
    assert len(printed(table, 40).splitlines()) > 3
