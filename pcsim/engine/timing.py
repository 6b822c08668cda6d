"""Simulates only time and traffic, fast: what the event engine does without units, by a compiled queue.

`pcsim.engine.event` is the reference: every start and end here equals the one there in every bit, and
events come in the same order. Orders that react to messages are left to the event engine.

Why a queue, where a static program would allow a pass over its list: the draws of the jitter and the
order of simultaneous events follow the order of events in time.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pcsim.engine.timing_kernels import Agenda, Floats, Integers, Notes, run
from pcsim.engine.totals import Event, Totals
from pcsim.errors import ConfigurationError, ProgramError
from pcsim.hardware.clock import Hardware
from pcsim.network.layer import MessageKind
from pcsim.schedule.operation import Operation, Place
from pcsim.schedule.program import Program

_SIDE = {kind: side for side, kind in enumerate(MessageKind)}  # of a layer, on which a door is (see Agenda)
_INBOX_SIDE = {Place.inbox(0, kind).name: side for kind, side in _SIDE.items()}


@dataclass(frozen=True, eq=False)
class Timing:
    """The events of the latest mini-batch, by start, as columns; and what happened in all of them.

    Attributes:
        program: what was simulated.
        is_message: True for a message, False for an operation; (events,), as all columns.
        operation: index in the program of the operation, or of the one that sent the message.
        layer: who acts or sends.
        target: who receives; −1 for an operation.
        iteration: inference iterations begun at that layer.
        start: time of start, in the hardware's time units.
        end: time of end, in the hardware's time units.
        multiplications: done by the operation, whole mini-batch; 0 for a message.
        values: numbers in the message, whole mini-batch, zeros included; 0 for an operation.
        bytes: size of the message; 0 for an operation.
        totals: of all mini-batches.
    """

    program: Program
    is_message: NDArray[np.bool_]
    operation: Integers
    layer: Integers
    target: Integers
    iteration: Integers
    start: Floats
    end: Floats
    multiplications: Integers
    values: Integers
    bytes: Integers
    totals: Totals

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.start)

    def events(self) -> list[Event]:
        """Return the events as `EventEngine.timeline` has them: about 300 bytes each, for small runs."""
        columns = (
            self.layer,
            self.target,
            self.iteration,
            self.start,
            self.end,
            self.multiplications,
            self.values,
            self.values,
            self.bytes,
        )
        # Lists hold Python's own numbers, not NumPy's, and are read faster.
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [Event(*title, *row) for title, row in zip(self._titles(), rows, strict=True)]

    def _titles(self) -> Iterator[tuple[str, str]]:
        """Yield kind and name of each event."""
        for index, is_message in zip(self.operation.tolist(), self.is_message.tolist(), strict=True):
            operation = self.program.operations[index]
            if is_message:
                assert operation.sends is not None
                yield "message", operation.sends
            else:
                yield "operation", operation.name


def simulate_timing(program: Program, hardware: Hardware, batch: int, *, mini_batches: int = 1) -> Timing:
    """Simulate time and traffic of mini-batches, one after the other, each from time 0.

    The result is that of as many calls of `EventEngine(program, None, hardware, batch).simulate()`.
    Memory grows with the events of one mini-batch, not with their number.

    Args:
        program: a static schedule, written out.
        hardware: how long operations and messages take.
        batch: samples in a mini-batch.
        mini_batches: how many; jitter differs from one to the next.

    Raises:
        ConfigurationError: no mini-batch at all.
        ProgramError: an operation of, or a message to, a layer that does not exist.
    """
    tables = _Tables.of(program, batch)
    notes = _notes(tables)
    time = _repeat(tables.agenda(hardware, program), notes, hardware, mini_batches)
    by_start = np.argsort(notes.start, kind="stable")
    what = notes.what[by_start]
    is_message = what < 0
    operation = np.where(is_message, ~what, what)
    return Timing(
        program=program,
        is_message=is_message,
        operation=operation,
        layer=tables.layer[operation],
        target=np.where(is_message, tables.target[operation], -1),
        iteration=tables.iteration[operation],
        start=notes.start[by_start],
        end=notes.end[by_start],
        multiplications=np.where(is_message, 0, tables.multiplications[operation]),
        values=np.where(is_message, tables.values[operation], 0),
        bytes=np.where(is_message, tables.bytes[operation], 0),
        totals=tables.totals(mini_batches, time),
    )


def timing_totals(program: Program, hardware: Hardware, batch: int, *, mini_batches: int = 1) -> Totals:
    """Simulate as `simulate_timing` does, but keep no events: for long runs.

    Args:
        program: a static schedule, written out.
        hardware: how long operations and messages take.
        batch: samples in a mini-batch.
        mini_batches: how many; jitter differs from one to the next.

    Raises:
        ConfigurationError: no mini-batch at all.
        ProgramError: an operation of, or a message to, a layer that does not exist.
    """
    tables = _Tables.of(program, batch)
    time = _repeat(tables.agenda(hardware, program), _notes(tables), hardware, mini_batches)
    return tables.totals(mini_batches, time)


def compile_queue() -> float:
    """Make the queue ready, so that no simulation has to wait for the compiler; return the seconds it took.

    Some seconds where nobody has used it before; afterwards the machine code comes from disk, or is in
    memory already.
    """
    began = perf_counter()
    none, no_time = np.empty(0, np.int64), np.empty(0)
    agenda = Agenda(none, no_time, none, none, none, no_time, none, np.zeros(1, np.int64), no_time)
    run(agenda, no_time, Notes(none, no_time, no_time))
    return perf_counter() - began


class _Tables(NamedTuple):
    """A program as columns, one entry an operation.

    Attributes:
        layer: who acts.
        iteration: inference iterations begun at that layer.
        multiplications: of the whole mini-batch.
        target: who receives what it sends; −1 if it sends nothing.
        door: where the message comes in (see `Agenda`); −1 if none is sent.
        predictions: messages that must have come through the layer's prediction door before it acts.
        errors: the same for its error door.
        values: numbers in its message.
        bytes: size of its message.
        layers: how many layers the network has.
    """

    layer: Integers
    iteration: Integers
    multiplications: Integers
    target: Integers
    door: Integers
    predictions: Integers
    errors: Integers
    values: Integers
    bytes: Integers
    layers: int

    @classmethod
    def of(cls, program: Program, batch: int) -> _Tables:
        """Write a program as columns, and count the messages that each operation has to wait for."""
        sizes = program.network.sizes
        sent = [0] * (2 * len(sizes))
        cells = array("q")  # 56 bytes an operation, where a list of rows would need ten times as much
        for operation in program.operations:
            cells.extend(_row(operation, sent))
        layer, iteration, multiplications, target, door, predictions, errors = (
            np.array(cells, np.int64).reshape(-1, 7).T.copy()
        )
        # Predictions are about the layer above: a message is as wide as the upper one of the two layers.
        width = np.array(sizes, np.int64)[np.maximum(layer, target)]
        values = np.where(door < 0, 0, batch * width)
        return cls(
            layer,
            iteration,
            batch * multiplications,
            target,
            door,
            predictions,
            errors,
            values,
            values * program.network.dtype.itemsize,
            len(sizes),
        )

    @property
    def messages(self) -> int:
        """How many messages a mini-batch sends."""
        return int(np.count_nonzero(self.door >= 0))

    def agenda(self, hardware: Hardware, program: Program) -> Agenda:
        """Say how long everything takes, by the formulas of `Hardware` for whole columns."""
        links, given = hardware.links, hardware.operation_times
        duration = hardware.time_per_operation + hardware.time_per_multiplication * _float(
            self.multiplications
        )
        if given:  # not otherwise: programs have millions of operations
            for index, one in enumerate(program.operations):
                duration[index] = given.get((one.name, one.layer), duration[index])
        ends = [(door // 2 + (1 if door % 2 else -1), door // 2) for door in range(2 * self.layers)]
        return Agenda(
            layer=self.layer,
            duration=duration,
            predictions=self.predictions,
            errors=self.errors,
            door=self.door,
            travel=hardware.time_per_message
            + hardware.time_per_value * _float(self.values)
            + hardware.time_per_byte * _float(self.bytes),
            order=np.argsort(self.layer, kind="stable"),
            first=np.searchsorted(np.sort(self.layer), np.arange(self.layers + 1)),
            delay=np.array([links.link_latency.get(link, links.latency) for link in ends], np.float64),
        )

    def totals(self, mini_batches: int, time: float) -> Totals:
        """Count mini-batches: a static program does all that it lists, each time."""
        return Totals(
            operations=mini_batches * len(self.layer),
            multiplications=mini_batches * int(self.multiplications.sum()),
            messages=mini_batches * self.messages,
            values=mini_batches * int(self.values.sum()),
            nonzero_values=mini_batches * int(self.values.sum()),
            bytes=mini_batches * int(self.bytes.sum()),
            simulated_time=time,
            received=mini_batches * self.messages,
        )


def _row(operation: Operation, sent: list[int]) -> tuple[int, ...]:
    """Return an operation's own columns; count its message among those sent so far to each door."""
    layer, layers = operation.layer, len(sent) // 2
    target = layer if operation.sends is None else operation.target
    if not 0 <= layer < layers or not 0 <= target < layers:
        what = f"sends to layer {target}" if operation.sends else "cannot act"
        raise ProgramError(f"{operation} {what}: the network has layers 0 to {layers - 1}")
    needed = [0, 0]
    for place in operation.reads:
        side = _INBOX_SIDE.get(place.name)
        if side is not None and place.layer == layer:
            needed[side] = sent[2 * layer + side]
    if operation.sends is None:
        return layer, operation.iteration, operation.multiplications, -1, -1, *needed
    door = 2 * target + _SIDE[operation.sends]
    sent[door] += 1
    return layer, operation.iteration, operation.multiplications, target, door, *needed


def _float(column: Integers) -> Floats:
    return column.astype(np.float64)


def _notes(tables: _Tables) -> Notes:
    """Return empty columns for the events of one mini-batch."""
    events = len(tables.layer) + tables.messages
    return Notes(np.empty(events, np.int64), np.empty(events), np.empty(events))


def _repeat(agenda: Agenda, notes: Notes, hardware: Hardware, mini_batches: int) -> float:
    """Simulate mini-batches into the same notes; return the sum of their times."""
    if mini_batches < 1:
        raise ConfigurationError(f"mini_batches = {mini_batches}: expected 1 or more")
    rng, messages = np.random.default_rng(hardware.links.seed), len(notes.what) - len(agenda.layer)
    time = 0.0
    for _ in range(mini_batches):
        # As many draws as the readable engine makes, one a message, in the order of sending.
        jitter = hardware.links.jitter * rng.random(messages if hardware.links.jitter else 0)
        time += run(agenda, jitter, notes)
    return time
