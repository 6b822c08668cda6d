"""`pcsim sweep`: many runs of a model with other settings, here or on a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from pcsim.commands import GO_ON, AsJson, DataDir, interruptible, print_json
from pcsim.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.progress import TaskID

    from pcsim.experiments.sweep.conduct import Runner
    from pcsim.experiments.sweep.index import IndexRow
    from pcsim.experiments.sweep.job import Outcome
    from pcsim.experiments.sweep.plan import Plan

MOST_SHOWN = 20  # configurations of a dry run


def sweep(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="SWEEP.toml",
            help="Sweep file, or the name of one that comes with pcsim; see docs/sweeps.md.",
        ),
    ],
    study: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the study [studies/NAME].")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Worker processes here; with --slurm, jobs [none: this process]."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each run.")] = 1,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Use a Dask scheduler that runs, tcp://HOST:PORT.")
    ] = None,
    slurm: Annotated[bool, typer.Option("--slurm", help="Let SLURM start the workers.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Try failed runs once more.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the runs, with --slurm the job script; run nothing.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Run a model with many settings: grids, random draws, seeds, successive halving.

    The study's folder gets a trace and a row for each run. Call it again after any interruption: finished
    runs are not repeated, others go on from their last epoch. Exit code 1 if a run failed.

    Examples: `pcsim sweep digits_rates --dry-run`, then `pcsim sweep digits_rates`

    A job of SLURM, with pcsim's extra for sweeps: `pcsim sweep digits_rates --slurm --dry-run`
    """
    from pcsim.experiments.sweep.conduct import LOGS, check_folder, conduct
    from pcsim.experiments.sweep.plan import check_data, read_plan
    from pcsim.shipped import find_sweep

    if scheduler is not None and (slurm or workers is not None):
        raise ConfigurationError("--scheduler has workers of its own: expected no --workers and no --slurm")
    plan = read_plan(find_sweep(file), data_dir)
    folder = study or Path("studies") / plan.file.name
    check_folder(folder)
    logs = folder.absolute() / LOGS
    if dry_run:
        _show_plan(plan, folder, _script(plan, threads, logs) if slurm else None, as_json)
        return
    if scheduler is None and not slurm:  # other machines may have data that this one has not
        check_data(plan)
    bars = _Bars()
    with interruptible(GO_ON), bars, _runner(plan, workers, threads, scheduler, slurm, logs, bars) as runner:
        counts = conduct(plan, folder, runner, bars, threads=threads, retry=retry)
    from pcsim.commands.study_show import show_study

    show_study(folder, as_json=as_json, configurations=set(plan.configurations))
    if counts.failed:
        raise typer.Exit(1)


def _script(plan: Plan, threads: int, logs: Path) -> str:
    from pcsim.experiments.sweep.cluster import job_script

    return job_script(plan.file.slurm, threads, logs)


@contextmanager
def _runner(
    plan: Plan,
    workers: int | None,
    threads: int,
    scheduler: str | None,
    slurm: bool,
    logs: Path,
    bars: _Bars,
) -> Iterator[Runner]:
    """Return who trains: this process, or workers."""
    if workers is None and scheduler is None and not slurm:
        from pcsim.experiments.sweep.here import Here

        yield Here(bars.advance)
        return
    from pcsim.experiments.sweep import cluster

    if scheduler is not None:
        clients = cluster.scheduler_workers(scheduler)
    elif slurm:
        clients = cluster.slurm_workers(plan.file.slurm, workers or 1, threads, logs)
    else:
        clients = cluster.local_workers(min(workers or 1, len(plan.runs)), threads)
    with clients as client:
        yield cluster.OnDask(client, bars.advance)


def _show_plan(plan: Plan, folder: Path, script: str | None, as_json: bool) -> None:
    """Show what would be run."""
    from pcsim.experiments.sweep.halving import rounds

    configurations = plan.configurations
    stages = rounds(plan.file.halving, len(configurations), plan.epochs)
    if as_json:
        runs = [
            {"run": one.run, "settings": one.settings, "seed": one.seed, "overrides": list(one.overrides)}
            for one in plan.runs
        ]
        found: dict[str, Any] = {"study": str(folder), "runs": runs}
        found["rounds"] = [{"until": one.until, "configurations": one.configurations} for one in stages]
        print_json(found | ({} if script is None else {"job_script": script}))
        return
    _show_runs(plan)
    if plan.file.halving:
        for number, one in enumerate(stages, 1):
            typer.echo(f"round {number}: {one.configurations} configurations up to epoch {one.until}")
    seeds = len(plan.file.seeds)
    total = f"{len(configurations)} configurations, {seeds} seed{'s' if seeds > 1 else ''}"
    typer.echo(f"{total}, {len(plan.runs)} runs; study: {folder}")
    if script is not None:
        typer.echo(f"\n{script}")


def _show_runs(plan: Plan) -> None:
    from rich.console import Console

    from pcsim.experiments.sweep.results import headings, setting
    from pcsim.terminal import new_table

    configurations = plan.configurations
    keys = list(dict.fromkeys(key for run in plan.runs for key in run.settings))
    typer.echo(f"{plan.file.name}: {plan.file.description}".rstrip(": "))
    table = new_table("", "run")
    table.title = None
    for heading in headings(keys):
        table.add_column(heading, overflow="fold")
    for several in list(configurations.values())[:MOST_SHOWN]:
        table.add_row(several[0].run, *(setting(several[0].settings.get(key)) for key in keys))
    console = Console(markup=False)  # settings may hold brackets
    console.print(table)
    if len(configurations) > MOST_SHOWN:
        console.print(f"… {len(configurations) - MOST_SHOWN} more; --json shows all", highlight=False)


class _Bars:
    """A bar for the whole sweep, in epochs, with the time that is left, and a line for each failure."""

    def __init__(self) -> None:
        from pcsim.terminal import new_progress

        self._bar = new_progress(speed_estimate_period=600)
        self._whole: TaskID | None = None
        self._seen: dict[str, float] = {}  # epochs of each run when it was last heard of
        self._runs = self._ended = self._failed = 0

    def plan(self, epochs: float, runs: int, done: Mapping[str, int]) -> None:
        """Begin the bar."""
        self._runs, self._seen = runs, dict(done)
        self._whole = self._bar.add_task("sweep", total=epochs, news=f"{runs} runs to do")

    def begin_round(self, until: int, configurations: int, runs: int) -> None:
        """Say that a round begins."""
        self._runs, self._ended = runs, 0
        where = f"{configurations} configurations to epoch {until}"
        if self._whole is not None:
            self._bar.update(self._whole, description=f"sweep, {where}")

    def advance(self, run: str, epochs: float, news: str) -> None:
        """Move the bar by what a run has done since it was last heard of."""
        before = self._seen.get(run, 0.0)
        self._seen[run] = max(epochs, before)
        if self._whole is not None and epochs > before:
            self._bar.advance(self._whole, epochs - before)

    def end(self, row: IndexRow, outcome: Outcome) -> None:
        """Count a run; say so if it failed."""
        self.advance(outcome.run, len(outcome.epochs), "")
        self._ended += 1
        self._failed += outcome.state == "failed"
        failed = f", {self._failed} failed" if self._failed else ""
        if self._whole is not None:
            self._bar.update(self._whole, news=f"{self._ended} of {self._runs} runs{failed}")
        if outcome.state == "failed":
            settings = ", ".join(f"{key} = {value}" for key, value in row.settings.items())
            text = f"failed: {settings or row.run}, seed {row.seed}: {outcome.error}"
            self._bar.console.print(text, highlight=False, markup=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.__exit__(kind, error, traceback)
