"""Which part of a message each tile sends to whom.

Layer l owns the columns of W_l, so each of its tiles has a part of every prediction: it sends each tile j of
layer l + 1 its own part sum, which tile j adds up. An error is the same for all tiles of the layer below: a
tile of layer l sends its part of e_l to all of them in one multicast packet.

This module imports nothing of the simulator, so that exports may use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pcsim.hardware.mapping import Tile


@dataclass(frozen=True)
class Part:
    """A packet's share of a message.

    Attributes:
        source: index of the tile that sends it.
        targets: indices of the tiles that receive it; more than one is a multicast.
        first: first neuron that it is about, of those that the message is about.
        last: one behind the last.
    """

    source: int
    targets: tuple[int, ...]
    first: int
    last: int


def parts(tiles: Sequence[Tile], source: int, targets: Sequence[int]) -> list[Part]:
    """Return what a tile sends of one message.

    Args:
        tiles: of a network, by layer and first neuron.
        source: index of the tile that sends.
        targets: indices of all tiles of the layer above, for a prediction, or below, for an error.
    """
    tile = tiles[source]
    if tiles[targets[0]].layer < tile.layer:
        return [Part(source, tuple(targets), tile.first, tile.last)]
    return [Part(source, (one,), tiles[one].first, tiles[one].last) for one in targets]
