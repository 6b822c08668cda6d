"""The recorded messages of a trace as packets between the tiles of a mapping, on their ways over the mesh."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping as Table
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pcsim.errors import ConfigurationError, TraceError
from pcsim.hardware.chip import Chip
from pcsim.hardware.mapping import Mapping, Tile
from pcsim.hardware.parts import parts
from pcsim.hardware.routes import is_horizontal, link_ends, multicast

Columns = dict[str, npt.NDArray[Any]]
Ints = npt.NDArray[np.int64]
MOST_ROWS = 65_536  # of a table at a time, unless a single message has more


def in_a_row(sizes: tuple[int, ...]) -> Mapping:
    """Return the mapping where there is none: one layer is one core, and they stand in a row."""
    tiles = tuple(Tile(layer, 0, size, layer) for layer, size in enumerate(sizes))
    return Mapping("none", Chip(1, len(sizes)), sizes, tiles, "row")


def mapping_of(path: Path, sizes: tuple[int, ...]) -> Mapping:
    """Read the mapping of a network with layers of these sizes.

    Raises:
        ConfigurationError: it is none, or that of another network.
    """
    mapping = Mapping.load(path)
    if mapping.sizes != sizes:
        raise ConfigurationError(
            f"{path}: maps layers of {_listed(mapping.sizes)} neurons: expected the trace's {_listed(sizes)}"
        )
    return mapping


@dataclass
class _Way:
    """How messages from one layer to a neighbour travel, and how many have.

    Attributes:
        about: neurons that a message is about.
        spans: neurons that each packet is about, first and one behind the last, (2, packets).
        rows: a row a packet and target: the packet's number, tiles and cores at both ends, hops, neurons.
        trees: links that each packet crosses.
        messages: so far.
        bytes: so far, of each packet.
    """

    about: int
    spans: Ints
    rows: Table[str, Ints]
    trees: list[tuple[int, ...]]
    messages: int
    bytes: Ints


class Packets:
    """Cuts messages into packets between tiles, and keeps count of what crosses which link.

    Args:
        mapping: where the tiles are.
    """

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._ways: dict[tuple[int, int], _Way] = {}
        self._sent = 0

    def split(self, messages: Columns) -> Iterator[Columns]:
        """Yield a row for each packet and target, in the order of the messages.

        Bytes and numbers that are not zero are known of whole messages only: they are spread evenly over the
        neurons that a message is about.

        Args:
            messages: source and target are layers; what else there is goes to all rows of a message.

        Raises:
            TraceError: a message between layers that are no neighbours.
        """
        links = zip(messages["source"].tolist(), messages["target"].tolist(), strict=True)
        ways = [self._way(*link) for link in links]
        ends = np.cumsum([len(way.rows["packet"]) for way in ways])
        first = 0
        while first < len(ways):
            room = ends[first] - len(ways[first].rows["packet"]) + MOST_ROWS
            last = max(first + 1, int(np.searchsorted(ends, room, side="right")))
            some = {name: values[first:last] for name, values in messages.items()}
            yield self._rows(some, ways[first:last])
            first = last

    def _rows(self, messages: Columns, ways: list[_Way]) -> Columns:
        packets = np.array([len(way.trees) for way in ways])
        at = np.repeat(np.arange(len(ways)), [len(way.rows["packet"]) for way in ways])
        columns = {name: values[at] for name, values in messages.items()}
        columns |= {name: np.concatenate([way.rows[name] for way in ways]) for name in ways[0].rows}
        about = np.array([way.about for way in ways])[at]
        start, end = columns.pop("first"), columns.pop("last")
        for name in ("bytes", "events"):
            columns[name] = _share(columns[name], start, end, about)
        columns["packet"] += (self._sent + np.cumsum(packets) - packets)[at]
        self._sent += int(packets.sum())
        for way, size in zip(ways, messages["bytes"].tolist(), strict=True):
            way.messages += 1
            way.bytes += _share(size, way.spans[0], way.spans[1], way.about)
        return columns

    def links(self) -> list[dict[str, int]]:
        """Return each link that was crossed so far: the cores at its ends, packets and bytes."""
        packets, size = dict[int, int](), dict[int, int]()
        for way in self._ways.values():
            for tree, own in zip(way.trees, way.bytes.tolist(), strict=True):
                for link in tree:
                    packets[link] = packets.get(link, 0) + way.messages
                    size[link] = size.get(link, 0) + own
        ends = {link: link_ends(self._mapping.chip, link) for link in sorted(packets)}
        return [
            {"from": source, "to": target, "packets": packets[link], "bytes": size[link]}
            for link, (source, target) in ends.items()
        ]

    def totals(self) -> dict[str, int]:
        """Return what `pcsim map` calls traffic, of all messages so far."""
        ways = [(way, tree) for way in self._ways.values() for tree in way.trees]
        crossed = [(is_horizontal(link), way.messages) for way, tree in ways for link in tree]
        return {
            "messages_between_tiles": sum(way.messages for way, tree in ways if tree),
            "messages_within_a_core": sum(way.messages for way, tree in ways if not tree),
            "hops_horizontal": sum(number for flat, number in crossed if flat),
            "hops_vertical": sum(number for flat, number in crossed if not flat),
            "bytes_times_hops": sum(link["bytes"] for link in self.links()),
        }

    def _way(self, source: int, target: int) -> _Way:
        """Return the way of messages between two layers; drawn once."""
        if (source, target) not in self._ways:
            if abs(source - target) != 1:
                raise TraceError(
                    f"a message from layer {source} to {target}: expected one between neighbouring layers"
                )
            self._ways[source, target] = self._drawn(source, target)
        return self._ways[source, target]

    def _drawn(self, source: int, target: int) -> _Way:
        tiles, chip = self._mapping.tiles, self._mapping.chip
        of_layer = {
            layer: [index for index, tile in enumerate(tiles) if tile.layer == layer]
            for layer in (source, target)
        }
        packets = [part for one in of_layer[source] for part in parts(tiles, one, of_layer[target])]
        ends = [(number, part, one) for number, part in enumerate(packets) for one in part.targets]
        cores = [(tiles[part.source].core, tiles[one].core) for _, part, one in ends]
        rows = {
            "packet": [number for number, _, _ in ends],
            "source_tile": [part.source for _, part, _ in ends],
            "target_tile": [one for _, _, one in ends],
            "source": [core for core, _ in cores],
            "target": [core for _, core in cores],
            "hops": [chip.distance(*both) for both in cores],
            "first": [part.first for _, part, _ in ends],
            "last": [part.last for _, part, _ in ends],
        }
        trees = [
            multicast(chip, tiles[part.source].core, [tiles[one].core for one in part.targets]).links
            for part in packets
        ]
        return _Way(
            self._mapping.sizes[max(source, target)],
            np.array([(part.first, part.last) for part in packets], np.int64).T,
            {name: np.array(values, np.int64) for name, values in rows.items()},
            trees,
            0,
            np.zeros(len(packets), np.int64),
        )


def _share(whole: int | Ints, first: Ints, last: Ints, about: int | Ints) -> Ints:
    """Return the share of so many whole things that falls on some of the neurons that they are about."""
    return whole * last // about - whole * first // about


def _listed(sizes: tuple[int, ...]) -> str:
    return "-".join(map(str, sizes))
