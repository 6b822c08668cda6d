"""How the messages between two layers travel under a mapping, a packet of the whole message at a time."""

from __future__ import annotations

from collections.abc import Mapping as Table
from collections.abc import Sequence
from dataclasses import dataclass

from pcsim.hardware.mapping import Mapping, Tile
from pcsim.hardware.routes import is_horizontal, multicast
from pcsim.hardware.traffic import Stream, streams_of
from pcsim.network.layer import MessageKind
from pcsim.network.network import Network
from pcsim.schedule.program import Program

Ways = Table[tuple[int, int], "Way"]  # by (source, target) layer


@dataclass(frozen=True)
class Way:
    """What happens to each packet, or value, of a message from one layer to the next.

    Attributes:
        sent: packets that cores send: k for a prediction that k tiles have part sums of.
        arrived: packets that cores put into inboxes: a multicast arrives at every tile.
        across: links along rows that they cross.
        down: links along columns.
        added: additions that put part sums together.
        first: hops of the first packet along rows and columns, which take their time.
    """

    sent: float = 1
    arrived: float = 1
    across: float = 1
    down: float = 0
    added: float = 0
    first: tuple[float, float] = (1, 0)


ONE_HOP = Way()  # along a row: where there is no mapping


def ways_of(program: Program, mapping: Mapping, batch: int) -> dict[tuple[int, int], Way]:
    """Return the way of the messages between each two layers, from their tiles' streams."""
    grouped: dict[tuple[int, int], list[Stream]] = {}
    for stream in streams_of(program, mapping.tiles, batch):
        layer = mapping.tiles[stream.source].layer
        link = layer, layer + (1 if stream.kind is MessageKind.PREDICTION else -1)
        grouped.setdefault(link, []).append(stream)
    return {link: _way(streams, link, program.network, mapping, batch) for link, streams in grouped.items()}


def _way(
    streams: Sequence[Stream], link: tuple[int, int], network: Network, mapping: Mapping, batch: int
) -> Way:
    """Weigh the streams of a link by their share of the message."""
    whole = batch * network.sizes[max(link)] * network.dtype.itemsize
    sent = arrived = across = down = 0.0
    first = 0, 0
    for stream in streams:
        share = stream.bytes / whole
        flat, steep = _crossed(stream, mapping.tiles, mapping)
        sent += share
        arrived += share * len(stream.targets)
        across += share * flat
        down += share * steep
        first = _farthest(first, stream, mapping)
    added = sent - 1 if link[1] > link[0] else 0.0
    return Way(sent, arrived, across, down, added, first)


def _crossed(stream: Stream, tiles: Sequence[Tile], mapping: Mapping) -> tuple[int, int]:
    """Count the links of a packet's tree, along rows and along columns."""
    tree = multicast(mapping.chip, tiles[stream.source].core, [tiles[one].core for one in stream.targets])
    flat = sum(map(is_horizontal, tree.links))
    return flat, len(tree.links) - flat


def _farthest(first: tuple[int, int], stream: Stream, mapping: Mapping) -> tuple[int, int]:
    """Return the longest way to a single target so far."""
    chip, tiles = mapping.chip, mapping.tiles
    row, column = chip.place(tiles[stream.source].core)
    for target in stream.targets:
        other_row, other_column = chip.place(tiles[target].core)
        first = max(first, (abs(other_column - column), abs(other_row - row)), key=sum)
    return first
