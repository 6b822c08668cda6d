"""Number formats of messages and activities: floating and fixed point, rounded to nearest or at random.

A format is emulated: values keep the network's dtype, but only those that the format has occur. So
arithmetic between messages stays what it was, and only what is sent or kept is coarse.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pcsim.errors import ConfigurationError
from pcsim.kernels import Array

RoundingName = Literal["nearest", "stochastic"]
FIXED = re.compile(r"[Qq](-?\d{1,2})\.(-?\d{1,2})")


@dataclass(frozen=True)
class NumberFormat:
    """Which numbers there are.

    The distance of neighbours at x is 2^(⌊log2|x|⌋ − precision), but at least 2^−fraction_bits. Beyond both
    ends values saturate.

    Attributes:
        name: float16, bfloat16, float32 or Qm.n.
        bits: of a number, the sign included.
        precision: bits of the significand after its leading one; None for fixed point.
        fraction_bits: the smallest number above 0 is 2 to the power of −fraction_bits.
        lowest: the smallest number.
        highest: the largest number.
    """

    name: str
    bits: int
    precision: int | None
    fraction_bits: int
    lowest: float
    highest: float

    @classmethod
    def parse(cls, text: str) -> NumberFormat:
        """Read a format's name.

        Qm.n has a sign bit, m integer and n fraction bits in two's complement; either may be negative.

        Raises:
            ConfigurationError: it is none, or a fixed-point word of less than 2 or more than 53 bits.
        """
        if text in FLOATS:
            return FLOATS[text]
        match = FIXED.fullmatch(text)
        integer, fraction = (int(match[1]), int(match[2])) if match else (0, 0)
        if match is None or not 2 <= 1 + integer + fraction <= 53:
            raise ConfigurationError(
                f"format '{text}': expected {', '.join(FLOATS)}, or Qm.n with m integer and n fraction bits "
                "besides the sign, 1 + m + n from 2 to 53 bits"
            )
        highest = 2.0**integer - 2.0**-fraction
        return cls(f"Q{integer}.{fraction}", 1 + integer + fraction, None, fraction, -(2.0**integer), highest)

    def steps(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
        """Return the exponents of the powers of 2 by which the values' neighbours differ."""
        if self.precision is None:
            return np.array(-self.fraction_bits, dtype=np.int32)
        # frexp has the leading one right after the point: |x| = m · 2^e with ½ ≤ m < 1.
        return np.asarray(np.maximum(np.frexp(values)[1] - 1 - self.precision, -self.fraction_bits))

    def check_holds(self, dtype: np.dtype[np.floating]) -> None:
        """Refuse a format with numbers that a dtype does not have.

        Raises:
            ConfigurationError: it is finer or wider than the dtype.
        """
        info = np.finfo(dtype)
        significand = self.bits - 1 if self.precision is None else self.precision + 1
        if significand > info.nmant + 1 or max(-self.lowest, self.highest) > float(info.max):
            raise ConfigurationError(
                f"format {self.name} has {significand} significant bits, {dtype.name} {info.nmant + 1}: "
                'expected a narrower format, or network.dtype = "float64"'
            )


FLOATS = {
    # IEEE 754 binary16 and binary32; bfloat16 is binary32 without its last 16 bits.
    "float16": NumberFormat("float16", 16, 10, 24, -65504.0, 65504.0),
    "bfloat16": NumberFormat("bfloat16", 16, 7, 133, -(2 - 2.0**-7) * 2.0**127, (2 - 2.0**-7) * 2.0**127),
    "float32": NumberFormat("float32", 32, 23, 149, -(2 - 2.0**-23) * 2.0**127, (2 - 2.0**-23) * 2.0**127),
}


def round_nearest(values: Array, number: NumberFormat) -> Array:
    """Return the nearest number of the format to each value, ties to even; NaN stays NaN.

    Args:
        values: of any shape.
        number: the format.

    Returns:
        A new array of the same dtype and layout.
    """
    wide = _clipped(values, number)
    steps = number.steps(wide)
    return _like(values, np.ldexp(np.rint(np.ldexp(wide, -steps)), steps), number)


def round_stochastic(values: Array, number: NumberFormat, rng: np.random.Generator) -> Array:
    """Return one of the two neighbours of each value, so that the mean over many draws is the value.

    x between a and a + s becomes a + s with probability (x − a)/s (Gupta et al., arXiv 1502.02551). A
    number of the format stays, and what is beyond an end saturates. It draws values.size numbers.

    Args:
        values: of any shape.
        number: the format.
        rng: where the draws come from.

    Returns:
        A new array of the same dtype and layout.
    """
    wide = _clipped(values, number)
    steps = number.steps(wide)
    drawn = np.ldexp(np.floor(np.ldexp(wide, -steps) + rng.random(values.shape)), steps)
    return _like(values, drawn, number)


def _clipped(values: Array, number: NumberFormat) -> npt.NDArray[np.float64]:
    """Return the values within the ends of the format, in float64, where scaling by 2^k is exact."""
    return np.clip(np.asarray(values, dtype=np.float64), number.lowest, number.highest)


def _like(values: Array, rounded: npt.NDArray[np.float64], number: NumberFormat) -> Array:
    """Return what was rounded in the dtype and layout of the values; a two's complement has no −0."""
    result = np.empty_like(values)
    result[...] = rounded + 0.0 if number.precision is None else rounded
    return result
