"""What `pcsim bench` shows: tables of at most 100 columns."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from pcsim.experiments.bench.plan import PROVIDERS
from pcsim.experiments.bench.report import BenchReport, CaseReport, Score, Spread, Sweep
from pcsim.experiments.bench.trace import TraceReport
from pcsim.terminal import NOTHING, new_table

WIDTH, MEGA = 100, 1e6
QUIET = 0.1  # processors that others may keep busy
MOVED = 1.6  # times as long an exchange takes between processors that share no cache, at least
LEGEND = (
    "ratio: to PyTorch's backprop with SGD, median over rounds. % of limit: the time that the step's\n"
    "products take by themselves, each by its fastest provider, in the step's time. held: peak of arrays\n"
    "and allocators above imports and compilation. res.: peak resident set above imports, with what was\n"
    "loaded and compiled after them.\n"
)


def show_bench(report: BenchReport, console: Console | None = None) -> None:
    """Print all tables of a report."""
    out = console or Console(width=WIDTH)
    where = report.machine
    caches = ", ".join(f"{level} {size}" for level, size in where["caches"].items())
    out.print(
        f"{where['cpu']}, {where['cpus']} processors ({caches}), load before {where['load'] or 0:.1f}\n"
        f"pcsim {where['git']}\n{where['started']}, {report.rounds} rounds of {report.burst_seconds:g} s",
        highlight=False,
    )
    for case in report.cases:
        _show_case(case, out)
    for sweep in report.sweeps:
        _show_sweep(sweep, out)
    _show_versions(report, out)


def show_trace_bench(report: TraceReport, console: Console | None = None) -> None:
    """Print how fast recording is, and what it costs a simulation."""
    out, plan = console or Console(width=WIDTH), report.plan
    sizes = "-".join(map(str, plan.sizes))
    what = f"activities and errors of {sizes}, batch {plan.batch}, T = {plan.iterations}"
    out.print(
        f"{report.machine['cpu']}, {report.machine['cpus']} processors\npcsim {report.machine['git']}\n"
        f"{report.machine['started']}, {plan.rounds} rounds in {report.folder}, nothing forced to the disk",
        highlight=False,
    )
    out.print()
    table = new_table(f"MB/s of numbers, median: {what}", "compression")
    headings = (
        "steps",
        "MB of\nnumbers",
        "MB file",
        "MB file\nh5py",
        "recorder",
        "h5py",
        "ratio",
        "quartiles",
    )
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for rate in report.rates:
        reached = rate.ratio.median >= report.goal
        table.add_row(
            rate.compression,
            str(rate.steps),
            *map(_number, (rate.megabytes, rate.file_megabytes, rate.plain_file_megabytes)),
            _number(rate.recorder.median),
            _number(rate.plain.median),
            f"{rate.ratio.median:.2f}",
            _range(rate.ratio),
            f"[green]at least {report.goal:g}[/]" if reached else f"[red]below {report.goal:g}[/]",
        )
    out.print(table)
    for name, reason in report.absent.items():
        out.print(f"absent: {name}: {reason}", highlight=False, markup=False)
    out.print()
    table = new_table("A training step that is recorded whole, uncompressed, ms", "written")
    for heading in ("median", "quartiles"):
        table.add_column(heading, justify="right", no_wrap=True)
    for way in report.beside:
        time = way.milliseconds
        table.add_row(way.recording, _number(time.median), f"{_number(time.lower)}–{_number(time.upper)}")
    out.print(table)


def _show_case(case: CaseReport, out: Console) -> None:
    out.print()
    out.print(_score_table(case))
    out.print(LEGEND, highlight=False)
    if case.comparisons:
        out.print(_comparison_table(case))
        out.print()
    if case.products:
        out.print(_product_table(case))
    if (case.foreign_processors or 0) > QUIET:
        out.print(
            f"[yellow]not quiet[/]: other processes kept {case.foreign_processors:.1f} processors busy; "
            "the times are not to be trusted",
            highlight=False,
        )
    if case.exchange_nanoseconds is not None:
        out.print(_exchanges(case.exchange_nanoseconds), highlight=False)
    for name, reason in case.absent.items():
        out.print(f"absent: {name}: {reason}", highlight=False, markup=False)
    for score in case.scores:
        if not score.finite:
            out.print(f"[red]diverged[/]: {score.name}; its time may mean nothing", highlight=False)


def _exchanges(nanoseconds: Spread) -> str:
    """Say how far the processors were from each other."""
    found = f"from processor to processor and back: {nanoseconds.median:.0f} ns"
    if nanoseconds.maximum < MOVED * nanoseconds.minimum:
        return found
    return (
        f"{found}, [yellow]from {nanoseconds.minimum:.0f} to {nanoseconds.maximum:.0f}[/]: they were moved, "
        "so that in some rounds\nthey shared no cache; times of several threads are a mixture"
    )


def _score_table(case: CaseReport) -> Table:
    table = new_table(case.workload.title, "contender")
    headings = ("ms\nmedian", "ms\nquartiles", "ms\nmin", "ratio", "10⁶\nmult.", "GFLOP\n/s")
    for heading in (*headings, "% of\nlimit", "held\nMB", "res.\nMB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for score in case.scores:
        table.add_row(*_score_row(score))
    return table


def _score_row(score: Score) -> tuple[str, ...]:
    time = score.milliseconds
    return (
        score.name,
        _number(time.median),
        f"{_number(time.lower)}–{_number(time.upper)}",
        _number(time.minimum),
        NOTHING if score.ratio is None else _number(score.ratio.median),
        NOTHING if score.multiplications is None else _number(score.multiplications / MEGA),
        NOTHING if score.gflops is None else _number(score.gflops),
        NOTHING if score.of_limit is None else f"{100 * score.of_limit:.0f}",
        NOTHING if score.held_bytes is None else f"{score.held_bytes / MEGA:.1f}",
        f"{score.resident_bytes / MEGA:.0f}",
    )


def _comparison_table(case: CaseReport) -> Table:
    table = new_table("Ratios paired by round", "pcsim MQ", "kernels")
    for heading in ("median", "quartiles", "at most"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for one in case.comparisons:
        verdict = {True: "[green]reached[/]", False: "[red]missed[/]", None: ""}[one.reached]
        most = NOTHING if one.most is None else f"{one.most:g}"
        table.add_row(one.label, one.backend, f"{one.ratio.median:.3f}", _range(one.ratio), most, verdict)
    return table


def _product_table(case: CaseReport) -> Table:
    best = "" if case.fastest_gflops is None else f", the fastest at {case.fastest_gflops:.0f} GFLOP/s"
    table = new_table(f"Bare products of a step, ms{best}", "operation:layer")
    providers = [name for name in PROVIDERS if name in case.products[0].milliseconds]
    for heading in (*providers, "best", "GFLOP/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for product in case.products:
        times = (f"{product.milliseconds[provider]:.4f}" for provider in providers)
        table.add_row(product.name, *times, product.provider, _number(product.gflops))
    return table


def _show_sweep(sweep: Sweep, out: Console) -> None:
    out.print()
    what = "hidden layers" if sweep.kind == "depth" else "neurons a layer"
    title = f"ms a step against {what}, batch {sweep.batch}, threads {sweep.threads}"
    table = new_table(title, "contender")
    for heading in (*map(str, sweep.sizes), "fit", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in sweep.growths:
        times = map(_number, one.milliseconds)
        table.add_row(one.name, *times, f"{one.factor:.3g}·n^{one.exponent:.2f}", "")
    out.print(table)
    out.print(f"the multiplications alone grow as n^{sweep.work_exponent:.2f}", highlight=False)
    for name, reason in sweep.absent.items():
        out.print(f"absent: {name}: {reason}", highlight=False, markup=False)


def _show_versions(report: BenchReport, out: Console) -> None:
    """Print versions and kernels, each once."""
    scores = [score for case in report.cases for score in case.scores]
    versions = {f"{name} {number}" for score in scores for name, number in score.versions.items()}
    pools = {pool.rpartition(" ")[0] for score in scores for pool in score.blas}
    if scores:
        out.print()
        out.print(f"versions: {', '.join(sorted(versions))}", highlight=False)
        out.print(f"kernels: {', '.join(sorted(pools)) or 'unknown'}", highlight=False)


def _range(spread: Spread) -> str:
    return f"{spread.lower:.3f}–{spread.upper:.3f}"


def _number(value: float) -> str:
    """Write a number with about three digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"
