"""Which tile goes to which core: row by row, along a snake, where traffic is least, or as a file says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pcsim.errors import ConfigurationError, nearest
from pcsim.hardware.chip import Chip
from pcsim.hardware.machine import option_of
from pcsim.hardware.mapping import Mapping, Tile
from pcsim.hardware.tiling import check_fit, fills, split
from pcsim.hardware.traffic import Stream, bytes_times_hops, streams_of
from pcsim.network.network import Network
from pcsim.schedule.program import Program

PLACEMENTS = ("row", "snake", "traffic")
# Cores up to which SciPy's optimisers take seconds: exchanging pairs costs n⁴ a sweep, assignment n³ a step.
MOST_EXCHANGED, MOST_ASSIGNED = 64, 256


def place(program: Program, chip: Chip, batch: int, placement: str, machine: str, state: int = 0) -> Mapping:
    """Split a network into tiles and place them on a chip.

    Args:
        program: whose network is split; its messages are the traffic.
        chip: the mesh and what a core can hold.
        batch: samples in a mini-batch.
        placement: "row": tile i on core i; "snake": the same with every second row backwards; "traffic": the
            best in bytes × hops that is found, never worse than both; or a mapping's file (.json).
        machine: the chip's name.
        state: numbers that the learning rule keeps a parameter, which lie beside it.

    Raises:
        ConfigurationError: the network does not fit, the placement is unknown, the file is of another network
            or chip, or the mesh has too many cores to be simulated.
    """
    chip.check_simulated(machine)
    if placement.endswith(".json"):
        return _placed_by_file(program, chip, batch, Path(placement), machine, state)
    if placement not in PLACEMENTS:
        hint = nearest(placement, PLACEMENTS)
        raise ConfigurationError(f"placement '{placement}': {hint} (or a mapping's file, .json)")
    tiles = [tile for layer in split(program.network, chip, batch, machine, state) for tile in layer]
    if placement == "traffic":
        cores = place_by_traffic(streams_of(program, tiles, batch), len(tiles), chip)
    else:
        cores = _first(strips(chip, 1, turning=placement == "snake"), len(tiles))
    placed = tuple(replace(tile, core=core) for tile, core in zip(tiles, cores, strict=False))
    return Mapping(machine, chip, program.network.sizes, placed, placement)


def strips(chip: Chip, height: int, *, turning: bool = True) -> Iterator[int]:
    """Yield all cores, in strips of so many rows, each column by column.

    With `turning`, every second column runs up and every second strip backwards, so that neighbours in the
    order are neighbours on the mesh; a height of 1 gives the snake, or row order without turning.
    """
    up = False
    for strip, top in enumerate(range(0, chip.rows, height)):
        rows = range(top, min(top + height, chip.rows))
        for column in reversed(range(chip.columns)) if turning and strip % 2 else range(chip.columns):
            for row in reversed(rows) if up else rows:
                yield row * chip.columns + column
            up = turning and not up and len(rows) > 1


def place_by_traffic(streams: Sequence[Stream], tiles: int, chip: Chip) -> list[int]:
    """Return a core for each tile, with the fewest bytes × hops that is found.

    Tried are row order and the snake, strips of other heights, which keep the tiles of a split layer
    together, and, in a rectangle that just holds all tiles, SciPy's quadratic assignment: of flows between
    tiles to distances between cores (FAQ), then exchanges of pairs. Flows count a multicast packet once for
    each target (or as a share of one packet), so what is found is judged by its trees. No tile shares a core.
    """
    heights = sorted({1, *(2**power for power in range(12) if 2**power < chip.rows), chip.rows})
    tried = [_first(strips(chip, 1, turning=False), tiles)]
    tried += [_first(strips(chip, height), tiles) for height in heights]
    corner = _corner(chip, tiles)
    inside = [_first(strips(corner, height), tiles) for height in heights if height <= corner.rows]
    tried += [[_moved(core, corner, chip) for core in cores] for cores in inside]
    best = min(tried, key=lambda cores: bytes_times_hops(streams, chip, cores))
    if (
        tiles > 2
        and corner.cores <= MOST_ASSIGNED
        and bytes_times_hops(streams, chip, best) > _least(streams)
    ):
        start = min(inside, key=lambda cores: bytes_times_hops(streams, corner, cores))
        found = [
            [_moved(core, corner, chip) for core in cores]
            for cores in _assigned(streams, tiles, corner, start)
        ]
        best = min([best, *found], key=lambda cores: bytes_times_hops(streams, chip, cores))
    return best


def _first(cores: Iterator[int], number: int) -> list[int]:
    """Return so many cores from the start: a mesh may have far more than there are tiles."""
    return list(islice(cores, number))


def _least(streams: Sequence[Stream]) -> int:
    """Return the bytes × hops if every packet crossed as few links as it can: one to each target."""
    return sum(stream.rounds * stream.bytes * len(stream.targets) for stream in streams)


def _assigned(streams: Sequence[Stream], tiles: int, chip: Chip, start: list[int]) -> Iterator[list[int]]:
    """Yield what SciPy's quadratic assignment finds for tiles on a small chip."""
    from scipy.optimize import quadratic_assignment

    places = np.array([chip.place(core) for core in range(chip.cores)])
    distance = np.abs(places[:, None] - places[None]).sum(axis=2).astype(float)
    unused = [core for core in range(chip.cores) if core not in set(start)]
    for flow in _flows(streams, chip.cores):
        rng = np.random.default_rng(0)  # never drawn from: both begin at a given point
        faq = quadratic_assignment(flow, distance, method="faq", options={"rng": rng}).col_ind
        yield faq[:tiles].tolist()
        if chip.cores <= MOST_EXCHANGED:
            for guess in (faq, np.array(start + unused)):
                options = {"partial_guess": np.column_stack([np.arange(chip.cores), guess]), "rng": rng}
                yield (
                    quadratic_assignment(flow, distance, method="2opt", options=options)
                    .col_ind[:tiles]
                    .tolist()
                )


def _flows(streams: Sequence[Stream], size: int) -> list[NDArray[np.float64]]:
    """Return bytes from tile to tile: a multicast packet counted for each target, and shared among them."""
    whole, shared = np.zeros((size, size)), np.zeros((size, size))
    for stream in streams:
        for target in stream.targets:
            whole[stream.source, target] += stream.rounds * stream.bytes
            shared[stream.source, target] += stream.rounds * stream.bytes / len(stream.targets)
    top = whole.max() or 1.0
    return [whole / top] if np.array_equal(whole, shared) else [whole / top, shared / top]


def _corner(chip: Chip, tiles: int) -> Chip:
    """Return the smallest rectangle, as square as can be, that holds so many tiles."""
    shapes = [(rows, -(-tiles // rows)) for rows in range(1, chip.rows + 1)]
    fitting = [shape for shape in shapes if shape[1] <= chip.columns]
    rows, columns = min(fitting, key=lambda shape: (sum(shape), shape[0] * shape[1]))
    return Chip(rows, columns)


def _moved(core: int, corner: Chip, chip: Chip) -> int:
    """Return the core of the chip at the place of a core in its corner."""
    row, column = corner.place(core)
    return row * chip.columns + column


def check_placed(
    given: Mapping, network: Network, chip: Chip, batch: int, machine: str, state: int = 0
) -> None:
    """Refuse a mapping that cannot be on a chip: of another mesh, or with more than a core can hold.

    What the chip's machine is called does not matter: files are copied and renamed.

    Args:
        given: of this network.
        network: whose tiles are placed.
        chip: where they are to be.
        batch: samples in a mini-batch.
        machine: the chip's name.
        state: as in `place`.

    Raises:
        ConfigurationError: says what differs, or what is over.
    """
    if (given.chip.rows, given.chip.columns) != (chip.rows, chip.columns):
        raise ConfigurationError(
            f"mapping for a {given.chip.rows}x{given.chip.columns} mesh ({given.machine}): expected "
            f"{chip.rows}x{chip.columns} ({machine}); name its machine with --hardware "
            f"{option_of(given.machine)}, or make another mapping (pcsim map)"
        )
    check_fit(fills(network, chip, batch, given.tiles, state), machine)


def _placed_by_file(
    program: Program, chip: Chip, batch: int, path: Path, machine: str, state: int
) -> Mapping:
    """Take tiles and cores from a mapping's file, and check them against this chip."""
    given = Mapping.load(path)
    if given.sizes != program.network.sizes:
        raise ConfigurationError(
            f"{path} is of a network with layers {list(given.sizes)}: expected {list(program.network.sizes)}"
        )
    try:
        check_placed(given, program.network, chip, batch, machine, state)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    tiles: tuple[Tile, ...] = given.tiles
    return Mapping(machine, chip, given.sizes, tiles, path.name)
