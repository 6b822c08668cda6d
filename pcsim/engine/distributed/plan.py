"""Which process runs which layers, what it must know for that, and which messages it waits for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pcsim.errors import ConfigurationError, refuse_unless
from pcsim.kernels import Array
from pcsim.network.connection import Connection
from pcsim.network.layer import LayerTraits, MessageKind
from pcsim.network.learner import Learner
from pcsim.network.network import Network
from pcsim.schedule.operation import Operation, Place
from pcsim.schedule.program import Program

TIMEOUT = 60.0  # s


@dataclass(frozen=True)
class Distribution:
    """How a run is spread over processes.

    Attributes:
        processes: groups of consecutive layers, each in a process of its own; None is 2, or what torchrun
            has started.
        replicas: copies of the whole, each of which takes an equal part of every mini-batch.
        timeout: seconds without an answer after which a process counts as lost.
    """

    processes: int | None = None
    replicas: int = 1
    timeout: float = TIMEOUT

    def __post_init__(self) -> None:
        if self.processes is not None:
            good = type(self.processes) is int and self.processes >= 1
            refuse_unless(good, "processes", self.processes, "a whole number from 1")
        good = type(self.replicas) is int and self.replicas >= 1
        refuse_unless(good, "replicas", self.replicas, "a whole number from 1")
        refuse_unless(0 < self.timeout < 1e6, "timeout", self.timeout, "seconds above 0")


@dataclass(frozen=True)
class Watch:
    """What somebody wants to see of layers that live elsewhere.

    Attributes:
        every: training steps from one look to the next.
        quantities: of activity, error, prediction, message, weight.
        layers: whose.
    """

    every: int
    quantities: frozenset[str]
    layers: frozenset[int]

    def active(self, step: int) -> bool:
        """Return whether this training step is looked at."""
        return step % self.every == 0


@dataclass(frozen=True)
class Task:
    """One operation of a program, at the process that owns its layer.

    Attributes:
        index: of the operation in the program.
        operation: what is done.
        awaits: kinds of messages from another process that it reads, with how many of them must have come
            in this mini-batch. A prediction comes to the lowest layer of a process, an error to the highest.
        energy: whether the energy that it leaves is reported.
    """

    index: int
    operation: Operation
    awaits: tuple[tuple[MessageKind, int], ...]
    energy: bool


@dataclass(frozen=True)
class Part:
    """All that one process is told: its own layers, and nothing of any other layer.

    Attributes:
        stage: which group of layers, counted from the input; `stages` are one replica.
        stages: number of groups.
        replica: which copy.
        replicas: number of copies.
        layers: indices of its layers.
        traits: their constants.
        connections: of those that have one.
        parameters: (W_l, b_l) of these.
        rule: makes the learner of a connection.
        batch: samples a mini-batch, of this replica.
        dtype: "float32" or "float64".
        backend: kernels by name.
        threads: that share a large product.
        tasks: its part of the program.
        watches: what is to be shown.
    """

    stage: int
    stages: int
    replica: int
    replicas: int
    layers: range
    traits: tuple[LayerTraits, ...]
    connections: tuple[Connection, ...]
    parameters: tuple[tuple[Array, Array], ...]
    rule: Callable[[Array, Array], Learner]
    batch: int
    dtype: str
    backend: str
    threads: int
    tasks: tuple[Task, ...]
    watches: tuple[Watch, ...]

    @property
    def has_input(self) -> bool:
        """Whether the input layer is among its layers."""
        return self.stage == 0

    @property
    def has_output(self) -> bool:
        """Whether the output layer is among its layers."""
        return self.stage == self.stages - 1

    def watching(self, step: int) -> bool:
        """Return whether arrays of this training step are to be shown."""
        return any(watch.active(step) for watch in self.watches if watch.quantities - {"weight"})


@dataclass(frozen=True)
class Share:
    """What one process did with its time, in seconds since the first mini-batch.

    Attributes:
        rank: of the process.
        layers: that it owns, first and last.
        compute: doing operations.
        communication: handing messages over and taking them.
        waiting: for messages that had not come yet.
        elsewhere: outside mini-batches: evaluation, trace, checkpoints, and others waiting for that.
        multiplications: of its operations, one mini-batch.
    """

    rank: int
    layers: tuple[int, int]
    compute: float
    communication: float
    waiting: float
    elsewhere: float
    multiplications: int


def balanced(costs: Sequence[int], groups: int) -> tuple[range, ...]:
    """Cut layers into groups of neighbours so that the largest sum of costs is as small as can be.

    Among cuts that do equally well there, the one that spreads the rest most evenly (least sum of squares).

    Args:
        costs: of each layer.
        groups: how many, each of one layer at least.

    Raises:
        ConfigurationError: more groups than layers.
    """
    count = len(costs)
    if groups > count:
        raise ConfigurationError(
            f"{groups} processes for {count} layers: expected 1 to {count}; change --processes"
        )
    # best[end]: (largest sum, sum of squares, cuts) of the first `end` layers in so many groups.
    best: dict[int, tuple[int, int, tuple[int, ...]]] = {0: (0, 0, ())}
    for _ in range(groups):
        longer: dict[int, tuple[int, int, tuple[int, ...]]] = {}
        for start, (largest, squares, cuts) in best.items():
            total = 0
            for end in range(start + 1, count + 1):
                total += costs[end - 1]
                found = (max(largest, total), squares + total**2, (*cuts, end))
                longer[end] = min(longer.get(end, found), found)
        best = longer
    ends = best[count][2]
    return tuple(range(start, end) for start, end in zip((0, *ends), ends, strict=False))


def stages_of(program: Program, processes: int) -> tuple[range, ...]:
    """Return the layers of each process: groups with about equally many multiplications a mini-batch.

    Raises:
        ConfigurationError: more processes than layers.
    """
    costs = [0] * len(program.network.sizes)
    for operation in program.operations:
        costs[operation.layer] += operation.multiplications
    return balanced(costs, processes)


def tasks_of(program: Program, layers: range) -> tuple[Task, ...]:
    """Return the operations of some neighbouring layers, in the order of the program.

    Each must find the very messages that it would find if the program ran from top to bottom.
    """
    sent: Counter[tuple[int, MessageKind]] = Counter()
    doors = {MessageKind.PREDICTION: layers[0], MessageKind.ERROR: layers[-1]}
    tasks = []
    for index, operation in enumerate(program.operations):
        if operation.layer in layers:
            awaits = tuple(
                (kind, sent[layer, kind])
                for kind, layer in doors.items()
                if layer == operation.layer
                and sent[layer, kind]
                and Place.inbox(layer, kind) in operation.reads
            )
            energy = index in program.last_writes and operation.forms_error
            tasks.append(Task(index, operation, awaits, energy))
        elif operation.sends is not None:  # what comes from within is in place at once
            sent[operation.target, operation.sends] += 1
    return tuple(tasks)


def part_of(
    program: Program,
    stages: Sequence[range],
    stage: int,
    replica: int,
    *,
    distribution: Distribution,
    rule: Callable[[Array, Array], Learner],
    batch: int,
    backend: str,
    threads: int,
    watches: tuple[Watch, ...] = (),
) -> Part:
    """Return what the process of a stage of a replica is told; `batch` is that of all replicas together."""
    network: Network = program.network
    layers = stages[stage]
    owned = slice(layers.start, layers.stop)
    return Part(
        stage,
        len(stages),
        replica,
        distribution.replicas,
        layers,
        network.traits[owned],
        network.connections[owned],
        tuple((weight.copy(), bias.copy()) for weight, bias in network.parameters[owned]),
        rule,
        batch // distribution.replicas,
        network.dtype.name,
        backend,
        threads,
        tasks_of(program, layers),
        watches,
    )
