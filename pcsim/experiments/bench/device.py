"""Times a training step on a GPU: with and without a graph, beside PyTorch's, and each of its kernels.

Example: `python -m pcsim.experiments.bench.device --batch 64`
"""

from __future__ import annotations

import importlib
import json
import re
import statistics
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pcsim.engine.fast import FastEngine
from pcsim.engine.observer import Observer, Onlooker
from pcsim.errors import PcsimError
from pcsim.experiments.bench.contestant import BATCHES, Samples
from pcsim.experiments.bench.plan import PAPER_SIZES, Workload
from pcsim.kernels.backends import make_kernels
from pcsim.kernels.cuda_arrays import Staging
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
        microseconds: of one launch, the mean: places may differ.
    """

    name: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    registers: int
    launches: int
    microseconds: float


class Timed(ABC):
    """Somebody who trains the network."""

    @abstractmethod
    def steps(self, count: int) -> None:
        """Do so many training steps; return when the last is done."""

    def milliseconds(self, steps: int) -> float:
        """Return the time of a step."""
        begun = time.perf_counter()
        self.steps(steps)
        return 1e3 * (time.perf_counter() - begun) / steps


class Trained(Timed):
    """pcsim on the GPU, with sequential inference and MQ."""

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
        """See `Timed`."""
        for step in range(count):
            self._engine.step(self._samples.inputs[step % BATCHES], self._samples.targets[step % BATCHES])
        self._engine.layers[0].update_magnitude  # noqa: B018 - to read it waits for the GPU

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


class Backprop(Timed):
    """PyTorch as its tutorials write it: eager, Sequential, CrossEntropyLoss and SGD.

    As a graph it gets its mini-batches as pcsim does, beside its work; else it copies them.

    Args:
        batch: samples a mini-batch.
        as_graph: whether a step is captured as a CUDA graph and replayed.
        device: where; a graph needs a GPU.
    """

    def __init__(self, batch: int, as_graph: bool, device: str = "cuda") -> None:
        self._torch = torch = importlib.import_module("torch")
        layers = [(torch.nn.Linear(*ends), torch.nn.ReLU()) for ends in pairwise(PAPER_SIZES)]
        self._model = torch.nn.Sequential(*[one for pair in layers for one in pair][:-1]).to(device)
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=0.01)
        self._loss, self._device = torch.nn.CrossEntropyLoss(), device
        self._samples = samples = Samples.of(Workload(PAPER_SIZES, batch, 1))
        on_host: list[Any] = [torch.from_numpy(part) for part in (samples.inputs, samples.labels)]
        self._host = [part.pin_memory() if device == "cuda" else part for part in on_host]
        self._inputs, self._labels = (part[0].to(device) for part in self._host)
        self._go, self._staging = self._act, list[Staging]()
        if as_graph:
            aside = torch.cuda.Stream()
            with torch.cuda.stream(aside):
                for _ in range(3):
                    self._act()
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._act()
            self._go = graph.replay
            self._staging = [Staging(held) for held in (self._inputs, self._labels)]

    def _bring(self, batch: int) -> None:
        if self._staging:
            self._staging[0].bring(self._samples.inputs[batch])
            self._staging[1].bring(self._samples.labels[batch])
            return
        for held, host in zip((self._inputs, self._labels), self._host, strict=True):
            held.copy_(host[batch], non_blocking=True)

    def _act(self) -> None:
        self._optimizer.zero_grad()
        self._loss(self._model(self._inputs), self._labels).backward()
        self._optimizer.step()

    def steps(self, count: int) -> None:
        """See `Timed`."""
        for step in range(count):
            self._bring(step % BATCHES)
            self._go()
        if self._device == "cuda":
            self._torch.cuda.synchronize()


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
            yield Node(*key, round(len(times) / PROFILED), statistics.mean(times))


def short_name(name: str) -> str:
    """Return the function's own name, of a name as a compiler of C++ or Numba writes it."""
    if name.startswith("_ZN"):
        rest, parts = name[3:], []
        while match := re.match(r"\d+", rest):
            length = int(match.group())
            parts.append(rest[match.end() :][:length])
            rest = rest[match.end() + length :]
        return parts[-1] if parts else name
    return re.sub(r"^.*::", "", re.sub(r"[<(].*", "", name.removeprefix("void "))).strip()


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
    contenders: dict[str, Timed] = {
        "pcsim, replayed as a graph": graph,
        "pcsim, operation by operation": acted,
        "PyTorch, backprop + SGD": Backprop(batch, as_graph=False),
        "PyTorch, backprop + SGD as a graph": Backprop(batch, as_graph=True),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for one in contenders.values():
        one.steps(3)
    for _ in range(rounds):
        for name, one in contenders.items():
            times[name].append(one.milliseconds(steps))
    nodes = graph.nodes()
    if as_json:
        print(json.dumps({"milliseconds": times, "nodes": [asdict(node) for node in nodes]}))
        return
    first = statistics.median(next(iter(times.values())))
    for name, found in times.items():
        middle, ends = statistics.median(found), f"{min(found):.3f} to {max(found):.3f}"
        print(f"{name}: {middle:.3f} ms a step ({ends}), graph of pcsim / it {first / middle:.2f}")
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
