"""A table or figure of the paper beside ours: made of what traces there are, written into a folder."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcsim.errors import ConfigurationError
from pcsim.experiments.reproduce import figures, tables
from pcsim.experiments.reproduce.jobs import Job, Place
from pcsim.experiments.reproduce.plans import TASKS, Algorithm, Choice, Target
from pcsim.experiments.reproduce.results import Results, gather
from pcsim.report.files import save_bytes
from pcsim.report.style import style
from pcsim.tracing.reader import open_trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Wanted = Mapping[str, Mapping[Algorithm, Sequence[Job]]]


@dataclass(frozen=True)
class Report:
    """A target's results.

    Attributes:
        target: which.
        results: one a task.
        updates: update magnitudes by "TASK ALGORITHM seed N", of figure 2.
        training_samples: that runs were trained on; None if on all. Titles say it, too.
    """

    target: Target
    results: tuple[Results, ...]
    updates: Mapping[str, dict[str, Any]]
    training_samples: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary fit for JSON."""
        return {
            "target": self.target.name,
            "title": self.target.title,
            "known": self.target.known,
            "training_samples": self.training_samples,
            "tasks": [one.to_dict() for one in self.results],
            "updates": dict(self.updates),
        }


def wanted(target: Target, choice: Choice, place: Place, seeds: Sequence[int], epochs: int | None) -> Wanted:
    """Return the runs of a target, by task and algorithm; of the paper's length if `epochs` is None.

    Raises:
        ConfigurationError: a task or algorithm that there is not, or a model file that is missing or broken.
    """
    jobs = {
        task: {
            one: [Job(place, TASKS[task], one, seed, epochs or TASKS[task].epochs) for seed in seeds]
            for one in algorithms
        }
        for task, algorithms in choice.of(target).items()
    }
    for algorithms in jobs.values():
        for first, *_ in algorithms.values():
            first.model()
    return jobs


def with_other_rates(jobs: Wanted) -> Wanted:
    """Return the runs with those of other rates that lie beside them: what was searched is shown too."""
    return {
        task: {
            one: [replace(job, algorithm=one) for job in several]
            for algorithm, several in algorithms.items()
            for one in (algorithm, *_other_rates(algorithm, several[0], algorithms))
        }
        for task, algorithms in jobs.items()
    }


def _other_rates(algorithm: Algorithm, job: Job, known: Collection[Algorithm]) -> list[Algorithm]:
    """Return an algorithm with the rates for which there are folders, the smallest first."""
    prefix = f"{algorithm.name}-rate-"
    rates = []
    for folder in job.folder.parents[1].glob(f"{prefix}*"):
        with suppress(ValueError):
            rates.append(float(folder.name.removeprefix(prefix)))
    return [one for one in map(algorithm.at, sorted(rates)) if one not in known]


def make(target: Target, jobs: Wanted, epochs: int | None, place: Place) -> Report:
    """Read the traces and write table, numbers and figure into the target's folder.

    Raises:
        ConfigurationError: the folder cannot be written.
        TraceError: a trace is damaged.
    """
    folder, target = place.folder(target.name), replace(target, title=target.title + place.words)
    tasks = {task: replace(TASKS[task], title=TASKS[task].title + place.words) for task in jobs}
    results = tuple(gather(tasks[task], several, epochs) for task, several in jobs.items())
    traces = _update_traces(jobs, results) if target.name == "fig2" else {}
    updates = {title: figures.update_numbers(path) for title, path in traces.items()}
    report = Report(target, results, updates, place.subset)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot write {folder}: {error.strerror}") from error
    text = json.dumps(report.to_dict(), indent=1, allow_nan=False) + "\n"
    save_bytes(folder / f"{target.name}.json", text.encode())
    save_bytes(folder / f"{target.name}.md", f"{markdown(report)}\n".encode())
    with style():
        figure = _draw(report, traces)
        if figure is not None:
            figures.save(figure, folder, target.name)
    return report


def markdown(report: Report, pictures: str = "") -> str:
    """Return a target's part of a page; `pictures` is the folder of its picture, seen from the page."""
    parts = [report.target.known]
    if report.target.name == "fig2":
        parts += [_update_table(report.updates)] if report.updates else ["No run has been recorded yet."]
    elif report.target.name != "fig3":
        parts += [tables.markdown(one) for one in report.results]
    if drawable(report):
        name = report.target.name
        parts.append(f"![{report.target.title}]({pictures}{name}.png)")
    return "\n\n".join(parts)


def drawable(report: Report) -> bool:
    """Whether there is anything to draw."""
    return any(curves for one in report.results for curves in one.curves.values())


def _draw(report: Report, traces: Mapping[str, Path]) -> Figure | None:
    """Return the figure, if there is anything to draw."""
    if not drawable(report):
        return None
    drawn = [one for one in report.results if any(one.curves.values())]
    match report.target.name:
        case "table2":
            return figures.draw_table(drawn)
        case "fig2":
            return figures.draw_updates(traces)
        case "fig4" if [one.task.name for one in drawn] == ["figure4"]:
            return figures.draw_orders(drawn[0])
        case _:
            return figures.draw_curves(drawn)


def _update_traces(jobs: Wanted, results: Sequence[Results]) -> dict[str, Path]:
    """Return a trace an algorithm: of the first seed that there is."""
    found: dict[str, Path] = {}
    for one in results:
        for algorithm, several in jobs[one.task.name].items():
            seeds = [curve.seed for curve in one.curves[algorithm.name]]
            job = next((job for job in several if job.seed in seeds and _has_summary(job.trace)), None)
            if job is not None:
                found[f"{one.task.title}: {algorithm.title}, seed {job.seed}"] = job.trace
    return found


def _has_summary(path: Path) -> bool:
    with open_trace(path) as trace:
        return "summary" in trace.tables and trace.table("summary").rows > 0


def _update_table(updates: Mapping[str, dict[str, Any]]) -> str:
    """Return mean update magnitudes, a column a connection."""
    most = max(len(one["mean"]) for one in updates.values())
    lines = ["Mean of \\|ΔW_l\\| and \\|Δb_l\\| over the recorded training steps:", ""]
    lines += [f"| | {' | '.join(f'W_{layer}' for layer in range(most))} |", "|" + "---|" * (most + 1)]
    for title, one in updates.items():
        values = [f"{value:.3g}" for value in one["mean"]] + ["–"] * (most - len(one["mean"]))
        lines.append(f"| {title} | {' | '.join(values)} |")
    return "\n".join(lines)
