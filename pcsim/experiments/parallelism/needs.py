"""What trained runs say of T: how many iterations and mini-batches each order needs for equal accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from pcsim.experiments.parallelism.runs import BACKPROP, Case, Run
from pcsim.experiments.parallelism.search import MARGIN, RATES, SEEDS, STEP_SIZES


@dataclass(frozen=True)
class Need:
    """One order at one T, with the setting that the search chose there.

    Attributes:
        data: name of the data set.
        hidden: number of hidden layers.
        width: neurons of each.
        order: of the schedule, or "backprop".
        iterations: T.
        step_size: ε of the chosen setting.
        rate: Adam's.
        goal: the accuracy to be reached.
        steps: mini-batches to the goal, a seed; None where it was not reached.
        best: best test accuracy, a seed.
    """

    data: str
    hidden: int
    width: int
    order: str
    iterations: int
    step_size: float
    rate: float
    goal: float
    steps: tuple[int | None, ...]
    best: tuple[float, ...]

    @property
    def enough(self) -> bool:
        """Whether every seed reached the goal."""
        return len(self.steps) == len(SEEDS) and None not in self.steps

    @property
    def mean_steps(self) -> float:
        """Mini-batches to the goal, mean over the seeds that reached it; NaN if none did."""
        reached = [steps for steps in self.steps if steps is not None]
        return float(np.mean(reached)) if reached else float("nan")


def needs(runs: Iterable[Run]) -> list[Need]:
    """Return one row for every order and T of every depth that has a goal; what is half done is left out.

    The goal is backprop's mean settled accuracy minus `MARGIN`, at the rate that has all seeds. Of the
    settings of one T the one counts that took the most seeds to the goal, or else came closest.
    """
    ordered = sorted(runs, key=lambda run: run.case)
    goals = _goals(ordered)
    result = []
    for key, group in groupby(ordered, key=lambda run: _point(run.case)):
        goal = goals.get(key[:3])
        tried_here = list(group)
        if goal is not None and _finished(tried_here, goal):
            result.append(_need(tried_here, goal))
    return result


def _finished(runs: Sequence[Run], goal: float) -> bool:
    """Return whether the search is done with one T: every setting tried, and every seed if one was good."""
    if runs[0].case.order == BACKPROP:
        return True
    settings = {(run.case.step_size, run.case.rate) for run in runs}
    reached = any(run.steps_to(goal) is not None for run in runs)
    return len(settings) >= len(RATES) * len(STEP_SIZES) and (
        not reached or len(_setting(runs, goal)) == len(SEEDS)
    )


def enough(rows: Sequence[Need], hidden: int, order: str) -> list[Need]:
    """Return the rows of every T that is enough, ascending."""
    good = [row for row in rows if (row.hidden, row.order) == (hidden, order) and row.enough]
    return sorted(good, key=lambda row: row.iterations)


def smallest_enough(rows: Sequence[Need], hidden: int, order: str) -> Need | None:
    """Return the row of the smallest T that is enough; None if no T that was tried is."""
    return next(iter(enough(rows, hidden, order)), None)


def tried(rows: Sequence[Need], hidden: int, order: str) -> tuple[int, ...]:
    """Return every T that was tried."""
    return tuple(row.iterations for row in rows if (row.hidden, row.order) == (hidden, order))


def extrapolated(rows: Sequence[Need], hidden: int, order: str) -> int | None:
    """Return T for a depth that was not trained, by a line through those that were, rounded up.

    None with fewer than two depths to draw it through, or where the order is not known to reach the goal at
    the deepest that was trained.
    """
    depths = sorted({row.hidden for row in rows})
    found = [(depth, smallest_enough(rows, depth, order)) for depth in depths]
    points = [(depth, row.iterations) for depth, row in found if row is not None]
    if len(points) < 2 or points[-1][0] != depths[-1]:
        return None
    trained, enough = np.array(points, float).T
    slope, offset = np.polyfit(trained, enough, 1)
    return max(1, int(np.ceil(slope * hidden + offset - 1e-9)))


def _goals(runs: Sequence[Run]) -> dict[tuple[str, int, int], float]:
    goals = {}
    baseline = [run for run in runs if run.case.order == BACKPROP]
    for key, group in groupby(baseline, key=lambda run: _point(run.case)[:3]):
        chosen = _setting(list(group), 0.0)
        if len(chosen) == len(SEEDS):
            goals[key] = round(float(np.mean([run.settled for run in chosen])) - MARGIN, 5)
    return goals


def _need(runs: list[Run], goal: float) -> Need:
    chosen = _setting(runs, goal)
    case = chosen[0].case
    return Need(
        *(*_point(case), case.step_size, case.rate, goal),
        steps=tuple(run.steps_to(goal) for run in chosen),
        best=tuple(max(run.accuracies, default=0.0) for run in chosen),
    )


def _setting(runs: Sequence[Run], goal: float) -> list[Run]:
    """Return the runs of the best setting: most seeds at the goal, most seeds, then the most accurate."""
    by_setting: dict[tuple[float, float], list[Run]] = {}
    for run in runs:
        by_setting.setdefault((run.case.step_size, run.case.rate), []).append(run)

    def merit(group: list[Run]) -> tuple[int, int, float]:
        reached = sum(run.steps_to(goal) is not None for run in group)
        return reached, len(group), max(max(run.accuracies, default=0.0) for run in group)

    return max(by_setting.values(), key=merit)


def _point(case: Case) -> tuple[str, int, int, str, int]:
    return case.data, case.hidden, case.width, case.order, case.iterations
