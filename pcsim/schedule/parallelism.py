"""How well a program parallelises: its work, its span, and its makespan on a number of equal cores.

The model. A product of m multiplications at layer l splits evenly over s cores, at most one a neuron of the
layer (a core holds whole columns of W_l), and then takes ⌈m/s⌉. It keeps its cores until it ends. Operations
without products take no time, nor do messages: what is measured is the program, not a machine. The other
measure counts one unit an operation, whatever it does, and splits none.

Work T₁ is the sum of all durations on one core, span T∞ the longest way through `Program.dependencies` with
every operation on all the cores it can use. A makespan is at least max(T₁/P, T∞) (Brent 1974; Graham 1969).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from pcsim.errors import refuse_unless
from pcsim.schedule.program import Program


@dataclass(frozen=True)
class Graph:
    """Operations as work with dependencies, in an order in which they may run one after the other.

    Attributes:
        work: time of each on one core; 0 for what takes none.
        width: most cores that each can use.
        before: indices of those that each has to wait for, all below its own.

    Raises:
        ConfigurationError: columns of different lengths, or a dependency on a later operation.
    """

    work: tuple[int, ...]
    width: tuple[int, ...]
    before: tuple[frozenset[int], ...]

    def __post_init__(self) -> None:
        lengths = {len(self.work), len(self.width), len(self.before)}
        refuse_unless(len(lengths) == 1, "lengths of a graph's columns", sorted(lengths), "equal ones")
        ordered = all(max(before, default=-1) < index for index, before in enumerate(self.before))
        refuse_unless(ordered, "dependencies", "on later operations", "earlier ones only")

    @classmethod
    def of_multiplications(cls, program: Program, batch: int = 1) -> Graph:
        """Weigh operations by their multiplications; a layer's neurons share them."""
        sizes = program.network.sizes
        return cls(
            tuple(batch * operation.multiplications for operation in program.operations),
            tuple(sizes[operation.layer] for operation in program.operations),
            program.dependencies,
        )

    @classmethod
    def of_operations(cls, program: Program) -> Graph:
        """Weigh every operation by one unit, on one core."""
        ones = (1,) * len(program.operations)
        return cls(ones, ones, program.dependencies)

    @property
    def total(self) -> int:
        """Work T₁: the time on one core."""
        return sum(self.work)

    @property
    def span(self) -> int:
        """Span T∞: the time on as many cores as could ever be used."""
        return max(self.ranks, default=0)

    @cached_property
    def ranks(self) -> tuple[int, ...]:
        """For each operation, the longest way from its start to the end of the program."""
        ranks = [0] * len(self.work)
        for index in reversed(range(len(ranks))):
            ranks[index] += duration(self.work[index], self.width[index])
            for before in self.before[index]:
                ranks[before] = max(ranks[before], ranks[index])
        return tuple(ranks)

    @cached_property
    def after(self) -> tuple[tuple[int, ...], ...]:
        """For each operation, the indices of those that wait for it, ascending."""
        after: list[list[int]] = [[] for _ in self.work]
        for index, before in enumerate(self.before):
            for one in before:
                after[one].append(index)
        return tuple(map(tuple, after))


@dataclass(frozen=True, slots=True)
class Slot:
    """When an operation runs, and on how many cores.

    Attributes:
        operation: its index.
        start: of its time.
        end: of its time.
        cores: that it keeps meanwhile; 0 for what takes no time.
    """

    operation: int
    start: int
    end: int
    cores: int


def duration(work: int, cores: int) -> int:
    """Return ⌈m/s⌉, the time that s cores need for m multiplications."""
    return -(-work // cores)


def makespan(graph: Graph, cores: int) -> int:
    """Return when the last operation of `list_schedule` ends."""
    return max((slot.end for slot in list_schedule(graph, cores)), default=0)


def list_schedule(graph: Graph, cores: int) -> list[Slot]:
    """Place operations on equal cores: whoever has the longest way to the end starts first.

    Of the operations that are ready the one with the largest rank takes all free cores that it can use, ties
    go by index. If these are fewer than it could have, it waits when the cores that are about to be free
    would let it end sooner; the next one is asked meanwhile. Nothing depends on the order of a set.

    Args:
        graph: what is to be done.
        cores: P.

    Returns:
        One slot an operation, by start.

    Raises:
        ConfigurationError: fewer than one core.
    """
    refuse_unless(cores >= 1, "cores", cores, "1 or more")
    return _Desk(graph, cores).run()


@dataclass
class _Desk:
    """The state of a schedule that is being made."""

    graph: Graph
    cores: int
    now: int = 0
    ready: list[tuple[int, int]] = field(default_factory=list)  # (−rank, index), a heap
    running: list[tuple[int, int, int]] = field(default_factory=list)  # (end, index, cores), a heap
    slots: list[Slot] = field(default_factory=list)

    def run(self) -> list[Slot]:
        self._free = self.cores
        self._waits_for = [len(before) for before in self.graph.before]
        self._release([index for index, count in enumerate(self._waits_for) if count == 0])
        while self.ready or self.running:
            self._start_what_can()
            self._go_on()
        return self.slots

    def _release(self, indices: Sequence[int]) -> None:
        """Take operations that wait for nothing any more; what takes no time is done at once."""
        todo = list(indices)
        while todo:
            index = todo.pop()
            if self.graph.work[index]:
                heapq.heappush(self.ready, (-self.graph.ranks[index], index))
            else:
                self.slots.append(Slot(index, self.now, self.now, 0))
                todo.extend(self._freed_by(index))

    def _freed_by(self, index: int) -> list[int]:
        """Note that an operation is over; return those that waited for it alone."""
        freed = []
        for later in self.graph.after[index]:
            self._waits_for[later] -= 1
            if self._waits_for[later] == 0:
                freed.append(later)
        return freed

    def _start_what_can(self) -> None:
        patient: list[tuple[int, int]] = []
        known: set[tuple[int, int]] = (
            set()
        )  # kinds of operation that have chosen to wait, for these free cores
        while self.ready and self._free:
            entry = heapq.heappop(self.ready)
            kind = self.graph.work[entry[1]], self.graph.width[entry[1]]
            if kind in known or self._better_later(*kind):
                known.add(kind)
                patient.append(entry)
            else:
                self._start(entry[1])
        for entry in patient:
            heapq.heappush(self.ready, entry)

    def _start(self, index: int) -> None:
        share = min(self.graph.width[index], self._free)
        end = self.now + duration(self.graph.work[index], share)
        self._free -= share
        heapq.heappush(self.running, (end, index, share))
        self.slots.append(Slot(index, self.now, end, share))

    def _better_later(self, work: int, width: int) -> bool:
        """Return whether an operation ends sooner if it waits for cores that are still taken."""
        wanted, free = min(width, self.cores), self._free
        if free >= wanted:
            return False
        end = self.now + duration(work, free)
        for time, _, share in sorted(self.running):
            free += share
            if time + duration(work, min(wanted, free)) < end:
                return True
            if free >= wanted or time >= end:
                break
        return False

    def _go_on(self) -> None:
        """Let time pass until something ends."""
        self.now = self.running[0][0]
        freed: list[int] = []
        while self.running and self.running[0][0] == self.now:
            _, index, share = heapq.heappop(self.running)
            self._free += share
            freed.extend(self._freed_by(index))
        self._release(freed)
