"""Tables of results: the same cells for the terminal and for Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from pcsim.experiments.reproduce.plans import OURS
from pcsim.experiments.reproduce.results import BASELINE, EARLY, Results, Row
from pcsim.experiments.significance import mean_sd

NOTHING = "–"
WIDE_ONLY = ("at epoch", "hours")  # for which a terminal has no room
ACCURACY = "test accuracy, %"
LOSS = "test loss: ½‖output − target‖², mean over the test set; the unit of the paper's is unknown"


def headings(results: Results) -> tuple[str, ...]:
    """Return the headings of a task's table."""
    paper = ("paper",) if any(row.paper is not None for row in results.rows) else ()
    early = (f"as BP's {EARLY}th",) if _baseline(results) and results.task.measure == "accuracy" else ()
    test = ("p",) if _baseline(results) else ()
    return ("", "α", *paper, "best", "at epoch", "last", *early, *test, "runs", "epochs", "hours")


def cells(results: Results, row: Row) -> tuple[str, ...]:
    """Return one row's cells, by `headings`."""
    accurate = results.task.measure == "accuracy"
    going_on = "" if row.finished or not row.seeds else ", going on"
    known = {
        "": row.title,
        "α": f"{row.rate:g}",
        "paper": NOTHING if row.paper is None else f"{row.paper:.2f}",
        "best": spread(row.best, accurate),
        "at epoch": _range(row.best_epoch),
        "last": spread(row.last, accurate),
        f"as BP's {EARLY}th": _early(row),
        "p": NOTHING if row.p is None else f"{row.p:.2g}",
        "runs": f"{row.finished}/{row.wanted}{going_on}",
        "epochs": _range(row.epochs),
        "hours": f"{row.hours:.2f}" if row.seeds else NOTHING,
    }
    return tuple(known[heading] for heading in headings(results))


def spread(values: Sequence[float], accurate: bool) -> str:
    """Return mean ± standard deviation: two decimals of a percentage, four digits of a loss."""
    mean, deviation = mean_sd(values)
    if math.isnan(mean):
        return NOTHING
    digits = ".2f" if accurate else ".4g"
    return f"{mean:{digits}}" + ("" if math.isnan(deviation) else f" ± {deviation:.2g}")


def notes(results: Results) -> list[str]:
    """Return what is missing, a line an algorithm."""
    grouped: dict[str, list[str]] = {}
    for row in results.rows:
        for note in row.notes:
            grouped.setdefault(note, []).append(row.title)
    whole = len(results.rows)
    return [
        note if len(titles) == whole else f"{', '.join(titles)}: {note}" for note, titles in grouped.items()
    ]


def markdown(results: Results) -> str:
    """Return a task's table for a page: bold is what differs from BP with p < 0.05 and is better."""
    task = results.task
    source = task.source if task.source == OURS else f"the paper's runs had {task.epochs} epochs"
    lines = [f"**{task.title}** ({unit(results)}; {source})"]
    lines += ["", *_markdown_rows(headings(results), (_bold(results, row) for row in results.rows))]
    return "\n".join([*lines, *("\n" + note for note in (*distances(results), *notes(results)))])


def distances(results: Results) -> list[str]:
    """Say how far SeqIL-MQ is from BP and SeqIL, at the best epoch and the last; finished runs only."""
    rows = {row.algorithm: row for row in results.rows if row.finished}
    ours = rows.get("seqil-mq")
    if ours is None or results.task.measure != "accuracy":
        return []
    found = []
    for other in (rows[name] for name in ("bp", "seqil") if name in rows):
        best, last = (
            mean_sd(getattr(ours, name))[0] - mean_sd(getattr(other, name))[0] for name in ("best", "last")
        )
        where = f"{best:+.2f} points at the best epoch, {last:+.2f} after the last"
        same = "" if ours.epochs[0] == other.epochs[0] else " (not the same number of epochs)"
        found.append(f"{ours.title} against {other.title}: {where}{same}.")
    return found


def unit(results: Results) -> str:
    """Say what the numbers are."""
    return ACCURACY if results.task.measure == "accuracy" else LOSS


def better(results: Results, row: Row) -> bool:
    """Whether a row beats the baseline with p < 0.05."""
    base = _baseline(results)
    if base is None or row.p is None or row.p >= 0.05:
        return False
    ours, theirs = mean_sd(row.best)[0], mean_sd(base.best)[0]
    return ours > theirs if results.task.measure == "accuracy" else ours < theirs


def _baseline(results: Results) -> Row | None:
    return next((row for row in results.rows if row.algorithm == BASELINE), None)


def _bold(results: Results, row: Row) -> tuple[str, ...]:
    plain = cells(results, row)
    if not better(results, row):
        return plain
    place = headings(results).index("best")
    return (*plain[:place], f"**{plain[place]}**", *plain[place + 1 :])


def _markdown_rows(names: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def _range(numbers: Sequence[int]) -> str:
    if not numbers:
        return NOTHING
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}–{high}"


def _early(row: Row) -> str:
    reached = [one for one in row.early if one is not None]
    missed = "" if len(reached) == len(row.early) else f", {len(row.early) - len(reached)} never"
    return (_range(reached) + missed) if reached else NOTHING
