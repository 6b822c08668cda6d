"""What an algorithm would change in a network, without changing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np

from pcsim.engine.fast import FastEngine
from pcsim.engine.state import learnt, relearn
from pcsim.kernels import Array
from pcsim.network.constants import LearnFrom
from pcsim.network.network import LearnerFactory, Network
from pcsim.schedule.program import Program, Schedule
from pcsim.theory.problem import Floats, flatten

LONG = 1000  # iterations of a program that is not kept


def with_proximal_step(network: Network, proximal_step: float) -> Network:
    """Return the network with the soft clamp of another β; parameters are shared."""
    top = replace(network.traits[-1], mix=1 / (1 + proximal_step))
    return replace(network, traits=(*network.traits[:-1], top))


def program_of(network: Network, schedule: Schedule) -> Program:
    """Return a program, written out once for all dense networks alike, unless it is very long.

    Writing it out takes several times as long as running it once.
    """
    if schedule.iterations > LONG:
        return Program.build(network, schedule)
    kept = _program(network.sizes, network.traits[-1].mix, network.learn_output_from, schedule)
    return replace(kept, network=network)


@lru_cache(maxsize=128)
def _program(sizes: tuple[int, ...], mix: float, learn_from: LearnFrom, schedule: Schedule) -> Program:
    alike = Network.dense(sizes, learn_output_from=learn_from)
    top = replace(alike.traits[-1], mix=mix)  # which refreshed precisions depend on
    return Program.build(replace(alike, traits=(*alike.traits[:-1], top)), schedule)


def update(
    network: Network,
    schedule: Schedule,
    rule: LearnerFactory,
    inputs: Array,
    targets: Array,
    carried: Mapping[str, Array] | None = None,
) -> Floats:
    """Return the Δθ of one training step of inference learning, flat (see `Problem`), by the local units.

    Args:
        network: left as it is.
        schedule: order, T, ε.
        rule: such as SGD(0.1).
        inputs: x, (batch, n_0).
        targets: y, (batch, n_L).
        carried: the rule's state to begin from, such as MQ's v_l: mean_gradient_0, updates_0, ….
    """
    own = network.copy()
    engine = FastEngine(program_of(own, schedule), own.layers(len(inputs), rule))
    if carried is not None:
        weights = {name: array for name, array in learnt(engine.layers).items() if name not in carried}
        relearn(engine.layers, weights | dict(carried))
    before = flatten(own.parameters)
    with np.errstate(over="ignore", invalid="ignore"):  # a step too large shows in the result
        engine.step(inputs, targets)
    return flatten(own.parameters) - before
