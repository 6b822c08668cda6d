"""A model on a chip: split, placed, and one mini-batch of it simulated on the mesh."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pcsim.config import ModelConfig
from pcsim.engine.mesh.engine import MeshTiming, simulate_mesh
from pcsim.engine.mesh.plan import Floats, make_plan
from pcsim.engine.mesh.times import chip_of, priced_durations, unpriced_on_mesh
from pcsim.errors import ConfigurationError
from pcsim.experiments.experiment import build_channels, build_network, build_rule
from pcsim.experiments.pricing import setting_of
from pcsim.hardware.machine import Machine, load_machine
from pcsim.hardware.mapping import Mapping
from pcsim.hardware.placement import place
from pcsim.hardware.routes import link_ends
from pcsim.hardware.tiling import Fill, fills
from pcsim.hardware.traffic import Traffic, traffic_of
from pcsim.network.connection import Conv
from pcsim.schedule.orders import ORDERS, Reactive
from pcsim.schedule.program import Program, Schedule


@dataclass(frozen=True, eq=False)
class Mapped:
    """A model on a chip.

    Attributes:
        model: its name.
        schedule: whose program ran.
        batch: samples in the mini-batch.
        machine: with prices and chip.
        mapping: tiles and their cores.
        fills: how full the fullest core is, capacity by capacity.
        traffic: messages between tiles, hops and bytes of one mini-batch.
        timing: when which core and which link worked.
        unpriced: what takes no time here only because its time has no price.
        left_out: what tiles of one layer would have to tell each other, and is not simulated.
    """

    model: str
    schedule: Schedule
    batch: int
    machine: Machine
    mapping: Mapping
    fills: tuple[Fill, ...]
    traffic: Traffic
    timing: MeshTiming
    unpriced: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def busiest_core(self) -> tuple[int, float]:
        """Return the core that works longest, and the share of the makespan in which it does."""
        return _busiest(self.timing.core_busy, self.timing.makespan)

    @property
    def busiest_link(self) -> tuple[int, float]:
        """Return the link with most bytes, and the share of the makespan in which it is taken."""
        link = int(np.argmax(self.traffic.link_bytes))
        taken = float(self.timing.link_busy[link])
        return link, taken / self.timing.makespan if self.timing.makespan else 0.0

    def links(self) -> list[dict[str, Any]]:
        """Return each link that is crossed: its cores, what it carries, and for how long, fit for JSON."""
        timing, traffic = self.timing, self.traffic
        return [
            {
                **dict(zip(("from", "to"), link_ends(self.mapping.chip, link), strict=True)),
                "packets": int(traffic.link_packets[link]),
                "bytes": int(traffic.link_bytes[link]),
                "busy_ns": float(timing.link_busy[link]),
                "waiting_ns": float(timing.link_waiting[link]),
            }
            for link in np.flatnonzero(traffic.link_packets).tolist()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return everything that the table shows, fit for JSON, with the links and the mapping."""
        timing, traffic = self.timing, self.traffic
        (core, core_share), (link, link_share) = self.busiest_core, self.busiest_link
        source, target = link_ends(self.mapping.chip, link)
        return {
            "model": self.model,
            "machine": self.machine.name,
            "source": self.machine.source,
            "order": self.schedule.name,
            "iterations": self.schedule.iterations,
            "batch": self.batch,
            "cores_used": len(self.mapping.cores),
            "fills": [asdict(one) for one in self.fills],
            "traffic": {
                "messages_between_tiles": traffic.packets,
                "messages_within_a_core": traffic.local,
                "hops_horizontal": traffic.hops_horizontal,
                "hops_vertical": traffic.hops_vertical,
                "bytes_times_hops": traffic.bytes_times_hops,
                "additions_of_part_sums": traffic.merged_values,
            },
            "time": {
                "makespan_ns": timing.makespan,
                "span_ns": timing.span,
                "work_ns": timing.plan.work,
                "waiting_ns": timing.waiting,
                "unpriced": list(self.unpriced),
                "left_out": list(self.left_out),
            },
            "busiest_core": {"core": core, "share": core_share},
            "busiest_link": {
                "from": source,
                "to": target,
                "share": link_share,
                "bytes": int(traffic.link_bytes[link]),
            },
            "links": self.links(),
            "in_flight": len(timing.in_flight()),
            "mapping": self.mapping.to_json(),
        }


def map_model(model: ModelConfig, hardware: str, placement: str) -> Mapped:
    """Split a model's network over a machine's cores, place it, and simulate one mini-batch.

    Args:
        model: network, schedule, learning rule and mini-batch; its data set is not needed.
        hardware: a preset's name or a machine file.
        placement: see `pcsim.hardware.placement.place`.

    Raises:
        ConfigurationError: a machine without a chip, an order without a list, or a network that does not fit.
    """
    machine = load_machine(hardware)
    schedule = Schedule(**model.schedule.model_dump())
    if isinstance(schedule.written, Reactive):
        static = ", ".join(name for name, order in ORDERS.items() if not isinstance(order, Reactive))
        raise ConfigurationError(
            f"order '{schedule.name}' has no fixed list, so its traffic is not known before it runs: "
            f"expected one of {static}"
        )
    network, batch = build_network(model.network, model.training.seed), model.training.batch
    chip = chip_of(machine, network.dtype.itemsize)
    if chip is None:
        raise ConfigurationError(
            f"hardware '{machine.name}' has no [chip]: expected a machine with a mesh of cores"
        )
    channels = build_channels(model.messages, model.states, model.faults)
    program = Program.build(network, schedule, channels)
    setting = setting_of(network, batch, build_rule(model.learning), machine)
    mapping = place(program, chip, batch, placement, machine.name, setting.update.state)
    plan = make_plan(program, mapping, batch, priced_durations(program, setting))
    traffic = traffic_of(program, mapping, batch)
    return Mapped(
        model.name,
        schedule,
        batch,
        machine,
        mapping,
        tuple(fills(network, chip, batch, mapping.tiles, setting.update.state)),
        traffic,
        simulate_mesh(plan),
        unpriced_on_mesh(program, setting, mapping.chip, traffic),
        tuple(_left_out(mapping, program, model.learning.rule)),
    )


def _left_out(mapping: Mapping, program: Program, rule: str) -> Iterator[str]:
    """Name the sums over the tiles of one layer, which messages between neighbouring layers do not carry."""
    network, parts = program.network, Counter(tile.layer for tile in mapping.tiles)
    split = [layer for layer in range(network.top) if parts[layer] > 1]
    if parts[network.top] > 1 and network.traits[-1].output == "softmax":
        yield "the sum of softmax"
    if split and rule == "mq":
        yield "MQ's mean |G|"
    if split and rule == "nlms":
        yield "the norm of NLMS"
    if split and any(operation.name == "tell_norm" for operation in program.operations):
        yield "the norms of precisions"
    if any(isinstance(network.connections[layer], Conv) for layer in split):
        yield "the changes of a kernel"


def _busiest(busy: Floats, makespan: float) -> tuple[int, float]:
    index = int(np.argmax(busy))
    return index, float(busy[index]) / makespan if makespan else 0.0
