"""Hardware models that give durations, in time units of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from pcsim.errors import refuse_unless


@dataclass(frozen=True)
class Links:
    """What a message needs on its way, besides its size; shared by all hardware models.

    Attributes:
        latency: time added to every message, unless `link_latency` names its link.
        link_latency: latency of single links instead, by (source, target).
        jitter: up to this much time more, uniformly at random.
        seed: of the jitter.

    Raises:
        ConfigurationError: a time below 0, or a link between layers that are no neighbours.
    """

    latency: float = 0.0
    link_latency: Mapping[tuple[int, int], float] = field(default_factory=dict)
    jitter: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for link, time in (("latency", self.latency), ("jitter", self.jitter), *self.link_latency.items()):
            refuse_unless(0 <= time < float("inf"), f"hardware.{link}", time, "0 or more")
        for link in self.link_latency:
            refuse_unless(abs(link[0] - link[1]) == 1, "link", link, "a pair of neighbouring layers")

    def delay(self, source: int, target: int, rng: np.random.Generator) -> float:
        """Return the delay of one message."""
        delay = self.link_latency.get((source, target), self.latency)
        return delay + self.jitter * rng.random() if self.jitter else delay


@dataclass(frozen=True)
class Hardware:
    """A machine in which every operation and every message takes time.

    Attributes:
        time_per_operation: of any operation, in time units.
        time_per_multiplication: of each multiplication in products with weights.
        time_per_message: of any message.
        time_per_byte: of each byte in a message.
        links: latency and jitter.
        time_per_value: of each value that is sent in a message, whatever its format.
        operation_times: of single operations instead, by (name, layer).
        unpriced: what takes no time here only because nobody knows how much; see `machine_clock`.
        unit: of all times: "ns" of a machine with prices in time; "" where they are nobody's seconds.

    Raises:
        ConfigurationError: a duration below 0.
    """

    time_per_operation: float = 0.0
    time_per_multiplication: float = 0.0
    time_per_message: float = 0.0
    time_per_byte: float = 0.0
    links: Links = Links()
    time_per_value: float = 0.0
    operation_times: Mapping[tuple[str, int], float] = field(default_factory=dict)
    unpriced: tuple[str, ...] = ()
    unit: str = ""

    def __post_init__(self) -> None:
        for what in ("operation", "multiplication", "message", "byte", "value"):
            time = getattr(self, f"time_per_{what}")
            refuse_unless(0 <= time < float("inf"), f"hardware.time_per_{what}", time, "0 or more")
        for (name, layer), time in self.operation_times.items():
            refuse_unless(0 <= time < float("inf"), f"time of {name}(layer {layer})", time, "0 or more")

    def operation_time(self, name: str, layer: int, multiplications: int) -> float:
        """Return how long a layer is busy with an operation of so many multiplications."""
        given = self.operation_times.get((name, layer))
        return (
            self.time_per_operation + self.time_per_multiplication * multiplications
            if given is None
            else given
        )

    def message_time(
        self, source: int, target: int, values: int, size: int, rng: np.random.Generator
    ) -> float:
        """Return how long a message is under way that sends so many values in `size` bytes."""
        sending = self.time_per_message + self.time_per_value * values + self.time_per_byte * size
        return sending + self.links.delay(source, target, rng)


def unit(links: Links = Links()) -> Hardware:
    """Return the hardware of textbooks: one time unit an operation, free links (but for `links`)."""
    return Hardware(time_per_operation=1.0, links=links)
