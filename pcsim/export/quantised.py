"""Which fixed-point format each signal of a test bench has, and how much of the signal is left in it."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pcsim.errors import ConfigurationError, TraceError, nearest
from pcsim.export.fixed_point import WIDEST, FixedPoint, Words

Array = npt.NDArray[np.float64]
DEFAULT_FORMAT = "Q3.12"
# What `pcsim analyze` calls the signals whose files have longer names.
KINDS = {
    "prediction_in": "prediction",
    "prediction_out": "prediction",
    "relax_prediction_in": "prediction",
    "relax_error_in": "error",
}
ENOUGH = 20.0  # dB: noise of a hundredth of the power
ALMOST_NOTHING = 10.0  # dB: noise of a tenth of the power


@dataclass(frozen=True)
class Formats:
    """The formats of a test bench.

    Attributes:
        default: of constants, and of signals without one of their own.
        own: by name of a file, such as `relax_error_in`, or of a kind, such as `error`; a file's comes first.
    """

    default: FixedPoint
    own: dict[str, FixedPoint]

    @classmethod
    def parse(cls, given: str | Collection[str] | None, signals: Collection[str]) -> Formats:
        """Read what `--format` was given, once or several times.

        Args:
            given: `Qm.n` for all, `SIGNAL=Qm.n` for one.
            signals: names of all files.

        Raises:
            ConfigurationError: a format that is none, an unknown signal, or one that is given twice.
        """
        found: dict[str, FixedPoint] = {}
        for text in (given,) if isinstance(given, str) else given or ():
            signal, equals, number = text.rpartition("=")
            known = {*signals, *KINDS.values()}
            if equals and signal not in known:
                raise ConfigurationError(f"--format {text}: signal '{signal}': {nearest(signal, known)}")
            if signal in found:
                what = signal or "the format of all signals"
                raise ConfigurationError(f"--format {text}: {what} was given before: expected once")
            found[signal] = FixedPoint.parse(number)
        return cls(found.pop("", FixedPoint.parse(DEFAULT_FORMAT)), found)

    def of(self, signal: str) -> FixedPoint:
        """Return the format of a file."""
        return self.own.get(signal, self.own.get(KINDS.get(signal, signal), self.default))


@dataclass(frozen=True)
class Quantised:
    """A signal as words, and what that has cost.

    Attributes:
        name: of its file, without the ending.
        number: its format.
        values: as recorded.
        words: of the same shape.
        saturated: words that would have been beyond the range.
        zeroed: words that are 0 although the recorded number is not.
        snr: measured signal-to-noise ratio in dB; None without a signal or without noise.
    """

    name: str
    number: FixedPoint
    values: Array
    words: Words
    saturated: int
    zeroed: int
    snr: float | None

    @classmethod
    def of(cls, name: str, values: Array, number: FixedPoint) -> Quantised:
        """Round a signal to words.

        Raises:
            TraceError: it is not finite.
        """
        if not np.isfinite(values).all():
            raise TraceError(
                f"{name} holds numbers that are not finite: expected a training step before that"
            )
        words, saturated = number.words(values)
        zeroed = int(((words == 0) & (values != 0)).sum())
        return cls(name, number, values, words, saturated, zeroed, _snr(values, number.values(words)))

    @property
    def rounding(self) -> float:
        """Return how far rounding has taken a number at most; of words that saturated half a bit counts."""
        off = float(np.abs(self.values - self.number.values(self.words)).max(initial=0.0))
        return min(off, self.number.step / 2)

    @property
    def summary(self) -> str:
        """Return what has become of it, in a line."""
        noise = "" if self.snr is None else f", SNR {self.snr:.1f} dB"
        share = self.zeroed / max(1, self.values.size)
        return f"{self.name + '.hex':<24} {self.number.name:<7} {share:6.1%} of its words lost to 0{noise}"

    def warnings(self) -> list[str]:
        """Return what a user must know about it, a sentence each."""
        found = []
        if self.saturated:
            found.append(
                f"{self.saturated} of {self.values.size} words of {self.name} saturated: its largest is "
                f"{np.abs(self.values).max():.4g}, {self.number.name} ends at "
                f"{self.number.largest * self.number.step:g}."
            )
        if self.snr is not None and self.snr < ALMOST_NOTHING:
            better = suggested(self.values)
            advice = (
                f"n = {better.fraction_bits} gives {ENOUGH:g} dB: --format {self.name}={better.name}"
                if better
                else f"no format of up to {WIDEST} bits gives {ENOUGH:g} dB"
            )
            found.append(
                f"Warning: {self.name}.hex holds (almost) nothing of the record: {self.zeroed} of its "
                f"{self.values.size} words are 0 where the number is not, SNR {self.snr:.1f} dB in "
                f"{self.number.name}; {advice}."
            )
        return found


def suggested(values: Array) -> FixedPoint | None:
    """Return a short format in which a signal has `ENOUGH` dB as measured; None if none is wide enough."""
    low, high = float(values.min()), float(values.max())
    start = FixedPoint.suited(low, high, float((values**2).mean()), ENOUGH)
    fewest = max(start.fraction_bits, 1 - start.integer_bits)
    for fraction in range(fewest, WIDEST - start.integer_bits):
        number = FixedPoint(start.integer_bits, fraction)
        ratio = _snr(values, number.quantise(values))
        if ratio is None or ratio >= ENOUGH:
            return number
    return None


def _snr(values: Array, rounded: Array) -> float | None:
    """Return the measured signal-to-noise ratio in dB; None without a signal or without noise."""
    unit = float(np.abs(values).max(initial=0.0))  # keeps squares in range
    if unit == 0 or np.array_equal(values, rounded):
        return None
    signal, noise = ((values / unit) ** 2).sum(), (((rounded - values) / unit) ** 2).sum()
    return 10 * math.log10(signal / noise) if noise else None
