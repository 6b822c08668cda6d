"""Times mini-batches in several processes beside the fast engine in one: `python -m` runs it.

Example: `python -m pcsim.experiments.bench.distributed --processes 2 --rounds 3`
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import typer

from pcsim.engine.distributed.engine import DistributedEngine
from pcsim.engine.distributed.plan import Distribution, Share
from pcsim.engine.distributed.team import Team
from pcsim.engine.fast import FastEngine
from pcsim.engine.observer import Statistics
from pcsim.errors import PcsimError
from pcsim.kernels import Array
from pcsim.kernels.backends import make_kernels
from pcsim.learning import MQ
from pcsim.network.network import Network
from pcsim.schedule.program import Program, Schedule

SIZES = (3072, 1024, 1024, 1024, 10)  # the paper's dense network
ORDERS = ("sequential", "simultaneous")


@dataclass(frozen=True)
class Timing:
    """One order.

    Attributes:
        order: its name.
        alone: milliseconds a mini-batch in one process, best of the rounds.
        together: milliseconds a mini-batch in several, best of the rounds.
        shares: what each process did in the best round.
    """

    order: str
    alone: float
    together: float
    shares: tuple[Share, ...]


def time_order(team: Team, order: str, batch: int, rounds: int, steps: int) -> Timing:
    """Let both engines take turns on the same network, in float32, with MQ and T = 3."""
    kernels = make_kernels("cpu")
    rng = np.random.default_rng(0)
    inputs = rng.random((batch, SIZES[0]), dtype=np.float32)
    targets = np.eye(SIZES[-1], dtype=np.float32)[rng.integers(SIZES[-1], size=batch)]
    schedule = Schedule(order, iterations=3)
    alone, together = float("inf"), float("inf")
    shares: tuple[Share, ...] = ()
    for _ in range(rounds):
        network = Network.dense(SIZES)
        fast = FastEngine(
            Program.build(network, schedule),
            network.layers(batch, MQ(1e-4), kernels),
            [Statistics(3, network.top)],
        )
        alone = min(alone, _milliseconds(fast.step, inputs, targets, steps))
        network = Network.dense(SIZES)
        program = Program.build(network, schedule)
        engine = DistributedEngine(team, program, MQ(1e-4), batch, kernels, Statistics(3, network.top))
        taken = _milliseconds(engine.step, inputs, targets, steps)
        if taken < together:
            together, shares = taken, tuple(engine.shares())
        engine.finish()
    return Timing(order, alone, together, shares)


def _milliseconds(step: Callable[[Array, Array], None], inputs: Array, targets: Array, steps: int) -> float:
    for _ in range(3):
        step(inputs, targets)
    begun = time.perf_counter()
    for _ in range(steps):
        step(inputs, targets)
    return 1e3 * (time.perf_counter() - begun) / steps


def _parts(share: Share) -> str:
    """Say which parts of its time a process computes and waits; the rest is communication."""
    total = share.compute + share.communication + share.waiting
    return f"{share.compute / total:.0%} {share.waiting / total:.0%}"


def main(
    processes: Annotated[int, typer.Option(min=1)] = 2,
    batch: Annotated[int, typer.Option(min=1)] = 64,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    steps: Annotated[int, typer.Option(min=1)] = 40,
) -> None:
    """Print what both engines take, and what each process did."""
    before = os.getloadavg()[0]
    with Team.start(Distribution(processes)) as team:
        timings = [time_order(team, order, batch, rounds, steps) for order in ORDERS]
    typer.echo(f"mini-batches of {batch}, {processes} processes, load {before:.1f} before")
    typer.echo(f"{'order':13} {'alone':>9} {'together':>9}  speed-up  efficiency  each computes, waits")
    for one in timings:
        speedup = one.alone / one.together
        said = "  ".join(_parts(share) for share in one.shares)
        times = f"{one.alone:6.1f} ms {one.together:6.1f} ms"
        typer.echo(f"{one.order:13} {times}  {speedup:8.2f}  {speedup / processes:10.0%}  {said}")


if __name__ == "__main__":
    try:
        typer.run(main)
    except PcsimError as error:
        raise SystemExit(f"error: {error}") from error
