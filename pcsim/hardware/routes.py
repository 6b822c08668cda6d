"""Ways through a mesh: first along the row, then along the column (XY routing).

Each pair of neighbouring cores has two links, one each way, which do not disturb each other. XY routing needs
no tables and cannot deadlock. A multicast packet is copied where the ways to its targets part, so it crosses
no link twice.

This module imports nothing of the simulator, so that exports may use it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pcsim.hardware.chip import Chip

EAST, WEST, SOUTH, NORTH = range(4)


def link(core: int, direction: int) -> int:
    """Return the number of the link that leaves a core in a direction: 4 · core + direction."""
    return 4 * core + direction


def link_ends(chip: Chip, number: int) -> tuple[int, int]:
    """Return the cores that a link leads from and to."""
    core, direction = divmod(number, 4)
    return core, core + (1, -1, chip.columns, -chip.columns)[direction]


def is_horizontal(number: int) -> bool:
    """Return whether a link lies along a row."""
    return number % 4 <= WEST


def route(chip: Chip, source: int, target: int) -> tuple[int, ...]:
    """Return the links from one core to another: along the row, then along the column."""
    (row, column), (to_row, to_column) = chip.place(source), chip.place(target)
    along = EAST if to_column > column else WEST
    down = SOUTH if to_row > row else NORTH
    step = 1 if along == EAST else -1
    flat = [link(row * chip.columns + at, along) for at in range(column, to_column, step)]
    step = 1 if down == SOUTH else -1
    steep = [link(at * chip.columns + to_column, down) for at in range(row, to_row, step)]
    return (*flat, *steep)


@dataclass(frozen=True)
class Tree:
    """The union of the XY routes from one core to several.

    Attributes:
        links: that are crossed, each after the one before it on its route.
        before: for each of them, the index in `links` of the one crossed before it; −1 at the source.
        reached: by target, as given: index in `links` of the last one on its route; −1 at the source itself.
    """

    links: tuple[int, ...]
    before: tuple[int, ...]
    reached: tuple[int, ...]


def multicast(chip: Chip, source: int, targets: Iterable[int]) -> Tree:
    """Return the tree that a packet to several cores crosses.

    It is a tree because a link of an XY route has only one possible link before it, given the source.
    """
    index: dict[int, int] = {}
    before: list[int] = []
    reached: list[int] = []
    for target in targets:
        here = -1
        for one in route(chip, source, target):
            if one not in index:
                index[one] = len(before)
                before.append(here)
            here = index[one]
        reached.append(here)
    return Tree(tuple(index), tuple(before), tuple(reached))


def crossings(chip: Chip, source: int, targets: Iterable[int]) -> int:
    """Return how many links the multicast tree has, without drawing it.

    Along the source's row it reaches out to the farthest columns, and in each target's column from that row
    to the farthest rows.
    """
    row, column = chip.place(source)
    columns: dict[int, tuple[int, int]] = {}
    for target in targets:
        to_row, to_column = chip.place(target)
        low, high = columns.get(to_column, (row, row))
        columns[to_column] = min(low, to_row), max(high, to_row)
    flat = max(column, *columns) - min(column, *columns) if columns else 0
    return flat + sum(high - low for low, high in columns.values())
