"""Mappings: what a chip and a file may say, and what is refused in one line."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcsim.errors import ConfigurationError
from pcsim.hardware.chip import Chip
from pcsim.hardware.mapping import Mapping, Tile


def small() -> Mapping:
    """Five neurons in two tiles, two in one, on a 2x3 mesh."""
    tiles = (Tile(0, 0, 3, 0), Tile(0, 3, 5, 1), Tile(1, 0, 2, 4))
    return Mapping("mine", Chip(2, 3, 4, None, 100, 0.5, 1.0, 2.0), (5, 2), tiles, "row")


@st.composite
def mappings(draw) -> Mapping:
    """Any split of any layers over any cores."""
    chip = Chip(
        draw(st.integers(1, 5)),
        draw(st.integers(1, 5)),
        *draw(st.tuples(*[st.none() | st.integers(1, 99)] * 3)),
    )
    sizes = draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))
    tiles = []
    for layer, size in enumerate(sizes):
        cuts = sorted({0, size, *draw(st.lists(st.integers(0, size), max_size=3))})
        cores = st.integers(0, chip.cores - 1)
        tiles += [Tile(layer, a, b, draw(cores)) for a, b in pairwise(cuts)]
    return Mapping("m", chip, tuple(sizes), tuple(draw(st.permutations(tiles))), "snake")


@given(mappings())
def test_json_round_trip(mapping):
    """Exports read what placements wrote: nothing may be lost, nor depend on the order of tiles."""
    assert Mapping.from_json(json.loads(json.dumps(mapping.to_json()))) == mapping
    assert mapping.tiles == tuple(sorted(mapping.tiles))
    assert sum(tile.neurons for tile in mapping.tiles) == sum(mapping.sizes)


def test_file_round_trip(tmp_path):
    """A file holds a line a tile, is read back equal, and is not overwritten by accident."""
    path = tmp_path / "map.json"
    small().save(path)
    assert Mapping.load(path) == small()
    assert len(path.read_text().splitlines()) == 9 + 1 + len(small().tiles) + 1
    with pytest.raises(ConfigurationError, match="exists; pass --force"):
        small().save(path)
    small().save(path, overwrite=True)
    with pytest.raises(ConfigurationError, match="cannot be written"):
        small().save(tmp_path / "none" / "map.json")
    assert [one.name for one in tmp_path.iterdir()] == ["map.json"]


def test_files_of_others_may_leave_the_chip_out():
    """The published format needs the mesh only; whoever writes one by hand knows no more."""
    facts = small().to_json()
    del facts["chip"]
    assert Mapping.from_json(facts).chip == Chip(2, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "x"}, 'expected JSON with "format": "pcsim-mapping"'),
        ({"version": 2}, "mapping of version 2: expected 1"),
        ({"mesh": [2]}, r"mapping.mesh = \[2\]: expected \[rows, columns\]"),
        ({"mesh": [3, 2]}, r"mapping.mesh = \[3, 2\], but its chip is 2x3"),
        ({"chip": {"row": 1}}, "expected the fields of a chip"),
        ({"machine": 3}, "mapping.machine = 3: expected a text"),
        ({"tilse": []}, "mapping.tilse: unknown key: did you mean 'tiles'?"),
        ({"x" * 200: 1}, r"mapping.x{97}\.\.\.: unknown key: known: chip, format"),
        ({"tiles": 3}, "mapping.tiles = 3: expected a list"),
        ({"tiles": [{"layer": 0}]}, "expected layer, first, last, core"),
        ({"sizes": [5, 2.0]}, "expected whole numbers"),
        ({"sizes": [5, 3]}, "neurons 2 to 3 of layer 1 are on no core"),
        ({"sizes": [5]}, "tile 0–2 of layer 1: expected a layer from 0 to 0"),
        ({"sizes": [4, 2]}, "tile 3–5 of layer 0: expected it to begin at neuron 3 and to end by 4"),
        ({"tiles": [{"layer": 0, "first": 0, "last": 5, "core": 6}], "sizes": [5]}, "core 6: expected 0 to"),
    ],
)  # fmt: skip
def test_what_is_no_mapping_is_refused(change, words):
    """A damaged or foreign file must say what is wrong with it in one line, not end in a traceback."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        Mapping.from_json(small().to_json() | change)
    assert "\n" not in str(caught.value)


def test_no_file_and_no_json(tmp_path):
    """Two ways to mistype a name."""
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Mapping.load(tmp_path / "none.json")
    (tmp_path / "text.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"text.json: not JSON"):
        Mapping.load(tmp_path / "text.json")


@pytest.mark.parametrize(
    "facts", [{"rows": 0}, {"columns": 2.5}, {"neurons_per_core": 0}, {"link_bytes_per_ns": 0.0},
              {"hop_ns_vertical": -1.0}, {"hop_ns_horizontal": float("inf")}, {"rows": True}],
)  # fmt: skip
def test_impossible_chips(facts):
    """A link of no width would never be free again; a mesh without rows has no cores."""
    with pytest.raises(ConfigurationError, match=r"^chip\."):
        Chip(**({"rows": 2, "columns": 2} | facts))


def test_cores_are_numbered_row_by_row():
    """Pictures, routes and other people's files rely on core = row · columns + column."""
    chip = Chip(3, 4)
    assert [chip.place(core) for core in (0, 3, 4, 11)] == [(0, 0), (0, 3), (1, 0), (2, 3)]
    assert chip.distance(0, 11) == 5
