"""The compiled queue of the mesh: `pcsim.engine.mesh.engine.MeshEngine` over flat arrays.

It takes the same events in the same order as the readable engine. Numba compiles it on first use and keeps
the result on disk. No fast-math: times must be equal to the readable engine's in every bit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pcsim.engine.mesh.plan import Floats, Integers, Plan
from pcsim.engine.timing_kernels import SERIAL_BITS, Heap, compiled, drop_first, push

# Turns as in `pcsim.engine.mesh.engine.MeshTurn`.
FINISH, HEAD, ARRIVE, ACT = (turn << SERIAL_BITS for turn in range(4))
PACKET_BITS = 32  # an event of a packet has its number above these bits, its branch or edge in them
LOW = (1 << PACKET_BITS) - 1


class Record(NamedTuple):
    """What happened, in order; as far as the counts that `run` returns.

    Attributes:
        job: that began; (jobs,).
        job_start: when, in ns.
        packet_job: the job that sent each packet; (packets,).
        packet_route: the route that it takes.
        crossed: the branch whose link a packet's head entered; (crossings,).
        crossing: the packet.
        asked_at: when its head came to the link, in ns.
        crossed_at: when it entered, in ns: behind what came to the link before it.
        met: the edge at whose end a packet has come in whole; (deliveries,).
        meeting: the packet.
        met_at: when, in ns.
    """

    job: Integers
    job_start: Floats
    packet_job: Integers
    packet_route: Integers
    crossed: Integers
    crossing: Integers
    asked_at: Floats
    crossed_at: Floats
    met: Integers
    meeting: Integers
    met_at: Floats


@compiled
def grown(heap: Heap, more: int) -> Heap:
    """Return a heap with the same entries, and twice the room and `more`."""
    size = len(heap.time)
    room = 2 * size + more
    larger = Heap(np.empty(room), np.empty(room, np.int64), np.empty(room, np.int64))
    larger.time[:size], larger.tie[:size], larger.item[:size] = heap.time, heap.tie, heap.item
    return larger


@compiled
def ready_job(plan: Plan, core: int, coming: Integers, complete: Integers) -> int:
    """Return the first job in the program for which everything is there on this core; −1 if there is none."""
    best = -1
    for at in range(plan.hosted_first[core], plan.hosted_first[core + 1]):
        tile = plan.hosted[at]
        if coming[tile] < plan.agenda_first[tile + 1]:
            job = plan.agenda[coming[tile]]
            if (
                complete[2 * tile] >= plan.predictions[job]
                and complete[2 * tile + 1] >= plan.errors[job]
                and (best < 0 or job < best)
            ):
                best = job
    return best


@compiled
def take_in(plan: Plan, edge: int, received: Integers, lacking: Integers, complete: Integers) -> None:
    """Count a packet at the end of an edge; a round is complete when it has come from every source."""
    door = plan.edge_door[edge]
    received[edge] += 1
    if received[edge] != complete[door] + 1:
        return
    lacking[door] -= 1
    while lacking[door] == 0:
        complete[door] += 1
        for at in range(plan.door_first[door], plan.door_first[door + 1]):
            lacking[door] += received[plan.door_edges[at]] <= complete[door]


@compiled
def most_events(plan: Plan) -> int:
    """Return the most events that one event can put into the queue."""
    most = 0
    for door in range(len(plan.routes_first) - 1):
        first, last = plan.routes_first[door], plan.routes_first[door + 1]
        roots = plan.roots_first[last] - plan.roots_first[first]
        most = max(most, roots + plan.locals_first[last] - plan.locals_first[first])
    for branch in range(len(plan.branch_link)):
        children = plan.children_first[branch + 1] - plan.children_first[branch]
        most = max(most, children + plan.ends_first[branch + 1] - plan.ends_first[branch])
    return int(most + 1)


@compiled
def add(heap: Heap, size: Integers, time: float, turn: int, item: int) -> None:
    """Put an event into the queue; `size` holds how many there are, and how many there have been."""
    push(heap, size[0], time, turn + size[1], item)
    size[0] += 1
    size[1] += 1


@compiled
def add_all(
    heap: Heap, size: Integers, time: float, turn: int, packet: int, members: Integers, first: int, last: int
) -> None:
    """Let a packet come to several branches, or edges, at a time."""
    for at in range(first, last):
        add(heap, size, time, turn, (packet << PACKET_BITS) + members[at])


@compiled
def send(plan: Plan, heap: Heap, size: Integers, now: float, job: int, record: Record, packets: int) -> int:
    """Send what a job that sends does at its end: a packet a stream of its tile; return how many so far."""
    door = 2 * plan.job_tile[job] + plan.sends[job]
    for route in range(plan.routes_first[door], plan.routes_first[door + 1]):
        record.packet_job[packets], record.packet_route[packets] = job, route
        first, last = plan.roots_first[route], plan.roots_first[route + 1]
        add_all(heap, size, now, HEAD, packets, plan.roots, first, last)
        first, last = plan.locals_first[route], plan.locals_first[route + 1]
        add_all(heap, size, now, ARRIVE, packets, plan.locals, first, last)
        packets += 1
    return packets


@compiled
def first_events(plan: Plan, size: Integers, room: int) -> Heap:
    """Return a queue in which every core that has a tile may act."""
    cores = len(plan.hosted_first) - 1
    heap = Heap(np.empty(cores + room), np.empty(cores + room, np.int64), np.empty(cores + room, np.int64))
    for core in range(cores):
        if plan.hosted_first[core] < plan.hosted_first[core + 1]:
            add(heap, size, 0.0, ACT, core)
    return heap


@compiled
def run(plan: Plan, until: float, record: Record) -> tuple[float, int, int, int, int]:
    """Let one mini-batch pass, from time 0 until nothing is under way or the time is over.

    Args:
        plan: the program on the mesh.
        until: events after this time, in ns, do not happen.
        record: filled in.

    Returns:
        The time of the last event in ns, and the numbers of jobs, packets, crossings and deliveries.
    """
    cores, tiles = len(plan.hosted_first) - 1, len(plan.tile_core)
    most, size = most_events(plan), np.zeros(2, np.int64)
    heap = first_events(plan, size, most)
    busy, coming = np.zeros(cores, np.bool_), plan.agenda_first[:-1].copy()
    received, complete = np.zeros(len(plan.edge_door), np.int64), np.zeros(2 * tiles, np.int64)
    lacking, link_free = plan.door_first[1:] - plan.door_first[:-1], np.zeros(plan.links)
    now, jobs, packets, crossed, met = 0.0, 0, 0, 0, 0
    while size[0] > 0 and heap.time[0] <= until:
        if size[0] + most > len(heap.time):
            heap = grown(heap, most)
        now, turn, item = heap.time[0], heap.tie[0] >> SERIAL_BITS << SERIAL_BITS, heap.item[0]
        drop_first(heap, size[0])
        size[0] -= 1
        if turn == ACT:
            job = -1 if busy[item] else ready_job(plan, item, coming, complete)
            if job >= 0:
                coming[plan.job_tile[job]] += 1
                busy[item] = True
                record.job[jobs], record.job_start[jobs] = job, now
                jobs += 1
                add(heap, size, now + plan.job_ns[job], FINISH, job)
        elif turn == HEAD:
            branch, packet = item & LOW, item >> PACKET_BITS
            link, length = plan.branch_link[branch], plan.route_ns[plan.branch_route[branch]]
            start = max(now, link_free[link])
            link_free[link] = start + length
            record.crossed[crossed], record.crossing[crossed] = branch, packet
            record.asked_at[crossed], record.crossed_at[crossed] = now, start
            crossed += 1
            there = start + plan.branch_ns[branch]
            first, last = plan.children_first[branch], plan.children_first[branch + 1]
            add_all(heap, size, there, HEAD, packet, plan.children, first, last)
            first, last = plan.ends_first[branch], plan.ends_first[branch + 1]
            add_all(heap, size, there + length, ARRIVE, packet, plan.ends, first, last)
        elif turn == FINISH:
            core = plan.tile_core[plan.job_tile[item]]
            busy[core] = False
            if plan.sends[item] >= 0:
                packets = send(plan, heap, size, now, item, record, packets)
            add(heap, size, now, ACT, core)
        else:
            edge = item & LOW
            take_in(plan, edge, received, lacking, complete)
            record.met[met], record.meeting[met], record.met_at[met] = edge, item >> PACKET_BITS, now
            met += 1
            add(heap, size, now, ACT, plan.tile_core[plan.edge_door[edge] >> 1])
    return float(now), jobs, packets, crossed, met


@compiled
def longest_path(plan: Plan, arrival: Floats, finish: Floats) -> float:
    """Return the time that the program takes if every tile has a core of its own and no link is ever busy.

    Jobs are taken as they are listed. What a job needs is what has been sent before it in the list, so the
    latest arrival at each of its doors is all that it waits for.

    Args:
        plan: the program on the mesh.
        arrival: latest arrival at each door so far, in ns, zeros; (2·tiles,).
        finish: end of each tile's latest job, in ns, zeros; (tiles,).
    """
    last = 0.0
    for job in range(len(plan.job_tile)):
        tile = plan.job_tile[job]
        start = finish[tile]
        if plan.predictions[job] > 0:
            start = max(start, arrival[2 * tile])
        if plan.errors[job] > 0:
            start = max(start, arrival[2 * tile + 1])
        finish[tile] = start + plan.job_ns[job]
        last = max(last, finish[tile])
        if plan.sends[job] >= 0:
            door = 2 * tile + plan.sends[job]
            for route in range(plan.routes_first[door], plan.routes_first[door + 1]):
                last = max(last, _travel(plan, route, finish[tile], arrival))
    return float(last)


@compiled
def _travel(plan: Plan, route: int, sent: float, arrival: Floats) -> float:
    """Let a packet travel without delay; note its arrivals and return the last one."""
    first, last = plan.branch_first[route], sent
    there = np.full(plan.branch_first[route + 1] - first, sent)
    for at in range(plan.roots_first[route], plan.roots_first[route + 1]):
        there[plan.roots[at] - first] += plan.branch_ns[plan.roots[at]]
    for branch in range(first, plan.branch_first[route + 1]):
        for at in range(plan.children_first[branch], plan.children_first[branch + 1]):
            child = plan.children[at]
            there[child - first] = there[branch - first] + plan.branch_ns[child]
        for at in range(plan.ends_first[branch], plan.ends_first[branch + 1]):
            door = plan.edge_door[plan.ends[at]]
            time = there[branch - first] + plan.route_ns[route]
            arrival[door], last = max(arrival[door], time), max(last, time)
    for at in range(plan.locals_first[route], plan.locals_first[route + 1]):
        door = plan.edge_door[plan.locals[at]]
        arrival[door] = max(arrival[door], sent)
    return last


@compiled
def add_busy(owner: Integers, start: Floats, length: Floats, width: float, share: Floats) -> None:
    """Add to `share` the part of each bin in which each owner is busy.

    Args:
        owner: of each interval.
        start: of each interval, in ns.
        length: of each interval, in ns; those of one owner do not overlap.
        width: of a bin, in ns.
        share: added to; (owners, bins).
    """
    bins = share.shape[1]
    for index in range(len(owner)):
        at, end = start[index], start[index] + length[index]
        here = min(int(at / width), bins - 1)
        while at < end and here < bins:
            edge = end if here == bins - 1 else min(end, (here + 1) * width)
            share[owner[index], here] += max(0.0, edge - at) / width
            at, here = max(at, edge), here + 1
