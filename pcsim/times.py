"""Simulated times for people, in the unit that keeps them short."""

from __future__ import annotations

from collections.abc import Mapping


def unit_of(attributes: Mapping[str, object]) -> str:
    """Return the unit of simulated time that a trace's attributes tell: "ns", or "" where there is none."""
    hardware = attributes.get("hardware")
    unit = hardware.get("unit") if isinstance(hardware, dict) else None
    return unit if isinstance(unit, str) else ""


def seconds(nanoseconds: float) -> tuple[int, str]:
    """Return the unit that keeps a time short: its power of ten in ns, and its name."""
    for power, name in ((9, "s"), (6, "ms"), (3, "µs")):
        if nanoseconds >= 10**power:
            return power, name
    return 0, "ns"


def in_seconds(nanoseconds: float) -> str:
    """Return a time for people: 1.23 ms."""
    power, name = seconds(nanoseconds)
    return f"{nanoseconds / 10.0**power:.3g} {name}"


def simulated(time: float, unit: str) -> str:
    """Return a time of a hardware model for people: in seconds if its unit is ns, else a number alone."""
    return in_seconds(time) if unit == "ns" else f"{time:,.6g}"
