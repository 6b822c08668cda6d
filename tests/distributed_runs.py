"""Running random simulations in several processes, for the tests beside this file."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from strategies import RULES, Case, Outcome, States

from pcsim.engine.distributed.engine import DistributedEngine
from pcsim.engine.distributed.plan import Watch
from pcsim.engine.observer import Statistics
from pcsim.kernels import reference

EVERYTHING = Watch(1, frozenset({"activity", "error", "prediction", "message"}), frozenset(range(99)))


def run_distributed(
    team: Any, case: Case, *, kernels: Any = reference, network: Any = None, program: Any = None
) -> dict[Any, bytes]:
    """Run all mini-batches of a case in the processes of a team; return everything numeric, as bytes."""
    network = network or case.network()
    plan = replace(program, network=network) if program else case.schedule().plan(network)
    states, statistics = States(), Statistics(case.iterations, case.top)
    engine = DistributedEngine(team, plan, RULES[case.rule], case.batch, kernels, statistics, [EVERYTHING])
    engine.observers.append(states)
    energies = []
    for inputs, targets in case.data():
        engine.step(inputs, targets)
        energies.append(np.stack([statistics.squared_error, statistics.free_energy]))
    network.gather(engine.layers)
    found = Outcome(states, energies, network, tuple(engine.layers), engine).bits()
    engine.finish()
    return found


def engine_of(team: Any, case: Case) -> DistributedEngine:
    """Return an engine for a case."""
    plan = case.schedule().plan(case.network())
    statistics = Statistics(case.iterations, case.top)
    return DistributedEngine(team, plan, RULES[case.rule], case.batch, reference, statistics)
