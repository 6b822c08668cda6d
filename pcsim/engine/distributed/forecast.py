"""How long a mini-batch would take in several processes: on paper, from sizes and a machine's speed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from pcsim.engine.distributed.plan import stages_of, tasks_of
from pcsim.errors import refuse_unless
from pcsim.schedule.program import Program

STEPS = 6  # mini-batches until one takes as long as the next


@dataclass(frozen=True)
class Machine:
    """What a forecast believes of each process and of the links between neighbours.

    Attributes:
        multiplications: a second, in products with weights.
        bytes: a second, each link in each direction.
        latency: seconds of a message besides.
        overhead: seconds of an operation besides: launching kernels, element-wise work.
    """

    multiplications: float
    bytes: float
    latency: float = 0.0
    overhead: float = 0.0

    def __post_init__(self) -> None:
        for name in ("multiplications", "bytes"):
            refuse_unless(getattr(self, name) > 0, name, getattr(self, name), "a value above 0")


@dataclass(frozen=True)
class Forecast:
    """What comes of it.

    Attributes:
        layers: of each process.
        up: bytes of predictions a mini-batch across each boundary, lowest first.
        down: bytes of errors.
        busy: seconds of work a mini-batch of each process.
        seconds: from one mini-batch to the next.
    """

    layers: tuple[range, ...]
    up: tuple[int, ...]
    down: tuple[int, ...]
    busy: tuple[float, ...]
    seconds: float

    @property
    def speedup(self) -> float:
        """How much faster than one such process that does everything."""
        return sum(self.busy) / self.seconds

    @property
    def efficiency(self) -> float:
        """Share of the time that the processes work, on average."""
        return self.speedup / len(self.busy)


def forecast(program: Program, processes: int, batch: int, machine: Machine) -> Forecast:
    """Follow the operations of some mini-batches through the processes.

    A process does its operations in the order of the program; one that reads a message of another process
    waits for it. A link carries one message at a time in each direction. A process begins a mini-batch when
    rank 0 has, and rank 0 when all have reported the energies of the one before.

    Args:
        program: what is run.
        processes: groups of layers, as the engine cuts them.
        batch: samples a mini-batch.
        machine: how fast.

    Raises:
        ConfigurationError: more processes than layers.
    """
    stages = stages_of(program, processes)
    home = {layer: stage for stage, layers in enumerate(stages) for layer in layers}
    reported = {task.index for layers in stages for task in tasks_of(program, layers) if task.energy}
    itemsize = program.network.dtype.itemsize
    seconds = [
        one.multiplications * batch / machine.multiplications + machine.overhead for one in program.operations
    ]
    free, links = [0.0] * processes, defaultdict[tuple[int, int], float](float)
    begins = []
    for _ in range(STEPS):
        begins.append(free[0])
        free = [max(one, begins[-1] + machine.latency * (stage > 0)) for stage, one in enumerate(free)]
        arrived: dict[str, float] = {}
        reports = [0.0]
        for index, operation in enumerate(program.operations):
            stage = home[operation.layer]
            due = [arrived.get(str(place), 0.0) for place in operation.reads]
            free[stage] = max(free[stage], *due) + seconds[index]
            if index in reported and stage:
                reports.append(free[stage] + machine.latency)
            if operation.sends is not None and home[operation.target] != stage:
                link = stage, home[operation.target]
                size = operation.values * batch * itemsize
                links[link] = max(links[link], free[stage]) + size / machine.bytes
                (door,) = operation.delivers
                arrived[str(door)] = links[link] + machine.latency
        free[0] = max(free[0], *reports)
    busy = [0.0] * processes
    for operation, duration in zip(program.operations, seconds, strict=True):
        busy[home[operation.layer]] += duration
    up, down = (
        tuple(_crossing(program, home, batch * itemsize, low, way) for low in range(processes - 1))
        for way in (1, -1)
    )
    return Forecast(stages, up, down, tuple(busy), begins[-1] - begins[-2])


def _crossing(program: Program, home: dict[int, int], size: int, low: int, way: int) -> int:
    """Return the bytes that cross the boundary above a process, upwards (1) or downwards (−1)."""
    return size * sum(
        operation.values
        for operation in program.operations
        if operation.sends is not None
        and operation.target - operation.layer == way
        and {home[operation.layer], home[operation.target]} == {low, low + 1}
    )
