"""Conducting a sweep: what is missing is trained, round by round; each result is in the index at once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Protocol

from pcsim.errors import StudyError
from pcsim.experiments.alone import FILE as LOCK
from pcsim.experiments.alone import alone
from pcsim.experiments.sweep import halving
from pcsim.experiments.sweep.index import FILE, RUNS, Index, IndexRow, State
from pcsim.experiments.sweep.job import Job, Outcome
from pcsim.experiments.sweep.plan import Plan, PlannedRun

LOGS = "slurm"
OURS = {LOCK, LOGS}  # what may lie in a study's folder before its index


class Runner(Protocol):
    """Who trains."""

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Train all jobs; return what became of each as soon as that is known, in any order."""
        ...


class Watcher(Protocol):
    """Who wants to know how a sweep goes."""

    def plan(self, epochs: float, runs: int, done: Mapping[str, int]) -> None:
        """Learn how many epochs there are to do, in how many runs, and how many each has done."""
        ...

    def begin_round(self, until: int, configurations: int, runs: int) -> None:
        """Learn that a round begins: to which epoch, and how many runs of it are missing."""
        ...

    def advance(self, run: str, epochs: float, news: str) -> None:
        """Learn how many epochs a run has done."""
        ...

    def end(self, row: IndexRow, outcome: Outcome) -> None:
        """Learn what became of a run in this round."""
        ...


@dataclass(frozen=True)
class Counts:
    """How many runs stand how."""

    finished: int
    stopped: int
    failed: int
    waiting: int


def conduct(
    plan: Plan, folder: Path, runner: Runner, watcher: Watcher, *, threads: int = 1, retry: bool = False
) -> Counts:
    """Do what is missing of a sweep.

    Args:
        plan: all runs.
        folder: of the study; is made, or gone on with. Runs of other plans that it holds stay as they are.
        runner: who trains.
        watcher: is told how it goes.
        threads: of each run.
        retry: try failed runs once more; they are taken as they are otherwise.

    Returns:
        How the runs of the plan stand at the end.

    Raises:
        StudyError: the folder is no study, cannot be written, or another sweep is at work in it; the
            workers are lost.
    """
    check_folder(folder)
    with alone(folder), Index.begin(folder) as index:
        index.add(plan, _facts(plan))
        if retry:
            wanted = {run.run for run in plan.runs}
            failed = [row.run for row in index.rows() if row.state == "failed" and row.run in wanted]
            index.set_state(failed, "waiting")
        _Conductor(plan, index, runner, watcher, threads).all_rounds()
        return _counts(index, plan)


def _facts(plan: Plan) -> dict[str, str]:
    file = plan.file
    return {
        "name": file.name,
        "description": file.description,
        "model": plan.model,
        "sweep": file.model_dump_json(),
        "pcsim_version": metadata.version("pcsim"),
    }


def _counts(index: Index, plan: Plan) -> Counts:
    wanted = {run.run for run in plan.runs}
    states = Counter(row.state for row in index.rows() if row.run in wanted)
    rest = states["waiting"] + states["paused"]
    return Counts(states["finished"], states["stopped"], states["failed"], rest)


class _Conductor:
    """Goes through the rounds."""

    def __init__(self, plan: Plan, index: Index, runner: Runner, watcher: Watcher, threads: int) -> None:
        self._index, self._runner, self._watcher, self._threads = index, runner, watcher, threads
        self._configurations = plan.configurations
        self._rows = {row.run: row for row in index.rows()}
        self._halving = plan.file.halving
        self._rounds = halving.rounds(self._halving, len(self._configurations), plan.epochs)

    def all_rounds(self) -> None:
        """Train round by round; who is not among the best of one is stopped."""
        left = list(self._configurations)
        done = {name: row.epochs_done for name, row in self._rows.items()}
        self._watcher.plan(*self._ahead(), done)
        for number, one in enumerate(self._rounds):
            self._train([run for name in left for run in self._configurations[name]], one)
            if number + 1 < len(self._rounds):
                left = self._go_on(left, one.until, self._rounds[number + 1].configurations)

    def _ahead(self) -> tuple[float, int]:
        """Return how many epochs there are still to do, and of how many runs at least."""
        runs = [run for several in self._configurations.values() for run in several]
        done = sum(min(self._rows[run.run].epochs_done, self._until(run, self._rounds[-1])) for run in runs)
        if self._halving is None:
            missing = [run for run in runs if self._missing(run, self._rounds[-1])]
            return sum(run.epochs - self._rows[run.run].epochs_done for run in missing), len(missing)
        seeds, before, epochs = len(runs) / len(self._configurations), 0, 0.0
        for one in self._rounds:
            epochs += (one.until - before) * one.configurations * seeds
            before = one.until
        missing = [run for run in runs if self._missing(run, self._rounds[0])]
        return max(epochs - done, 0.0), len(missing)

    def _until(self, run: PlannedRun, one: halving.Round) -> int:
        return one.until if self._halving else run.epochs

    def _missing(self, run: PlannedRun, one: halving.Round) -> bool:
        row = self._rows[run.run]
        return row.state != "failed" and row.epochs_done < self._until(run, one)

    def _train(self, runs: Sequence[PlannedRun], one: halving.Round) -> None:
        """Train what is missing of a round."""
        missing = {run.run: run for run in runs if self._missing(run, one)}
        if self._halving:
            self._watcher.begin_round(one.until, one.configurations, len(missing))
        jobs = [self._job(run, self._until(run, one)) for run in missing.values()]
        for outcome in self._runner.outcomes(jobs) if jobs else ():
            self._take_in(outcome, missing[outcome.run])

    def _job(self, run: PlannedRun, until: int) -> Job:
        folder = (self._index.folder / RUNS / run.run).absolute()
        return Job(run.run, folder, run.model, run.engine, until, self._threads)

    def _take_in(self, outcome: Outcome, run: PlannedRun) -> None:
        state: State = "failed" if outcome.state == "failed" else "paused"
        if state != "failed" and len(outcome.epochs) >= run.epochs:
            state = "finished"
        before = self._rows[outcome.run]
        self._index.record(outcome, state)
        self._watcher.end(before, outcome)
        self._rows[outcome.run] = replace(
            before, state=state, epochs_done=len(outcome.epochs), error=outcome.error
        )

    def _go_on(self, left: Sequence[str], until: int, number: int) -> list[str]:
        """Return who goes on, in the order of the plan; the others are stopped."""
        runs = {name: [one.run for one in self._configurations[name]] for name in left}
        known = self._index.epochs()  # of all studies in this folder, which may count in other measures
        epochs = {run: known.get(run, []) for several in runs.values() for run in several}
        measure = halving.measure_of(epochs)
        values = {
            name: -math.inf
            if any(self._rows[run].state == "failed" for run in several)
            else halving.value([epochs[run] for run in several], until, measure)
            for name, several in runs.items()
        }
        chosen = set(halving.survivors(values, number))
        given_up = [run for name in left if name not in chosen for run in runs[name]]
        self._index.set_state([run for run in given_up if self._rows[run].state != "failed"], "stopped")
        return [name for name in left if name in chosen]


def check_folder(folder: Path) -> None:
    """Look before any work whether a study can be made in a folder, or gone on with.

    Raises:
        StudyError: it holds something else.
    """
    try:
        strange = {one.name for one in folder.iterdir() if not one.name.startswith(f".{FILE}")} - OURS
    except FileNotFoundError:
        return
    except OSError as error:
        raise StudyError(f"{folder}: {error.strerror}: expected a folder; give another --study") from error
    if strange and FILE not in strange:
        raise StudyError(f"{folder} is no study and not empty: expected a new folder; give another --study")
