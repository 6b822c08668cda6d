"""The Hebbian product that leaves out errors of 0: nothing else is left out, and no bit changes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcsim.kernels import blocked
from pcsim.kernels.mail import new_mail
from pcsim.kernels.sparse import AT_ONCE, LEAST_BATCH, WORTH, active, worth_listing


def lists(error, step):
    """Return what `active` lists."""
    rows, batch = error.shape
    room = rows, batch + AT_ONCE
    found = np.full(room, 7, error.dtype), np.full(room, 7, np.int32), np.full(rows, 7, np.int32)
    active(error, step, *found)
    return found


def errors(rng, rows, batch, share, dtype):
    """Return errors of which about a share is not 0, no two rows alike."""
    return (rng.standard_normal((rows, batch)) * (rng.random((rows, batch)) < share)).astype(dtype)


def arranged(rates):
    """Return rates by panels; what the last one has too much is nothing that may be read."""
    panels = np.full(blocked.panel_shape(*rates.shape, rates.itemsize), np.nan, rates.dtype)
    blocked.by_panels(new_mail(), rates, panels, 1)
    return panels


def test_lists_by_hand():
    """One, none, two and all of three: an odd number is followed by a 0, and so is none."""
    error = np.array([[0, 5, 0], [0, 0, 0], [1, 0, 2], [3, 4, -6]], "f4")
    values, places, counts = lists(error, 10)
    assert counts.tolist() == [2, 2, 2, 4]
    assert values[0, :2].tolist() == [5, 0]
    assert places[0, :2].tolist() == [10, 0]
    assert values[1, :2].tolist() == [0, 0]
    assert places[2, :2].tolist() == [0, 20]
    assert values[3, :4].tolist() == [3, 4, -6, 0]
    assert places[3, :4].tolist() == [0, 10, 20, 0]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@settings(deadline=None, max_examples=30)
@given(
    rows=st.integers(1, 11),
    inputs=st.integers(1, 300),
    batch=st.integers(1, 70),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_same_bits_as_all_tiles(dtype, rows, inputs, batch, share, seed):
    """Whether the errors are listed depends on them; a row that rounds otherwise would tell when it was."""
    rng = np.random.default_rng(seed)
    error = errors(rng, rows, batch, share, dtype)
    panels = arranged(rng.standard_normal((inputs, batch)).astype(dtype))
    count, _, width = panels.shape
    until = inputs // (blocked.TOGETHER * width) * blocked.TOGETHER
    weight = rng.standard_normal((rows, inputs)).astype(dtype)
    listed, whole = weight.copy(), weight.copy()
    norms, wanted = np.zeros(count, dtype), np.zeros(count, dtype)
    blocked.outer_of_active(error, panels, until, *lists(error, width), 0.3, listed, norms)
    blocked.outer_tiles(error, panels, 0, 0.3, whole, wanted)
    edge = until * width
    np.testing.assert_array_equal(listed[:, :edge], whole[:, :edge])
    np.testing.assert_array_equal(listed[:, edge:], weight[:, edge:])
    np.testing.assert_array_equal(norms[:until], wanted[:until])


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("shape", [(128, 1024, 64), (70, 300, 33)])
def test_product_against_numpy(shape, share):
    """Blocks of rows are listed in the same room, and what lies beyond the panels follows them."""
    rows, inputs, batch = shape
    rng = np.random.default_rng(1)
    error, rates = errors(rng, rows, batch, share, "f8"), rng.standard_normal((inputs, batch))
    error[64:] = rng.standard_normal((rows - 64, batch))  # the second block is not worth it
    weight, norms = rng.standard_normal((rows, inputs)), np.zeros(2)
    product, before = error @ rates.T, weight.copy()
    blocked.outer(new_mail(), error, arranged(rates), 0.5, weight, norms, 1)
    np.testing.assert_allclose(weight, before + 0.5 * product, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(norms, [abs(product[:64]).sum(), abs(product[64:]).sum()], rtol=1e-12)


def test_zeros_are_not_multiplied():
    """0 times infinity would show it; the first sample, finite here, is what lists are filled up with."""
    error, rates = np.zeros((8, LEAST_BATCH), "f4"), np.full((512, LEAST_BATCH), np.inf, "f4")
    error[:, 3], rates[:, [0, 3]] = 1, 2
    weight, norms = np.zeros((8, 512), "f4"), np.zeros(1)
    blocked.outer(new_mail(), error, arranged(rates), 1.0, weight, norms, 1)
    assert (weight == 2).all()
    assert norms[0] == 2 * weight.size


def test_what_is_worth_listing():
    """Up to two thirds of the errors, from mini-batches on in which that pays; NaN is not 0."""
    error = np.zeros((3, LEAST_BATCH), "f4")
    error[:2] = np.nan
    assert WORTH == 2 / 3
    assert worth_listing(error)
    error[2, 0] = 1
    assert not worth_listing(error)
    assert not worth_listing(np.zeros((3, LEAST_BATCH - 1), "f4"))
