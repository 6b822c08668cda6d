"""Number formats: closed forms by hand, other libraries' roundings, and random rounding without bias."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pcsim.errors import ConfigurationError
from pcsim.schedule.number_format import NumberFormat, round_nearest, round_stochastic

REALS = st.floats(-1e6, 1e6) | st.floats(-1.0, 1.0) | st.floats(-1e-6, 1e-6)
FIXED = st.builds(
    lambda integer, width: f"Q{integer}.{width - 1 - integer}", st.integers(-8, 8), st.integers(2, 24)
)


def test_fixed_point_by_hand():
    """Q2.1: halves from −4 to 3.5; ties go to even multiples, and what is beyond saturates."""
    number = NumberFormat.parse("Q2.1")
    assert (number.bits, number.lowest, number.highest) == (4, -4.0, 3.5)
    given = np.array([0.2, 0.25, 0.3, 0.75, -0.75, 1.24, 3.7, 9.0, -4.2, -4.0])
    expected = np.array([0.0, 0.0, 0.5, 1.0, -1.0, 1.0, 3.5, 3.5, -4.0, -4.0])
    np.testing.assert_array_equal(round_nearest(given, number), expected)


def test_fixed_point_has_one_zero():
    """A two's complement has no −0: a flip of its sign is no event. Floating point keeps it."""
    given = np.array([-0.3, -0.0, -1e-9])
    for number, sign in ((NumberFormat.parse("Q2.1"), False), (NumberFormat.parse("float16"), True)):
        assert np.signbit(round_nearest(given * 1e-9, number)).tolist() == [sign] * 3
    drawn = round_stochastic(np.full(50, -0.0), NumberFormat.parse("Q2.1"), np.random.default_rng(0))
    assert not np.signbit(drawn).any()


def test_negative_bits_by_hand():
    """Q-3.5 has 3 bits: multiples of 1/32 from −4/32 to 3/32. Q4.-2 has 3 bits: multiples of 4 up to 12."""
    small, large = NumberFormat.parse("Q-3.5"), NumberFormat.parse("q4.-2")
    assert (small.bits, small.lowest, small.highest) == (3, -4 / 32, 3 / 32)
    assert (large.bits, large.lowest, large.highest) == (3, -16.0, 12.0)
    values = np.array([0.04, -1.0, 7.0])
    np.testing.assert_array_equal(round_nearest(values, small), [1 / 32, -4 / 32, 3 / 32])
    np.testing.assert_array_equal(round_nearest(values, large), [0.0, 0.0, 8.0])


@given(st.lists(st.floats(-(2.0**127), 2.0**127, width=32), min_size=1))
def test_floats_are_those_of_other_libraries(values):
    """float16 is NumPy's, bfloat16 is torch's, to the bit, but that we saturate where they overflow."""
    given = np.array(values, dtype=np.float32)
    theirs = {
        "float16": lambda ends: ends.astype(np.float16).astype(np.float32),
        "bfloat16": lambda ends: torch.from_numpy(ends).to(torch.bfloat16).to(torch.float32).numpy(),
    }
    for name, convert in theirs.items():
        number = NumberFormat.parse(name)
        ends = np.clip(given, number.lowest, number.highest).astype(np.float32)
        np.testing.assert_array_equal(round_nearest(given, number), convert(ends))
    assert round_nearest(given, NumberFormat.parse("float32")).tobytes() == given.tobytes()


@given(st.lists(REALS, min_size=1), FIXED | st.sampled_from(["float16", "bfloat16"]), st.integers(0, 99))
def test_rounded_numbers_are_numbers_of_the_format(values, name, seed):
    """Both roundings give one of the two neighbours, which nearest rounding leaves alone."""
    number, given = NumberFormat.parse(name), np.array(values)
    nearest = round_nearest(given, number)
    random = round_stochastic(given, number, np.random.default_rng(seed))
    for rounded in (nearest, random):
        np.testing.assert_array_equal(round_nearest(rounded, number), rounded)
        assert (number.lowest <= rounded).all()
        assert (rounded <= number.highest).all()
    inside = np.clip(given, number.lowest, number.highest)
    step = np.ldexp(1.0, number.steps(inside))
    assert (np.abs(nearest - inside) <= step / 2).all()
    assert (np.abs(random - inside) < step).all() | (random == inside).all()


@pytest.mark.parametrize("name", ["Q1.3", "float16", "bfloat16"])
@pytest.mark.parametrize("value", [0.3, -0.7, 1e-3, 0.5])
def test_stochastic_rounding_has_no_bias(name, value):
    """The mean of n draws is within 5 standard errors of the value; nearest rounding would be off."""
    number, draws = NumberFormat.parse(name), 40_000
    rounded = round_stochastic(np.full(draws, value), number, np.random.default_rng(7))
    step = float(np.ldexp(1.0, number.steps(np.array([value])).max()))
    assert abs(rounded.mean() - value) <= 5 * 0.5 * step / np.sqrt(draws)
    assert set(np.unique(rounded)) <= {np.floor(value / step) * step, np.floor(value / step) * step + step}


def test_stochastic_rounding_of_one_seed_is_the_same_twice():
    """Reproducible, and different for another seed."""
    values, number = np.linspace(-1, 1, 500), NumberFormat.parse("Q0.3")
    one, same, other = (round_stochastic(values, number, np.random.default_rng(s)) for s in (1, 1, 2))
    assert one.tobytes() == same.tobytes() != other.tobytes()


def test_layout_and_dtype_stay():
    """Kernels keep mini-batches neuron by neuron; a rounded one must lie as it did. NaN stays NaN."""
    values = np.asfortranarray(np.array([[0.1, np.nan], [np.inf, -np.inf]], dtype=np.float32))
    rounded = round_nearest(values, NumberFormat.parse("Q2.2"))
    assert rounded.flags.f_contiguous
    assert rounded.dtype == np.float32
    np.testing.assert_array_equal(rounded, np.array([[0.0, np.nan], [3.75, -4.0]], dtype=np.float32))


@pytest.mark.parametrize("name", ["Q", "Q3", "float8", "Q0.0", "Q40.40", "fixed", "Q1.5x"])
def test_what_is_no_format(name):
    """One line that says what would be one."""
    with pytest.raises(ConfigurationError, match=r"expected float16, bfloat16, float32, or Qm\.n"):
        NumberFormat.parse(name)


def test_formats_beyond_the_dtype():
    """float32 has 24 significant bits: Q8.16 has no more, Q8.17 is refused instead of rounded again."""
    NumberFormat.parse("Q8.16").check_holds(np.dtype("float32"))
    NumberFormat.parse("Q8.17").check_holds(np.dtype("float64"))
    with pytest.raises(ConfigurationError, match=r"Q8\.17 has 25 significant bits, float32 24"):
        NumberFormat.parse("Q8.17").check_holds(np.dtype("float32"))
