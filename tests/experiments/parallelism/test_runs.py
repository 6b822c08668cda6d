"""Training runs of the study: what they record, how they end, and that no run is lost or done twice."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pcsim.errors import ConfigurationError
from pcsim.experiments.parallelism import runs as parallelism_runs
from pcsim.experiments.parallelism.needs import enough, extrapolated, needs, smallest_enough, tried
from pcsim.experiments.parallelism.runs import (
    BACKPROP,
    HOPELESS,
    Book,
    Case,
    Run,
    initial_network,
    read_runs,
    subset,
    train_case,
)
from pcsim.experiments.parallelism.search import (
    MARGIN,
    RATES,
    SEEDS,
    STEP_SIZES,
    Task,
    search,
    tasks,
    tune_backprop,
)

CASE = Case("digits", 2, 16, "sequential", 1, 0.4, 3e-3, 0)
TASK = Task("digits", 2, 16, "sequential", (1, 2, 3, 4))


def made_up(case: Case, *accuracies: float) -> Run:
    """A run as it would be written."""
    return Run(case, accuracies, 22, None, "made up", 0.0)


def grid(iterations: int, *accuracies: float) -> list[Run]:
    """Seed 0 with every setting of one T, all alike."""
    return [made_up(TASK.case(iterations, s, r, 0), *accuracies) for s in STEP_SIZES for r in RATES]


@pytest.mark.parametrize("order", ["sequential", "red-black", "asynchronous", BACKPROP])
def test_a_run_ends_at_its_goal(order):
    """Training really happens on every engine: a low goal is reached, and nothing is trained beyond it."""
    iterations = 0 if order == BACKPROP else 2
    run = train_case(replace(CASE, order=order, iterations=iterations, step_size=0.1), goal=0.5)
    assert run.ended == "goal reached"
    assert run.accuracies[-1] >= 0.5 > max(run.accuracies[:-1], default=0)
    assert run.steps_to(0.5) == 22 * len(run.accuracies)
    assert run.steps_to(1.1) is None


def test_hope_is_given_up_late_enough(monkeypatch):
    """A run far below the goal ends after two fifths of its epochs, not before."""
    monkeypatch.setitem(parallelism_runs.EPOCHS, "digits", 5)
    run = train_case(replace(CASE, rate=1e-7), goal=0.9)
    assert (run.ended, len(run.accuracies)) == ("given up", 2)
    assert run.accuracies[-1] < HOPELESS * 0.9
    assert train_case(replace(CASE, rate=1e-7)).ended == "all epochs"


def test_overflow_is_a_result():
    """An order that blows up at some T has failed there; the study must go on."""
    run = train_case(replace(CASE, iterations=30, step_size=50.0), goal=0.9)
    assert run.ended == "not finite"
    assert run.settled < 0.9


def test_a_run_is_the_same_twice():
    """The same case must give the same curve, or a file could not be gone on with."""
    first, second = (train_case(CASE, goal=0.6) for _ in range(2))
    assert replace(first, seconds=0.0) == replace(second, seconds=0.0)


def test_initial_weights_keep_the_signal():
    """He's weights: sixteen ReLU layers must not shrink what a digit excites, as torch's own would."""
    case = replace(CASE, hidden=16, width=64)
    network, inputs = (
        initial_network(subset("digits"), case),
        subset("digits").inputs(np.arange(50), "float32"),
    )
    activity = inputs
    for weight, _ in network.parameters[:-1]:
        activity = np.maximum(activity @ weight.T, 0)
    assert 0.1 < float((activity**2).mean() / (inputs**2).mean()) < 10


def test_a_file_survives_a_killed_process(tmp_path):
    """SIGKILL in the middle loses the run under way and no other, and the same command goes on."""
    file = tmp_path / "runs.jsonl"
    code = (
        "from dataclasses import replace; from pathlib import Path;"
        "from pcsim.experiments.parallelism.runs import Book, Case;"
        f"book = Book(Path({str(file)!r})); case = {CASE!r}; book.run(case, 0.3); print('one', flush=True);"
        "[book.run(replace(case, seed=seed)) for seed in range(1, 50)]"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "one\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    with file.open("a") as out:
        out.write('{"data": "dig')  # what a full disk or a cut-off write would leave
    before = read_runs(file)
    assert before[0].case == CASE
    began = time.process_time()
    book = Book(file)
    assert book.run(CASE, 0.3) == before[0]
    assert time.process_time() - began < 0.5, "it was trained again"
    book.run(replace(CASE, seed=99), 0.3)
    assert [run.case.seed for run in read_runs(file)] == [*(run.case.seed for run in before), 99]


def test_a_run_that_ended_at_another_goal_is_run_again(tmp_path):
    """A run to 0.3 answered whoever asked for 0.9: an order that gets there was said not to."""
    file = tmp_path / "runs.jsonl"
    low, high = Book(file).run(CASE, 0.3), Book(file).run(CASE, 0.6)
    assert low.steps_to(0.6) is None
    assert high.steps_to(0.6) is not None
    assert Book(file).run(CASE, 0.3) == high, "it has come by 0.3"
    assert read_runs(file) == [high], "two lines of a case would count as two seeds"
    assert len(file.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("ended", "own", "answered", "open_"),
    [
        ("all epochs", None, (None, 0.4, 0.9), ()),
        ("all epochs", 0.8, (None, 0.4, 0.9), ()),
        ("not finite", 0.8, (None, 0.4, 0.9), ()),
        ("goal reached", 0.5, (0.4, 0.5, 0.6), (None, 0.7)),
        ("given up", 0.9, (0.5, 0.9, 1.0), (None, 0.7)),
    ],
)
def test_what_a_run_answers(ended, own, answered, open_):
    """A run that came to 0.6: complete, past the goal, or without hope of less; nothing else is reused."""
    run = Run(CASE, (0.2, 0.6), 22, own, ended, 0.0)
    assert all(run.answers(goal) for goal in answered)
    assert not any(run.answers(goal) for goal in open_)


def test_a_file_of_something_else_is_refused(tmp_path):
    """A wrong file must be named with its line, and stay as it was."""
    file = tmp_path / "runs.jsonl"
    file.write_text(made_up(CASE, 0.5).to_json() + "\n" + json.dumps({"data": "digits"}) + "\n")
    with pytest.raises(ConfigurationError, match="line 2"):
        read_runs(file)
    with pytest.raises(ConfigurationError, match="cannot read"):
        read_runs(tmp_path)
    with pytest.raises(ConfigurationError, match="digits, fashion-mnist"):
        subset("cifar-10")


def book_of(tmp_path: Path, runs: list[Run]) -> Book:
    """A file of runs, opened."""
    file = tmp_path / "runs.jsonl"
    file.write_text("".join(run.to_json() + "\n" for run in runs))
    return Book(file)


def test_the_search_goes_up_until_one_beyond_enough(tmp_path):
    """T = 1 fails, 2 fails with one seed, 3 is enough, 4 is one more, and nobody looks at 5.

    Everything is in the file: a search that wanted any other run would train it and take minutes.
    """
    runs = [*grid(1, 0.5, 0.6), *grid(2, 0.7, 0.9), *grid(3, 0.9, 0.9), *grid(4, 0.95, 0.95)]
    for s in STEP_SIZES:
        for r in RATES:
            runs += [made_up(TASK.case(2, s, r, seed), 0.9 if seed == 1 else 0.8) for seed in (1, 2)]
            runs += [made_up(TASK.case(T, s, r, seed), 0.9, 0.9) for seed in (1, 2) for T in (3, 4)]
    book = book_of(tmp_path, runs)
    size = (tmp_path / "runs.jsonl").stat().st_size
    found = list(search(book, replace(TASK, iterations=(1, 2, 3, 4, 5)), 0.85))
    assert [(iterations, len(runs)) for iterations, runs in found] == [(1, 1), (2, 3), (3, 3), (4, 3)]
    gentle = found[2][1][0].case
    assert (gentle.step_size, gentle.rate) == (min(STEP_SIZES), min(RATES)), "ties go to the gentler setting"
    assert (tmp_path / "runs.jsonl").stat().st_size == size


def test_the_goal_is_backprops_accuracy_less_a_point(tmp_path):
    """The better rate counts, with the median of its last three epochs, and all seeds."""
    case = replace(CASE, order=BACKPROP, iterations=0, step_size=0.0)
    runs = [made_up(replace(case, rate=RATES[0]), 0.1, 0.90, 0.99, 0.2)]
    runs += [made_up(replace(case, rate=RATES[1], seed=seed), 0.2, 0.91, 0.92, 0.99) for seed in SEEDS]
    chosen, goal = tune_backprop(book_of(tmp_path, runs), "digits", 2, 16)
    assert {run.case.rate for run in chosen} == {RATES[1]}
    assert goal == pytest.approx(0.92 - MARGIN)
    assert needs(runs)[0].goal == goal
    assert needs(runs)[0].steps == (44, 44, 44)


def test_needs_leave_out_what_is_half_done():
    """A T whose settings or seeds are still to come must not be called insufficient."""
    case = replace(CASE, order=BACKPROP, iterations=0, step_size=0.0)
    runs = [made_up(replace(case, seed=seed), 0.92, 0.92, 0.92) for seed in SEEDS]
    assert tried(needs(runs + grid(1, 0.5)[:-1]), 2, "sequential") == ()
    assert tried(needs(runs + grid(1, 0.95)), 2, "sequential") == ()  # good with seed 0, others to come
    rows = needs(runs + grid(1, 0.5))
    assert tried(rows, 2, "sequential") == (1,)
    assert smallest_enough(rows, 2, "sequential") is None
    full = runs + grid(1, 0.5) + [made_up(TASK.case(2, 0.2, RATES[0], seed), 0.8, 0.95) for seed in SEEDS]
    full += [run for run in grid(2, 0.5) if (run.case.step_size, run.case.rate) != (0.2, RATES[0])]
    found = smallest_enough(needs(full), 2, "sequential")
    assert found is not None
    assert (found.iterations, found.step_size, found.mean_steps) == (2, 0.2, 44)
    assert enough(needs(full), 2, "sequential") == [found]


def test_extrapolation_is_a_line_and_knows_its_limits():
    """T = 2, 4, 8 at 2, 4, 8 layers is 16 at 16; an order that fails at the deepest is not drawn further."""
    rows = []
    for hidden, T in ((2, 2), (4, 4), (8, 8)):
        base = replace(CASE, hidden=hidden, order=BACKPROP, iterations=0, step_size=0.0)
        runs = [made_up(replace(base, seed=seed), 0.9, 0.9) for seed in SEEDS]
        for order, last in (("simultaneous", 0.95), ("red-black", 0.95 if hidden < 8 else 0.5)):
            task = replace(TASK, hidden=hidden, order=order)
            seeds = SEEDS if last > 0.9 else SEEDS[:1]
            runs += [
                made_up(task.case(T, s, r, seed), last) for s in STEP_SIZES for r in RATES for seed in seeds
            ]
        rows += needs(runs)
    assert [extrapolated(rows, hidden, "simultaneous") for hidden in (6, 16, 256)] == [6, 16, 256]
    assert extrapolated(rows, 16, "red-black") is None
    assert extrapolated(rows, 16, "sequential") is None


def test_tasks_of_the_study():
    """Every static order is tried on digits; grids rise and end at the largest T that was asked for."""
    planned = tasks("digits", 4, 64, most=6)
    assert {task.order for task in planned} >= {"sequential", "simultaneous", "red-black", "bottom-up"}
    for task in planned:
        assert list(task.iterations) == sorted(set(task.iterations))
        assert task.iterations[-1] <= 6
