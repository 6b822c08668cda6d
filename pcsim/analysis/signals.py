"""Dynamic range and sparsity of recorded arrays, from the tables `probes/…`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pcsim.analysis.fixed_point import FixedPoint
from pcsim.analysis.network import Functions
from pcsim.analysis.statistics import SMALLEST_EXPONENT, SUB_BLOCK, Floats, RangeStatistics
from pcsim.analysis.stream import (
    Described,
    Progress,
    Signal,
    TraceLike,
    dataset,
    missing_probe,
    numbers,
    opened,
    signals,
)
from pcsim.tracing.reader import TraceReader

if TYPE_CHECKING:
    import xarray

MOST_EXTRA = 8  # bits; a format that misses its ratio mostly lacks one
SPARSE = ("activity", "error", "prediction_message", "error_message")


def dynamic_range(trace: TraceLike, *, snr: float = 40.0, progress: Progress | None = None) -> xarray.Dataset:
    """Return the range of every recorded array, and the fixed-point format that it needs.

    Variables over `signal`: `minimum`, `maximum`, `smallest_nonzero` (magnitude; infinite if all are 0),
    `mean`, `std`, `mean_square`, `count` (finite numbers), `zeros`, `negatives`, `nonfinite`, `sparsity`
    (zeros / count), `integer_bits`, `fraction_bits`, `bits` (with the sign; see `FixedPoint.suited`) and
    `predicted_snr`; and `histogram` (signal, exponent): how many numbers have 2^k ≤ |x| < 2^(k + 1). One
    pass over the file. Minimum, maximum, mean, … are NaN for an array without finite numbers.

    Args:
        trace: an open trace, or the path of one.
        snr: signal-to-noise ratio in decibels that the format has to reach.
        progress: is told how far this has come.

    Raises:
        TraceError: the trace has no probes, none of them has rows, or it cannot be read.
        ConfigurationError: the ratio is not above 0 and at most 300 dB.
    """
    FixedPoint.suited(-1, 1, 1, snr)  # refuses a bad ratio before anything is read
    with opened(trace) as reader:
        # Targets are kept for the angles to backprop: no machine has them in a format.
        recorded = (one for one in signals(reader) if one.kind != "target")
        found = [one for one in recorded if one.dtype.kind == "f" and one.shape[0]]
        if not found:
            raise missing_probe(reader, "recorded arrays", "activity", "error")
        statistics = [RangeStatistics() for _ in found]
        columns = [(one.table, one.name) for one in found]
        for number, _, values in numbers(columns, "dynamic range", progress):
            statistics[number].add(values)
        formats = [_format(one, snr) for one in statistics]
        counts = np.stack([one.histogram for one in statistics])
        occurring = np.flatnonzero(counts.any(axis=0))
        ends = slice(occurring[0], occurring[-1] + 1) if occurring.size else slice(0)
        exponents = np.arange(ends.start or 0, ends.stop) + SMALLEST_EXPONENT
        return dataset(
            reader,
            "dynamic range",
            _range_variables(statistics, formats)
            | {"histogram": (("signal", "exponent"), counts[:, ends], "numbers by power of two", "1")},
            _signal_coordinates(found)
            | {"exponent": (("exponent",), exponents, "floor of log2 of the magnitude", "1")},
            snr=snr,
        )


def quantised_snr(
    trace: TraceLike, ranges: xarray.Dataset, *, progress: Progress | None = None
) -> xarray.Dataset:
    """Return `ranges` with `measured_snr`, found by rounding every recorded number to its signal's format.

    And with `extra_bits`, the fewest fraction bits more with which a signal that misses the ratio reaches
    it, measured in one more pass over these signals for each bit; at most `MOST_EXTRA`. An integer bit comes
    with them where both extremes, rounded less coarsely, need it.

    `predicted_snr` takes rounding for noise, which it is not for signals of few different values. Infinite
    where rounding changes nothing, NaN where there is no signal. Numbers that are not finite are left out.

    Args:
        trace: an open trace, or the path of one.
        ranges: what `dynamic_range` has returned for it; its formats may be changed before.
        progress: is told how far this has come.

    Raises:
        TraceError: the trace lacks one of the signals, or cannot be read.
    """
    formats = [
        FixedPoint(int(integer), int(fraction))
        for integer, fraction in zip(ranges.integer_bits.values, ranges.fraction_bits.values, strict=True)
    ]
    names = [str(place) for place in ranges.signal.values]
    extra = np.zeros(len(names), dtype=np.int64)
    with opened(trace) as reader:
        measured = reached = _measured(reader, names, formats, progress)
        while (failing := np.flatnonzero((reached < ranges.attrs["snr"]) & (extra < MOST_EXTRA))).size:
            extra[failing] += 1
            longer = [_longer(formats[one], int(extra[one]), ranges.isel(signal=one)) for one in failing]
            reached = reached.copy()
            reached[failing] = _measured(reader, [names[one] for one in failing], longer, progress)
    words = {"long_name": "signal-to-noise ratio of the recorded numbers in the format", "units": "dB"}
    more = {"long_name": "fraction bits that the format lacks for the ratio", "units": "bit"}
    return ranges.assign(measured_snr=("signal", measured, words), extra_bits=("signal", extra, more))


def sparsity(trace: TraceLike, *, progress: Progress | None = None) -> xarray.Dataset:
    """Return the share of zeros in recorded activities, errors and messages, by iteration.

    Variables over (signal, iteration): `zero_share`, and `silent_share`, of an activity the share of neurons
    with f(ĥ_l) = 0, which add nothing to a prediction (relu: ĥ_l ≤ 0); NaN for other signals. Shares are of
    all recorded steps, samples and neurons.

    Args:
        trace: an open trace, or the path of one.
        progress: is told how far this has come.

    Raises:
        TraceError: no probe has such a signal, or the trace cannot be read.
    """
    with opened(trace) as reader:
        found = [signal for signal in signals(reader) if signal.kind in SPARSE and signal.shape[0]]
        if not found:
            raise missing_probe(reader, "activities, errors or messages", "activity", "error", "message")
        functions = Functions.of(reader) if any(one.kind == "activity" for one in found) else None
        iterations = found[0].shape[1]
        zeros, silent = np.zeros((2, len(found), iterations))
        columns = [(one.table, one.name) for one in found]
        for number, piece, values in numbers(columns, "sparsity", progress):
            signal = found[number]
            over = piece[1] if len(piece) > 1 else slice(None)
            zeros[number, over] += (values == 0).sum(axis=(0, 2, 3))
            if functions is not None and signal.kind == "activity":
                silent[number, over] += functions.silent(signal.layer, values).sum(axis=(0, 2, 3))
        total = np.array([_per_iteration(signal) for signal in found])[:, np.newaxis]
        is_activity = np.array([signal.kind == "activity" for signal in found])[:, np.newaxis]
        dims = ("signal", "iteration")
        return dataset(
            reader,
            "sparsity",
            {
                "zero_share": (dims, zeros / total, "share of numbers that are 0", "1"),
                "silent_share": (
                    dims,
                    np.where(is_activity, silent / total, np.nan),
                    "share of neurons whose activation function gives 0",
                    "1",
                ),
            },
            _signal_coordinates(found)
            | {"iteration": (("iteration",), np.arange(iterations), "inference iterations done", "1")},
        )


def _per_iteration(signal: Signal) -> int:
    """Return how many numbers there are of each iteration."""
    rows, _, samples, neurons = signal.shape
    return rows * samples * neurons


def _format(statistics: RangeStatistics, snr: float) -> FixedPoint:
    """Return the format for a signal: exact for one of few different values, which no noise model fits."""
    if not statistics.count:
        return FixedPoint(0, 0)
    found = FixedPoint.suited(statistics.minimum, statistics.maximum, statistics.mean_square, snr)
    if statistics.distinct is not None:
        while found.measured_snr(*statistics.distinct) < snr:
            found = FixedPoint.holding(statistics.minimum, statistics.maximum, found.fraction_bits + 1)
    return found


def _longer(form: FixedPoint, extra: int, signal: xarray.Dataset) -> FixedPoint:
    """Return a signal's format with more fraction bits, and the integer bits that these ask for."""
    found = FixedPoint.holding(float(signal.minimum), float(signal.maximum), form.fraction_bits + extra)
    return replace(found, integer_bits=max(form.integer_bits, found.integer_bits))


def _measured(
    trace: TraceReader,
    paths: Sequence[str],
    formats: Sequence[FixedPoint],
    progress: Progress | None,
) -> Floats:
    """Return the signal-to-noise ratio of recorded arrays in these formats, dB."""
    power, noise = np.zeros((2, len(formats)))
    places = [path.rpartition("/") for path in paths]
    columns = [(trace.table(table), name) for table, _, name in places]
    for number, _, block in numbers(columns, "quantised", progress):
        flat = block.reshape(-1)
        for first in range(0, flat.size, SUB_BLOCK):
            values = flat[first : first + SUB_BLOCK].astype(np.float64)
            values = values[np.isfinite(values)]
            power[number] += np.vdot(values, values)
            noise[number] += ((formats[number].quantise(values) - values) ** 2).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(10 * np.log10(power / noise))


def _range_variables(
    statistics: Sequence[RangeStatistics], formats: Sequence[FixedPoint]
) -> dict[str, Described]:
    none = [one.count == 0 for one in statistics]

    def of(words: str, values: list[float], units: str = "1") -> Described:
        return ("signal",), np.where(none, np.nan, values), words, units

    def number(words: str, values: list[int], units: str = "1") -> Described:
        return ("signal",), np.array(values, dtype=np.int64), words, units

    return {
        "minimum": of("smallest number", [one.minimum for one in statistics]),
        "maximum": of("largest number", [one.maximum for one in statistics]),
        "smallest_nonzero": of("smallest magnitude above 0", [one.smallest_nonzero for one in statistics]),
        "mean": of("mean", [float(one.moments.mean) for one in statistics]),
        "std": of("standard deviation", [float(one.moments.deviation) for one in statistics]),
        "mean_square": of("mean of the squares", [one.mean_square for one in statistics]),
        "sparsity": of("share of numbers that are 0", [one.zeros / max(one.count, 1) for one in statistics]),
        "predicted_snr": of(
            "signal-to-noise ratio of the format",
            [one.predicted_snr(of.mean_square) for one, of in zip(formats, statistics, strict=True)],
            "dB",
        ),
        "count": number("finite numbers", [one.count for one in statistics]),
        "zeros": number("numbers that are 0", [one.zeros for one in statistics]),
        "negatives": number("numbers below 0", [one.negatives for one in statistics]),
        "nonfinite": number("infinities and NaN", [one.nonfinite for one in statistics]),
        "integer_bits": number("integer bits", [one.integer_bits for one in formats], "bit"),
        "fraction_bits": number("fraction bits", [one.fraction_bits for one in formats], "bit"),
        "bits": number("bits of a word with its sign", [one.bits for one in formats], "bit"),
    }


def _signal_coordinates(found: Sequence[Signal]) -> dict[str, Described]:
    dims = ("signal",)
    return {
        "signal": (dims, np.array([one.path for one in found]), "place in the file", "1"),
        "quantity": (dims, np.array([one.kind for one in found]), "what is recorded", "1"),
        "layer": (dims, np.array([one.layer for one in found]), "whose", "1"),
    }
