"""Passes over activities: threads that share one change no bit, and lose no number."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcsim.kernels import elementwise, loops
from pcsim.kernels.crew import Crew
from pcsim.kernels.elementwise import BLOCK, COMPARE, MOST_BLOCKS, RECTIFY, RELAX, RELAX_AND_COMPARE

SIZES = (1, BLOCK - 1, 2 * BLOCK - 1, 2 * BLOCK, 3 * BLOCK + 5, 70 * BLOCK + 17)
CONSTANTS = (loops.Descent(step=0.1, precision=1.5, activity_decay=0.01, leak=0.2),)
CASES = {  # a pass, how many arrays it takes, and what comes after them
    "compare": (COMPARE, 3, ()),
    "rectify": (RECTIFY, 1, (0.2,)),
    "relax": (RELAX, 3, CONSTANTS),
    "relax and compare": (RELAX_AND_COMPARE, 4, CONSTANTS),
}


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    """The two types of numbers."""
    return request.param


def operands(case, size, dtype):
    """Return what a pass takes."""
    _, count, constants = CASES[case]
    rng = np.random.default_rng(size)
    arrays = [rng.standard_normal(size).astype(dtype) for _ in range(count)]
    out = [np.zeros(size, dtype)] if case == "rectify" else []
    return [*arrays, *constants, *out]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", CASES)
def test_blocks_do_what_the_loop_does(case, size, dtype):
    """A number between two blocks that is left out, or done twice, would go on training unnoticed."""
    given, wanted = operands(case, size, dtype), operands(case, size, dtype)
    norm, whole = CASES[case][0](Crew(1), *given), CASES[case][0].whole(*wanted)
    for found, right in zip(given, wanted, strict=True):
        np.testing.assert_array_equal(found, right)
    assert norm == pytest.approx(whole or 0, rel=1e-5 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("case", CASES)
def test_threads_change_no_bit(case, dtype):
    """A run on two threads gives the trace of a run on one, norms included."""
    size, found = 12 * BLOCK + 17, []
    for threads in (1, 2, 3):
        crew = Crew(threads)
        for _ in range(10):  # helpers come late
            given = operands(case, size, dtype)
            norm = CASES[case][0](crew, *given)
        found.append([np.float64(norm).tobytes(), *(np.asarray(one).tobytes() for one in given)])
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("where", [0, BLOCK, 3 * BLOCK + 4])
def test_a_norm_tells_that_a_number_is_none(where, dtype):
    """Runs look at norms to find out that they have diverged, wherever that has begun."""
    activity, prediction, out = operands("compare", 3 * BLOCK + 5, dtype)
    activity[where] = np.nan
    assert np.isnan(COMPARE(Crew(2), activity, prediction, out))


@given(size=st.integers(1, 10**7), blocks=st.integers(1, MOST_BLOCKS))
@settings(max_examples=200)
def test_blocks_are_whole_lines_without_gaps(size, blocks):
    """Two threads that write to one line of the cache take it from each other at every number."""
    edges = [elementwise.edges(size, blocks, block) for block in range(blocks)]
    assert edges[0][0] == 0
    assert edges[-1][1] == size
    assert all(one[1] == next_one[0] for one, next_one in pairwise(edges))
    assert all(first % 16 == 0 for first, _ in edges)


@given(size=st.integers(1, 10**7))
@settings(max_examples=100)
def test_number_of_blocks(size):
    """What is small is not cut up; what is large has no more blocks than can be posted."""
    blocks = elementwise.number_of_blocks(size)
    assert blocks == (1 if size < 2 * BLOCK else min(size // BLOCK, MOST_BLOCKS))


@pytest.mark.parametrize("shape", [(1, 5), (3, 130), (64, 3072), (66, 1031)])
def test_turn_over(shape, dtype):
    """Data come sample by sample; a block of neurons that is cut wrongly would shift the picture."""
    values, crew = np.random.default_rng(0).standard_normal(shape).astype(dtype), Crew(2)
    for _ in range(5):
        out = np.empty(shape[::-1], dtype)
        crew.share(elementwise.turn_over, 10**9, values, out, elementwise.number_of_blocks(values.size))
        np.testing.assert_array_equal(out, values.T)


def test_a_block_turns_over_its_own_neurons(dtype):
    """If each block did everything the result would be right, and take as long as on one thread."""
    values, out = np.ones((4, 4 * BLOCK), dtype), np.zeros((4 * BLOCK, 4), dtype)
    elementwise.turn_over_block((values, out, 4), 1)
    assert out.sum() == 4 * BLOCK
    assert (out[BLOCK : 2 * BLOCK] == 1).all()


def test_a_large_pass_is_shared(dtype):
    """All other tests would pass if one thread did everything."""

    class Crowd(Crew):
        """Counts what is shared."""

        shared = 0

        def share(self, run, work, *operands):
            self.shared += 1
            super().share(run, work, *operands)

    for blocks, shared in ((1, 0), (2, 1)):
        crew = Crowd(2)
        COMPARE(crew, *operands("compare", blocks * BLOCK, dtype))
        assert crew.shared == shared


def test_a_small_pass_is_the_loop_itself(dtype):
    """Of one sample a layer takes less time than to hand it over: its norm has the loop's own bits."""
    activity, prediction, out = operands("compare", 1024, dtype)
    norm = loops.compare(activity, prediction, out.copy())
    assert COMPARE(Crew(2), activity, prediction, out) == float(norm)
