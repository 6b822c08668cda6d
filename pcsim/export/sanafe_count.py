"""What a replay comes to by pcsim's own count: packets, hops, energy, and the time that its cores need.

SANA-FE, which knows nothing of this, has to agree; see docs/exports.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pcsim.export.options import Prices
from pcsim.export.sanafe_architecture import NANO, PICO, TERMS
from pcsim.export.sanafe_network import Link, Replay
from pcsim.export.sanafe_traffic import Traffic

Counts = npt.NDArray[np.int64]
# The parts of SANA-FE's energy.
PARTS = {
    "network": ("message", "hop_horizontal", "hop_vertical"),
    "synapse": ("synaptic_operation", "addition"),
    "soma": ("neuron_update",),
}


@dataclass(frozen=True)
class Count:
    """What is charged in a replay, how often.

    Attributes:
        terms: counts by the terms of machine files. `message` counts packets, one for each core that a number
            goes to; hops are links that packets pass; a synaptic operation is an error that arrives at a
            neuron, an addition a prediction that does; a neuron is updated once in each timestep after one in
            which anything came into its inbox.
        energy: joules, by SANA-FE's parts and in total; what has no price is left out.
        busy: seconds: in each timestep the busiest core's, all timesteps together. SANA-FE's simple model.
    """

    terms: Mapping[str, int]
    energy: Mapping[str, float]
    busy: float

    @property
    def packets(self) -> int:
        """Packets sent."""
        return self.terms["message"]

    @property
    def hops(self) -> int:
        """Links passed, by all packets together."""
        return self.terms["hop_horizontal"] + self.terms["hop_vertical"]

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary fit for JSON."""
        facts = {"packets": self.packets, "hops": self.hops, "terms": dict(self.terms)}
        return facts | {"energy_joules": dict(self.energy), "busy_seconds": self.busy}


def count(replay: Replay, traffic: Traffic, prices: Prices) -> Count:
    """Count a replay from its links; simulates nothing."""
    shape = (traffic.timesteps, replay.mapping.chip.cores)
    work = {term: np.zeros(shape, np.int64) for term in TERMS}
    for link in replay.links:
        _receive(link, traffic, work)
    for link in _packets(replay):
        _send(link, replay, traffic, work)
    _update(replay, traffic, work["neuron_update"])
    terms = {term: int(work[term].sum()) for term in TERMS}
    return Count(terms, _energy(terms, prices), _busy(work, prices))


def _receive(link: Link, traffic: Traffic, work: Mapping[str, Counts]) -> None:
    """Count what the target's core does with what arrives, in each timestep."""
    tile, numbers = link.inbox.tile, link.sent(traffic).sum(axis=1, dtype=np.int64)
    if link.dense:
        work["synaptic_operation"][:, tile.core] += numbers * tile.neurons
    else:
        work["addition"][:, tile.core] += numbers


def _packets(replay: Replay) -> list[Link]:
    """Return a link for each way of packets: an error that several tiles of a core need goes there once."""
    ways = dict[tuple[str, int | str], Link]()
    for link in replay.links:
        whose = link.inbox.tile.core if link.dense else link.inbox.group
        ways.setdefault((link.sender.group, whose), link)
    return list(ways.values())


def _send(link: Link, replay: Replay, traffic: Traffic, work: Mapping[str, Counts]) -> None:
    """Count the packets that leave the source's core in each timestep, and their hops."""
    numbers, source = link.sent(traffic).sum(axis=1, dtype=np.int64), link.sender.core
    (row, column), (to_row, to_column) = map(replay.mapping.chip.place, (source, link.inbox.tile.core))
    work["message"][:, source] += numbers
    work["hop_horizontal"][:, source] += numbers * abs(column - to_column)
    work["hop_vertical"][:, source] += numbers * abs(row - to_row)


def _update(replay: Replay, traffic: Traffic, updates: Counts) -> None:
    """Count the neurons that have something new, a timestep after it has come."""
    arrived = {one: np.zeros((traffic.timesteps, one.tile.neurons), dtype=bool) for one in replay.inboxes}
    for link in replay.links:
        sent = link.sent(traffic)
        arrived[link.inbox] |= sent.any(axis=1, keepdims=True) if link.dense else sent
    for inbox, new in arrived.items():
        updates[1:, inbox.tile.core] += new[:-1].sum(axis=1)


def _energy(terms: Mapping[str, int], prices: Prices) -> dict[str, float]:
    joules = {term: number * prices.energy.get(term, 0.0) * PICO for term, number in terms.items()}
    parts = {part: sum(joules[term] for term in of_part) for part, of_part in PARTS.items()}
    return parts | {"total": sum(parts.values())}


def _busy(work: Mapping[str, Counts], prices: Prices) -> float:
    """Add up the timesteps: each lasts as long as the core that sends or the one that receives longest."""
    seconds = {term: prices.time.get(term, 0.0) * NANO for term in TERMS}
    sending = sum(work[term] * seconds[term] for term in ("message", "neuron_update"))
    receiving = sum(work[term] * seconds[term] for term in ("synaptic_operation", "addition"))
    return float(np.maximum(np.max(sending, axis=1), np.max(receiving, axis=1)).sum())
