"""Times a training step on a GPU: with and without a graph, and each of its kernels.

Example: `python -m pcsim.experiments.bench.device --batch 64`
"""

from __future__ import annotations

import importlib
import json
import re
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pcsim.engine.fast import FastEngine
from pcsim.engine.observer import Observer, Onlooker
from pcsim.errors import PcsimError
from pcsim.experiments.bench.contestant import BATCHES, Samples
from pcsim.experiments.bench.plan import PAPER_SIZES, Workload
from pcsim.kernels.backends import make_kernels
from pcsim.learning import MQ
from pcsim.network.network import Network
from pcsim.schedule.program import Program, Schedule

if TYPE_CHECKING:
    from pcsim.network.layer import Layer
    from pcsim.schedule.operation import Operation

PROFILED = 20  # steps


class Bystander(Observer):
    """Looks on and does nothing: a step that somebody wants to see is not recorded as a graph."""

    def begin_step(self, step: int) -> None:
        """Nothing to do."""
        return

    def onlooker(self, operation: Operation) -> Onlooker:
        """Look at every operation."""

        def look(operation: Operation, unit: Layer) -> None:
            pass

        return look

    def end_step(self) -> None:
        """Nothing to do."""
        return


@dataclass(frozen=True)
class Node:
    """A kernel or copy of a step, at all places where it is started in the same way.

    Attributes:
        name: of its function.
        grid: blocks.
        block: threads of one.
        registers: of a thread.
        launches: in a step.
        microseconds: of one launch, the median.
    """

    name: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    registers: int
    launches: int
    microseconds: float


class Trained:
    """A network on the GPU, and samples to train it with."""

    def __init__(self, batch: int, iterations: int, observers: Sequence[Observer] = ()) -> None:
        network = Network.dense(PAPER_SIZES)
        kernels = make_kernels("cuda")
        self._engine = FastEngine(
            Program.build(network, Schedule("sequential", iterations)),
            network.layers(batch, MQ(3e-5), kernels),
            observers,
        )
        self._samples = Samples.of(Workload(PAPER_SIZES, batch, 1))
        self.steps(3)  # compiles, records, replays

    def steps(self, count: int) -> None:
        """Do so many; return when the last is done."""
        for step in range(count):
            self._engine.step(self._samples.inputs[step % BATCHES], self._samples.targets[step % BATCHES])
        self._engine.layers[0].update_magnitude  # noqa: B018 - to read it waits for the GPU

    def milliseconds(self, rounds: int, steps: int) -> list[float]:
        """Return the time of a step in each of some rounds."""
        found = []
        for _ in range(rounds):
            begun = time.perf_counter()
            self.steps(steps)
            found.append(1e3 * (time.perf_counter() - begun) / steps)
        return found

    def nodes(self) -> list[Node]:
        """Return the kernels of a step as a profiler sees them, in the order in which they first come."""
        tools = importlib.import_module("torch.profiler")
        with tools.profile(activities=[tools.ProfilerActivity.CUDA]) as profiler:
            self.steps(PROFILED)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            profiler.export_chrome_trace(str(path))
            events = json.loads(path.read_text())["traceEvents"]
        return list(_nodes(events))


def _nodes(events: Sequence[dict[str, Any]]) -> Iterator[Node]:
    """Gather what the profiler noted of `PROFILED` steps."""
    done: dict[tuple[Any, ...], list[float]] = {}
    ours = [one for one in events if one.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
    for one in sorted(ours, key=lambda one: float(one["ts"])):
        facts = one["args"]
        grid, block = (tuple(facts.get(key, ())) for key in ("grid", "block"))
        key = short_name(one["name"]), grid, block, facts.get("registers per thread", 0)
        done.setdefault(key, []).append(float(one["dur"]))
    for key, times in done.items():
        if len(times) >= PROFILED:  # what is less was no part of a step: the last one's number was read
            yield Node(*key, round(len(times) / PROFILED), statistics.median(times))


def short_name(name: str) -> str:
    """Return the function's own name, of a name as a compiler of C++ or Numba writes it."""
    if name.startswith("_ZN"):
        rest, parts = name[3:], []
        while match := re.match(r"\d+", rest):
            length = int(match.group())
            parts.append(rest[match.end() :][:length])
            rest = rest[match.end() + length :]
        return parts[-1] if parts else name
    return re.sub(r"^.*::", "", re.sub(r"[<(].*", "", name.removeprefix("void ")))


def main(
    batch: Annotated[int, typer.Option(help="Samples a mini-batch.", min=1)] = 64,
    iterations: Annotated[int, typer.Option(help="T.", min=1)] = 3,
    rounds: Annotated[int, typer.Option(help="Turns.", min=1)] = 7,
    steps: Annotated[int, typer.Option(help="Steps a turn.", min=1)] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what a training step of the paper's dense network takes on this machine's GPU."""
    try:
        graph, acted = Trained(batch, iterations), Trained(batch, iterations, [Bystander()])
    except PcsimError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    times: dict[str, list[float]] = {"replayed as a graph": [], "operation by operation": []}
    for _ in range(rounds):
        times["replayed as a graph"] += graph.milliseconds(1, steps)
        times["operation by operation"] += acted.milliseconds(1, steps)
    nodes = graph.nodes()
    if as_json:
        print(json.dumps({"milliseconds": times, "nodes": [asdict(node) for node in nodes]}))
        return
    for name, found in times.items():
        print(f"{name}: {statistics.median(found):.3f} ms a step ({min(found):.3f} to {max(found):.3f})")
    busy = sum(node.launches * node.microseconds for node in nodes)
    print(f"in kernels: {busy:.0f} µs of {sum(node.launches for node in nodes)} nodes\n")
    print(
        "| kernel | grid | block | registers | launches | µs each | µs a step |\n"
        "|---|---|---|---|---|---|---|"
    )
    for node in nodes:
        shape = ["×".join(map(str, extent)) for extent in (node.grid, node.block)]
        total = node.launches * node.microseconds
        print(
            f"| {node.name} | {shape[0]} | {shape[1]} | {node.registers} | {node.launches} "
            f"| {node.microseconds:.1f} | {total:.1f} |"
        )


if __name__ == "__main__":
    typer.run(main)
