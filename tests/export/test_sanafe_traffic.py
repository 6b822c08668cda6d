"""Numbers that are only counted are spread over neurons and samples."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pcsim.export.sanafe_traffic import spread


@given(st.data())
def test_spreading_is_even(data):
    """As many are chosen as were counted, and no stretch has one more or less than its share."""
    places = data.draw(st.integers(1, 300))
    chosen = data.draw(st.integers(0, places))
    taken = spread(chosen, places)
    assert taken.sum() == chosen
    first = data.draw(st.integers(0, places - 1))
    last = data.draw(st.integers(first + 1, places))
    assert abs(taken[first:last].sum() - (last - first) * chosen / places) < 1
