"""What a trace says its run was told of messages, states, faults and hardware, as far as it is unusual.

It comes from a file that anybody may have written, and older traces say less.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

SECTIONS = ("[messages]", "[states]", "[faults]", "[hardware]")
KINDS = ("predictions", "errors")
CLOCKS = ("unit", "parametric")  # of model files; all others are machines
# What else is usual is 0, none or empty.
USUAL: Mapping[str, Any] = {
    "threshold": None,
    "rounding": "nearest",
    "dead_layer": None,
    "dead_share": 1.0,
    "time_per_operation": 1.0,
}
SENT_SINCE = 4  # version of the trace format whose probes of messages keep what receivers have
BESIDE_RATES = ("links", "unit", "unpriced", "operation_times")


def unusual(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Return what differs from the defaults of a model file's sections, a line each, by `[section]`."""
    channels = _part(_part(attributes, "experiment"), "channels")
    faults = _part(channels, "faults")
    dead = {f"dead_{name}": value for name, value in _part(faults, "dead").items()}
    lines = (
        _messages(channels),
        _words(_part(channels, "states")),
        _words({**faults, "dead": None, **dead}),
        _hardware(attributes),
    )
    return {section: line for section, line in zip(SECTIONS, lines, strict=True) if line}


def said_not_sent(attributes: Mapping[str, Any]) -> str | None:
    """Return a caution for traces whose probes of messages keep what senders had to say; None for others."""
    version = attributes.get("schema_version")
    if not isinstance(version, int) or version >= SENT_SINCE:
        return None
    if not _part(_part(attributes, "experiment"), "channels"):
        return None
    return (
        f"This trace is of format {version}: its probes of messages keep what senders had to say, before "
        "formats, thresholds and faults; run it again for what was sent."
    )


def machine_of(attributes: Mapping[str, Any]) -> str | None:
    """Return the name of the machine that was the run's clock; None if it was none, or is not told."""
    section = _part(_part(attributes, "configuration"), "hardware")
    if section.get("path"):
        return PurePath(str(section["path"])).stem
    model = section.get("model")
    return None if model is None or model in CLOCKS else str(model)


def _messages(channels: Mapping[str, Any]) -> str:
    """Say how predictions and errors are sent, once where it is the same."""
    told = {}
    for kind in KINDS:
        settings = _part(channels, kind)
        told[kind] = _words({**settings, "numbers": None, **_part(settings, "numbers")})
    if told["predictions"] == told["errors"]:
        return told["errors"]
    return "; ".join(f"{kind}: {words}" for kind, words in told.items() if words)


def _hardware(attributes: Mapping[str, Any]) -> str:
    """Name the machine, or give the rates of a clock without one; and what links add."""
    clock, name = _part(attributes, "hardware"), machine_of(attributes)
    if name is not None:  # whose hops are in the clock's links, too
        section = _part(_part(attributes, "configuration"), "hardware")
        beside = _words({one: value for one, value in section.items() if one not in ("model", "path")})
        return f"{name}, {beside}" if beside else name
    if clock.get("operation_times"):  # given in Python
        return "times of single operations"
    rates = {one: value for one, value in clock.items() if one not in BESIDE_RATES}
    return _words({**rates, **_part(clock, "links")})


def _words(settings: Mapping[str, Any]) -> str:
    """Return what is not usual: threshold 0.03, format Q4.7."""
    return ", ".join(
        f"{name} {_value(value)}"
        for name, value in settings.items()
        if (value != USUAL[name] if name in USUAL else value)
    )


def _value(value: object) -> str:
    """Return a setting for people."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_value(one)}" for name, one in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _part(whole: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a mapping within a mapping; an empty one if there is none."""
    part = whole.get(name)
    return part if isinstance(part, dict) else {}
