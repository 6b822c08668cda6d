"""Figure 1: the proximal loss of the update that would be made after t iterations, against t."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from pcsim.learning import SGD
from pcsim.network.network import Network
from pcsim.theory.distances import REMEMBERED, Case, Contender, change_of, contenders, train
from pcsim.theory.optimum import over_activities
from pcsim.theory.problem import Floats, Problem
from pcsim.theory.samples import nobody
from pcsim.training.data import load_dataset

SIZES = (64, 32, 32, 10)
ITERATIONS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 30, 50, 100, 200)
NORMALISED_STEP, STATIC_STEP = 1.0, 0.1  # four times as large, the first one does not settle
FARTHEST = 12.0  # natural logarithm of the factors on a free rate that are tried


@dataclass(frozen=True)
class Curve:
    """One algorithm.

    Attributes:
        name: the algorithm.
        iterations: t.
        losses: proximal loss of the update after t iterations, mean over the samples.
        gaps: (loss − optimum)/(loss of no update − optimum), mean over the samples; 0 is the proximal update.
    """

    name: str
    iterations: tuple[int, ...]
    losses: tuple[float, ...]
    gaps: tuple[float, ...]


@dataclass(frozen=True)
class Figure1:
    """Proximal losses, mean over the samples.

    Attributes:
        proximal_step: β.
        samples: how many mini-batches of one.
        before: of no update.
        optimum: of the proximal update.
        sgd: of −β∇Loss, one explicit step of backprop.
        sgd_gap: its gap, as that of a curve.
        backprop_gap: that of −c∇Loss with the best c for each sample.
        curves: an algorithm each.
    """

    proximal_step: float
    samples: int
    before: float
    optimum: float
    sgd: float
    sgd_gap: float
    backprop_gap: float
    curves: tuple[Curve, ...]


def figure1(
    cases: Sequence[Case] | None = None,
    *,
    proximal_step: float = 1.0,
    iterations: Sequence[int] = ITERATIONS,
    normalised_step: float = NORMALISED_STEP,
    static_step: float = STATIC_STEP,
    advance: Callable[[], None] = nobody,
) -> Figure1:
    """Measure proximal losses along the inference iterations, each for a mini-batch of one.

    Args:
        cases: a network and a sample each; `digits_cases()` if not given. Smooth f.
        proximal_step: β.
        iterations: t.
        normalised_step: ε with the precisions of Theorem 1; no decay.
        static_step: ε with precisions of 1; no decay.
        advance: called after each case.

    Raises:
        ConfigurationError: a network with convolutions or not in float64, or an optimum is not found.
    """
    cases = digits_cases() if cases is None else cases
    algorithms = [
        *contenders(normalised_step, static_step),
        Contender("simultaneous IL, one static rate", "simultaneous", static_step, SGD(1.0), True),
    ]
    losses = np.empty((len(cases), len(algorithms), len(iterations)))
    lines = np.empty((len(cases), 4))  # before, optimum, SGD at rate β, SGD at its best rate
    for index, case in enumerate(cases):
        problem = case.problem(proximal_step)
        slope = problem.gradient(problem.start)
        descent = problem.proximal_loss(-proximal_step * slope)
        best = over_activities(problem).loss
        lines[index] = problem.loss(problem.start), best, descent, _best_rate(problem, -slope)
        for row, one in enumerate(algorithms):
            losses[index, row] = [_loss(one, case, problem, count) for count in iterations]
        advance()
    before, optimum = lines[:, 0], lines[:, 1]
    room = (before - optimum)[:, None]
    line_gaps = ((lines - optimum[:, None]) / room).mean(axis=0)
    gaps = (losses - optimum[:, None, None]) / room[:, :, None]
    curves = [
        Curve(one.name, tuple(iterations), _floats(losses[:, row].mean(0)), _floats(gaps[:, row].mean(0)))
        for row, one in enumerate(algorithms)
    ]
    means = lines.mean(axis=0)
    return Figure1(
        proximal_step,
        len(cases),
        before=float(means[0]),
        optimum=float(means[1]),
        sgd=float(means[2]),
        sgd_gap=float(line_gaps[2]),
        backprop_gap=float(line_gaps[3]),
        curves=tuple(curves),
    )


def digits_cases(samples: int = 20, seed: int = 0, sizes: Sequence[int] = SIZES) -> list[Case]:
    """Train a tanh network with squared error on the 8×8 digits for an epoch, one sample at a time.

    Args:
        samples: test samples to take, a case each.
        seed: of the initial weights.
        sizes: neurons a layer, from 64 to 10.

    Raises:
        ShapeError: other sizes at the ends.
    """
    data = load_dataset("digits")
    network = Network.dense(
        sizes, activation="tanh", output="identity", proximal_step=100.0, dtype="float64", seed=seed
    )
    rows = np.arange(len(data.train_inputs))
    inputs, targets = data.inputs(rows, np.float64), data.targets(rows, np.float64)
    train(network, inputs, targets)
    past = inputs[-REMEMBERED:], targets[-REMEMBERED:]
    tests = np.arange(min(samples, len(data.test_inputs)))[:, None]
    return [
        Case(network, *past, data.inputs(row, np.float64, "test"), data.targets(row, np.float64, "test"))
        for row in tests
    ]


def _loss(one: Contender, case: Case, problem: Problem, iterations: int) -> float:
    """Return the proximal loss of one algorithm's update, at its best rate if that is free."""
    change = change_of(one, case, problem, iterations)
    return _best_rate(problem, change) if one.free_rate else problem.proximal_loss(change)


def _best_rate(problem: Problem, change: Floats) -> float:
    """Return the least proximal loss of c · change over c > 0."""

    def loss(power: float) -> float:
        return problem.proximal_loss(np.exp(power) * change)

    tries = np.linspace(-FARTHEST, FARTHEST, 49)
    near = tries[np.argmin([loss(power) for power in tries])]
    return float(minimize_scalar(loss, bounds=(near - 0.5, near + 0.5), method="bounded").fun)


def _floats(values: Floats) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
