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
from pcsim.experiments.clocks import read_clock, same_times
from pcsim.experiments.energy import Bills
from pcsim.experiments.experiment import build_channels, build_links, build_network, build_rule
from pcsim.experiments.pricing import setting_of
from pcsim.experiments.sending import dense_of, with_values
from pcsim.hardware.charge import Done, charge
from pcsim.hardware.clock import Hardware
from pcsim.hardware.machine import Machine
from pcsim.hardware.machine_clock import clock_of, operations_of
from pcsim.hardware.work import Setting, Used
from pcsim.schedule.channel import Channels
from pcsim.schedule.operation import Operation
from pcsim.schedule.program import Program, Reaction, Schedule
from pcsim.tracing.reader import TraceReader
from pcsim.tracing.table_reader import TableReader

MOST_STEPS = 1000  # recorded training steps that are charged; of more, evenly many
COLUMNS = ("layer", "target", "nonzero_values")
# Of `pcsim.schedule.message.Fate`; what older traces do not tell has arrived.
SENT, UNSENT = "arrives", "unsent"

Explain = Callable[[str, int], Operation | None]  # from name and layer of an event


@dataclass(frozen=True)
class Recorded:
    """What recorded training steps cost, mean of one.

    Attributes:
        model: that the trace holds.
        bills: dense: all values of every message that was sent; events: only those that the trace counts. A
            trace does not tell which factors of a product were zero, so both do all multiplications. If the
            run's clock was the machine's, its time is the latency of the bill whose messages it sent: dense,
            or with thresholds events.
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
    channels = build_channels(model.messages, model.states, model.faults)
    plan = schedule.plan(network, channels)
    spans = _spans(table)
    chosen = np.unique(np.linspace(0, len(spans) - 1, min(MOST_STEPS, len(spans))).round().astype(int))
    dense: list[Done] = []
    events: list[Done] = []
    for index in chosen:
        done = list(_done(table, spans[index], _explained(plan)))
        full = dense_of((one for one, _ in done), network, batch, channels)
        told = [(one, used, number) for (one, used), (_, number) in zip(full, done, strict=True)]
        dense.append([(one, _silenced(used) if number is None else used) for one, used, number in told])
        events.append(
            [(one, with_values(one, used, number or 0, network, channels)) for one, used, number in told]
        )
        tell()
    whole, sent = (charge(setting, steps, ordered=False) for steps in (dense, events))
    if machine.prices.time:
        clock = read_clock(trace.attributes.get("hardware"))
        timed, why = "neither", "the run's clock was another than this machine's"
        if clock is not None and _is_clock(clock, setting, schedule, model):
            timed, why = _timed(channels), "the messages that took the run's time were others"
        time = _mean_end(table, [spans[one] for one in chosen])
        whole = replace(whole, **_told_time(timed == "dense", time, why))
        sent = replace(sent, **_told_time(timed == "events", time, why))
    return Recorded(model, Bills(whole, sent), len(chosen), len(spans))


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


def _done(table: TableReader, rows: slice, explain: Explain) -> Iterator[tuple[Operation, int | None]]:
    """Yield the operations of a training step in the order of their start, and how many numbers they sent.

    None of a dead core, and of an operation whose message nobody reads or that has none. A link carries
    messages in the order of sending, so its n-th message is its sender's n-th.
    """
    columns: dict[str, Any] = {name: table.read(name, rows).tolist() for name in COLUMNS}
    kinds, names = table.decode("kind", rows).tolist(), table.decode("name", rows).tolist()
    fates = table.decode("fate", rows).tolist() if "fate" in table.columns else [SENT] * len(kinds)
    sent: dict[tuple[int, int], deque[int]] = defaultdict(deque)
    for row, kind in enumerate(kinds):
        if kind == "operation":
            continue
        if fates[row] == "copy":
            raise TraceError(
                f"{table.path} has second copies of messages, which no operation sends: expected a run "
                "without faults.duplication"
            )
        sent[columns["layer"][row], columns["target"][row]].append(columns["nonzero_values"][row])
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


def _told(operation: Operation, fate: str, sent: Mapping[tuple[int, int], deque[int]]) -> int | None:
    if operation.sends is None:
        return None
    waiting = sent[operation.layer, operation.target]
    return waiting.popleft() if fate != UNSENT and waiting else None


def _silenced(used: Used) -> Used:
    """Return the same work without a message."""
    return replace(used, values=0, bytes=0)


def _spans(table: TableReader) -> list[slice]:
    """Return the rows of each recorded training step."""
    steps = table.read("step")
    cuts = [0, *(np.flatnonzero(np.diff(steps)) + 1).tolist(), len(steps)]
    return [slice(first, stop) for first, stop in pairwise(cuts)]


def _mean_end(table: TableReader, spans: list[slice]) -> float:
    """Return how long a training step took, mean, in the unit of the trace's clock."""
    return float(np.mean([table.read("end", rows).max() for rows in spans]))


def _told_time(known: bool, time: float, why: str) -> dict[str, Any]:
    """Return a bill's latency, or why it has none."""
    return {"latency": time} if known else {"untimed": why}


def _is_clock(clock: Hardware, setting: Setting, schedule: Schedule, model: ModelConfig) -> bool:
    """Tell whether a run's clock was that of the machine, with the links of the run's own model file."""
    operations = schedule.operations(setting.network)
    ours = clock_of(setting, operations, build_links(model.hardware))
    return same_times(clock, ours, operations, setting.batch)


def _timed(channels: Channels) -> str:
    """Say which bill has the messages that the links of a run carried, and so took the run's time.

    Neither if some links have a threshold and others send everything, or if some lines of a layer are dead.
    """
    if not channels.thresholded:
        dead = channels.faults.dead
        return "dense" if dead is None or dead.share == 1 else "neither"
    thresholds = channels.predictions.threshold, channels.errors.threshold
    return "neither" if None in thresholds else "events"
