"""Finds T: the smallest number of iterations with which an order reaches backprop's accuracy minus a point.

For each depth backprop is tuned first and sets the goal. Then each order goes up its grid of T. At each T,
seed 0 tries every combination of ε and Adam's rate; the quickest to the goal is repeated with the others, and
if one of them fails, so is the second quickest. T counts as enough if every seed reaches the goal. One T more
is tried then: it may take fewer mini-batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pcsim.experiments.parallelism.runs import BACKPROP, Book, Case, Run

RATES = (1e-3, 3e-3)
STEP_SIZES = (0.1, 0.2, 0.4)
SEEDS = (0, 1, 2)
CANDIDATES = 2  # settings at one T that may prove themselves with all seeds
MARGIN = 0.01  # below backprop's accuracy
GRID = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
STATIC = ("sequential", "simultaneous", "red-black", "bottom-up", "incremental")
MOST = {"digits": {2: 12, 4: 16, 8: 24, 16: 64}, "fashion-mnist": {2: 8, 4: 12, 8: 16}}


@dataclass(frozen=True)
class Task:
    """One order at one depth, on one data set.

    Attributes:
        data: name of the data set.
        hidden: number of hidden layers.
        width: neurons of each.
        order: of the schedule.
        iterations: T to try, ascending.
    """

    data: str
    hidden: int
    width: int
    order: str
    iterations: tuple[int, ...]

    def case(self, iterations: int, step_size: float, rate: float, seed: int) -> Case:
        """Return one run of it."""
        return Case(self.data, self.hidden, self.width, self.order, iterations, step_size, rate, seed)


def tasks(data: str, hidden: int, width: int, most: int | None = None) -> list[Task]:
    """Return the tasks of one depth: every static order and asynchronous on digits, three orders elsewhere.

    Args:
        data: name of the data set.
        hidden: number of hidden layers.
        width: neurons of each.
        most: largest T; `MOST` if not given, or twice the depth where that says nothing.
    """
    most = most or MOST.get(data, {}).get(hidden, 2 * hidden)
    fine = tuple(t for t in GRID if t <= most)
    coarse = tuple(t for t in fine if t & (t - 1) == 0)  # powers of two, where every T is dear
    orders = STATIC if data == "digits" and hidden < 16 else STATIC[:3]
    planned = [
        Task(data, hidden, width, order, coarse if hidden >= 16 or order == "incremental" else fine)
        for order in orders
    ]
    if data == "digits":
        planned.append(Task(data, hidden, width, "asynchronous", tuple(t for t in coarse if t <= 2)))
    return planned


def tune_backprop(book: Book, data: str, hidden: int, width: int) -> tuple[list[Run], float]:
    """Return backprop's runs at its best rate, and the goal: their mean accuracy minus `MARGIN`."""
    first = Case(data, hidden, width, BACKPROP, 0, 0.0, 0.0, SEEDS[0])
    tried = [book.run(replace(first, rate=rate)) for rate in RATES]
    best = max(tried, key=lambda run: (run.settled, -run.case.rate))
    runs = [best, *(book.run(replace(best.case, seed=seed)) for seed in SEEDS[1:])]
    return runs, round(float(np.mean([run.settled for run in runs])) - MARGIN, 5)


def search(book: Book, task: Task, goal: float) -> Iterator[tuple[int, list[Run]]]:
    """Go up the grid until one T after the first that is enough; yield each T with the chosen setting's runs.

    A T at which seed 0 fails has the single run that came closest.
    """
    enough = 0
    for iterations in task.iterations:
        runs = try_iterations(book, task, iterations, goal)
        yield iterations, runs
        enough += enough > 0 or is_enough(runs, goal)
        if enough == 2:
            return


def try_iterations(book: Book, task: Task, iterations: int, goal: float) -> list[Run]:
    """Return the runs of the best setting at one T."""
    tried = [
        book.run(task.case(iterations, step, rate, SEEDS[0]), goal) for rate in RATES for step in STEP_SIZES
    ]
    tried.sort(key=lambda run: _quickness(run, goal))
    runs = tried[:1]
    for one in [run for run in tried if run.steps_to(goal) is not None][:CANDIDATES]:
        runs = [one, *(book.run(replace(one.case, seed=seed), goal) for seed in SEEDS[1:])]
        if is_enough(runs, goal):
            break
    return runs


def is_enough(runs: Sequence[Run], goal: float) -> bool:
    """Return whether every seed was run and reached the goal."""
    return len(runs) == len(SEEDS) and all(run.steps_to(goal) is not None for run in runs)


def _quickness(run: Run, goal: float) -> tuple[float, float, float, float]:
    """Return what sorts runs: mini-batches to the goal, then accuracy, then the gentler setting."""
    steps = run.steps_to(goal)
    most = max(run.accuracies, default=0.0)
    return (float("inf") if steps is None else steps, -most, run.case.rate, run.case.step_size)
