"""Updates that the theory lab compares are those of the networks themselves."""

from __future__ import annotations

import numpy as np
import pytest

from pcsim.engine.fast import FastEngine
from pcsim.learning import SGD
from pcsim.network.network import Network
from pcsim.schedule.program import Program, Schedule
from pcsim.theory.problem import flatten
from pcsim.theory.samples import random_data
from pcsim.theory.updates import update


@pytest.mark.parametrize("learn_from", ["activity", "label"])
def test_updates_are_those_of_the_networks_own_program(learn_from):
    """Programs are kept, and a network that learns from y itself was given the one without y."""
    constants = {"proximal_step": 3.0, "learn_output_from": learn_from}
    network = Network.dense([3, 4, 2], dtype="float64", seed=1, **constants)
    schedule, data = Schedule(iterations=2), random_data(0, network, 5)
    own = network.copy()
    FastEngine(Program.build(own, schedule), own.layers(5, SGD(0.1))).step(*data)
    change = flatten(own.parameters) - flatten(network.parameters)
    np.testing.assert_array_equal(update(network, schedule, SGD(0.1), *data), change)
