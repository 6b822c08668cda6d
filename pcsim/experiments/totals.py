"""What training computes and sends where no engine counts it: it is the same in every mini-batch."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

from pcsim.engine.event import EventEngine
from pcsim.engine.totals import Totals
from pcsim.experiments.experiment import Experiment
from pcsim.schedule.program import Program

UNCOUNTED = -1  # of non-zero values, where no engine looked at the messages


def totals_of_program(program: Program, experiment: Experiment) -> Totals:
    """Return the totals of one mini-batch; NaN as simulated time where that differs from one to the next."""
    clock = EventEngine(program, None, experiment.hardware, experiment.batch)
    clock.simulate()
    once = replace(clock.totals, nonzero_values=UNCOUNTED)
    hardware, channels = experiment.hardware, experiment.channels
    sized = channels.carry and (hardware.time_per_value or hardware.time_per_byte or channels.faults.dead)
    return replace(once, simulated_time=math.nan) if hardware.links.jitter or sized else once


def totals_of_backprop(experiment: Experiment) -> Totals:
    """Return the totals of one mini-batch of backpropagation, which sends nothing and has no clock."""
    connections = experiment.network.connections
    products = 3 * sum(connection.multiplications for connection in connections)
    products -= connections[0].multiplications  # nobody needs the gradient of the input
    return Totals(
        multiplications=experiment.batch * products, nonzero_values=UNCOUNTED, simulated_time=math.nan
    )


def multiplied(once: Totals, steps: int) -> Totals:
    """Return the totals of so many mini-batches."""
    return Totals(**{name: n if n == UNCOUNTED else n * steps for name, n in asdict(once).items()})
