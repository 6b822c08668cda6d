"""How far mesh simulations go: `python -m pcsim.experiments.bench.mesh`.

Three questions: do time and memory grow linearly in messages; what do 1,000 layers on a 64x64 mesh cost; and
what can be said of a million cores. Only shapes matter here, so the networks have no weights.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from time import process_time
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pcsim.architecture import Architecture, DenseLayer
from pcsim.engine.mesh.engine import MeshTiming, simulate_mesh
from pcsim.engine.mesh.forms import Columns, columns
from pcsim.engine.mesh.plan import Plan, make_plan
from pcsim.engine.mesh.times import Durations, priced_durations
from pcsim.experiments.bench.memory import forget_peak, held, peak_held, tidy
from pcsim.hardware.chip import Chip
from pcsim.hardware.machine import Machine, load_machine
from pcsim.hardware.mapping import Mapping, Tile
from pcsim.hardware.placement import place
from pcsim.hardware.work import UPDATES, Setting
from pcsim.network.network import Network, connections_of
from pcsim.report.style import in_bytes
from pcsim.schedule.program import Program, Schedule

MACHINE = "mesh"  # whose prices in time and links are taken
SIDE, NEURONS = 64, 128  # the mesh, and neurons a core, of the simulated plans
PARTS = 4  # tiles a layer
# Layers and iterations of the growing simulations; the last two have more messages by iterations.
GROWTH = ((125, 3), (250, 3), (500, 3), (1000, 3), (1000, 10), (1000, 30))
MILLION = (1000, 1000, 15)  # layers, tiles a layer, neurons a tile
SMALL = (32, 32, 15)  # the same plan, small enough to simulate
REPETITIONS = 3


@dataclass(frozen=True)
class Point:
    """One simulation.

    Attributes:
        layers: of the network.
        iterations: T.
        messages: received by tiles; a multicast packet counts at each of its targets.
        crossings: of links.
        planning: CPU seconds to write the program out, place it and make its plan, once.
        simulating: CPU seconds of the queue, the best of some repetitions.
        array_bytes: of all arrays, plan and record.
        peak_bytes: by which the process grew, at most.
    """

    layers: int
    iterations: int
    messages: int
    crossings: int
    planning: float
    simulating: float
    array_bytes: int
    peak_bytes: int


@dataclass(frozen=True)
class Large:
    """The largest network on the mesh.

    Attributes:
        cores: used.
        makespan_ms: of one mini-batch.
        span_ms: longest path.
        core_share: mean share of the makespan in which a used core works.
        link_share: share in which the busiest link is taken.
        packets: sent.
        hops: of them.
    """

    cores: int
    makespan_ms: float
    span_ms: float
    core_share: float
    link_share: float
    packets: int
    hops: int


def without_weights(sizes: Sequence[int]) -> Network:
    """Return a dense network whose weights are all one zero in memory: for what only looks at shapes."""
    architecture = Architecture((sizes[0],), tuple(DenseLayer(size) for size in sizes[1:]))
    connections, _ = connections_of(architecture, "relu")
    small = Network.dense([1] * len(sizes))
    traits = tuple(replace(one, size=size) for one, size in zip(small.traits, sizes, strict=True))
    zero = np.zeros((), np.float32)
    parameters = tuple(
        (np.broadcast_to(zero, one.weight_shape), np.broadcast_to(zero, one.weight_shape[:1]))
        for one in connections
    )
    return Network(tuple(sizes), traits, connections, parameters)


def laid_out(layers: int, iterations: int) -> Plan:
    """Place a network of equal layers along a snake, and make its plan."""
    machine = load_machine(MACHINE)
    assert machine.chip is not None
    chip = replace(machine.chip, rows=SIDE, columns=SIDE, neurons_per_core=NEURONS)
    network = without_weights([PARTS * NEURONS] * layers)
    program = Program.build(network, Schedule("sequential", iterations))
    mapping = place(program, chip, 1, "snake", machine.name)
    return make_plan(program, mapping, 1, durations_of(program, machine))


def durations_of(program: Program, machine: Machine) -> Durations:
    """Price the operations; each core holds its own weights, so none are far."""
    return priced_durations(program, Setting(program.network, 1, UPDATES["mq"], replace(machine, chip=None)))


def measure(layers: int, iterations: int) -> tuple[Point, MeshTiming]:
    """Simulate one network, and measure what that takes."""
    tidy()
    before, known = held(), forget_peak()
    began = process_time()
    plan = laid_out(layers, iterations)
    planning = process_time() - began
    timing = simulate_mesh(plan)
    peak = peak_held() - before if known else 0
    arrays = [*plan[:-1], *timing.record]
    point = Point(
        layers,
        iterations,
        len(timing.record.met),
        len(timing.record.crossed),
        planning,
        _best(lambda: simulate_mesh(plan)),
        sum(one.nbytes for one in arrays),
        peak,
    )
    return point, timing


def exponent(points: Sequence[Point], name: str) -> float:
    """Return b of the fit a · messages^b to a field of the points: 1 is linear."""
    logs = np.log([[point.messages, getattr(point, name)] for point in points])
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])


def in_columns(layers: int, parts: int, neurons: int) -> tuple[Columns, Program, Chip, Durations]:
    """Return the closed forms of a regular plan, a layer a column, and what they were made from."""
    machine = load_machine(MACHINE)
    assert machine.chip is not None
    program = Program.build(without_weights([parts * neurons] * layers), Schedule("sequential", 3))
    chip, durations = replace(machine.chip, rows=parts, columns=layers), durations_of(program, machine)
    return columns(program, chip, 1, parts, durations), program, chip, durations


def simulated_columns(layers: int, parts: int, neurons: int) -> tuple[Columns, MeshTiming]:
    """Return the closed forms of a regular plan, and its simulation."""
    forms, program, chip, durations = in_columns(layers, parts, neurons)
    tiles = tuple(
        Tile(layer, part * neurons, (part + 1) * neurons, part * layers + layer)
        for layer in range(layers)
        for part in range(parts)
    )
    mapping = Mapping(MACHINE, chip, program.network.sizes, tiles, "columns")
    return forms, simulate_mesh(make_plan(program, mapping, 1, durations))


def run(
    growth: Sequence[tuple[int, int]] = GROWTH, tell: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Measure everything; return it, fit for JSON."""
    measure(2, 1)  # compiles
    points, large = [], None
    for layers, iterations in growth:
        tell(f"{layers} layers, T = {iterations}")
        point, timing = measure(layers, iterations)
        points.append(point)
        if iterations == growth[0][1]:
            large = _large(timing)
    began = process_time()
    forms = in_columns(*MILLION)[0]
    seconds = process_time() - began
    small, timing = simulated_columns(*SMALL)
    fields = ("planning", "simulating", "array_bytes", "peak_bytes")
    return {
        "points": [asdict(point) for point in points],
        "exponents": {
            name: exponent(points, name) for name in fields if points[0].peak_bytes or name != "peak_bytes"
        },
        "large": None if large is None else asdict(large),
        "million": asdict(forms) | {"least_ns": forms.least_ns},
        "million_seconds": seconds,
        "small": {
            "cores": small.cores,
            "packets": len(timing.record.packet_job),
            "packets_by_closed_form": small.packets,
            "least_ns": small.least_ns,
            "queued_ns": small.queued_ns,
            "makespan_ns": timing.makespan,
        },
    }


def _large(timing: MeshTiming) -> Large:
    used = np.flatnonzero(timing.core_busy)
    return Large(
        len(used),
        timing.makespan / 1e6,
        timing.span / 1e6,
        float(timing.core_busy[used].mean() / timing.makespan),
        float(timing.link_busy.max() / timing.makespan),
        len(timing.record.packet_job),
        len(timing.record.crossed),
    )


def _best(action: Callable[[], object]) -> float:
    """Return the CPU seconds of the quickest of some repetitions: other processes only ever add."""
    spent = []
    for _ in range(REPETITIONS):
        began = process_time()
        action()
        spent.append(process_time() - began)
    return min(spent)


def show(found: dict[str, Any]) -> None:
    """Print tables for an 80-column terminal."""
    console = Console(highlight=False)
    console.print(_growth_table(found["points"]))
    named = {"planning": "plan", "simulating": "queue", "array_bytes": "arrays", "peak_bytes": "peak"}
    fits = ", ".join(f"{named[name]} {value:.2f}" for name, value in found["exponents"].items())
    console.print(f"exponents of messages: {fits}")
    large, forms = found["large"], found["million"]
    if large is not None:
        console.print(
            f"{large['cores']:,} cores: makespan {large['makespan_ms']:.4g} ms, span {large['span_ms']:.4g} "
            f"ms,\n{large['packets']:,} packets, {large['hops']:,} hops, cores busy "
            f"{large['core_share']:.2%}, the busiest link {large['link_share']:.2%}"
        )
    console.print(
        f"{forms['cores']:,} cores, by closed forms in {found['million_seconds']:.1f} s:\n"
        f"{forms['packets']:.4g} packets, {forms['hops_horizontal']:.4g} + {forms['hops_vertical']:.4g} hops "
        f"along rows and columns,\nspan {forms['span_ns'] / 1e6:.4g} ms, busiest link "
        f"{forms['busiest_ns'] / 1e6:.4g} ms, work over cores "
        f"{forms['work_ns'] / forms['cores'] / 1e6:.4g} ms;\nwith queueing about "
        f"{forms['queued_ns'] / 1e6:.4g} ms"
    )
    small = found["small"]
    console.print(
        f"the same plan with {small['cores']:,} cores, simulated: {small['packets']:,} packets, makespan "
        f"{small['makespan_ns'] / 1e6:.4g} ms:\n{small['makespan_ns'] / small['least_ns'] - 1:+.1%} from the "
        f"largest bound, {small['makespan_ns'] / small['queued_ns'] - 1:+.1%} from the estimate with queueing"
    )


def _growth_table(points: Sequence[dict[str, Any]]) -> Table:
    title = f"Growth: {PARTS} tiles a layer, {SIDE}x{SIDE} mesh, sequential"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("layers", "T", "messages", "crossings", "plan s", "queue s", "arrays", "peak"):
        table.add_column(heading, justify="right", no_wrap=True)
    for point in points:
        cells = [f"{point[name]:,}" for name in ("layers", "iterations", "messages", "crossings")]
        cells += [f"{point[name]:.3f}" for name in ("planning", "simulating")]
        table.add_row(*cells, *(in_bytes(point[name]) for name in ("array_bytes", "peak_bytes")))
    return table


if __name__ == "__main__":
    result = run(tell=lambda text: print(text, file=sys.stderr))
    if "--json" in sys.argv[1:]:
        print(json.dumps(result, indent=2))
    else:
        show(result)
