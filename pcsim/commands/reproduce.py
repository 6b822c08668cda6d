"""`pcsim reproduce`: the paper's tables and figures, run again beside the paper's numbers."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from pcsim.commands import GO_ON, AsJson, DataDir, interruptible, print_json, refuse_given
from pcsim.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.progress import TaskID

    from pcsim.experiments.reproduce.cost import CostReport
    from pcsim.experiments.reproduce.jobs import Job, Place, Standing
    from pcsim.experiments.reproduce.report import Report, Wanted
    from pcsim.experiments.reproduce.runs import Outcome

Cost = tuple[str, dict[str, Any]]  # as Markdown and for JSON


class TargetChoice(StrEnum):
    """What is reproduced."""

    TABLE2 = "table2"
    FIG1 = "fig1"
    FIG2 = "fig2"
    FIG3 = "fig3"
    FIG4 = "fig4"
    FIG5 = "fig5"
    COST = "cost"


def reproduce(
    context: typer.Context,
    targets: Annotated[
        list[TargetChoice], typer.Argument(metavar="TARGET…", help="table2, fig1 … fig5, cost.")
    ],
    task: Annotated[
        list[str],
        typer.Option("--task", metavar="NAME", help="Only this task, repeatable [those of the target]."),
    ] = [],  # noqa: B006 - typer copies it
    algorithm: Annotated[
        list[str], typer.Option("--algorithm", metavar="NAME", help="Only this algorithm, repeatable [all].")
    ] = [],  # noqa: B006
    rate: Annotated[
        list[str],
        typer.Option("--rate", metavar="ALGORITHM=α", help="A row more, with this rate; repeatable."),
    ] = [],  # noqa: B006
    seeds: Annotated[str, typer.Option(metavar="0,1,2", help="Seeds of weights and shuffling.")] = "0,1,2",
    epochs: Annotated[int | None, typer.Option(min=1, help="Of each run [the paper's].")] = None,
    subset: Annotated[
        int | None, typer.Option(min=1, metavar="SAMPLES", help="Train on so many samples only, for tries.")
    ] = None,
    runs: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of runs, TASK/ALGORITHM/seedN, and of results.")
    ] = Path("runs"),
    data_dir: DataDir = None,
    model_dir: Annotated[
        Path | None, typer.Option("--models", metavar="DIR", help="Folder of model files [pcsim's models/].")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each run.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="cost: turns of each algorithm.")] = 10,
    list_only: Annotated[
        bool, typer.Option("--list", help="Say which runs there are and how far each has come; run nothing.")
    ] = False,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Run nothing; make tables and figures of what there is.")
    ] = False,
    page: Annotated[
        Path | None,
        typer.Option(
            "--markdown", metavar="PAGE.md", help="Put the tables into a page, between its markers."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the paper's experiments again, as far as they are missing, beside the paper's numbers.

    Finished runs are taken as they are, unfinished ones go on from their last epoch, a run that fails is
    named and the others go on. Tables, figures and numbers go to DIR/TARGET/, with --subset to
    DIR/TARGET-subset-SAMPLES/. Exit code 1 if a run failed.

    best, last: mean ± standard deviation of the seeds; as BP's 10th: epochs until BP's accuracy after 10;
    p: of Welch's t-test of the best epochs against BP's.

    Examples: `pcsim reproduce table2 --task cifar10-dense --seeds 0,1,2 --epochs 60`,
    `pcsim reproduce table2 fig2 fig3 --report-only --markdown docs/reproduction.md`,
    `pcsim reproduce table2 --task digits-dense --algorithm bp --rate bp=0.03 --epochs 5`
    """
    from pcsim.experiments.reproduce import page as pages
    from pcsim.experiments.reproduce.jobs import MODELS, Place
    from pcsim.experiments.reproduce.plans import TARGETS, Choice
    from pcsim.experiments.reproduce.report import make, wanted, with_other_rates

    names = list(dict.fromkeys(target.value for target in targets))
    if TargetChoice.FIG1 in targets:
        alone = "fig1: expected it alone, with --runs or --json: it has no training runs"
        if len(names) > 1:
            raise ConfigurationError(alone)
        refuse_given(context, context.params.keys() - {"targets", "runs", "as_json"}, f"with {alone}")
        _fig1(runs, as_json)
        return
    if page is not None:
        pages.check(page, names)
    place = Place(runs, model_dir or MODELS, data_dir, subset)
    choice = Choice(tuple(task), tuple(algorithm), _rates(rate))
    plan = {
        name: wanted(TARGETS[name], choice, place, _seeds(seeds), epochs) for name in names if name in TARGETS
    }
    if list_only:
        _list(plan, place, as_json)
        return
    failed = [] if report_only else _run(plan, jobs, threads)
    reports = {name: make(TARGETS[name], with_other_rates(one), epochs, place) for name, one in plan.items()}
    cost = None
    if TargetChoice.COST in targets:
        cost = _old_cost(runs) if report_only else _cost(runs, threads, rounds)
    if page is not None:
        _to_page(page, place, reports, cost)
    if as_json:
        _print_json(reports, cost, failed)
    else:
        _show(reports, cost, place)
        for one in failed:
            typer.echo(f"failed: {one['run']}: {one['reason']}", err=True)
    if failed:
        raise typer.Exit(1)


def _fig1(runs: Path, as_json: bool) -> None:
    """Let the theory lab measure and draw the proximal loss along the inference iterations."""
    from pcsim.commands.theory import figure1

    figure1(out=_folder(runs, "fig1") / "fig1.png", force=True, as_json=as_json)


def _folder(runs: Path, name: str) -> Path:
    try:
        (runs / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot write {runs / name}: {error.strerror}") from error
    return runs / name


def _seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(dict.fromkeys(int(one) for one in text.split(",")))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0:
        raise ConfigurationError(f"--seeds {text}: expected whole numbers from 0, such as 0,1,2")
    return seeds


def _rates(pairs: list[str]) -> dict[str, tuple[float, ...]]:
    """Return further rates by algorithm from texts such as seqil=0.5."""
    found: dict[str, tuple[float, ...]] = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        try:
            rate = float(text)
        except ValueError:
            rate = 0.0
        if not 0 < rate < float("inf"):
            raise ConfigurationError(f"--rate {pair}: expected ALGORITHM=RATE, such as seqil=0.5")
        found[name] = (*found.get(name, ()), rate)
    return found


def _all(plan: dict[str, Wanted]) -> list[Job]:
    """Return the runs of all targets, each once, seed by seed, so that every algorithm has one early."""
    jobs = [
        job
        for tasks in plan.values()
        for one in tasks.values()
        for several in one.values()
        for job in several
    ]
    return sorted(dict.fromkeys(jobs), key=lambda job: job.seed)


def _run(plan: dict[str, Wanted], processes: int, threads: int) -> list[dict[str, str]]:
    """Do what is missing; return what failed and why."""
    from pcsim.experiments.reproduce.runs import run_all

    wanted = _all(plan)
    if not wanted:
        return []
    with interruptible(GO_ON), _Bars() as bars:
        outcomes = run_all(wanted, bars, processes=processes, threads=threads)
    return [
        {"run": job.name, "reason": outcome.reason}
        for job, outcome in outcomes.items()
        if outcome.kind == "failed"
    ]


def _print_json(reports: dict[str, Report], cost: Cost | None, failed: list[dict[str, str]]) -> None:
    from pcsim.commands.analyze import plain

    found: dict[str, Any] = {name: report.to_dict() for name, report in reports.items()}
    found |= {} if cost is None else {"cost": cost[1]}
    print_json(plain(found | {"failed": failed}))


def _list(plan: dict[str, Wanted], place: Place, as_json: bool) -> None:
    from rich.console import Console

    from pcsim.experiments.reproduce.jobs import failure, look
    from pcsim.experiments.reproduce.runs import NO_PIXELS
    from pcsim.terminal import new_table

    rows: list[dict[str, Any]] = []
    for job in _all(plan):
        standing, here = look(job), job.place.has(job.task.data)
        reason = standing.why or failure(job) or ("" if here else NO_PIXELS)
        rows.append(
            {
                "task": job.task.name,
                "algorithm": job.algorithm.name,
                "rate": job.algorithm.rate,
                "seed": job.seed,
                "training_samples": place.subset,
                "state": standing.state,
                "epochs": standing.epochs,
                "wanted": job.epochs,
                "note": reason,
                "folder": str(job.folder),
            }
        )
    if as_json:
        print_json(rows)
        return
    table = new_table(f"Runs: {len(rows)}{place.words}", "task", "algorithm")
    for heading in ("α", "seed", "epochs"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("state")
    for row in rows:
        state = f"{row['state']}" + (f": {row['note']}" if row["note"] else "")
        done = f"{row['epochs']} of {row['wanted']}"
        table.add_row(row["task"], row["algorithm"], f"{row['rate']:g}", str(row["seed"]), done, state)
    Console().print(table)


def _cost(runs: Path, threads: int, rounds: int) -> Cost:
    """Measure costs, keep them in the folder of runs, and return them as Markdown and for JSON."""
    import json

    from pcsim.experiments.reproduce.cost import markdown, measure
    from pcsim.report.files import save_bytes

    report: CostReport = measure(threads=threads, rounds=rounds, tell=lambda news: typer.echo(news, err=True))
    folder = _folder(runs, "cost")
    text, found = markdown(report), report.to_dict()
    save_bytes(folder / "cost.json", f"{json.dumps(found, indent=1)}\n".encode())
    save_bytes(folder / "cost.md", f"{text}\n".encode())
    return text, found


def _old_cost(runs: Path) -> Cost:
    """Return what was measured before."""
    import json

    folder = runs / "cost"
    try:
        return (folder / "cost.md").read_text().strip(), json.loads((folder / "cost.json").read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{folder}: no measurement there; run pcsim reproduce cost --runs {shlex.quote(str(runs))} "
            "without --report-only"
        ) from error


def _to_page(page: Path, place: Place, reports: dict[str, Report], cost: Cost | None) -> None:
    from pcsim.experiments.reproduce import page as pages
    from pcsim.experiments.reproduce.report import markdown

    pictures = f"{pages.pictures(page).name}/"
    parts = {name: markdown(report, pictures) for name, report in reports.items()}
    pages.refresh(page, parts | ({} if cost is None else {"cost": cost[0]}))
    for name in reports:
        pages.keep(place.folder(name), page, name)
    if cost is not None:
        pages.keep(place.runs / "cost", page, "cost")


def _show(reports: dict[str, Report], cost: Cost | None, place: Place) -> None:
    """Print tables, what is missing, and where everything lies."""
    from rich.console import Console
    from rich.text import Text

    from pcsim.experiments.reproduce import tables
    from pcsim.terminal import new_table

    console = Console()
    shown = {
        one.task.name: one for name, report in reports.items() if name != "fig2" for one in report.results
    }
    for results in shown.values():
        headings = tables.headings(results)
        first, *others = (heading for heading in headings if heading not in tables.WIDE_ONLY)
        table = new_table(f"{results.task.title}: {tables.unit(results)}", first)
        for heading in others:
            table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
        for row in results.rows:
            named = zip(headings, tables.cells(results, row), strict=True)
            shown_cells = (Text(cell) for heading, cell in named if heading not in tables.WIDE_ONLY)
            table.add_row(*shown_cells, style="bold" if tables.better(results, row) else None)
        console.print(table)
        for note in tables.notes(results):
            console.print(note, highlight=False, markup=False, soft_wrap=True)
        console.print()
    for name in reports:
        console.print(f"{name}: {place.folder(name)}", highlight=False, markup=False, soft_wrap=True)
    if cost is not None:
        from rich.markdown import Markdown

        console.print(Markdown(cost[0]))


class _Bars:
    """A bar for all runs together, in epochs, and one for each that is under way, in training steps."""

    def __init__(self) -> None:
        from pcsim.terminal import new_progress

        self._bar = new_progress(speed_estimate_period=600)
        self._whole: TaskID | None = None
        self._runs: dict[Job, tuple[TaskID, int]] = {}  # bar, epochs to do

    def plan(self, epochs: int) -> None:
        """Begin the bar of all runs."""
        self._whole = self._bar.add_task("all runs", total=epochs, news=f"{epochs} epochs")

    def begin(self, job: Job, standing: Standing) -> None:
        """Begin a run's bar."""
        news = f"from epoch {standing.epochs}" if standing.epochs else ""
        self._runs[job] = self._bar.add_task(job.name, total=None, news=news), job.epochs - standing.epochs

    def advance(self, job: Job, done: int, steps: int, news: str) -> None:
        """Move a run's bar, and that of all runs by the same part of its epochs."""
        bar, epochs = self._runs[job]
        moved = done - self._bar.tasks[self._bar.task_ids.index(bar)].completed
        self._bar.update(bar, total=steps or None, completed=done, news=news)
        if self._whole is not None and steps:
            self._bar.advance(self._whole, epochs * moved / steps)

    def end(self, job: Job, outcome: Outcome) -> None:
        """Remove a run's bar; say what became of it, if it was tried."""
        if job in self._runs:
            self._bar.remove_task(self._runs.pop(job)[0])
        if outcome.kind != "finished":
            reason = f": {outcome.reason}" if outcome.reason else ""
            self._bar.console.print(f"{job.name}: {outcome.kind}{reason}", highlight=False, markup=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.__exit__(kind, error, traceback)
