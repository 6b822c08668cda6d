"""Which fixed-point formats a recorded run suggests for its messages and activities."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pcsim.errors import TraceError
from pcsim.tracing.reader import TraceReader

if TYPE_CHECKING:
    import xarray

    from pcsim.analysis.stream import Progress

WHO = {"prediction_message": "predictions", "error_message": "errors", "activity": "activities"}
KEYS = {
    "predictions": ("messages", "format"),
    "errors": ("messages", "error_format"),
    "activities": ("states", "format"),
}


@dataclass(frozen=True)
class Suggestion:
    """The shortest format that suits all layers.

    Attributes:
        what: predictions, errors or activities.
        format: Qm.n.
        signals: how many recorded arrays it suits.
        minimum: of all of them.
        maximum: of all of them.
    """

    what: str
    format: str
    signals: int
    minimum: float
    maximum: float


def suggest_formats(trace: TraceReader, snr: float, progress: Progress | None = None) -> list[Suggestion]:
    """Return formats for what the probes of a trace have recorded.

    Each layer needs its own integer and fraction bits (`pcsim.analysis.FixedPoint.suited`); a format for
    all of them has the most of either.

    Args:
        trace: with probes of message, activity or both.
        snr: signal-to-noise ratio in decibels that each layer is to have.
        progress: is told how far this has come.

    Raises:
        TraceError: no probe has what it takes.
        ConfigurationError: the ratio is not above 0 and at most 300 dB.
    """
    from pcsim.analysis.signals import dynamic_range

    found = dynamic_range(trace, snr=snr, progress=progress)
    groups: dict[str, list[int]] = {}
    for index, signal in enumerate(found.signal.values):
        match = re.fullmatch(r".*/(prediction_message|error_message|activity)_\d+", str(signal))
        if match and float(found.mean_square[index]) > 0:
            groups.setdefault(WHO[match[1]], []).append(index)
    if not groups:
        raise TraceError(
            f"{trace.path} has no recorded messages or activities: add a probe with "
            'record = ["message", "activity"] and run again'
        )
    return [_suit(what, found, groups[what]) for what in KEYS if what in groups]


def as_toml(suggestions: list[Suggestion]) -> str:
    """Return the lines to paste into a model file."""
    lines: dict[str, list[str]] = {}
    for one in suggestions:
        section, key = KEYS[one.what]
        lines.setdefault(section, []).append(f'{key} = "{one.format}"')
    return "\n\n".join("\n".join([f"[{section}]", *keys]) for section, keys in lines.items())


def _suit(what: str, found: xarray.Dataset, indices: list[int]) -> Suggestion:
    """Return the format with the most integer and the most fraction bits that one of the signals needs."""
    integer = max(int(found.integer_bits[one]) for one in indices)
    fraction = max(int(found.fraction_bits[one]) for one in indices)
    low = min(float(found.minimum[one]) for one in indices)
    high = max(float(found.maximum[one]) for one in indices)
    return Suggestion(what, f"Q{integer}.{fraction}", len(indices), low, high)
