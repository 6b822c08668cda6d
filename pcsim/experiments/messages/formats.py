"""Which fixed-point formats a recorded run suggests for its messages and activities.

An error is ĥ − p, so a rounded activity leaves its rounding in the error: the states need the fraction bits
of errors, which are small differences of large numbers, and not only those of the activities themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcsim.analysis.fixed_point import FixedPoint
from pcsim.analysis.signals import dynamic_range
from pcsim.errors import ConfigurationError, TraceError
from pcsim.schedule.number_format import NumberFormat
from pcsim.tracing.reader import TraceReader

if TYPE_CHECKING:
    import xarray

    from pcsim.analysis.stream import Progress

FORMED = "errors that layers form"  # they say what activities need; what is sent has a format of its own
WHO = {
    "prediction_message": ("predictions",),
    "error_message": ("errors", FORMED),
    "error": (FORMED,),
    "activity": ("activities",),
}
# What the sections of a model file ask for.
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
        held: whether the network's dtype has all numbers of the format; a model file with others is refused.
    """

    what: str
    format: str
    signals: int
    minimum: float
    maximum: float
    held: bool


def suggest_formats(trace: TraceReader, snr: float, progress: Progress | None = None) -> list[Suggestion]:
    """Return formats for what the probes of a trace have recorded.

    Each layer needs its own integer and fraction bits (`pcsim.analysis.FixedPoint.suited`); a format for
    all of them has the most fraction bits, and holds all of them. Activities have those of the errors, if
    these are more: without recorded errors nothing is suggested for activities.

    Args:
        trace: with probes of message, of activity and message, or of activity and error.
        snr: signal-to-noise ratio in decibels that each layer is to have.
        progress: is told how far this has come.

    Raises:
        TraceError: no probe has what it takes.
        ConfigurationError: the ratio is not above 0 and at most 300 dB.
    """
    found = dynamic_range(trace, snr=snr, progress=progress)
    groups: dict[str, list[int]] = {}
    for index, (kind, power) in enumerate(zip(found.quantity.values, found.mean_square.values, strict=True)):
        for what in WHO.get(str(kind), ()) if power > 0 else ():
            groups.setdefault(what, []).append(index)
    formed = groups.pop(FORMED, [])
    if not formed:
        groups.pop("activities", None)
    if not groups:
        raise TraceError(
            f"{trace.path} has no recorded messages, nor activities with their errors: add a probe with "
            'record = ["message", "activity"] and run again'
        )
    suggestions = []
    for what in (one for one in KEYS if one in groups):
        of = groups[what] + (formed if what == "activities" else [])
        finest = max(int(found.fraction_bits[one]) for one in of)
        suggestions.append(_suggest(trace, what, found.isel(signal=groups[what]), finest))
    return suggestions


def as_toml(suggestions: list[Suggestion]) -> str:
    """Return the lines to paste into a model file."""
    lines: dict[str, list[str]] = {}
    for one in filter(lambda one: one.held, suggestions):
        section, key = KEYS[one.what]
        lines.setdefault(section, []).append(f'{key} = "{one.format}"')
    return "\n\n".join("\n".join([f"[{section}]", *keys]) for section, keys in lines.items())


def _suggest(trace: TraceReader, what: str, found: xarray.Dataset, finest: int) -> Suggestion:
    """Return the format of so many fraction bits that holds all of these signals."""
    low, high = float(found.minimum.min()), float(found.maximum.max())
    form = FixedPoint.holding(low, high, finest)
    name = f"Q{form.integer_bits}.{form.fraction_bits}"
    return Suggestion(what, name, found.sizes["signal"], low, high, _holds(trace, name))


def _holds(trace: TraceReader, name: str) -> bool:
    """Tell whether the numbers of a network have the bits of a format."""
    experiment = trace.attributes.get("experiment")
    network = experiment.get("network") if isinstance(experiment, dict) else None
    narrow = isinstance(network, dict) and network.get("dtype") == "float32"
    try:
        NumberFormat.parse(name).check_holds(np.dtype(np.float32 if narrow else np.float64))
    except ConfigurationError:
        return False
    return True
