"""Tiles: fewest that fit, equal, and refused in one line when nothing fits."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcsim.errors import ConfigurationError
from pcsim.hardware.chip import Chip
from pcsim.hardware.mapping import Mapping, Tile
from pcsim.hardware.tiling import CAPACITIES, Fill, Need, check_fit, fills, misfit, need_of, split
from pcsim.network.network import Network


def test_needs_by_hand():
    """Layer 1 of 3-4-2, float32, 5 samples, the first 3 of its 4 neurons, two tiles below.

    Synapses: 3 · 2 weights and 2 biases of 4 bytes: 32. Buffers: two part sums of 3 · 5 values, and the
    error of 2 · 5 values above, of 4 bytes: (30 + 10) · 4 = 160. The second tile has no bias: 1 · 2 · 4 = 8
    bytes.
    """
    network = Network.dense([3, 4, 2])
    assert need_of(network, 5, Tile(1, 0, 3, 0), 2) == Need(3, 32, 160)
    assert need_of(network, 5, Tile(1, 3, 4, 0), 2) == Need(1, 8, (10 + 10) * 4)
    assert need_of(network, 5, Tile(0, 0, 3, 0), 0) == Need(3, 4 * (12 + 4), 4 * 20)
    assert need_of(network, 5, Tile(2, 0, 2, 0), 1) == Need(2, 0, 4 * 10)


def test_what_the_learning_rule_keeps_lies_beside_the_parameters():
    """Adam keeps two numbers of each: a map that left them out said that a network fits which does not.

    Layer 0 of 3-4-2: (12 + 4) numbers of 4 bytes, three times. A core of 100 bytes holds one of its neurons
    with the biases, 8 numbers, 96 bytes: three tiles. Layer 1: three of its neurons and the biases are as
    many: two tiles.
    """
    network, chip = Network.dense([3, 4, 2]), Chip(2, 2, synapse_bytes_per_core=100)
    assert need_of(network, 1, Tile(0, 0, 3, 0), 0, 2).synapse_bytes == 3 * 64
    assert [len(tiles) for tiles in split(network, chip, 1, "mine")] == [1, 1, 1]
    assert misfit(network, chip, 1, 0) is None
    assert misfit(network, chip, 1, 2) == "2 cores over"
    assert (
        misfit(network, Chip(9, 9, synapse_bytes_per_core=80), 1, 2)
        == "one neuron alone is too much for a core"
    )
    assert fills(network, chip, 1, (Tile(0, 0, 3, 0),), 2)[1].most == 192


def test_a_convolution_has_its_whole_kernel_in_each_tile():
    """Shared weights cannot be split by neurons: 2 · 1 · 3 · 3 weights and 2 biases of 4 bytes: 80."""
    network = Network.of(["1x6x6", "conv 2 3x3/1", "dense 4"])
    for tile in (Tile(0, 0, 10, 0), Tile(0, 10, 36, 0)):
        assert need_of(network, 1, tile, 0).synapse_bytes == 80


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=2, max_size=4),
    st.integers(1, 4),
    *[st.none() | st.integers(1, 2000)] * 3,
)
def test_fewest_equal_tiles_that_fit(sizes, batch, neurons, synapses, buffers):
    """One tile fewer would not fit; sizes differ by one neuron at most; or the message says what is over."""
    network, chip = Network.dense(sizes), Chip(20, 20, neurons, synapses, buffers)
    try:
        layers = split(network, chip, batch, "mine")
    except ConfigurationError as error:
        words = r"one neuron alone needs ([\d,]+) .*, a core has ([\d,]+): ([\d,]+) over"
        need, limit, over = (int(one.replace(",", "")) for one in re.search(words, str(error)).groups())
        assert need - limit == over > 0
        assert limit in (neurons, synapses, buffers)
        return
    for layer, tiles in enumerate(layers):
        below = len(layers[layer - 1]) if layer else 0
        counts = [tile.neurons for tile in tiles]
        assert sum(counts) == sizes[layer]
        assert counts[0] - counts[-1] <= 1
        assert all(_fits(network, chip, batch, tile, below) for tile in tiles)
        if len(tiles) > 1:
            wider = -(-sizes[layer] // (len(tiles) - 1))
            assert not _fits(network, chip, batch, Tile(layer, 0, wider, 0), below)


def _fits(network, chip, batch, tile, below) -> bool:
    need = need_of(network, batch, tile, below)
    limits = [(getattr(need, name), getattr(chip, field)) for name, field, _ in CAPACITIES]
    return all(limit is None or number <= limit for number, limit in limits)


def test_too_few_cores():
    """A network that does not fit says how many cores are over, and which layers take them."""
    words = r"needs 9 cores of mine \(layer 0: 3, layer 1: 5, one for each other .*has 6: 3 over; expected"
    with pytest.raises(ConfigurationError, match=words):
        split(Network.dense([12, 20, 4]), Chip(2, 3, 4), 1, "mine")


def test_fullest_cores():
    """Tiles that share a core add up; what is over is named with its core."""
    network, chip = Network.dense([3, 4, 2]), Chip(1, 2, neurons_per_core=5)
    mapping = Mapping("m", chip, (3, 4, 2), (Tile(0, 0, 3, 0), Tile(1, 0, 4, 1), Tile(2, 0, 2, 1)), "mine")
    found = fills(network, chip, 1, mapping.tiles)
    assert found[0] == Fill("neurons", 6, 1, 5)
    assert found[1] == Fill("bytes of synapse memory", 64, 0, None)
    assert found[2] == Fill("bytes of message buffers", 4 * (4 + 2 + 2), 1, None)
    with pytest.raises(
        ConfigurationError, match=r"core 1 of m would hold 6 neurons: expected 5 at most, 1 over"
    ):
        check_fit(found, "m")
