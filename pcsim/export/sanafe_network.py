"""Who sends to whom in SANA-FE: neurons that send what was recorded, neurons that receive it, and net.yaml.

Each tile of a layer becomes up to four groups of neurons on its core:

- `prediction_out` has a neuron for each number of the prediction that the layer sends up, joined to the one
  neuron that it is about; a layer on several tiles sends part sums, one from each;
- `error_out` has a neuron for each of the tile's own errors, joined to every neuron of the layer below, since
  it is part of the feedback to all of them;
- `prediction_in` and `error_in` are the tile's inbox: a neuron for each of the tile's. They never fire.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pcsim.export.sanafe_mesh import Mesh
from pcsim.export.sanafe_traffic import Port, Sent, Traffic
from pcsim.hardware.mapping import Mapping, Tile

NEVER = "1.0e+30"  # a threshold that no neuron reaches
COMPARTMENTS = 1024  # neurons that one soma or dendrite unit of SANA-FE has room for
STEP = {"prediction": 1, "error": -1}  # to which layer a message goes
SYNAPSE = {"prediction": "sum", "error": "weight"}  # what a number that arrives goes through


@dataclass(frozen=True)
class Inbox:
    """The neurons of a tile that receive one kind of message.

    Attributes:
        group: their name.
        kind: of message.
        tile: whose they are.
        slot: the first one's place among all that receive on the core.
    """

    group: str
    kind: str
    tile: Tile
    slot: int

    def units(self) -> Iterator[tuple[int, int, int]]:
        """Yield (unit, first neuron, one behind the last) for each of the core's units that they fill."""
        first = 0
        while first < self.tile.neurons:
            unit = (self.slot + first) // COMPARTMENTS
            last = min(self.tile.neurons, (unit + 1) * COMPARTMENTS - self.slot)
            yield unit, first, last
            first = last

    @property
    def port(self) -> Port:
        """What arrives here: kind of message and layer that sends it."""
        return self.kind, self.tile.layer - STEP[self.kind]


@dataclass(frozen=True)
class Sender:
    """The neurons with which one tile sends one kind of message.

    Attributes:
        group: their name.
        port: kind of message and layer.
        core: of the mapping.
        first: the number of the message that the first of them sends.
        last: one behind the number that the last of them sends.
        unit: the core's input unit that the first of them occupies; the others follow.
    """

    group: str
    port: Port
    core: int
    first: int
    last: int
    unit: int

    @property
    def neurons(self) -> int:
        """How many neurons it has."""
        return self.last - self.first


@dataclass(frozen=True)
class Link:
    """All edges from a sender to one inbox.

    Attributes:
        sender: where they begin.
        inbox: where they end. An error reaches every neuron of it, a prediction the one that it is about.
    """

    sender: Sender
    inbox: Inbox

    @property
    def dense(self) -> bool:
        """Whether every sending neuron reaches every receiving one."""
        return self.inbox.kind == "error"

    @property
    def edges(self) -> int:
        """How many edges there are."""
        return self.inbox.tile.neurons * (self.sender.neurons if self.dense else 1)

    def sent(self, traffic: Traffic) -> Sent:
        """Return which numbers go this way in which timestep, (timesteps, numbers)."""
        span = self.sender if self.dense else self.inbox.tile
        return traffic.sent[self.sender.port][:, span.first : span.last]


@dataclass(frozen=True)
class Replay:
    """A mapped network that sends what was recorded.

    Attributes:
        mapping: where its tiles are.
        inboxes: all groups that receive.
        senders: all groups that send.
        links: all edges.
    """

    mapping: Mapping
    inboxes: tuple[Inbox, ...]
    senders: tuple[Sender, ...]
    links: tuple[Link, ...]

    @property
    def edges(self) -> int:
        """How many edges there are."""
        return sum(link.edges for link in self.links)

    @cached_property
    def inputs(self) -> Counter[int]:
        """How many neurons send, by core."""
        return _total((sender.core, sender.neurons) for sender in self.senders)

    @cached_property
    def receivers(self) -> Counter[int]:
        """How many neurons receive, by core."""
        return _total((one.tile.core, one.tile.neurons) for one in self.inboxes)


def _total(numbers: Iterable[tuple[int, int]]) -> Counter[int]:
    """Add up numbers that have the same key."""
    total = Counter[int]()
    for key, number in numbers:
        total[key] += number
    return total


def build(mapping: Mapping, traffic: Traffic) -> Replay:
    """Return the groups and edges for the ports that the traffic uses."""
    names = dict[Tile, str]()
    for layer in range(len(mapping.sizes)):
        names |= {tile: f"layer{layer}_tile{index}" for index, tile in enumerate(mapping.of_layer(layer))}
    inboxes, slots = list[Inbox](), Counter[int]()
    senders, units = list[Sender](), Counter[int]()
    for kind, layer in traffic.sent:
        for tile in mapping.of_layer(layer + STEP[kind]):
            inboxes.append(Inbox(f"{names[tile]}_{kind}_in", kind, tile, slots[tile.core]))
            slots[tile.core] += tile.neurons
        for tile in mapping.of_layer(layer):
            first, last = (tile.first, tile.last) if kind == "error" else (0, mapping.sizes[layer + 1])
            unit = units[tile.core]
            senders.append(Sender(f"{names[tile]}_{kind}_out", (kind, layer), tile.core, first, last, unit))
            units[tile.core] += last - first
    links = tuple(Link(sender, inbox) for sender in senders for inbox in inboxes if inbox.port == sender.port)
    return Replay(mapping, tuple(inboxes), tuple(senders), links)


def net_lines(replay: Replay, traffic: Traffic, mesh: Mesh) -> Iterator[str]:
    """Yield net.yaml: groups, edges and mapping."""
    yield "network:"
    yield "  name: pcsim"
    yield "  groups:"
    for inbox in replay.inboxes:
        yield f"    - name: {inbox.group}"
        yield f"      attributes: {{synapse_hw_name: {SYNAPSE[inbox.kind]}, threshold: {NEVER}}}"
        yield "      neurons:"
        for unit, first, last in inbox.units():
            hardware = f'soma_hw_name: "receiver[{unit}]", dendrite_hw_name: "inbox[{unit}]"'
            yield f"        - {first}..{last - 1}: {{{hardware}}}"
    for sender in replay.senders:
        yield f"    - name: {sender.group}"
        yield "      neurons:"
        yield from _sending_neurons(sender, traffic.sent[sender.port])
    yield "  edges:"
    for link in replay.links:
        yield from _edges(link)
    yield "mappings:"
    # SANA-FE works through a core's neurons in this order: what has come in is used before anything is sent.
    for inbox in replay.inboxes:
        yield f"  - {inbox.group}: {{core: {mesh.tile(inbox.tile.core)}.0}}"
    for sender in replay.senders:
        yield f"  - {sender.group}: {{core: {mesh.tile(sender.core)}.0}}"


def _sending_neurons(sender: Sender, sent: Sent) -> Iterator[str]:
    """Yield a line a neuron: in which timesteps it fires, and its input unit, which holds one such list."""
    for index, spikes in enumerate(sent[:, sender.first : sender.last].T):
        unit = f'"input[{sender.unit + index}]"'
        yield f"        - {index}: {{soma_hw_name: {unit}, spikes: [{_bits(spikes)}]}}"


def _bits(spikes: npt.NDArray[np.bool_]) -> str:
    """Return 0 and 1 with commas, up to the last 1."""
    length = 1 + int(np.flatnonzero(spikes)[-1]) if spikes.any() else 1
    return ",".join(np.where(spikes[:length], "1", "0").tolist())


def _edges(link: Link) -> Iterator[str]:
    """Yield edges of weight 0: what arrives is counted and charged, and no neuron's potential moves."""
    yield f"    - {link.sender.group} -> {link.inbox.group}:"
    if link.dense:
        yield "        type: dense"
    else:
        tile = link.inbox.tile
        pairs = ",".join(f"[{tile.first + one},{one}]" for one in range(tile.neurons))
        yield "        type: sparse"
        yield f"        source_target_pairs: [{pairs}]"
    yield f"        weight: [{','.join(['0'] * link.edges)}]"
