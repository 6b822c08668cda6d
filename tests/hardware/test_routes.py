"""Ways through the mesh, against the geometry that defines them."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pcsim.hardware.chip import Chip
from pcsim.hardware.routes import (
    EAST,
    NORTH,
    SOUTH,
    WEST,
    crossings,
    is_horizontal,
    link_ends,
    multicast,
    route,
)

chips = st.builds(Chip, st.integers(1, 6), st.integers(1, 6))


@st.composite
def journeys(draw) -> tuple[Chip, int, list[int]]:
    """A mesh, a core on it, and cores to reach, perhaps twice or that core itself."""
    chip = draw(chips)
    cores = st.integers(0, chip.cores - 1)
    return chip, draw(cores), draw(st.lists(cores, max_size=8))


def test_by_hand():
    """On a 3x4 mesh from core 1 (row 0, column 1) to 11 (row 2, column 3): east twice, then south twice."""
    chip = Chip(3, 4)
    assert route(chip, 1, 11) == (4 * 1 + EAST, 4 * 2 + EAST, 4 * 3 + SOUTH, 4 * 7 + SOUTH)
    assert route(chip, 11, 1) == (4 * 11 + WEST, 4 * 10 + WEST, 4 * 9 + NORTH, 4 * 5 + NORTH)
    assert route(chip, 5, 5) == ()


@given(journeys())
def test_routes_lead_from_core_to_core(journey):
    """Each link must begin where the last one ended, stay on the mesh, and there must be no detour."""
    chip, source, targets = journey
    for target in targets:
        links = route(chip, source, target)
        ends = [link_ends(chip, one) for one in links]
        assert all(before[1] == after[0] for before, after in pairwise(ends))
        assert not ends or (ends[0][0], ends[-1][1]) == (source, target)
        assert len(links) == chip.distance(source, target)
        flat = [is_horizontal(one) for one in links]
        assert flat == sorted(flat, reverse=True)  # no turn from a column back to a row: no deadlock
        for start, end in ends:
            assert chip.distance(start, end) == 1
            assert 0 <= end < chip.cores


@given(journeys())
def test_multicast_is_the_union_of_the_routes(journey):
    """A packet to many crosses the links of all their routes, each once, in the order of each route."""
    chip, source, targets = journey
    tree = multicast(chip, source, targets)
    assert len(set(tree.links)) == len(tree.links)
    assert set(tree.links) == {one for target in targets for one in route(chip, source, target)}
    for target, here in zip(targets, tree.reached):
        walked = []
        while here >= 0:
            assert tree.before[here] < here
            walked.append(tree.links[here])
            here = tree.before[here]
        assert tuple(reversed(walked)) == route(chip, source, target)


@given(journeys())
def test_crossings_are_the_links_of_the_tree(journey):
    """Placements are judged by a count that draws no tree: it must be the tree's."""
    chip, source, targets = journey
    assert crossings(chip, source, targets) == len(multicast(chip, source, targets).links)
