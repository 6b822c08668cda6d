"""Simulates a mapped program on a mesh: when which core works, and which packet crosses which link.

Numbers do not depend on timing in a static program, so only time and traffic are simulated; the arithmetic
stays in the layer-level engines. `MeshEngine` is the readable queue; `simulate_mesh` does the same with the
compiled one of `pcsim.engine.mesh.kernels`.

The model (docs/hardware.md says it in full): a core does one job at a time, of those that have all their
messages the first one in the program. A packet's head waits at each link until the packets that asked for it
before have passed, then takes the hop's latency; the link is busy for bytes/width. A packet has arrived when
its tail has.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np

from pcsim.engine.mesh.kernels import Record, add_busy, longest_path, run
from pcsim.engine.mesh.plan import Floats, Integers, Plan
from pcsim.errors import ConfigurationError


class MeshTurn(IntEnum):
    """What comes first among events at the same time: cores act when all else has been seen."""

    FINISH = 0
    HEAD = 1
    ARRIVE = 2
    ACT = 3


@dataclass(frozen=True)
class InFlight:
    """A packet that had not arrived when the simulation stopped.

    Attributes:
        packet: its number, in the order of sending.
        source: the tile that sent it.
        target: a tile that has not received it.
        operation: index in the program of the operation that sent it.
    """

    packet: int
    source: int
    target: int
    operation: int


@dataclass(frozen=True, eq=False)
class MeshTiming:
    """What happened on the mesh in one mini-batch.

    Attributes:
        plan: what was simulated.
        makespan: time of the last event, in ns.
        record: jobs, packets, crossings and deliveries, each in the order in which they happened.
    """

    plan: Plan
    makespan: float
    record: Record

    @cached_property
    def span(self) -> float:
        """Time with a core for each tile and links that are never busy, in ns: no mapping is faster."""
        return span_of(self.plan)

    @cached_property
    def core_busy(self) -> Floats:
        """Time for which each core worked, in ns; (cores,)."""
        cores = self.plan.tile_core[self.plan.job_tile[self.record.job]]
        return _summed(cores, self.plan.job_ns[self.record.job], len(self.plan.hosted_first) - 1)

    @cached_property
    def link_busy(self) -> Floats:
        """Time for which each link was taken, in ns; (links,)."""
        return _summed(self._crossed_links, self._crossing_ns, self.plan.links)

    @cached_property
    def link_waiting(self) -> Floats:
        """Time that heads of packets waited for each link, in ns; (links,)."""
        waited = self.record.crossed_at - self.record.asked_at
        return _summed(self._crossed_links, waited, self.plan.links)

    @property
    def waiting(self) -> float:
        """Time that heads of packets waited for links, all together, in ns."""
        return float((self.record.crossed_at - self.record.asked_at).sum())

    def core_use(self, bins: int, cores: Integers) -> Floats:
        """Return the share of each of so many equal parts of the makespan in which these cores work."""
        job = self.record.job
        owner = self.plan.tile_core[self.plan.job_tile[job]]
        return self._use(owner, self.record.job_start, self.plan.job_ns[job], cores, bins)

    def link_use(self, bins: int, links: Integers) -> Floats:
        """Return the share of each of so many equal parts of the makespan in which these links are taken."""
        return self._use(self._crossed_links, self.record.crossed_at, self._crossing_ns, links, bins)

    def in_flight(self) -> list[InFlight]:
        """Return the packets that have not arrived everywhere: none, after a whole mini-batch."""
        plan, record = self.plan, self.record
        met = set(zip(record.meeting.tolist(), record.met.tolist(), strict=True))
        found = []
        for packet, (job, route) in enumerate(zip(record.packet_job, record.packet_route, strict=True)):
            for edge in _edges(plan, int(route)):
                if (packet, edge) not in met:
                    tile, target = int(plan.job_tile[job]), int(plan.edge_door[edge]) // 2
                    found.append(InFlight(packet, tile, target, int(plan.job_operation[job])))
        return found

    @property
    def _crossed_links(self) -> Integers:
        return self.plan.branch_link[self.record.crossed]

    @property
    def _crossing_ns(self) -> Floats:
        return self.plan.route_ns[self.plan.branch_route[self.record.crossed]]

    def _use(self, owner: Integers, start: Floats, length: Floats, chosen: Integers, bins: int) -> Floats:
        share = np.zeros((len(chosen), bins))
        if self.makespan > 0 and len(owner) and len(chosen):
            row = np.full(1 + max(int(owner.max()), int(chosen.max())), -1)
            row[chosen] = np.arange(len(chosen))
            mine = row[owner] >= 0
            add_busy(row[owner][mine], start[mine], length[mine], self.makespan / bins, share)
        return share


def simulate_mesh(plan: Plan, until: float = float("inf")) -> MeshTiming:
    """Simulate one mini-batch with the compiled queue; the outcome is that of `MeshEngine`.

    Args:
        plan: a program on a mesh.
        until: stop after this time, in ns.

    Raises:
        ConfigurationError: a time below 0.
    """
    _check_until(until)
    record = _empty_record(plan)
    makespan, *counts = run(plan, until, record)
    jobs, packets, crossed, met = counts
    ends = (jobs,) * 2 + (packets,) * 2 + (crossed,) * 4 + (met,) * 3
    happened: list[Any] = [one[:end] for one, end in zip(record, ends, strict=True)]
    return MeshTiming(plan, makespan, Record(*happened))


def span_of(plan: Plan) -> float:
    """Return the longest path through the jobs, uncontended travel included, in ns."""
    doors = 2 * len(plan.tile_core)
    return longest_path(plan, np.zeros(doors), np.zeros(len(plan.tile_core)))


class MeshEngine:
    """The readable queue: a core acts, a job ends, a head comes to a link, a packet arrives.

    Args:
        plan: a program on a mesh.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def simulate(self, until: float = float("inf")) -> MeshTiming:
        """Simulate one mini-batch.

        Args:
            until: stop after this time, in ns.

        Raises:
            ConfigurationError: a time below 0.
        """
        _check_until(until)
        plan = self._plan
        self._heap: list[tuple[float, MeshTurn, int, tuple[int, ...]]] = []
        self._serial = count()
        self._busy = [False] * (len(plan.hosted_first) - 1)
        self._coming = plan.agenda_first[:-1].tolist()
        self._received = [0] * len(plan.edge_door)
        self._link_free: dict[int, float] = defaultdict(float)
        self._story = _Story()
        for core in sorted(set(plan.tile_core.tolist())):
            self._push(0.0, MeshTurn.ACT, core)
        now = 0.0
        while self._heap and self._heap[0][0] <= until:
            now, turn, _, what = heapq.heappop(self._heap)
            match turn:
                case MeshTurn.FINISH:
                    self._finish(now, *what)
                case MeshTurn.HEAD:
                    self._enter_link(now, *what)
                case MeshTurn.ARRIVE:
                    self._arrive(now, *what)
                case MeshTurn.ACT:
                    self._act(now, *what)
        return MeshTiming(plan, now, self._story.record())

    def _push(self, time: float, turn: MeshTurn, *what: int) -> None:
        heapq.heappush(self._heap, (time, turn, next(self._serial), what))

    def _act(self, now: float, core: int) -> None:
        """Let a free core begin the first job in the program for which everything is there."""
        if self._busy[core]:
            return
        job = min(filter(self._is_ready, self._next_jobs(core)), default=None)
        if job is not None:
            self._coming[self._plan.job_tile[job]] += 1
            self._busy[core] = True
            self._story.jobs.append((job, now))
            self._push(now + float(self._plan.job_ns[job]), MeshTurn.FINISH, job)

    def _next_jobs(self, core: int) -> list[int]:
        """Return the next job of each tile on a core that has one left."""
        plan = self._plan
        tiles = _part(plan.hosted, plan.hosted_first, core)
        return [
            int(plan.agenda[self._coming[t]]) for t in tiles if self._coming[t] < plan.agenda_first[t + 1]
        ]

    def _is_ready(self, job: int) -> bool:
        """Return whether all rounds that a job needs have come from all their sources."""
        plan = self._plan
        tile = int(plan.job_tile[job])
        needs = ((2 * tile, plan.predictions[job]), (2 * tile + 1, plan.errors[job]))
        return all(
            self._received[edge] >= rounds
            for door, rounds in needs
            for edge in _part(plan.door_edges, plan.door_first, door)
        )

    def _finish(self, now: float, job: int) -> None:
        """Free the core, and send what the job sends: a packet to each stream of its tile."""
        plan = self._plan
        tile, side = int(plan.job_tile[job]), int(plan.sends[job])
        core = int(plan.tile_core[tile])
        self._busy[core] = False
        if side >= 0:
            for route in range(plan.routes_first[2 * tile + side], plan.routes_first[2 * tile + side + 1]):
                packet = len(self._story.packets)
                self._story.packets.append((job, route))
                for branch in _part(plan.roots, plan.roots_first, route):
                    self._push(now, MeshTurn.HEAD, packet, branch)
                for edge in _part(plan.locals, plan.locals_first, route):
                    self._push(now, MeshTurn.ARRIVE, packet, edge)
        self._push(now, MeshTurn.ACT, core)

    def _enter_link(self, now: float, packet: int, branch: int) -> None:
        """Let a head pass a link behind those before it, and go on to where its tree leads."""
        plan = self._plan
        link, length = int(plan.branch_link[branch]), float(plan.route_ns[plan.branch_route[branch]])
        start = max(now, self._link_free[link])
        self._link_free[link] = start + length
        self._story.crossings.append((branch, packet, now, start))
        there = start + float(plan.branch_ns[branch])
        for child in _part(plan.children, plan.children_first, branch):
            self._push(there, MeshTurn.HEAD, packet, child)
        for edge in _part(plan.ends, plan.ends_first, branch):
            self._push(there + length, MeshTurn.ARRIVE, packet, edge)

    def _arrive(self, now: float, packet: int, edge: int) -> None:
        """Count a packet whose tail has come in, and wake the core."""
        self._received[edge] += 1
        self._story.meetings.append((edge, packet, now))
        self._push(now, MeshTurn.ACT, int(self._plan.tile_core[self._plan.edge_door[edge] // 2]))


@dataclass
class _Story:
    """What the readable engine writes down; the columns of `Record`."""

    jobs: list[tuple[int, float]] = field(default_factory=list)
    packets: list[tuple[int, int]] = field(default_factory=list)
    crossings: list[tuple[int, int, float, float]] = field(default_factory=list)
    meetings: list[tuple[int, int, float]] = field(default_factory=list)

    def record(self) -> Record:
        """Return the story as columns."""
        kinds: tuple[tuple[Sequence[tuple[float, ...]], str], ...] = (
            (self.jobs, "qd"),
            (self.packets, "qq"),
            (self.crossings, "qqdd"),
            (self.meetings, "qqd"),
        )
        columns = []
        for rows, types in kinds:
            values = zip(*rows, strict=True) if rows else [()] * len(types)
            columns += [np.array(one, kind) for one, kind in zip(values, types, strict=True)]
        return Record(*columns)


def _summed(owner: Integers, time: Floats, owners: int) -> Floats:
    """Return the time of each owner."""
    return np.bincount(owner, time, owners).astype(np.float64)


def _part(members: Integers, first: Integers, group: int) -> list[int]:
    """Return the members of one group as Python's own numbers."""
    part: list[int] = members[first[group] : first[group + 1]].tolist()
    return part


def _edges(plan: Plan, route: int) -> list[int]:
    """Return the edges that a route serves."""
    branches = range(plan.branch_first[route], plan.branch_first[route + 1])
    there = [edge for branch in branches for edge in _part(plan.ends, plan.ends_first, branch)]
    return _part(plan.locals, plan.locals_first, route) + there


def _empty_record(plan: Plan) -> Record:
    """Return columns with room for a whole mini-batch."""
    doors = 2 * len(plan.tile_core)
    senders = plan.sends >= 0
    sent = np.bincount(2 * plan.job_tile[senders] + plan.sends[senders], minlength=doors)
    rounds = np.repeat(sent, np.diff(plan.routes_first))
    packets, crossings = int(rounds.sum()), int(rounds @ np.diff(plan.branch_first))
    behind = np.diff(plan.ends_first) @ rounds[plan.branch_route]
    met = int(behind + rounds @ np.diff(plan.locals_first))
    sizes = (len(plan.job_tile), packets, crossings, met)
    kinds = ("qd", "qq", "qqdd", "qqd")
    return Record(*(np.empty(n, kind) for n, row in zip(sizes, kinds, strict=True) for kind in row))


def _check_until(until: float) -> None:
    if not until >= 0:
        raise ConfigurationError(f"until = {until}: expected a time of 0 ns or more")
