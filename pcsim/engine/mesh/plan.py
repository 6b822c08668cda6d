"""A program on a mesh as flat arrays: which tile does what for how long, what it waits for, what it sends.

Both engines in `pcsim.engine.mesh.engine` read these arrays; the compiled one could read nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pcsim.engine.mesh.times import Durations
from pcsim.engine.process import write_agendas
from pcsim.errors import ShapeError
from pcsim.hardware.chip import Chip
from pcsim.hardware.mapping import Mapping, Tile
from pcsim.hardware.routes import is_horizontal, multicast
from pcsim.hardware.traffic import Stream, streams_of
from pcsim.network.layer import MessageKind
from pcsim.schedule.program import Program

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
SIDE = {kind: side for side, kind in enumerate(MessageKind)}  # 0 predictions, 1 errors
NOTHING_SENT = -1


class Plan(NamedTuple):
    """A program on a mesh.

    A job is an operation of one tile; jobs are numbered as in the program, those of one operation by tile. A
    door is where a tile's messages come in: 2·tile for predictions, 2·tile + 1 for errors. An edge leads from
    one sending tile to one door. A route is the tree that packets of one stream cross; its branches are the
    links, in `multicast`'s order.

    Attributes:
        job_operation: index in the program; (jobs,).
        job_tile: who does it.
        job_ns: how long it takes.
        predictions: rounds of predictions that must be complete before it begins; 0 if it reads none.
        errors: rounds of errors.
        sends: the side of the doors that its packets go to, at its end; −1 if it sends none.
        agenda: jobs of tile 0 in order, then of tile 1, …; (jobs,).
        agenda_first: where each tile begins in `agenda`; (tiles + 1,).
        tile_core: where each tile is; (tiles,).
        hosted: tiles of core 0, then of core 1, …; (tiles,).
        hosted_first: where each core begins in `hosted`; (cores + 1,).
        routes_first: where the routes begin of what a tile sends to a side, by 2·tile + side; (2·tiles + 1,).
        route_ns: time for which a packet keeps each link busy; (routes,).
        branch_first: where each route begins among the branches; (routes + 1,).
        branch_route: the route of each branch; (branches,).
        branch_link: the link that it crosses.
        branch_ns: latency of that hop.
        children: branches that follow each branch, branch by branch.
        children_first: where each branch begins in `children`; (branches + 1,).
        roots: branches that leave the source, route by route.
        roots_first: where each route begins in `roots`; (routes + 1,).
        ends: edges that end behind each branch, branch by branch.
        ends_first: where each branch begins in `ends`; (branches + 1,).
        locals: edges within the source's core, route by route.
        locals_first: where each route begins in `locals`; (routes + 1,).
        edge_door: where each edge ends; (edges,).
        door_edges: edges of door 0, then of door 1, …; (edges,).
        door_first: where each door begins in `door_edges`; (2·tiles + 1,).
        links: links that the mesh has, 4 a core.
    """

    job_operation: Integers
    job_tile: Integers
    job_ns: Floats
    predictions: Integers
    errors: Integers
    sends: Integers
    agenda: Integers
    agenda_first: Integers
    tile_core: Integers
    hosted: Integers
    hosted_first: Integers
    routes_first: Integers
    route_ns: Floats
    branch_first: Integers
    branch_route: Integers
    branch_link: Integers
    branch_ns: Floats
    children: Integers
    children_first: Integers
    roots: Integers
    roots_first: Integers
    ends: Integers
    ends_first: Integers
    locals: Integers
    locals_first: Integers
    edge_door: Integers
    door_edges: Integers
    door_first: Integers
    links: int

    @property
    def work(self) -> float:
        """The time that all jobs take together, in ns."""
        return float(self.job_ns.sum())


def make_plan(program: Program, mapping: Mapping, batch: int, durations: Durations) -> Plan:
    """Lay a program out on a mesh.

    Raises:
        ShapeError: the mapping is of another network, or durations of another program.
    """
    if mapping.sizes != program.network.sizes:
        raise ShapeError(f"mapping of layers {list(mapping.sizes)}: expected {list(program.network.sizes)}")
    if not len(durations.fixed) == len(durations.shared) == len(program.operations):
        raise ShapeError(f"{len(durations.fixed)} durations: expected {len(program.operations)}")
    tiles = mapping.tiles
    cores = np.array([tile.core for tile in tiles], np.int64)
    hosted, hosted_first = _grouped(cores, mapping.chip.cores)
    jobs = _jobs(program, tiles, batch, durations)
    agenda, agenda_first = _grouped(jobs["job_tile"], len(tiles))
    return Plan(
        **jobs,
        agenda=agenda,
        agenda_first=agenda_first,
        tile_core=cores,
        hosted=hosted,
        hosted_first=hosted_first,
        **_routes(streams_of(program, tiles, batch), mapping),
        links=4 * mapping.chip.cores,
    )


def _jobs(
    program: Program, tiles: Sequence[Tile], batch: int, durations: Durations
) -> dict[str, NDArray[Any]]:
    """Repeat each operation for the tiles of its layer."""
    sizes = np.array(program.network.sizes, np.int64)
    layer_of = np.array([tile.layer for tile in tiles], np.int64)
    parts = np.bincount(layer_of, minlength=len(sizes))
    first_tile = np.cumsum(parts) - parts
    share = np.array([tile.neurons for tile in tiles], np.int64) / sizes[layer_of]
    layer = np.array([operation.layer for operation in program.operations], np.int64)
    needed = _needed(program)
    shared = durations.shared + durations.addition * batch * merged_values(program, parts)
    operation = np.repeat(np.arange(len(layer)), parts[layer])
    begins = np.cumsum(parts[layer]) - parts[layer]
    tile = first_tile[layer[operation]] + np.arange(len(operation)) - begins[operation]
    sends = np.array(
        [NOTHING_SENT if one.sends is None else SIDE[one.sends] for one in program.operations], np.int64
    )
    return {
        "job_operation": operation,
        "job_tile": tile,
        "job_ns": durations.fixed[operation] + shared[operation] * share[tile],
        "predictions": needed[operation, 0],
        "errors": needed[operation, 1],
        "sends": sends[operation],
    }


def merged_values(program: Program, parts: Integers) -> Integers:
    """Return the additions of part sums in each operation, one sample.

    They are k − 1 a value of each round of k parts.

    Args:
        program: the first operation that reads a round adds it up.
        parts: tiles of each layer; (layers,).
    """
    layer = np.array([operation.layer for operation in program.operations], np.int64)
    news = _news(layer, _needed(program)[:, 0])
    below = parts[layer - 1]  # of the input layer, which nothing comes to, the last one's
    return np.array(program.network.sizes, np.int64)[layer] * news * (below - 1)


def _needed(program: Program) -> Integers:
    """Return how many rounds of each side each operation waits for; (operations, 2)."""
    agendas = {layer: iter(agenda) for layer, agenda in write_agendas(program.operations).items()}
    needed = np.zeros((len(program.operations), 2), np.int64)
    for index, operation in enumerate(program.operations):
        for (_, kind), rounds in next(agendas[operation.layer])[1]:
            needed[index, SIDE[kind]] = rounds
    return needed


def _news(layer: Integers, rounds: Integers) -> Integers:
    """Return how many rounds each operation sees first, of those that its layer has got."""
    seen: dict[int, int] = {}
    news = np.zeros(len(layer), np.int64)
    for index, (one, count) in enumerate(zip(layer.tolist(), rounds.tolist(), strict=True)):
        news[index] = max(0, count - seen.get(one, 0))
        seen[one] = max(count, seen.get(one, 0))
    return news


def _routes(streams: Sequence[Stream], mapping: Mapping) -> dict[str, NDArray[Any]]:
    """Draw the tree of each stream; streams come by source, predictions before errors."""
    chip, tiles = mapping.chip, mapping.tiles
    width = chip.link_bytes_per_ns or float("inf")
    links: list[int] = []
    before: list[int] = []
    route_of: list[int] = []
    reached: list[int] = []
    door: list[int] = []
    edge_route: list[int] = []
    for number, stream in enumerate(streams):
        tree = multicast(chip, tiles[stream.source].core, [tiles[one].core for one in stream.targets])
        base = len(links)
        links += tree.links
        route_of += [number] * len(tree.links)
        before += [base + one if one >= 0 else -1 for one in tree.before]
        reached += [base + one if one >= 0 else -1 for one in tree.reached]
        door += [2 * one + SIDE[stream.kind] for one in stream.targets]
        edge_route += [number] * len(stream.targets)
    doors = np.array([2 * one.source + SIDE[one.kind] for one in streams], np.int64)
    route, branch, end = (np.array(one, np.int64) for one in (route_of, before, reached))
    edge_door, of_edge = np.array(door, np.int64), np.array(edge_route, np.int64)
    door_edges, door_first = _grouped(edge_door, 2 * len(tiles))
    return {
        "routes_first": _starts(doors, 2 * len(tiles)),
        "route_ns": np.array([stream.bytes / width for stream in streams], np.float64),
        "branch_first": _starts(route, len(streams)),
        "branch_route": route,
        "branch_link": np.array(links, np.int64),
        "branch_ns": np.array([_hop_ns(chip, one) for one in links], np.float64),
        **dict(zip(("children", "children_first"), _chosen(branch, branch >= 0, len(links)), strict=True)),
        **dict(zip(("roots", "roots_first"), _chosen(route, branch < 0, len(streams)), strict=True)),
        **dict(zip(("ends", "ends_first"), _chosen(end, end >= 0, len(links)), strict=True)),
        **dict(zip(("locals", "locals_first"), _chosen(of_edge, end < 0, len(streams)), strict=True)),
        "edge_door": edge_door,
        "door_edges": door_edges,
        "door_first": door_first,
    }


def _hop_ns(chip: Chip, link: int) -> float:
    return (chip.hop_ns_horizontal if is_horizontal(link) else chip.hop_ns_vertical) or 0.0


def _starts(group: Integers, groups: int) -> Integers:
    """Return where each group begins once members are sorted by group; (groups + 1,)."""
    return np.concatenate(([0], np.cumsum(np.bincount(group, minlength=groups)))).astype(np.int64)


def _grouped(group: Integers, groups: int) -> tuple[Integers, Integers]:
    """Return the members by group, in their own order within it, and where each group begins."""
    return np.argsort(group, kind="stable"), _starts(group, groups)


def _chosen(group: Integers, chosen: NDArray[np.bool_], groups: int) -> tuple[Integers, Integers]:
    """Return the chosen members by group, and where each group begins."""
    members = np.flatnonzero(chosen)
    order, starts = _grouped(group[members], groups)
    return members[order], starts
