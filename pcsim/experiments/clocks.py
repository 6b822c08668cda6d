"""Clocks of runs: written to traces, read back, and compared with those of machines."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pcsim.errors import ConfigurationError
from pcsim.hardware.clock import Hardware, Links
from pcsim.hardware.machine_clock import operations_of
from pcsim.schedule.operation import Operations


def describe_clock(hardware: Hardware) -> dict[str, Any]:
    """Return a clock, fit for JSON: keys are "source-target" of links and "layer name" of operations."""
    links = {f"{source}-{target}": time for (source, target), time in hardware.links.link_latency.items()}
    times = {f"{layer} {name}": time for (name, layer), time in hardware.operation_times.items()}
    return asdict(hardware) | {
        "links": asdict(hardware.links) | {"link_latency": links},
        "operation_times": times,
    }


def read_clock(described: object) -> Hardware | None:
    """Return the clock that `describe_clock` has described; None if it is one of a user's own class."""
    try:
        facts: dict[str, Any] = dict(described)  # type: ignore[call-overload]
        links, times = dict(facts.pop("links")), dict(facts.pop("operation_times"))
        pairs = [(link.split("-"), time) for link, time in links.pop("link_latency").items()]
        single = {(int(source), int(target)): time for (source, target), time in pairs}
        keys = {text: text.split(" ", 1) for text in times}
        known = {(name, int(layer)): times[text] for text, (layer, name) in keys.items()}
        facts["unpriced"] = tuple(facts.get("unpriced", ()))
        return Hardware(**facts, links=Links(**links, link_latency=single), operation_times=known)
    except (TypeError, ValueError, KeyError, AttributeError, ConfigurationError):
        return None


def same_times(one: Hardware, other: Hardware, operations: Operations, batch: int) -> bool:
    """Tell whether all operations of built-in orders and all messages take the same time on two clocks."""
    messages = [
        (clock.time_per_message, clock.time_per_value, clock.time_per_byte, clock.links, clock.unit)
        for clock in (one, other)
    ]
    known = ((done.name, done.layer, done.multiplications * batch) for done in operations_of(operations))
    return messages[0] == messages[1] and all(
        one.operation_time(*what) == other.operation_time(*what) for what in known
    )
