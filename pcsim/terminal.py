"""What the command line shows: progress on standard error, tables on standard output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pcsim.errors import PcsimError
from pcsim.terminal_table import FittingTable
from pcsim.times import seconds, simulated

if TYPE_CHECKING:
    from pcsim.engine.totals import Event, Totals
    from pcsim.experiments.machine import Machine
    from pcsim.experiments.summary import RunSummary
    from pcsim.experiments.verify import Deviation
    from pcsim.tracing.reader import TraceReader
    from pcsim.training.loop import Epoch

NOTHING = "–"


class Bars(Progress):
    """Bars that appear with the first task, and vanish before an error, which is one line."""

    def start(self) -> None:
        """Wait for the first task."""

    def add_task(
        self,
        description: str,
        start: bool = True,
        total: float | None = 100.0,
        completed: int = 0,
        visible: bool = True,
        **fields: Any,  # noqa: ANN401 - what Rich says
    ) -> TaskID:
        """Add a bar, and show the bars from now on."""
        super().start()
        return super().add_task(description, start, total, completed, visible, **fields)

    def stop(self) -> None:
        """Leave the bars as they are, if there are any."""
        if self.live.is_started:
            super().stop()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        if isinstance(exc_val, PcsimError):
            self.live.transient = True
            self.live.stop()
        else:
            self.stop()


class ProgressBar:
    """A progress bar a run, with its latest accuracy and energy."""

    def __init__(self) -> None:
        self._bar = new_progress()

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._bar.console.print(text, highlight=False)

    def begin(self, label: str, steps: int) -> None:
        """Add a bar for a run of so many training steps."""
        self._task = self._bar.add_task(label, total=steps, news="")

    def step(self) -> None:
        """Move the bar by one training step."""
        self._bar.advance(self._task)

    def epoch(self, epoch: Epoch) -> None:
        """Show how the epoch went."""
        accuracy = f"test accuracy {epoch.test_accuracy:.2%}  " if epoch.test_accuracy >= 0 else ""
        self._bar.update(self._task, news=f"{accuracy}energy {epoch.energy:.4g}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.__exit__(kind, error, traceback)


def show_runs(runs: Sequence[RunSummary]) -> None:
    """Print one row a run."""
    engines = sorted({run.engine for run in runs})
    table = new_table(f"Training on the {' and '.join(engines)} engine", "schedule")
    validated = any(run.validation_loss is not None for run in runs)
    results = ("valid-\nation", "test") if validated else ("test\naccuracy",)  # 80 columns are few
    headings = ("T", *results, "messages", "non-zero\nvalues", "multipli-\ncations")
    for heading in (*headings, "simulated\ntime", "s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for run in runs:
        table.add_row(
            run.order,
            str(run.iterations),
            *([_result(run.validation_accuracy, run.validation_loss)] if validated else []),
            _result(run.test_accuracy, run.test_loss),
            f"{run.messages:,}",
            NOTHING if run.nonzero_values is None else f"{run.nonzero_values / max(run.values, 1):.1%}",
            scaled(run.multiplications),
            NOTHING if run.simulated_time is None else simulated(run.simulated_time, run.time_unit),
            f"{run.seconds:.1f}",
        )
    console = Console(markup=False)  # file names may hold brackets
    console.print(table)
    for run in runs:
        if run.trace is not None:
            console.print(f"trace: {run.trace}", highlight=False, soft_wrap=True)


def _result(accuracy: float | None, loss: float | None) -> str:
    """Return an accuracy, or the loss where there is none, or nothing."""
    if accuracy is not None:
        return f"{accuracy:.2%}"
    return "" if loss is None else f"loss {loss:.4g}"


def show_timeline(timeline: Sequence[Event], totals: Totals, limit: int, unit: str = "") -> None:
    """Print the first events of a mini-batch, and the totals of all; times in seconds if `unit` is ns."""
    last = max((event.end for event in timeline), default=0.0)
    power = 3 * math.floor(math.log10(last) / 3) if last and not 1 <= last < 1e6 else 0
    words = f", times in units of 1e{power}" if power else ""
    if unit == "ns":
        power, name = seconds(last)
        words = f", times in {name}"
    table = new_table(f"Timeline of one mini-batch{words}")
    for heading in ("start", "end", "layer"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("does or sends", no_wrap=True)
    table.add_column("iteration", justify="right", no_wrap=True)
    table.add_column("how much", no_wrap=True)
    for event in timeline[: limit or None]:
        message = event.kind == "message"
        table.add_row(
            f"{event.start / 10.0**power:.5g}",
            f"{event.end / 10.0**power:.5g}",
            str(event.layer),
            f"→ {event.target} {event.name}" if message else event.name,
            str(event.iteration),
            _amount(event),
            style="cyan" if message else None,
        )
    console = Console(markup=False)  # file names may hold brackets
    console.print(table)
    hidden = len(timeline) - limit
    if limit and hidden > 0:
        console.print(f"… {hidden} more events; --limit 0 shows all", highlight=False)
    console.print(
        f"{totals.operations:,} operations with {totals.multiplications:,} multiplications\n"
        f"{totals.messages:,} messages of {totals.values:,} values, {totals.nonzero_values:,} of them "
        f"non-zero, {totals.bytes:,} bytes\nsimulated time "
        f"{simulated(totals.simulated_time, unit)}",
        highlight=False,
    )


def _amount(event: Event) -> str:
    """Say how much an operation computes or a message carries."""
    if event.kind == "message":
        zeros = event.values - event.nonzero_values
        return f"{event.values:,} values" + (f", {zeros:,} zero" if zeros else "")
    return f"{event.multiplications:,} multiplications" if event.multiplications else ""


def show_trace(trace: TraceReader) -> None:
    """Print what a trace holds, and how much room that takes."""
    from pcsim.tracing.provenance import NAME, in_short
    from pcsim.tracing.settings import unusual
    from pcsim.tracing.sizes import trace_sizes

    console = Console(markup=False)  # file names may hold brackets
    facts = Table(title=str(trace.path), title_justify="left", show_header=False, box=None)
    known = ("state", "created", "pcsim_version", "schema_version", "name", "order", "iterations", "engine")
    for name in (*known, "layers", "batch", "seed"):
        if name in trace.attributes:
            facts.add_row(name, str(trace.attributes[name]))
    others = unusual(trace.attributes) | in_short(trace.attributes.get(NAME))
    for name, words in others.items():
        facts.add_row(name, words)
    sizes = trace_sizes(trace)
    facts.add_row("size", f"{scaled(sizes.file_bytes)}B")
    if sizes.bytes_a_second is not None:
        rate = f"{scaled(sizes.bytes_a_second)}B/s over {sizes.seconds:,.1f} s of training"
        facts.add_row("written at", rate)
    console.print(facts)
    tables = new_table("Tables", "table")
    for heading in ("rows", "steps", "on disk", "a step", "ratio"):
        tables.add_column(heading, justify="right", no_wrap=True)
    tables.add_column("compression", no_wrap=True)
    for name, one in sizes.tables.items():
        summary = one.summary
        tables.add_row(
            name,
            f"{summary.rows:,}",
            NOTHING if one.steps is None else f"{one.steps:,}",
            f"{scaled(summary.bytes_on_disk)}B",
            NOTHING if one.bytes_a_step is None else f"{scaled(round(one.bytes_a_step))}B",
            NOTHING if one.ratio is None else f"{one.ratio:.2f}",
            summary.compression,
        )
    console.print(tables)
    for name, one in sizes.tables.items():
        dims = [
            f"{dim} {size}" for dim, size in one.summary.dims.items() if dim != one.summary.unlimited and size
        ]
        if dims:
            console.print(f"{name}: {', '.join(dims)}", highlight=False)


def show_machine(machine: Machine) -> None:
    """Print the self-test of a machine."""
    console = Console(markup=False)  # file names may hold brackets
    console.print(f"{machine.processor}, {machine.cores} logical processors", highlight=False)
    console.print(
        ", ".join(f"{name} {version}" for name, version in machine.versions.items()), highlight=False
    )
    console.print(f"BLAS: {', '.join(machine.blas)}", highlight=False)
    table = new_table("Speed of products on one thread, GFLOP/s; the first is taken", "product")
    for heading in ("batch", "inputs", "outputs"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("libraries", no_wrap=True)
    shapes: dict[tuple[str, int, int, int, str], list[str]] = {}
    for line in machine.products:
        key = line.product, line.batch, line.inputs, line.outputs, line.dtype
        shapes.setdefault(key, []).append(f"{line.provider} {line.gflops:.0f}")
    for (product, batch, inputs, outputs, dtype), lines in sorted(shapes.items()):
        if dtype == "float32":
            table.add_row(product, str(batch), str(inputs), str(outputs), "  ".join(lines))
    console.print(table)
    console.print(
        f"measured once and kept, as the choice decides the rounding, in {machine.kept}; "
        "if the machine was busy then, delete it to measure again",
        highlight=False,
    )
    times = ", ".join(f"{threads}: {time:.2f} ms" for threads, time in machine.threads.items())
    console.print(
        f"a large prediction by number of threads: {times}; fastest: --threads {machine.best_threads}"
    )


def show_deviations(deviations: Sequence[Deviation], tolerance: float) -> None:
    """Print the largest deviations of each golden case."""
    table = new_table(f"Largest deviations, tolerance {tolerance:g}", "case")
    for heading in ("activity", "error", "energy", "weight", "MQ's v"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for one in deviations:
        values = (one.activity, one.error, one.energy, one.weight, one.mq)
        good = one.largest <= tolerance
        verdict = Text("equal", "green") if good else Text("differs", "red")
        table.add_row(Path(one.case).name, *(NOTHING if v is None else f"{v:.1e}" for v in values), verdict)
    Console(markup=False).print(table)


def new_progress(speed_estimate_period: float = 30) -> Bars:
    """Return bars with a description, the time that is left, by so many seconds, and news."""
    return Bars(
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        TaskProgressColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[news]}"),
        console=Console(stderr=True),
        speed_estimate_period=speed_estimate_period,
    )


def new_table(title: str, *headings: str, names: int = 1) -> FittingTable:
    """Return a table that fits a narrow terminal: in parts if need be, each with the first columns."""
    table = FittingTable(title=title, box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.names = names
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    return table


def scaled(number: float) -> str:
    """Return a large number with a unit prefix: 2.2 G."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {prefix}"
    return f"{number:g}"
