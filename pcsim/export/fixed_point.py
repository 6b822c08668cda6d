"""Signed fixed-point numbers as hardware holds them, and as $readmemh files hold them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pcsim.analysis import fixed_point
from pcsim.errors import ConfigurationError, TraceError

Array = npt.NDArray[np.float64]
Words = npt.NDArray[np.int64]
WIDEST = 53  # bits of a float64's significand, so that every word has its exact float64


class FixedPoint(fixed_point.FixedPoint):
    """Qm.n: m integer and n fraction bits besides the sign; its numbers as words, and in files.

    Values are rounded to the nearest word, ties to the even one, and saturate at both ends. Either number may
    be negative: m = −3 leaves out three bits after the point that never differ from the sign; n = −3 the last
    three before it.
    """

    @classmethod
    def parse(cls, text: str) -> FixedPoint:
        """Read a format's name.

        Raises:
            ConfigurationError: it is none, or too wide.
        """
        match = re.fullmatch(r"[Qq](-?\d{1,2})\.(-?\d{1,2})", text)
        found = cls(int(match[1]), int(match[2])) if match else None
        if found is None or not 2 <= found.bits <= WIDEST:
            raise ConfigurationError(
                f"--format {text}: expected Qm.n with m integer and n fraction bits besides the sign, "
                f"such as Q3.12 or Q-6.17, 1 + m + n from 2 to {WIDEST} bits"
            )
        return found

    @property
    def name(self) -> str:
        """The format's name."""
        return f"Q{self.integer_bits}.{self.fraction_bits}"

    @property
    def step(self) -> float:
        """The value of the least significant bit, 2⁻ⁿ."""
        return float(2.0**-self.fraction_bits)

    @property
    def largest(self) -> int:
        """The largest word; the smallest is −largest − 1."""
        return int(2 ** (self.bits - 1) - 1)

    def words(self, values: Array) -> tuple[Words, int]:
        """Return values as words, and how many of them were beyond the range and have saturated."""
        scaled = np.rint(values / self.step)
        beyond = (scaled > self.largest) | (scaled < -self.largest - 1)
        return np.clip(scaled, -self.largest - 1, self.largest).astype(np.int64), int(beyond.sum())

    def values(self, words: Words) -> Array:
        """Return the numbers that words stand for."""
        return np.asarray(words * self.step, dtype=np.float64)

    def write_hex(self, path: Path, words: Words, title: str) -> None:
        """Write words for $readmemh, one a line in C order, after a comment."""
        digits, mask = -(-self.bits // 4), 2**self.bits - 1
        lines = [f"// {title}", *(f"{word & mask:0{digits}x}" for word in words.reshape(-1).tolist())]
        path.write_text("\n".join(lines) + "\n", encoding="ascii")

    def read_hex(self, path: Path, shape: tuple[int, ...]) -> Words:
        """Read words from a $readmemh file without addresses.

        Raises:
            TraceError: the file is missing, or holds something else.
        """
        try:
            text = re.sub(r"//[^\n]*", "", path.read_text(encoding="ascii"))
            words = np.array([int(word, 16) for word in text.split()], dtype=np.int64)
        except (OSError, ValueError, OverflowError) as error:
            raise TraceError(
                f"cannot read {path}: expected hexadecimal words, one a line ({error})"
            ) from error
        if len(words) != int(np.prod(shape)) or (len(words) and int(words.max()) >= 2**self.bits):
            raise TraceError(
                f"{path} holds {len(words)} words: expected {int(np.prod(shape))} of {self.bits} bits"
            )
        return np.where(words > self.largest, words - 2**self.bits, words).reshape(shape)
