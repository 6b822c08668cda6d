"""Signed fixed-point formats: how many bits a signal needs, and what it looks like in them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from pcsim.errors import ConfigurationError

MOST_DECIBELS = 300  # float64 itself has no more


@dataclass(frozen=True)
class FixedPoint:
    """Two's complement: whole multiples of 2^−b from −2^i to 2^i − 2^−b.

    Either number may be negative: −3 integer bits leave out three leading bits that never change.

    Attributes:
        integer_bits: i.
        fraction_bits: b.
    """

    integer_bits: int
    fraction_bits: int

    @property
    def bits(self) -> int:
        """Return the length of a word, the sign included."""
        return 1 + self.integer_bits + self.fraction_bits

    def quantise(self, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the nearest number of the format to each value; ties go to even ones."""
        largest = 2.0 ** (self.bits - 1)
        whole = np.rint(np.ldexp(np.asarray(values, dtype=np.float64), self.fraction_bits))
        return np.asarray(np.ldexp(np.clip(whole, -largest, largest - 1), -self.fraction_bits))

    @classmethod
    def suited(cls, minimum: float, maximum: float, mean_square: float, snr: float) -> Self:
        """Return the shortest format that holds a signal with a signal-to-noise ratio.

        Rounding to multiples of 2^−b is taken for noise of power 2^(−2b)/12 (uniform between −½ and ½ of a
        step; Bennett, 1948), so b is the smallest with 10 log10(power · 12 · 2^(2b)) ≥ snr. That holds for
        signals that spread over many steps; where they do not, measure with `quantise`. The integer bits
        are the fewest that hold both extremes as rounded, so nothing saturates.

        Args:
            minimum: smallest value of the signal.
            maximum: largest value.
            mean_square: power of the signal.
            snr: signal-to-noise ratio in decibels.

        Raises:
            ConfigurationError: the ratio is not above 0 and at most 300 dB, or the signal not finite.
        """
        if not 0 < snr <= MOST_DECIBELS:
            raise ConfigurationError(f"snr = {snr:g}: expected decibels above 0, at most {MOST_DECIBELS}")
        if not all(map(math.isfinite, (minimum, maximum, mean_square))):
            raise ConfigurationError("the signal is not finite: expected finite numbers to choose bits for")
        if mean_square == 0:
            return cls(0, 0)
        fraction = math.ceil((snr / 10 * math.log2(10) - math.log2(12 * mean_square)) / 2)
        return cls.holding(minimum, maximum, fraction)

    @classmethod
    def holding(cls, minimum: float, maximum: float, fraction: int) -> Self:
        """Return the format of so many fraction bits with the fewest integer bits that hold both extremes.

        As they are rounded: one just below −2^i becomes −2^i with few fraction bits and not with more.
        """
        low, high = (round(math.ldexp(end, fraction)) for end in (minimum, maximum))
        magnitude = max(high.bit_length() if high > 0 else 0, (-low - 1).bit_length() if low < 0 else 0)
        return cls(magnitude - fraction, fraction)

    def measured_snr(self, values: npt.ArrayLike, counts: npt.ArrayLike) -> float:
        """Return the signal-to-noise ratio in decibels of numbers of which each occurs so often."""
        exact, often = np.asarray(values, dtype=np.float64), np.asarray(counts, dtype=np.float64)
        power, noise = often @ exact**2, often @ (self.quantise(exact) - exact) ** 2
        return 10 * math.log10(power / noise) if power and noise else math.inf

    def predicted_snr(self, mean_square: float) -> float:
        """Return the signal-to-noise ratio in decibels under the noise model; infinite without a signal."""
        if mean_square == 0:
            return float("inf")
        return 10 * (math.log10(12 * mean_square) + 2 * self.fraction_bits * math.log10(2))
