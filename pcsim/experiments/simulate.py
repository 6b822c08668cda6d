"""One mini-batch through the event queue."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pcsim.engine.event import EventEngine
from pcsim.engine.observer import Statistics
from pcsim.engine.totals import Event, Totals
from pcsim.experiments.experiment import Experiment
from pcsim.kernels import Kernels
from pcsim.training.data import batches
from pcsim.training.loop import check_fit


def simulate_one(experiment: Experiment, kernels: Kernels) -> tuple[Sequence[Event], Totals]:
    """Simulate the first mini-batch of a training run; the network learns from it.

    Returns:
        Its events by start, and their totals.

    Raises:
        ShapeError: data and network do not fit.
        NonFiniteError: activities or energy became infinite or NaN.
    """
    network, batch = experiment.network, experiment.batch
    check_fit(network, experiment.dataset, batch)
    plan = experiment.schedule.plan(network, experiment.channels)
    units = network.layers(batch, experiment.rule, kernels)
    statistics = Statistics(plan.iterations, network.top)
    engine = EventEngine(plan, units, experiment.hardware, batch, [statistics], channels=experiment.channels)
    rng = np.random.default_rng([experiment.seed, 1])
    with np.errstate(all="ignore"):  # what overflows is found and named by the check
        engine.step(*next(batches(experiment.dataset, batch, rng, experiment.shuffle, network.dtype)))
    statistics.check_finite()
    return engine.timeline, engine.totals
