"""What a training step on a GPU would take at least: bytes and operations of each kernel, on paper.

Nothing here is measured. Every operand comes from memory once in each kernel, arithmetic runs at its peak.
Example: `python -m pcsim.experiments.bench.roofline --batch 64`
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import typer

from pcsim.engine import fusion
from pcsim.experiments.bench.plan import PAPER_SIZES
from pcsim.kernels.cpu import CpuKernels
from pcsim.learning import MQ
from pcsim.network.network import Network
from pcsim.schedule.program import Program, Schedule

FLOAT = 4  # bytes
# For each multiply-add of a product with more than 32 samples, a slice of which takes 591 to 616 for 256, as
# ptxas writes them; 105 to 107 for 64 of them are the innermost loop.
INSTRUCTIONS = 2.4
Kind = Literal["product", "other"]


@dataclass(frozen=True)
class Gpu:
    """A GPU by its data sheet.

    Attributes:
        name: of the card.
        memory: bandwidth, B/s.
        float32: FLOP/s.
        cycles: in which a scheduler passes on one multiply-add of a warp; any instruction takes one to issue.
    """

    name: str
    memory: float
    float32: float
    cycles: int


GPUS = (Gpu("A100", 1.555e12, 19.5e12, 2), Gpu("H100", 3.35e12, 67e12, 1), Gpu("H200", 4.8e12, 67e12, 1))


@dataclass(frozen=True)
class Work:
    """A kernel of a training step.

    Attributes:
        name: what it does.
        launches: in one step.
        operations: FLOP of one launch.
        values: float32 numbers that one launch reads and writes.
        kind: whether it is a product, or something element by element.
    """

    name: str
    launches: int
    operations: float
    values: float
    kind: Kind = "other"

    @property
    def bytes(self) -> float:
        """Read and written by one launch."""
        return FLOAT * self.values

    def seconds(self, gpu: Gpu) -> dict[str, float]:
        """Return the least time of one launch by what binds it."""
        arithmetic = self.operations / gpu.float32
        found = {"memory": self.bytes / gpu.memory, "fp32": arithmetic}
        if self.kind == "product":
            found["issue"] = arithmetic * INSTRUCTIONS / gpu.cycles
        return found


def step(sizes: Sequence[int], batch: int, iterations: int) -> Iterator[Work]:
    """List the kernels of a sequential step with MQ, ReLU and softmax, and how often each is launched.

    Args:
        sizes: neurons a layer; what hidden layers do element by element is counted for the first one's width.
        batch: samples a mini-batch.
        iterations: T.
    """
    network = Network.dense(sizes, seed=0)
    program = Program.build(network, Schedule("sequential", iterations))
    done = Counter((one.name, one.layer) for one in program.operations)
    fused = fusion.comparisons(program, network.layers(batch, MQ(1e-3), CpuKernels()))
    together = Counter(program.operations[first].name for first in fused)
    top, width = network.top, sizes[1]
    hidden = batch * width
    for layer, (below, above) in enumerate(pairwise(sizes)):
        product, ends = batch * below * above, below * above + batch * (below + above)
        name, launches = f"p_{layer + 1} = W_{layer} f + b", done["predict", layer]
        yield Work(name, launches, 2 * product, ends + above, "product")
    for layer in range(top - 1, 0, -1):
        below, above = sizes[layer], sizes[layer + 1]
        product, ends = batch * below * above, below * above + batch * (below + above)
        name, launches = f"W_{layer}ᵀ e_{layer + 1}, relax, compare", done["relax", layer]
        # besides, an activity, an error and a prediction are read, and the first two written
        yield Work(name, launches, 2 * product + 10 * batch * below, ends + 4 * batch * below, "product")
    everybody = range(1, top)
    compared = sum(done["compare", layer] for layer in everybody) - together["relax"]
    yield Work("x to ĥ_0 (copy)", 1, 0, 2 * batch * sizes[0])
    yield Work("initialise (copy)", sum(done["initialise", layer] for layer in everybody), 0, 2 * hidden)
    yield Work("compare, ‖e‖²", compared, 3 * hidden, 3 * hidden)
    yield Work("softmax + clamp + error", together["clamp"], 20 * batch * sizes[-1], 4 * batch * sizes[-1])
    for layer, (below, above) in enumerate(pairwise(sizes)):
        operations = (2 * batch + 3) * below * above
        values = 2 * (below + 1) * above + batch * (below + above)
        yield Work(f"Hebbian + MQ, W_{layer}", done["learn", layer], operations, values, "product")


def table(works: Sequence[Work]) -> list[str]:
    """Return the lines of a table in Markdown."""
    columns = ["kernel", "launches", "MFLOP each", "MB each"]
    columns += [f"{gpu.name}, µs: memory / arithmetic" for gpu in GPUS] + [f"binds on {GPUS[-1].name}"]
    lines = [_row(columns), _row(["---"] * len(columns))]
    for work in works:
        cells = [work.name, str(work.launches), f"{work.operations / 1e6:.3g}", f"{work.bytes / 1e6:.3g}"]
        for gpu in GPUS:
            found = work.seconds(gpu)
            arithmetic = max(found["fp32"], found.get("issue", 0))
            cells.append(f"{_microseconds(found['memory'])} / {_microseconds(arithmetic)}")
        lines.append(_row([*cells, _binds(work.seconds(GPUS[-1]))]))
    totals = ["**sum of the larger terms**", f"**{sum(work.launches for work in works)}**"]
    totals += [f"**{sum(work.launches * work.operations for work in works) / 1e6:.0f}**"]
    totals += [f"**{sum(work.launches * work.bytes for work in works) / 1e6:.0f}**"]
    totals += [f"**{1e6 * sum(work.launches * least(work, gpu) for work in works):.0f}**" for gpu in GPUS]
    return [*lines, _row([*totals, ""])]


def least(work: Work, gpu: Gpu) -> float:
    """Return the least seconds of one launch."""
    return max(work.seconds(gpu).values())


def _binds(found: dict[str, float]) -> str:
    """Return which term is the largest."""
    name = max(found, key=found.__getitem__)
    return "latency" if found[name] < 1e-6 else name


def _microseconds(seconds: float) -> str:
    return f"{1e6 * seconds:.1f}" if seconds > 9.5e-7 else f"{1e6 * seconds:.2f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main(
    batch: Annotated[int, typer.Option(help="Samples, as far as ours multiply.", min=1, max=64)] = 64,
    iterations: Annotated[int, typer.Option(help="T.", min=1)] = 3,
) -> None:
    """Print the roofline of a training step of the paper's dense network."""
    print("\n".join(table(list(step(PAPER_SIZES, batch, iterations)))))


if __name__ == "__main__":
    typer.run(main)
