"""What a tile needs of its core, and how few equal tiles a layer takes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pcsim.errors import ConfigurationError
from pcsim.hardware.chip import Chip
from pcsim.hardware.mapping import Tile
from pcsim.network.connection import Conv
from pcsim.network.network import Network

# Fields of `Need` and of `Chip`, and how people call them.
CAPACITIES = (
    ("neurons", "neurons_per_core", "neurons"),
    ("synapse_bytes", "synapse_bytes_per_core", "bytes of synapse memory"),
    ("buffer_bytes", "buffer_bytes_per_core", "bytes of message buffers"),
)


@dataclass(frozen=True)
class Need:
    """What tiles need of their core.

    Attributes:
        neurons: held.
        synapse_bytes: for weights and biases, and what the learning rule keeps of each.
        buffer_bytes: for messages that have come in.
    """

    neurons: int
    synapse_bytes: int
    buffer_bytes: int

    def __add__(self, other: Need) -> Need:
        """Return what both need together."""
        return Need(
            self.neurons + other.neurons,
            self.synapse_bytes + other.synapse_bytes,
            self.buffer_bytes + other.buffer_bytes,
        )


@dataclass(frozen=True)
class Fill:
    """How full the fullest core is.

    Attributes:
        what: "neurons", "bytes of synapse memory" or "bytes of message buffers".
        most: that a core holds.
        core: that one.
        limit: that a core can hold; None: any number.
    """

    what: str
    most: int
    core: int
    limit: int | None


def need_of(network: Network, batch: int, tile: Tile, parts_below: int, state: int = 0) -> Need:
    """Return what one tile needs.

    Synapses: the columns of W_l that lead out of its neurons, n_{l+1} weights each; the layer's first tile
    adds the bias; and beside each of them what the learning rule keeps of it. A convolution's weights are
    shared, so each tile has the whole kernel. Buffers: one part sum of its neurons' prediction from each tile
    of the layer below, and all of the error of the layer above, which every neuron needs.

    Args:
        network: that the tile is part of.
        batch: samples in a mini-batch.
        tile: of it.
        parts_below: tiles of the layer below; no part sums come to the input layer.
        state: numbers that the learning rule keeps a parameter; see `work.UpdateWork`.
    """
    size = network.dtype.itemsize
    synapses = buffers = 0
    if tile.layer < network.top:
        connection = network.connections[tile.layer]
        whole = isinstance(connection, Conv)
        bias = connection.weight_shape[0] if whole or tile.first == 0 else 0
        weights = (
            connection.parameters - connection.weight_shape[0] if whole else tile.neurons * connection.outputs
        )
        synapses = size * (weights + bias) * (1 + state)
        buffers = size * batch * connection.outputs
    if tile.layer > 0:
        buffers += size * batch * tile.neurons * parts_below
    return Need(tile.neurons, synapses, buffers)


def split(
    network: Network, chip: Chip, batch: int, machine: str, state: int = 0
) -> tuple[tuple[Tile, ...], ...]:
    """Split each layer into the fewest tiles of equal size (or one neuron apart) that fit a core each.

    Cores are not chosen yet: all tiles are on core 0.

    Raises:
        ConfigurationError: not even one neuron fits, or there are more tiles than cores; says what is over.
    """
    numbers = _parts(network, chip, batch, machine, state)
    count = sum(numbers)
    if count > chip.cores:
        parts = ", ".join(f"layer {layer}: {number}" for layer, number in enumerate(numbers) if number > 1)
        rest = ", one for each other layer" if 1 in numbers else ""
        raise ConfigurationError(
            f"the network needs {count:,} cores of {machine}{f' ({parts}{rest})' if parts else ''}, its "
            f"{chip.rows}x{chip.columns} mesh has {chip.cores:,}: {count - chip.cores:,} over; expected a "
            "smaller network or batch, or a machine with more or larger cores"
        )
    return tuple(
        _equal_tiles(layer, size, number)
        for layer, (size, number) in enumerate(zip(network.sizes, numbers, strict=True))
    )


def misfit(network: Network, chip: Chip, batch: int, state: int) -> str | None:
    """Say in a few words by how much a network does not fit a chip; None if it does. See `split`."""
    try:
        over = sum(_parts(network, chip, batch, "the chip", state)) - chip.cores
    except ConfigurationError:
        return "one neuron alone is too much for a core"
    return None if over <= 0 else f"{over:,} core{'s' * (over > 1)} over"


def _parts(network: Network, chip: Chip, batch: int, machine: str, state: int) -> list[int]:
    """Return into how few tiles each layer can be split."""
    parts: list[int] = []
    for layer, size in enumerate(network.sizes):
        below = parts[-1] if parts else 0
        parts.append(-(-size // _most_neurons(network, chip, batch, layer, below, machine, state)))
    return parts


def check_fit(found: Sequence[Fill], machine: str) -> None:
    """Refuse a mapping in which a core holds more than it can.

    Raises:
        ConfigurationError: says which core, what is over and by how much.
    """
    for fill in found:
        if fill.limit is not None and fill.most > fill.limit:
            raise ConfigurationError(
                f"core {fill.core} of {machine} would hold {fill.most:,} {fill.what}: expected "
                f"{fill.limit:,} at most, {fill.most - fill.limit:,} over; move a tile to another core"
            )


def fills(network: Network, chip: Chip, batch: int, tiles: Sequence[Tile], state: int = 0) -> list[Fill]:
    """Return how full the fullest core is, capacity by capacity."""
    parts = Counter(tile.layer for tile in tiles)
    needs: dict[int, Need] = defaultdict(lambda: Need(0, 0, 0))
    for tile in tiles:
        needs[tile.core] += need_of(network, batch, tile, parts[tile.layer - 1], state)
    found = []
    for name, field, words in CAPACITIES:
        core = max(sorted(needs), key=lambda one: int(getattr(needs[one], name)))
        found.append(Fill(words, getattr(needs[core], name), core, getattr(chip, field)))
    return found


def _most_neurons(
    network: Network, chip: Chip, batch: int, layer: int, below: int, machine: str, state: int
) -> int:
    """Return the most neurons of a layer that fit a core; needs grow linearly with neurons."""
    one, two = (need_of(network, batch, Tile(layer, 0, last, 0), below, state) for last in (1, 2))
    most = network.sizes[layer]
    for name, field, words in CAPACITIES:
        limit, first = getattr(chip, field), getattr(one, name)
        each = getattr(two, name) - first
        if limit is not None and first > limit:
            raise ConfigurationError(
                f"layer {layer} does not fit {machine}: one neuron alone needs {first:,} {words}, a core has "
                f"{limit:,}: {first - limit:,} over; expected a smaller layer or batch, or a machine with "
                "larger cores"
            )
        if limit is not None and each:
            most = min(most, 1 + (limit - first) // each)
    return most


def _equal_tiles(layer: int, size: int, parts: int) -> tuple[Tile, ...]:
    """Cut a layer into equal parts; the first ones are a neuron larger if it does not come out even."""
    small, larger = divmod(size, parts)
    ends = [small * (part + 1) + min(part + 1, larger) for part in range(parts)]
    return tuple(Tile(layer, first, last, 0) for first, last in zip([0, *ends], ends, strict=False))
