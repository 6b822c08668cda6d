"""How far the updates of learning algorithms are from the proximal update, along T and β."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pcsim.engine.fast import FastEngine
from pcsim.errors import NonFiniteError
from pcsim.kernels import Array
from pcsim.learning import MQ, NLMS, SGD
from pcsim.network.network import LearnerFactory, Network
from pcsim.schedule.precisions import CONSTANT
from pcsim.schedule.program import Program, Schedule
from pcsim.theory.optimum import cosine, over_weights, relative_distance
from pcsim.theory.problem import Floats, Problem
from pcsim.theory.samples import nobody, random_data, random_network
from pcsim.theory.updates import program_of, update, with_proximal_step

SIZES = (8, 10, 10, 4)
ITERATIONS = (0, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
STEPS = tuple(float(10**power) for power in np.arange(-2, 2.1))
WARM = MQ(rate=3e-4)
HOLD = MQ(rate=1e-12, minimum_rate=0.0)  # lets v_l follow the gradients while the weights stay
REMEMBERED = 20  # samples that v_l is the mean of
NORMALISED_STEP, STATIC_STEP = 0.2, 0.1  # ε, "none" decay, so that many iterations settle


@dataclass(frozen=True)
class Contender:
    """An algorithm: its order, step of the activities, rule, whether its rate is free, and its precisions."""

    name: str
    order: str
    step_size: float
    rule: LearnerFactory
    free_rate: bool
    precisions: str = CONSTANT


@dataclass(frozen=True)
class Distance:
    """One algorithm, T and β, over random networks.

    Attributes:
        name: the algorithm.
        iterations: T.
        proximal_step: β.
        distances: ‖Δθ − Δθ*‖/‖Δθ*‖ of each network; where the rate is free, at the rate that suits best.
        cosines: of the angle between Δθ and Δθ*.
    """

    name: str
    iterations: int
    proximal_step: float
    distances: tuple[float, ...]
    cosines: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median distance."""
        return float(np.median(self.distances))


def contenders(normalised: float = NORMALISED_STEP, static: float = STATIC_STEP) -> list[Contender]:
    """Return the algorithms: precisions of Theorem 1, exact and printed, and standard inference learning.

    Args:
        normalised: ε with the precisions of Theorem 1, which are below 1.
        static: ε with precisions of 1.
    """
    refreshed = {
        "Theorem 1, exact": "theorem 1",
        "Theorem 1, printed": "theorem 1 as printed",
        "Theorem 1, printed, β moved": "theorem 1 with printed decay",
    }
    return [
        *(
            Contender(name, "sequential", normalised, NLMS(), False, precisions)
            for name, precisions in refreshed.items()
        ),
        Contender("SeqIL, normalised rates", "sequential", static, NLMS(), False),
        Contender("SeqIL, one static rate", "sequential", static, SGD(1.0), True),
        Contender("SeqIL-MQ", "sequential", static, WARM, True),
    ]


@dataclass(frozen=True)
class Case:
    """A network that has learnt for a while, the samples that it has last learnt from, and the next one.

    Attributes:
        network: dense, float64.
        past_inputs: (samples, n_0).
        past_targets: (samples, n_L).
        inputs: (1, n_0).
        targets: (1, n_L).
    """

    network: Network
    past_inputs: Floats
    past_targets: Floats
    inputs: Floats
    targets: Floats

    def problem(self, proximal_step: float) -> Problem:
        """Return the proximal problem; β sets the soft clamp of inference learning too."""
        softened = with_proximal_step(self.network, proximal_step)
        return Problem(softened, self.inputs, self.targets, proximal_step)


def warm_case(seed: int, sizes: Sequence[int] = SIZES, samples: int = 300) -> Case:
    """Draw a network and a teacher, let the network learn from so many samples by SeqIL-MQ, one at a time.

    Raises:
        ShapeError: sizes that make no network.
    """
    network = random_network(seed, sizes, gain=1.0, proximal_step=100.0).copy()
    teacher = random_network(seed + 10_000, sizes, gain=2.0)
    inputs, _ = random_data(seed, network, samples + 1)
    targets = teacher.predict(inputs).astype(np.float64)
    train(network, inputs[:-1], targets[:-1])
    past = slice(-1 - REMEMBERED, -1)
    return Case(network, inputs[past], targets[past], inputs[-1:], targets[-1:])


def train(network: Network, inputs: Floats, targets: Floats) -> None:
    """Let a network learn from samples one by one, by SeqIL-MQ with T = 3 and ε = 0.05."""
    program = Program.build(network, Schedule("sequential", 3, 0.05))
    engine = FastEngine(program, network.layers(1, WARM))
    for x, y in zip(inputs, targets, strict=True):
        engine.step(x[None], y[None])


def change_of(one: Contender, case: Case, problem: Problem, iterations: int) -> Floats:
    """Return the Δθ that an algorithm would make after so many iterations.

    MQ's v_l are the mean |[G_l, g_l]| of the past samples after as many iterations, weights held.

    Raises:
        NonFiniteError: activities blow up.
    """
    schedule = Schedule(one.order, iterations, one.step_size, "none", one.precisions)
    carried = _mean_gradients(case, problem, schedule) if one.rule is WARM else None
    change = update(problem.network, schedule, one.rule, case.inputs, case.targets, carried)
    if not np.isfinite(change).all():
        raise NonFiniteError(f"update of {one.name}, beta {problem.proximal_step:g},", 0, 0, iterations)
    return change


def _mean_gradients(case: Case, problem: Problem, schedule: Schedule) -> Mapping[str, Array]:
    network = problem.network.copy()
    engine = FastEngine(program_of(network, schedule), network.layers(1, HOLD))
    for x, y in zip(case.past_inputs, case.past_targets, strict=True):
        engine.step(x[None], y[None])
    arrays = engine.state()[0]
    return {name: array for name, array in arrays.items() if not name.startswith(("weight", "bias"))}


def measure_distances(
    iterations: Sequence[int] = ITERATIONS,
    steps: Sequence[float] = STEPS,
    *,
    proximal_step: float = 1.0,
    most_iterations: int = 500,
    networks: int = 10,
    seed: int = 0,
    sizes: Sequence[int] = SIZES,
    advance: Callable[[], None] = nobody,
) -> tuple[list[Distance], list[Distance]]:
    """Return distances along T at one β, and along β at one T.

    Args:
        iterations: T of the first list.
        steps: β of the second list.
        proximal_step: β of the first list.
        most_iterations: T of the second list.
        networks: how many.
        seed: of the first; the others follow.
        sizes: neurons a layer.
        advance: called after each network.

    Raises:
        NonFiniteError: an algorithm's activities blow up.
        ConfigurationError: a proximal update cannot be found.
    """
    points = [(count, proximal_step) for count in iterations] + [(most_iterations, beta) for beta in steps]
    found: dict[tuple[int, int, str], list[tuple[float, float]]] = {}
    for index in range(networks):
        case = warm_case(seed + index, sizes)
        best = {beta: over_weights(case.problem(beta)).change for _, beta in points}
        for place, (count, beta) in enumerate(points):
            for one in contenders():
                pair = _measure(one, case, beta, count, best[beta])
                found.setdefault((place, count, one.name), []).append(pair)
        advance()
    rows = [
        Distance(name, count, points[place][1], *zip(*pairs, strict=True))
        for (place, count, name), pairs in found.items()
    ]
    cut = len(iterations) * len(contenders())
    return rows[:cut], rows[cut:]


def _measure(one: Contender, case: Case, beta: float, iterations: int, best: Floats) -> tuple[float, float]:
    """Return distance and cosine of one algorithm's update."""
    change = change_of(one, case, case.problem(beta), iterations)
    angle = cosine(change, best)
    near = float(np.sqrt(max(0.0, 1 - angle**2))) if one.free_rate else relative_distance(change, best)
    return near, angle
