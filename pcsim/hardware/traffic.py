"""What tiles send each other in one mini-batch, counted from the program and not from a simulation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pcsim.hardware.chip import Chip
from pcsim.hardware.mapping import Mapping, Tile
from pcsim.hardware.parts import parts
from pcsim.hardware.routes import crossings, is_horizontal, multicast
from pcsim.network.layer import MessageKind
from pcsim.schedule.program import Program


@dataclass(frozen=True)
class Stream:
    """Equal packets from one tile, one each time that its layer sends.

    Attributes:
        source: index of the tile that sends.
        targets: indices of the tiles that receive each packet; more than one is a multicast.
        kind: what the packets carry.
        bytes: of one packet.
        rounds: packets in one mini-batch.
    """

    source: int
    targets: tuple[int, ...]
    kind: MessageKind
    bytes: int
    rounds: int


def streams_of(program: Program, tiles: Sequence[Tile], batch: int) -> list[Stream]:
    """Return who sends what to whom, by source, predictions before errors; see `pcsim.hardware.parts`.

    Args:
        program: whose operations send.
        tiles: of its network, by layer and first neuron.
        batch: samples in a mini-batch; a packet carries its neurons' values for all of them.
    """
    rounds = Counter((one.layer, one.sends) for one in program.operations if one.sends is not None)
    of_layer: list[list[int]] = [[] for _ in program.network.sizes]
    for index, tile in enumerate(tiles):
        of_layer[tile.layer].append(index)
    size = batch * program.network.dtype.itemsize
    streams = []
    for source, tile in enumerate(tiles):
        for kind, other in ((MessageKind.PREDICTION, tile.layer + 1), (MessageKind.ERROR, tile.layer - 1)):
            if count := rounds[tile.layer, kind]:
                streams += [
                    Stream(source, part.targets, kind, size * (part.last - part.first), count)
                    for part in parts(tiles, source, of_layer[other])
                ]
    return streams


def bytes_times_hops(streams: Sequence[Stream], chip: Chip, cores: Sequence[int]) -> int:
    """Return the bytes that cross links in one mini-batch, counted at each link, for tiles on these cores."""
    return sum(
        stream.rounds
        * stream.bytes
        * crossings(chip, cores[stream.source], [cores[one] for one in stream.targets])
        for stream in streams
    )


@dataclass(frozen=True, eq=False)
class Traffic:
    """The packets of one mini-batch on their way over the mesh.

    Attributes:
        streams: who sends what to whom.
        packets: injected by cores; a multicast packet counts once. Packets within a core are `local`.
        local: packets all of whose targets are on the core of their source.
        hops_horizontal: links along rows that packets cross.
        hops_vertical: links along columns that packets cross.
        link_packets: packets over each link, by `routes.link`; (4 · cores,).
        link_bytes: bytes over each link; (4 · cores,).
        merged_values: additions of part sums, whole mini-batch: (k − 1) a neuron and round for k parts.
    """

    streams: tuple[Stream, ...]
    packets: int
    local: int
    hops_horizontal: int
    hops_vertical: int
    link_packets: NDArray[np.int64]
    link_bytes: NDArray[np.int64]
    merged_values: int

    @cached_property
    def bytes_times_hops(self) -> int:
        """Bytes counted at each link that they cross."""
        return int(self.link_bytes.sum())

    @property
    def hops(self) -> int:
        """Links that packets cross."""
        return self.hops_horizontal + self.hops_vertical


def traffic_of(program: Program, mapping: Mapping, batch: int) -> Traffic:
    """Count the packets, hops and bytes of one mini-batch."""
    tiles, chip = mapping.tiles, mapping.chip
    streams = streams_of(program, tiles, batch)
    packets, size = np.zeros(4 * chip.cores, np.int64), np.zeros(4 * chip.cores, np.int64)
    sent = local = 0
    for stream in streams:
        tree = multicast(chip, tiles[stream.source].core, [tiles[one].core for one in stream.targets])
        sent += stream.rounds if tree.links else 0
        local += 0 if tree.links else stream.rounds
        for one in tree.links:
            packets[one] += stream.rounds
            size[one] += stream.rounds * stream.bytes
    along_rows = [direction for direction in range(4) if is_horizontal(direction)]
    horizontal = int(packets.reshape(-1, 4)[:, along_rows].sum())
    vertical = int(packets.sum()) - horizontal
    merged = merges(program, mapping.tiles) * batch
    return Traffic(tuple(streams), sent, local, horizontal, vertical, packets, size, merged)


def merges(program: Program, tiles: Sequence[Tile]) -> int:
    """Return the additions that put part sums together in one mini-batch, for one sample."""
    parts = Counter(tile.layer for tile in tiles)
    rounds = Counter(one.layer for one in program.operations if one.sends is MessageKind.PREDICTION)
    sizes = program.network.sizes
    return sum(count * (parts[layer] - 1) * sizes[layer + 1] for layer, count in rounds.items())
