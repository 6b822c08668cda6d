"""Times the event queue without arithmetic: events a second, and how time grows with their number.

Example: `python -m pcsim.experiments.bench.events`
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np
import typer

from pcsim.engine.timing import compile_queue, timing_totals
from pcsim.hardware.clock import unit
from pcsim.network.network import Network
from pcsim.schedule.program import Program, Schedule


@dataclass(frozen=True)
class Timing:
    """Some mini-batches, simulated.

    Attributes:
        mini_batches: one after the other.
        events: operations and messages in all of them.
        seconds: median of some repetitions.
        rate: events a second.
    """

    mini_batches: int
    events: int
    seconds: float
    rate: float


def measure(layers: int, iterations: int, counts: Sequence[int], repetitions: int) -> list[Timing]:
    """Simulate so many mini-batches of a sequential program, time and traffic only.

    Args:
        layers: hidden ones, of four neurons each: what they compute takes no part in this.
        iterations: T.
        counts: mini-batches of each row.
        repetitions: of each, in turns.
    """
    network = Network.dense([4] * (layers + 2))
    program, hardware = Program.build(network, Schedule("sequential", iterations)), unit()
    compile_queue()
    taken: dict[int, list[float]] = {count: [] for count in counts}
    events = {}
    for _ in range(repetitions):
        for count in counts:
            begun = time.perf_counter()
            totals = timing_totals(program, hardware, 1, mini_batches=count)
            taken[count].append(time.perf_counter() - begun)
            events[count] = totals.operations + totals.messages
    found = []
    for count in counts:
        seconds = statistics.median(taken[count])
        found.append(Timing(count, events[count], seconds, events[count] / seconds))
    return found


@dataclass(frozen=True)
class Line:
    """Seconds = fixed + events / rate, fitted so that relative deviations are small.

    Attributes:
        fixed: seconds to read the program.
        rate: events a second after that.
        deviation: the largest one of a measurement from the line, relative.
    """

    fixed: float
    rate: float
    deviation: float

    @classmethod
    def through(cls, timings: Sequence[Timing]) -> Line:
        """Fit some timings."""
        events = np.array([one.events for one in timings], float)
        seconds = np.array([one.seconds for one in timings])
        slope, fixed = np.polyfit(events, seconds, 1, w=1 / seconds)
        deviation = np.abs((fixed + slope * events) / seconds - 1).max()
        return cls(float(fixed), float(1 / slope), float(deviation))


def main(
    layers: Annotated[int, typer.Option(help="Hidden layers.", min=1)] = 1000,
    iterations: Annotated[int, typer.Option(help="T.", min=1)] = 10,
    repetitions: Annotated[int, typer.Option(help="Of each row.", min=1)] = 5,
    most: Annotated[int, typer.Option(help="Mini-batches of the last row.", min=2)] = 160,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Print how fast the event queue is without arithmetic."""
    counts = sorted({max(1, round(most * part)) for part in (0.01, 0.03, 0.1, 0.3, 1)})
    timings = measure(layers, iterations, counts, repetitions)
    line = Line.through(timings)
    if as_json:
        typer.echo(json.dumps({"timings": [asdict(one) for one in timings], "line": asdict(line)}))
        return
    typer.echo(f"{'mini-batches':>12} {'events':>12} {'seconds':>9} {'million events/s':>17}")
    for one in timings:
        typer.echo(f"{one.mini_batches:>12} {one.events:>12,} {one.seconds:>9.3f} {one.rate / 1e6:>17.2f}")
    typer.echo(
        f"{line.fixed:.3f} s to read the program, then {line.rate / 1e6:.1f} million events a second; "
        f"no row is more than {100 * line.deviation:.0f} % from that line"
    )


if __name__ == "__main__":
    typer.run(main)
