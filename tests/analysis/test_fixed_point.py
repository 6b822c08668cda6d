"""Fixed-point formats that are chosen from statistics hold the signal, and the noise is as predicted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcsim.analysis.fixed_point import FixedPoint
from pcsim.errors import ConfigurationError


def measured(values, form):
    """Return the signal-to-noise ratio in decibels of quantised values."""
    noise = form.quantise(values) - values
    return 10 * np.log10((values**2).mean() / (noise**2).mean())


def suited(values, snr):
    """Return the format for values."""
    return FixedPoint.suited(values.min(), values.max(), (values**2).mean(), snr)


def test_q_format_by_hand():
    """A sine of amplitude 1 has power 1/2: 40 dB need ½ log2(1e4/6) = 5.35 fraction bits, so 6."""
    form = FixedPoint.suited(-1, 1, 0.5, 40)
    assert (form.integer_bits, form.fraction_bits, form.bits) == (1, 6, 8)
    assert form.predicted_snr(0.5) == pytest.approx(10 * np.log10(6 * 4**6))
    # Without +1 itself, −1 … 1 − 2^−6 fits into the fraction alone.
    assert FixedPoint.suited(-1, 0.98, 0.5, 40).integer_bits == 0


def test_quantise_by_hand():
    """Q1.2 counts quarters from −2 to 1.75, rounds ties to even and holds at its ends."""
    form = FixedPoint(1, 2)
    assert form.bits == 4
    given = [0.3, 0.125, 0.375, -0.3, 5, -5, 1.8, 0]
    assert form.quantise(given).tolist() == [0.25, 0, 0.5, -0.25, 1.75, -2, 1.75, 0]


def test_negative_integer_bits():
    """Small errors need no leading zeros: below 2^−6, six bits are saved."""
    values = np.linspace(-(2.0**-6), 2.0**-6, 10_001)[:-1]
    form = suited(values, 40)
    assert form.integer_bits <= -5
    assert abs(measured(values, form) - form.predicted_snr((values**2).mean())) < 0.5


@given(
    st.sampled_from(["uniform", "normal", "laplace"]),
    st.floats(-20, 20),
    st.floats(30, 100),
    st.integers(0, 2**20),
)
def test_measured_noise_is_as_predicted(kind, exponent, snr, seed):
    """Spread-out signals of any scale really reach the ratio, with at most a bit to spare."""
    values = getattr(np.random.default_rng(seed), kind)(size=4000) * 2.0**exponent
    form = suited(values, snr)
    assert measured(values, form) > snr - 0.5
    assert form.predicted_snr((values**2).mean()) < snr + 20 * np.log10(2) + 1e-9
    assert np.abs(form.quantise(values) - values).max() <= 2.0**-form.fraction_bits / 2  # nothing saturates
    narrower = FixedPoint(form.integer_bits - 1, form.fraction_bits)
    assert np.abs(narrower.quantise(values) - values).max() > 2.0**-form.fraction_bits / 2


def test_the_integer_bits_are_those_of_the_rounded_extremes():
    """−1.012 in eighths is −1, which needs no integer bit; in multiples of 1/128 it needs one."""
    assert FixedPoint.holding(-1.012, 0.8, 3) == FixedPoint(0, 3)
    assert FixedPoint.holding(-1.012, 0.8, 7) == FixedPoint(1, 7)


def test_a_signal_of_zeros_needs_only_its_sign():
    """No power, no bits: the errors of layers that nothing reaches."""
    assert FixedPoint.suited(0, 0, 0, 40).bits == 1


@pytest.mark.parametrize("snr", [0, -3, float("nan"), float("inf"), 1e6])
def test_impossible_ratios_are_refused(snr):
    """A slip must not ask for a million bits."""
    with pytest.raises(ConfigurationError, match="expected decibels above 0"):
        FixedPoint.suited(-1, 1, 1, snr)
