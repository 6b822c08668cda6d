"""What the recorded training steps of a run cost on a machine, from the events in its trace."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from pcsim.analysis.events import recorded_events
from pcsim.config import ModelConfig, model_from_dict
from pcsim.errors import TraceError
from pcsim.experiments.energy import Bills
from pcsim.experiments.experiment import build_channels, build_network, build_rule
from pcsim.experiments.pricing import setting_of
from pcsim.hardware.charge import Done, charge
from pcsim.hardware.machine import Machine
from pcsim.hardware.machine_clock import operations_of
from pcsim.hardware.work import Used
from pcsim.schedule.channel import Channels
from pcsim.schedule.operation import Operation
from pcsim.schedule.program import Program, Reaction, Schedule
from pcsim.tracing.reader import TraceReader
from pcsim.tracing.table_reader import TableReader

MOST_STEPS = 1000  # recorded training steps that are charged; of more, evenly many
COLUMNS = ("layer", "target", "values", "nonzero_values", "bytes")
SENT, UNSENT = (
    "arrives",
    "unsent",
)  # of `pcsim.schedule.message.Fate`; what older traces do not tell has arrived

Explain = Callable[[str, int], Operation | None]  # from name and layer of an event


@dataclass(frozen=True)
class Recorded:
    """What recorded training steps cost, mean of one.

    Attributes:
        model: that the trace holds.
        bills: dense: all values of every message that was sent; events: only those that the trace counts, in
            the bytes that it counts. A trace does not tell which factors of a product were zero, so both do
            all multiplications.
        steps: recorded training steps that were charged.
        recorded: in the trace.
    """

    model: ModelConfig
    bills: Bills
    steps: int
    recorded: int


def charge_trace(trace: TraceReader, machine: Machine, tell: Callable[[], None] = lambda: None) -> Recorded:
    """Charge the events of a trace to a machine.

    Args:
        trace: of the event engine and a model file.
        machine: whose prices are charged.
        tell: called after each training step that was read.

    Raises:
        TraceError: no events, no model file, or events that no built-in operation explains.
        ConfigurationError: a model that this version does not know, or a rule without prices.
    """
    table = recorded_events(trace)
    model = model_of(trace)
    network = build_network(model.network, model.training.seed)
    batch, schedule = model.training.batch, Schedule(**model.schedule.model_dump())
    setting = setting_of(network, batch, build_rule(model.learning), machine)
    plan = schedule.plan(network)
    channels = build_channels(model.messages, model.states, model.faults)
    spans = _spans(table)
    chosen = np.unique(np.linspace(0, len(spans) - 1, min(MOST_STEPS, len(spans))).round().astype(int))
    dense: list[Done] = []
    events: list[Done] = []
    for index in chosen:
        done = list(_done(table, spans[index], _explained(plan), channels))
        full = [(one, Used.all_of(one, network, batch)) for one, _ in done]
        dense.append(
            [(one, _silenced(used, told)) for (one, used), (_, told) in zip(full, done, strict=True)]
        )
        events.append(
            [(one, _as_told(used, told)) for (one, used), (_, told) in zip(full, done, strict=True)]
        )
        tell()
    whole, sent = (charge(setting, steps, ordered=False) for steps in (dense, events))
    latency = _mean_end(table, [spans[one] for one in chosen]) if _is_clock(model, machine) else None
    return Recorded(model, Bills(replace(whole, latency=latency), sent), len(chosen), len(spans))


def model_of(trace: TraceReader) -> ModelConfig:
    """Return the model file that a trace holds.

    Raises:
        TraceError: it holds none, as runs that were set up in Python.
        ConfigurationError: this version does not know what it says.
    """
    given = trace.attributes.get("configuration")
    if not isinstance(given, dict) or not given:
        raise TraceError(f"{trace.path} holds no model file: expected a trace of `pcsim run MODEL.toml`")
    return model_from_dict(given, f"the model file in {trace.path}")


# What a message came to: numbers that were sent and their bytes (None: as many as its numbers take); nothing
# at all of an operation that sends none.
Told = tuple[float, float | None] | None
NOTHING = 0.0, 0.0  # of a dead core, or of an operation whose message nobody reads and which so has none


def _done(
    table: TableReader, rows: slice, explain: Explain, channels: Channels
) -> Iterator[tuple[Operation, Told]]:
    """Yield the operations of a training step in the order of their start, and what they sent.

    A link carries messages in the order of sending, so its n-th message is its sender's n-th.
    """
    columns: dict[str, Any] = {name: table.read(name, rows).tolist() for name in COLUMNS}
    kinds, names = table.decode("kind", rows).tolist(), table.decode("name", rows).tolist()
    fates = table.decode("fate", rows).tolist() if "fate" in table.columns else [SENT] * len(kinds)
    sent: dict[tuple[int, int], deque[Told]] = defaultdict(deque)
    for row, kind in enumerate(kinds):
        if kind == "operation":
            continue
        if fates[row] == "copy":
            raise TraceError(
                f"{table.path} has second copies of messages, which no operation sends: expected a run "
                "without faults.duplication"
            )
        up = columns["target"][row] > columns["layer"][row]
        coded = (channels.predictions if up else channels.errors).active
        told = columns["nonzero_values"][row], columns["bytes"][row] if coded else None
        sent[columns["layer"][row], columns["target"][row]].append(told)
    for row, kind in enumerate(kinds):
        if kind != "operation":
            continue
        operation = explain(names[row], columns["layer"][row])
        if operation is None:
            raise TraceError(
                f"{table.path}: operation {names[row]} of layer {columns['layer'][row]} has no known work: "
                "expected a run of a built-in order"
            )
        yield operation, _told(operation, fates[row], sent)


def _explained(plan: Program | Reaction) -> Explain:
    """Return what tells, event by event, which operation a layer has done; None if there is no such one.

    Of a program each layer works through its own part; otherwise name and layer say what is done.
    """
    if isinstance(plan, Reaction):
        known = {(one.name, one.layer): one for one in operations_of(plan.operations)}
        return lambda name, layer: known.get((name, layer))
    agendas: dict[int, deque[Operation]] = defaultdict(deque)
    for operation in plan.operations:
        agendas[operation.layer].append(operation)

    def following(name: str, layer: int) -> Operation | None:
        operation = agendas[layer].popleft() if agendas[layer] else None
        return operation if operation is not None and operation.name.replace(" ", "_") == name else None

    return following


def _told(operation: Operation, fate: str, sent: Mapping[tuple[int, int], deque[Told]]) -> Told:
    if operation.sends is None:
        return None
    waiting = sent[operation.layer, operation.target]
    return waiting.popleft() if fate != UNSENT and waiting else NOTHING


def _as_told(used: Used, told: Told) -> Used:
    return used if told is None else replace(used, values=told[0], bytes=told[1])


def _silenced(used: Used, told: Told) -> Used:
    """Return everything, but for a message that was never sent."""
    return replace(used, values=0.0, bytes=0.0) if told is NOTHING else used


def _spans(table: TableReader) -> list[slice]:
    """Return the rows of each recorded training step."""
    steps = table.read("step")
    cuts = [0, *(np.flatnonzero(np.diff(steps)) + 1).tolist(), len(steps)]
    return [slice(first, stop) for first, stop in pairwise(cuts)]


def _mean_end(table: TableReader, spans: list[slice]) -> float:
    """Return how long a training step took, mean, in the unit of the trace's clock."""
    return float(np.mean([table.read("end", rows).max() for rows in spans]))


def _is_clock(model: ModelConfig, machine: Machine) -> bool:
    """Tell whether the run's own clock was that of the machine, so that its times are its latencies."""
    return model.hardware.model == machine.name and bool(machine.prices.time)
