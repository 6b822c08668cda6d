"""Theorem 1's exact core: minimising over activities gives the proximal update over weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pcsim.learning import NLMS
from pcsim.network.network import Network
from pcsim.schedule.program import Schedule
from pcsim.theory.optimum import over_activities, over_weights, relative_distance
from pcsim.theory.problem import Floats, Problem
from pcsim.theory.samples import OUTPUTS, SMOOTH, nobody, random_data, random_network
from pcsim.theory.updates import update, with_proximal_step

STEPS = (0.01, 0.1, 1.0, 10.0, 100.0)
SAME = 1e-3  # farther apart than this, two minima are not the same one


@dataclass(frozen=True)
class Agreement:
    """One random network at one β.

    Attributes:
        sizes: neurons a layer.
        activation: f.
        output: the output function.
        proximal_step: β.
        distance: ‖Δθ_core − Δθ*‖/‖Δθ*‖; both searches begin where the network stands.
        distance_nearby: the same when the core begins at the activities that Δθ* realises.
        distance_units: of the update that pcsim's local units make with refreshed precisions after many
            iterations, to the minimum of the core next to it; None unless the output is the identity, whose
            clamp alone is exact.
        gradient_weights: gradient norm that the search over weights ended with.
        gradient_activities: that of the search over activities.
        loss: the proximal loss at Δθ*.
        loss_core: at the core's update.
    """

    sizes: tuple[int, ...]
    activation: str
    output: str
    proximal_step: float
    distance: float
    distance_nearby: float
    distance_units: float | None
    gradient_weights: float
    gradient_activities: float
    loss: float
    loss_core: float

    @property
    def same(self) -> bool:
        """Whether both searches found the same minimum."""
        return self.distance < SAME


def compare_core(problem: Problem, iterations: int, step_size: float = 0.1) -> Agreement:
    """Solve one proximal problem of one sample over weights, over activities and by local units."""
    best, core = over_weights(problem), over_activities(problem)
    nearby = over_activities(problem, start=_realised(problem, best.change))
    network = problem.network
    return Agreement(
        network.sizes,
        network.traits[1].activation,
        problem.output,
        problem.proximal_step,
        relative_distance(core.change, best.change),
        relative_distance(nearby.change, best.change),
        _by_units(problem, iterations, step_size) if problem.output == "identity" else None,
        best.gradient_norm,
        core.gradient_norm,
        best.loss,
        core.loss,
    )


def check_theorem1(
    steps: Sequence[float] = STEPS,
    networks: int = 18,
    seed: int = 0,
    iterations: int = 4000,
    advance: Callable[[], None] = nobody,
) -> list[Agreement]:
    """Compare core and proximal update on random networks at each β.

    Args:
        steps: β.
        networks: how many, of 2 to 4 connections with 2 to 6 neurons a layer, each f with each output.
        seed: of the draw.
        iterations: T of the local units.
        advance: called after each network.

    Raises:
        ConfigurationError: a minimum cannot be found.
    """
    found = []
    for network, inputs, targets in _draw(networks, seed):
        found += [compare_core(Problem(network, inputs, targets, beta), iterations) for beta in steps]
        advance()
    return found


def _draw(networks: int, seed: int) -> Iterator[tuple[Network, Floats, Floats]]:
    rng = np.random.default_rng(seed)
    for index in range(networks):
        sizes = [int(size) for size in rng.integers(2, 7, size=rng.integers(3, 6))]
        activation, output = SMOOTH[index % 3], OUTPUTS[index // 3 % 3]
        own = int(rng.integers(2**31))
        network = random_network(own, sizes, activation=activation, output=output)
        yield network, *random_data(own, network, 1)


def _realised(problem: Problem, change: Floats) -> Floats:
    return np.concatenate([row[0] for row in problem.forward(problem.start + change)[1:]])


def _by_units(problem: Problem, iterations: int, step_size: float) -> float:
    schedule = Schedule("sequential", iterations, step_size, "none", "theorem 1")
    network = with_proximal_step(problem.network, problem.proximal_step)
    change = update(network, schedule, NLMS(), problem.inputs, problem.targets)
    nearest = over_activities(problem, start=_realised(problem, change))
    return relative_distance(change, nearest.change)
