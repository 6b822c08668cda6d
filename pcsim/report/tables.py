"""The tables of a report: facts about the runs, and the numbers behind the pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pcsim.report.numbers import (
    Angles,
    ErrorFlow,
    Timeline,
    Traffic,
    evenly,
    read_energy,
    read_learning,
    read_updates,
)
from pcsim.report.runs import Run
from pcsim.report.style import in_bytes, in_digits
from pcsim.times import simulated
from pcsim.tracing.settings import SECTIONS

if TYPE_CHECKING:
    from pcsim.tracing.reader import TraceReader

MOST_ROWS, MOST_COLUMNS = 40, 16
NOTHING = "–"
LOSS = "test loss (half the squared distance)"


@dataclass(frozen=True)
class NumberTable:
    """A table in the page; each row begins with its name."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def facts(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Return what there is to know about runs: a fact, and its words for each run; none that nobody has."""
    share = _share_of_values
    look: dict[str, Callable[[Run], str | None]] = {
        "trace": lambda run: run.path,
        "experiment": lambda run: run.name,
        "data": lambda run: run.data,
        "network": lambda run: " – ".join(f"{size:,}" for size in run.sizes),
        "order": lambda run: run.order,
        "iterations T": lambda run: _whole(run.iterations),
        "learning rule": lambda run: run.rule,
        "mini-batch": lambda run: _whole(run.batch),
        "seed": lambda run: _whole(run.seed),
        **{section: partial(_setting, section) for section in SECTIONS},
        "engine": lambda run: run.engine,
        "kernels": lambda run: run.kernels,
        "processor": lambda run: run.computed_by.get("processor"),
        "threads": lambda run: run.computed_by.get("threads"),
        "products": lambda run: run.computed_by.get("products"),
        "versions": lambda run: run.computed_by.get("versions"),
        "state": lambda run: run.state,
        "epochs": lambda run: _whole(run.epochs),
        "training steps": lambda run: _whole(run.training_steps),
        "recorded steps": lambda run: _whole(run.recorded),
        "test accuracy": lambda run: None if run.test_accuracy is None else f"{run.test_accuracy:.2%}",
        LOSS: lambda run: None if run.test_loss is None else in_digits(run.test_loss),
        "messages": lambda run: _whole(run.messages),
        "values in them": lambda run: _whole(run.values),
        "of these not zero": share,
        "multiplications": lambda run: _whole(run.multiplications),
        "simulated time": lambda run: (
            None if run.simulated_time is None else simulated(run.simulated_time, run.time_unit)
        ),
        "wall-clock time": lambda run: None if run.seconds is None else f"{run.seconds:.1f} s",
        "begun": lambda run: run.created and run.created.replace("T", " ").replace("+00:00", " UTC"),
        "pcsim version": lambda run: run.pcsim_version,
        "trace schema": lambda run: _whole(run.schema_version),
    }
    rows = [(fact, [words(run) for run in runs]) for fact, words in look.items()]
    return [(fact, [text or NOTHING for text in texts]) for fact, texts in rows if any(texts)]


def error_flow(flow: ErrorFlow, name: str) -> NumberTable:
    """Return the error norms of the last recorded training step, and the front."""
    columns = evenly(len(flow.iterations), MOST_COLUMNS)
    front = dict(zip(flow.layers.tolist(), flow.front.tolist(), strict=True))
    rows = [
        (
            f"layer {layer}",
            *(in_digits(float(norm)) for norm in flow.norms[-1][columns, index]),
            str(front[int(layer)]) if front[int(layer)] >= 0 else "never",
        )
        for index, layer in reversed(list(enumerate(flow.layers)))
    ]
    return NumberTable(
        f"{name}: error norms of training step {flow.steps[-1]:,} by iteration, and the first iteration with "
        "an error in any step",
        ("", *(str(iteration) for iteration in flow.iterations[columns]), "first error"),
        _thinned(rows),
    )


def energy(trace: TraceReader, name: str) -> NumberTable:
    """Return the quartiles of the free energy."""
    read = read_energy(trace)
    columns = (read.lower, read.median, read.upper, read.left)
    return NumberTable(
        f"{name}: free energy over {read.steps:,} of {read.recorded:,} recorded training steps",
        ("iteration", "lower quartile", "median", "upper quartile", "left of iteration 0, median"),
        _rows(read.iterations, columns),
    )


def updates(trace: TraceReader, name: str) -> NumberTable:
    """Return update magnitudes of training steps."""
    read = read_updates(trace)
    shown = evenly(len(read.connections), MOST_COLUMNS)
    return NumberTable(
        f"{name}: mean of |ΔW| and |Δb|; {len(read.steps):,} of {read.recorded:,} recorded training steps",
        ("training step", *(f"layer {source} → {source + 1}" for source in read.connections[shown])),
        _rows(read.steps, read.magnitudes.T[shown]),
    )


def angles(read: Angles, name: str) -> list[NumberTable]:
    """Return angles and lengths of training steps against backprop's."""
    shown = evenly(len(read.connections), MOST_COLUMNS)
    head = ("training step", *(f"layer {source} → {source + 1}" for source in read.connections[shown]))
    of = f"{len(read.steps):,} of {read.recorded:,} recorded training steps"
    what = {"angle to backprop's update in degrees": read.angles, "length by backprop's": read.ratios}
    return [
        NumberTable(f"{name}: {words}; {of}", head, _rows(read.steps, values.T[shown]))
        for words, values in what.items()
    ]


def learning(trace: TraceReader, name: str) -> NumberTable:
    """Return the learning curve."""
    read = read_learning(trace)
    columns = {LOSS: read.test_loss}
    if read.test_accuracy is not None:
        columns = {"test accuracy": read.test_accuracy, **columns}
    return NumberTable(f"{name}: after each epoch", ("epoch", *columns), _rows(read.epochs, columns.values()))


def timeline(read: Timeline, name: str) -> NumberTable:
    """Return the events of a training step."""
    rows = [
        (
            in_digits(float(read.start[event])),
            in_digits(float(read.end[event])),
            str(read.layer[event]),
            str(read.target[event]) if read.messages[event] else "",
            read.names[event],
            in_bytes(float(read.bytes[event])) if read.messages[event] else "",
        )
        for event in range(min(len(read.names), MOST_ROWS))
    ]
    unit = f", {read.unit}" if read.unit else ""
    return NumberTable(
        f"{name}: the first {len(rows):,} of {read.events:,} events of training step {read.step:,}",
        (f"start{unit}", f"end{unit}", "layer", "to", "what", "size"),
        tuple(rows),
    )


def traffic(read: Traffic, name: str) -> NumberTable:
    """Return what each link carries a training step."""
    rows = [
        (
            f"{source} → {target}",
            "predictions" if source < target else "errors",
            in_digits(float(read.messages[source, target])),
            in_bytes(float(read.bytes[source, target])),
        )
        for source, target in np.argwhere(read.messages > 0)
    ]
    return NumberTable(
        f"{name}: mean over {read.steps:,} recorded training steps",
        ("link", "kind", "messages", "bytes"),
        _thinned(rows),
    )


def _rows(names: Iterable[object], columns: Iterable[np.ndarray]) -> tuple[tuple[str, ...], ...]:
    rows = [
        (str(name), *(in_digits(float(value)) for value in values))
        for name, *values in zip(names, *columns, strict=True)
    ]
    return _thinned(rows)


def _thinned(rows: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    """Return at most `MOST_ROWS` rows, a row of dots between those from which some are missing."""
    if len(rows) <= MOST_ROWS:
        return tuple(rows)
    half = MOST_ROWS // 2
    return (*rows[:half], ("…", *[""] * (len(rows[0]) - 1)), *rows[-half:])


def _whole(number: int | None) -> str | None:
    return None if number is None else f"{number:,}"


def _setting(section: str, run: Run) -> str | None:
    return run.settings.get(section)


def _share_of_values(run: Run) -> str | None:
    if run.nonzero_values is None or not run.values:
        return None
    return f"{run.nonzero_values / run.values:.1%}"
