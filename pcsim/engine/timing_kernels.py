"""The compiled event queue: `pcsim.engine.event` without arithmetic, over flat arrays.

It takes the same events in the same order as the readable engine: by time, then by turn (finished,
arrived, acts), then by who was queued first. Numba compiles it on first use and keeps the result on disk.
No fast-math: times must be equal to the readable engine's in every bit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pcsim.kernels.compiler import Function, jit

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Turns as in `pcsim.engine.event.Turn`, in the bits above the serial number: one comparison breaks a tie.
SERIAL_BITS = 60
FINISH, ARRIVE, ACT = 0 << SERIAL_BITS, 1 << SERIAL_BITS, 2 << SERIAL_BITS


class Agenda(NamedTuple):
    """A program on a machine, as the queue needs it; all but the last three have one entry an operation.

    A door is where a message comes in: 2·layer for predictions from below, 2·layer + 1 for errors from
    above. Each link ends at a door of its own, so doors number the links, too.

    Attributes:
        layer: who acts.
        duration: of the operation, in time units.
        predictions: messages that must have come through the layer's prediction door before it acts.
        errors: the same for its error door.
        door: where the message goes that is sent at the end; −1 if none is.
        travel: time of that message by its size, in time units.
        order: the operations of layer 0, then of layer 1, …, each layer's as in the program.
        first: where each layer begins in `order`, and the length of `order`; (layers + 1,).
        delay: latency of each link, added to `travel`, in time units; (2·layers,), by door.
    """

    layer: Integers
    duration: Floats
    predictions: Integers
    errors: Integers
    door: Integers
    travel: Floats
    order: Integers
    first: Integers
    delay: Floats


class Notes(NamedTuple):
    """What happened, in the order in which the engine came to know it.

    Attributes:
        what: the operation's index, or its bitwise complement for the message that it sent.
        start: time of start, in time units.
        end: time of end, in time units.
    """

    what: Integers
    start: Floats
    end: Floats


class Heap(NamedTuple):
    """A binary heap: no entry is less than its parent, which for entry i is entry (i − 1) // 2.

    Attributes:
        time: when, in time units.
        tie: turn and serial number.
        item: the operation that is over or whose message arrives, or the layer that may act.
    """

    time: Floats
    tie: Integers
    item: Integers


def compiled(function: Function) -> Function:
    """Compile a function when it is first called, cached on disk."""
    return jit(function)


@compiled
def push(heap: Heap, size: int, time: float, tie: int, item: int) -> None:
    """Add an entry to a heap of `size` entries."""
    here = size
    while here > 0:
        parent = (here - 1) >> 1
        if heap.time[parent] < time or (heap.time[parent] == time and heap.tie[parent] < tie):
            break
        heap.time[here], heap.tie[here], heap.item[here] = (
            heap.time[parent],
            heap.tie[parent],
            heap.item[parent],
        )
        here = parent
    heap.time[here], heap.tie[here], heap.item[here] = time, tie, item


@compiled
def drop_first(heap: Heap, size: int) -> None:
    """Remove entry 0 of a heap of `size` entries: the last one sinks from the root to where it belongs."""
    last = size - 1
    time, tie, item = heap.time[last], heap.tie[last], heap.item[last]
    here, child = 0, 1
    while child < last:
        right = child + 1
        if right < last and (
            heap.time[right] < heap.time[child]
            or (heap.time[right] == heap.time[child] and heap.tie[right] < heap.tie[child])
        ):
            child = right
        if time < heap.time[child] or (time == heap.time[child] and tie < heap.tie[child]):
            break
        heap.time[here], heap.tie[here], heap.item[here] = (
            heap.time[child],
            heap.tie[child],
            heap.item[child],
        )
        here, child = child, 2 * child + 1
    heap.time[here], heap.tie[here], heap.item[here] = time, tie, item


@compiled
def next_operation(agenda: Agenda, layer: int, coming: Integers, arrived: Integers) -> int:
    """Return the layer's next operation if its messages are there; −1 if not, or if it is done."""
    if coming[layer] == agenda.first[layer + 1]:
        return -1
    operation = agenda.order[coming[layer]]
    if (
        arrived[2 * layer] < agenda.predictions[operation]
        or arrived[2 * layer + 1] < agenda.errors[operation]
    ):
        return -1
    return int(operation)


@compiled
def note(notes: Notes, row: int, what: int, start: float, end: float) -> None:
    """Write down one event."""
    notes.what[row], notes.start[row], notes.end[row] = what, start, end


@compiled
def run(agenda: Agenda, jitter: Floats, notes: Notes) -> float:
    """Let one mini-batch pass, from time 0 until nothing is under way.

    Args:
        agenda: who does what, and how long it takes.
        jitter: additional delay of each message in the order of sending, in time units; empty if none.
        notes: filled in; (operations + messages,) each.

    Returns:
        The time of the last event, in time units.
    """
    layers = len(agenda.first) - 1
    # Only the end of an operation that sends leaves more in the queue than it took out.
    capacity = layers + len(notes.what) - len(agenda.layer)
    heap = Heap(np.empty(capacity), np.empty(capacity, np.int64), np.empty(capacity, np.int64))
    busy, coming = np.zeros(layers, np.bool_), agenda.first[:-1].copy()
    arrived, link_free = np.zeros(2 * layers, np.int64), np.full(2 * layers, -np.inf)
    for layer in range(layers):
        push(heap, layer, 0.0, ACT + layer, layer)
    size = serial = layers
    now, noted, sent = 0.0, 0, 0
    while size > 0:
        now, turn, item = heap.time[0], heap.tie[0] >> SERIAL_BITS << SERIAL_BITS, heap.item[0]
        drop_first(heap, size)
        size -= 1
        if turn == ACT:
            operation = -1 if busy[item] else next_operation(agenda, item, coming, arrived)
            if operation < 0:
                continue
            coming[item] += 1
            busy[item] = True
            end = now + agenda.duration[operation]
            note(notes, noted, operation, now, end)
            noted += 1
            push(heap, size, end, FINISH + serial, operation)
        else:
            layer, door = agenda.layer[item], agenda.door[item]
            if turn == ARRIVE:
                layer = door >> 1
                arrived[door] += 1
            else:
                busy[layer] = False
                if door >= 0:
                    start = max(now, link_free[door])
                    delay = agenda.delay[door] + jitter[sent] if len(jitter) else agenda.delay[door]
                    end = link_free[door] = start + (agenda.travel[item] + delay)
                    note(notes, noted, ~item, start, end)
                    push(heap, size, end, ARRIVE + serial, item)
                    size, serial, noted, sent = size + 1, serial + 1, noted + 1, sent + 1
            push(heap, size, now, ACT + serial, layer)
        size, serial = size + 1, serial + 1
    return float(now)
