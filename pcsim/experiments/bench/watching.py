"""Times what looking on costs a training step: engines take turns on the same layers. `python -m` runs it.

`pcsim bench` gives each contender a process of its own, and where a process has its weights makes it some per
cent faster or slower for life, as much as there is to measure here.

Example: `python -m pcsim.experiments.bench.watching --batch 1 --rounds 40`
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from pcsim.engine.event import EventEngine
from pcsim.engine.fast import FastEngine
from pcsim.engine.observer import Statistics
from pcsim.errors import PcsimError
from pcsim.experiments.bench.contestant import BATCHES, Samples
from pcsim.experiments.bench.plan import Workload
from pcsim.experiments.bench.report import Spread
from pcsim.hardware.clock import unit
from pcsim.kernels.backends import make_kernels
from pcsim.learning import MQ
from pcsim.network.network import Network
from pcsim.schedule.program import Program, Schedule
from pcsim.tracing import TraceWriter
from pcsim.tracing.recorder import Recorder

SIZES, ITERATIONS = (3072, 1024, 1024, 1024, 10), 3  # the paper's dense network
BARE = "fast engine, nobody looks on"


@dataclass(frozen=True)
class Watched:
    """An engine, and the statistics that are checked after each of its steps, if it has any."""

    engine: FastEngine | EventEngine
    statistics: Statistics | None = None

    def burst(self, samples: Samples, steps: int) -> float:
        """Take some steps; return the milliseconds of one."""
        begun = time.perf_counter()
        for step in range(steps):
            self.engine.step(samples.inputs[step % BATCHES], samples.targets[step % BATCHES])
            if self.statistics is not None:
                self.statistics.check_finite()
        return 1e3 * (time.perf_counter() - begun) / steps


@contextmanager
def contenders(sizes: tuple[int, ...], batch: int, threads: int) -> Iterator[Mapping[str, Watched]]:
    """Give engines on the same layers, by what is measured; a trace goes to a temporary folder."""
    network = Network.dense(sizes)
    program = Program.build(network, Schedule("sequential", ITERATIONS))
    kernels = make_kernels("cpu", "float32", threads)
    layers = network.layers(batch, MQ(3e-5), kernels)
    plain, recorded = (Statistics(ITERATIONS, network.top) for _ in range(2))
    with (
        tempfile.TemporaryDirectory(prefix="pcsim-bench-") as folder,
        # It is written to a fourth of the time only: as many rows are flushed at once as in a run.
        TraceWriter(Path(folder) / "trace.h5", {}, flush_seconds=4.0) as writer,
        kernels.postponing(),
    ):
        recorder = Recorder(writer, network, layers, recorded, ITERATIONS, every=1)
        yield {
            BARE: Watched(FastEngine(program, layers)),
            "statistics": Watched(FastEngine(program, layers, [plain]), plain),
            "statistics, a trace row every step": Watched(
                FastEngine(program, layers, [recorded, recorder]), recorded
            ),
            "event engine, nobody looks on": Watched(EventEngine(program, layers, unit(), batch)),
        }


def measure(
    sizes: tuple[int, ...], batch: int, threads: int, rounds: int, steps: int
) -> dict[str, tuple[Spread, Spread]]:
    """Return milliseconds of a step, and ratios to the bare engine paired by round, by contender."""
    samples = Samples.of(Workload(sizes, batch, threads))
    with contenders(sizes, batch, threads) as engines:
        for one in engines.values():
            one.burst(samples, 3)
        turns = [{name: one.burst(samples, steps) for name, one in engines.items()} for _ in range(rounds)]
    bare = [turn[BARE] for turn in turns]
    times = {name: [turn[name] for turn in turns] for name in turns[0]}
    return {name: (Spread.of(taken), Spread.of_ratios(taken, bare)) for name, taken in times.items()}


def main(
    batch: Annotated[int, typer.Option(min=1)] = 1,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    rounds: Annotated[int, typer.Option(min=1)] = 40,
    steps: Annotated[int, typer.Option(min=1, help="Of each contender in a round.")] = 60,
    as_json: Annotated[bool, typer.Option("--json")] = False,
    tiny: Annotated[bool, typer.Option("--tiny", help="A tiny network: tests the harness only.")] = False,
) -> None:
    """Print what a step takes, and how much more than if nobody looked on."""
    before = os.getloadavg()[0]
    found = measure((12, 8, 8, 4) if tiny else SIZES, batch, threads, rounds, steps)
    if as_json:
        typer.echo(
            json.dumps(
                {name: {"milliseconds": vars(ms), "ratio": vars(r)} for name, (ms, r) in found.items()}
            )
        )
        return
    typer.echo(f"mini-batches of {batch}, threads {threads}, {rounds} rounds, load {before:.1f} before")
    typer.echo(f"{'':36} {'ms':>7}  ratio  quartiles")
    for name, (taken, ratio) in found.items():
        typer.echo(f"{name:36} {taken.median:7.3f}  {ratio.median:5.3f}  {ratio.lower:.3f}–{ratio.upper:.3f}")


if __name__ == "__main__":
    try:
        typer.run(main)
    except PcsimError as error:
        raise SystemExit(f"error: {error}") from error
