"""Whether a layer's error and the one in the inbox below may be one array."""

from __future__ import annotations

import numpy as np
import pytest

from pcsim.engine.event import EventEngine
from pcsim.engine.fast import FastEngine
from pcsim.hardware.clock import unit
from pcsim.learning import SGD
from pcsim.network.layer import MessageKind
from pcsim.network.network import Network
from pcsim.schedule.program import Program, Schedule


def secretive(ops):
    """Layer 2 forms a new error and keeps it to itself; layer 1 relaxes by the one told before."""
    yield from ops.forward_sweep()
    for iteration in ops.iterations:
        yield ops.relax(2, iteration)
        yield ops.compare(2, iteration).silent()
        yield ops.relax(1, iteration)
        yield from ops.settle(iteration)
    yield from ops.learning_phase()


@pytest.mark.parametrize(("order", "alike"), [("sequential", {1, 2, 3}), (secretive, {1, 3})])
def test_only_what_is_told_is_shared(order, alike):
    """An untold error must not show below: both engines give the same bits."""
    weights = []
    for event in (False, True):
        network = Network.dense([3, 4, 4, 2], seed=1, dtype="float64")
        program = Program.build(network, Schedule(order, 2, 0.3))
        units = network.layers(2, SGD(0.1))
        engine = EventEngine(program, units, unit(), 2) if event else FastEngine(program, units)
        rng = np.random.default_rng(0)
        for _ in range(2):
            engine.step(rng.random((2, 3)), np.eye(2)[[0, 1]])
        weights.append([np.array(one.weight) for one in units[:-1]])
        if not event:
            told = {above: units[above - 1].inbox[MessageKind.ERROR] for above in (1, 2, 3)}
            shared = {above for above, inbox in told.items() if inbox is units[above].error}
            assert shared == program.tells_what_it_keeps == alike
    for fast, slow in zip(*weights, strict=True):
        np.testing.assert_array_equal(fast, slow)
