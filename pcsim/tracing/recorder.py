"""Writes what happens during training into the tables of a trace."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from pcsim.errors import TraceError
from pcsim.network.layer import Layer, MessageKind
from pcsim.network.network import Network
from pcsim.schedule.message import Fate, Message
from pcsim.schedule.operation import Operation
from pcsim.schedule.program import Program, Reaction
from pcsim.tracing.probes import Probe, ProbeRecorder
from pcsim.tracing.schema import Column
from pcsim.tracing.table import Table
from pcsim.tracing.wiretap import tap
from pcsim.tracing.writer import TraceWriter

OPERATIONS = ("initialise", "clamp", "predict", "compare", "relax", "learn", "compare_target")
EVENT_NAMES = (*OPERATIONS, *MessageKind)
EVENT_KINDS = ("operation", "message")
NO_FATE = "none"  # of an operation that sends what it says, or says nothing
EVENT_FATES = (NO_FATE, *Fate)


class Energies(Protocol):
    """Energy of every layer after every iteration; see `pcsim.engine.observer.Statistics`."""

    def rows(self) -> tuple[Sequence[float], Sequence[float]]:
        """Return free energies and ½‖e_l‖² row by row, (T + 1) · L numbers each."""
        ...


class TimelineEvent(Protocol):
    """What an event of a timeline tells; see `pcsim.engine.totals`."""

    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def layer(self) -> int: ...  # noqa: D102
    @property
    def target(self) -> int: ...  # noqa: D102
    @property
    def iteration(self) -> int: ...  # noqa: D102
    @property
    def start(self) -> float: ...  # noqa: D102
    @property
    def end(self) -> float: ...  # noqa: D102
    @property
    def multiplications(self) -> int: ...  # noqa: D102
    @property
    def values(self) -> int: ...  # noqa: D102
    @property
    def nonzero_values(self) -> int: ...  # noqa: D102
    @property
    def bytes(self) -> int: ...  # noqa: D102
    @property
    def fate(self) -> Fate: ...  # noqa: D102
    @property
    def roundoff(self) -> object: ...  # noqa: D102


class Recorder:
    """An observer that writes the tables summary, probes/NAME, events and learning.

    Args:
        writer: the open trace.
        network: whose layers are recorded.
        units: the layers that the engine runs.
        energies: an observer that is told before this one.
        iterations: T.
        probes: what to keep besides the summary.
        every: training steps from one summary row, and one timeline, to the next.
        training_steps: how many there will be, about; sizes the file's chunks.
        names: of the operations that may occur, for those that are a user's own.
        splits: parts of the data set that are tested on after each epoch.
        rounding: columns of events about rounding: `ROUNDING_FIELDS` where numbers are rounded, else none.
    """

    def __init__(
        self,
        writer: TraceWriter,
        network: Network,
        units: Sequence[Layer],
        energies: Energies,
        iterations: int,
        probes: Iterable[Probe] = (),
        every: int = 10,
        training_steps: int = 1000,
        names: Iterable[str] = (),
        splits: Iterable[str] = ("test",),
        rounding: Mapping[str, Column] = MappingProxyType({}),
    ) -> None:
        self._units, self._energies, self._every, self._step = units, energies, every, 0
        batch = len(units[0].activity)
        self._summary = _summary_table(writer, network, iterations, training_steps // every + 1)
        self._probes = [
            ProbeRecorder(probe, writer, network, iterations, batch, training_steps // probe.every + 1)
            for probe in probes
        ]
        per_step = (12 * iterations + 10) * network.top  # operations and messages, an upper estimate
        self._event_names = tuple(dict.fromkeys((*EVENT_NAMES, *map(_word, names))))
        rows = (training_steps // every + 1) * per_step
        self._rounding = dict(rounding)
        self._events = _event_table(writer, rows, self._event_names, self._rounding)
        self._learning = _learning_table(writer, splits)
        self._summarised = -1

    @property
    def active(self) -> bool:
        """Whether the summary and the timeline of this training step are recorded."""
        return self._step % self._every == 0

    def looks_at(self, step: int) -> bool:
        """Return whether a probe wants to see arrays in this training step."""
        return any(probe.looks_at(step) for probe in self._probes)

    def begin_step(self, step: int) -> None:
        """Start a training step."""
        self._step = step
        for probe in self._probes:
            probe.begin_step(step, self._units)

    def listening_to(self, plan: Program | Reaction) -> Program | Reaction:
        """Return the plan that the engine has to run so that probes of messages hear them.

        An engine with channels runs the plan as it is, and calls `hear` itself.
        """
        return tap(plan, self.hear) if any(probe.hears_messages for probe in self._probes) else plan

    def hear(self, message: Message) -> None:
        """Hand what a receiver has been told to the probes."""
        for probe in self._probes:
            probe.hear(message)

    def onlooker(self, operation: Operation) -> Callable[[Operation, Layer], None] | None:
        """Look on for the probes, if there are any."""
        return self.observe if self._probes else None

    def observe(self, operation: Operation, unit: Layer) -> None:
        """Hand what has happened to the probes."""
        for probe in self._probes:
            probe.observe(operation, unit)

    def end_step(self) -> None:
        """Write the rows of this training step, if it is one of those that are kept."""
        for probe in self._probes:
            probe.end_step(self._units)
        if self.active:
            self.record_summary()

    def record_summary(self) -> None:
        """Write a summary row, if the step has none: after a failure, the last thing there is to know."""
        if self._summarised == self._step:
            return
        free_energy, squared_error = self._energies.rows()
        magnitudes = [unit.update_magnitude for unit in self._units[:-1]]
        self._summary.gather(self._step, *free_energy, *squared_error, *magnitudes)
        self._summarised = self._step

    def record_timeline(self, timeline: Sequence[TimelineEvent]) -> None:
        """Write all events of this training step; ask whether it is `active` before a timeline is made.

        Raises:
            TraceError: an operation's name was not among those given.
        """
        if not timeline:
            return
        names = {name: self._name_code(name) for name in {event.name for event in timeline}}
        columns: dict[str, list[Any]] = {
            "kind": [EVENT_KINDS.index(event.kind) for event in timeline],
            "name": [names[event.name] for event in timeline],
            "fate": [_fate_code(event) for event in timeline],
        }
        for field in EVENT_FIELDS:
            columns[field] = [getattr(event, field) for event in timeline]
        for field in self._rounding:
            columns[field] = [getattr(event.roundoff, field) for event in timeline]
        self._events.extend(step=np.full(len(timeline), self._step), **columns)

    def _name_code(self, name: str) -> int:
        """Return the code of what is done or sent."""
        if _word(name) in self._event_names:
            return self._event_names.index(_word(name))
        raise TraceError(
            f"the trace has begun without the operation '{name}': expected names that an order yields early, "
            "and in every mini-batch; give it such a name, or set trace.events = false"
        )

    def record_epoch(self, **values: float) -> None:
        """Write one row of the table learning: results of an epoch and totals up to its end."""
        self._learning.append(**values)


EVENT_FIELDS = {
    "layer": Column((), "int32", "layer that acts or sends"),
    "target": Column((), "int32", "layer that receives; -1 for an operation"),
    "iteration": Column((), "int32", "inference iterations begun at that layer"),
    "start": Column((), "float64", "start, from the beginning of the mini-batch", "hardware time units"),
    "end": Column((), "float64", "end, from the beginning of the mini-batch", "hardware time units"),
    "multiplications": Column((), "int64", "multiplications of the operation, whole mini-batch"),
    "values": Column((), "int64", "numbers in the message, zeros included"),
    "nonzero_values": Column(
        (), "int64", "numbers in the message that are not zero; with a threshold, those sent"
    ),
    "bytes": Column((), "int64", "size of the message", "B"),
}


# Of a message's numbers, or of an activity's, as `pcsim.engine.channel.Roundoff` has them.
ROUNDING_FIELDS = {
    "rounding_error": Column((), "float32", "root mean square of what rounding changes the numbers by"),
    "root_mean_square": Column((), "float32", "root mean square of the numbers before rounding"),
    "largest": Column((), "float32", "largest absolute value of the numbers before rounding"),
}


def _word(name: str) -> str:
    """Return a name as its flag: meanings are separated by blanks."""
    return re.sub(r"\s", "_", name)


def _fate_code(event: TimelineEvent) -> int:
    """Return the code of what became of a message, or of what an operation ought to have sent."""
    silent = event.kind == "operation" and event.fate is not Fate.UNSENT
    return EVENT_FATES.index(NO_FATE if silent else event.fate)


def _summary_table(writer: TraceWriter, network: Network, iterations: int, rows: int) -> Table:
    columns = {
        "step": Column((), "int64", "training step, counted from 0"),
        "free_energy": Column(
            ("iteration", "layer"), "float64", "share of the layer in the free energy, batch mean"
        ),
        "squared_error": Column(
            ("iteration", "layer"), "float64", "half the squared norm of the error, batch mean"
        ),
        "update_magnitude": Column(
            ("connection",), "float64", "mean absolute change of weight and bias by the last learning step"
        ),
    }
    coordinates = {
        "iteration": np.arange(iterations + 1),
        "layer": np.arange(1, network.top + 1),
        "connection": np.arange(network.top),
    }
    return writer.table("summary", "step", columns, coordinates, expected_rows=rows)


def _event_table(
    writer: TraceWriter, rows: int, names: tuple[str, ...], rounding: Mapping[str, Column]
) -> Table:
    columns = {
        "step": Column((), "int64", "training step, counted from 0"),
        "kind": Column.of_codes("operation or message", EVENT_KINDS),
        "name": Column.of_codes("operation, or kind of message", names),
        "fate": Column.of_codes("what became of a message", EVENT_FATES),
        **EVENT_FIELDS,
        **rounding,
    }
    return writer.table("events", "event", columns, expected_rows=rows)


def _learning_table(writer: TraceWriter, splits: Iterable[str]) -> Table:
    results = {}
    for split in splits:
        text = f"share of {split} samples that are classified correctly"
        results[f"{split}_accuracy"] = Column((), "float64", text)
        results[f"{split}_loss"] = Column(
            (), "float64", f"half the squared distance to the target, {split} mean"
        )
    columns = {
        "epoch": Column((), "int64", "epochs done"),
        "training_steps": Column((), "int64", "mini-batches so far"),
        **results,
        "energy": Column((), "float64", "free energy after the last iteration, mean over the epoch"),
        "seconds": Column((), "float64", "wall-clock time since training began", "s"),
        "messages": Column((), "int64", "messages so far"),
        "values": Column((), "int64", "numbers in them, zeros included"),
        "nonzero_values": Column(
            (), "int64", "numbers in them that are not zero (with a threshold, those sent); -1 if not counted"
        ),
        "multiplications": Column((), "int64", "multiplications so far"),
        "simulated_time": Column((), "float64", "simulated time so far", "hardware time units"),
    }
    return writer.table("learning", "epoch", columns, expected_rows=100)
