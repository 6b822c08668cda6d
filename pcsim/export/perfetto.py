"""The timeline as Chrome trace-event JSON, for https://ui.perfetto.dev and chrome://tracing.

Format: "Trace Event Format" of the Chromium project; Perfetto reads it as is. One track a layer, one a link,
flow arrows from each message to the operation that finds it in its inbox, counters for the free energy and
for messages in flight. Time is simulated; the recorded training steps are set one after the other.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Iterator
from functools import cache
from typing import Any, BinaryIO, NamedTuple

from pcsim.export.events import BLOCK_BYTES, Span, spans, timeline
from pcsim.export.options import Options, Outcome, Progress, counted
from pcsim.times import unit_of
from pcsim.tracing.reader import TraceReader
from pcsim.tracing.table_reader import TableReader

LAYERS, LINKS, RUN = 1, 2, 3  # processes: groups of tracks
FIRST_LAYER, FIRST_LINK, STEPS = 100, 100_000, 10  # threads: tracks
COLUMNS = (
    "kind",
    "name",
    "layer",
    "target",
    "iteration",
    "start",
    "end",
    "multiplications",
    "values",
    "nonzero_values",
    "bytes",
)


class Record(NamedTuple):
    """One trace event on its way to the file: sorted by time, then row, then the order within a row."""

    nanoseconds: int
    row: int
    place: int
    text: str
    in_flight: int = 0


class Arrival(NamedTuple):
    """A message that lies in an inbox: its row, when it came, its kind."""

    row: int
    time: float
    name: str


class Clock(NamedTuple):
    """How simulated time is shown.

    Attributes:
        microseconds: of one hardware time unit.
        offset: nanoseconds at which the training step begins.
    """

    microseconds: float
    offset: int

    def at(self, time: float) -> int:
        """Return nanoseconds; whole numbers, so that slices that touch do not overlap by a rounding."""
        return self.offset + round(time * self.microseconds * 1000)


class Row(NamedTuple):
    """A row of the table `events`."""

    row: int
    step: int
    clock: Clock
    name: str
    kind: int
    layer: int
    target: int
    iteration: int
    start: float
    end: float
    multiplications: int
    values: int
    nonzero_values: int
    bytes: int


def write(trace: TraceReader, out: BinaryIO, options: Options, progress: Progress) -> Outcome:
    """Write the timeline of all recorded training steps, or of one.

    Raises:
        TraceError: the trace has no events, or not of that step.
    """
    table, steps = timeline(trace), spans(trace, options.step)
    real = unit_of(trace.attributes) == "ns"
    unit = 1e-3 if real else _microseconds_per_unit(table, steps)
    shown = "" if real else f"1 hardware time unit is shown as {counted(unit, 'microsecond')} of "
    metadata = ",\n".join(json.dumps(one, ensure_ascii=False) for one in _metadata(trace))
    out.write(f'{{"traceEvents":[\n{metadata}'.encode())
    for record in _records(trace, table, steps, unit, progress):
        out.write(f",\n{record}".encode())
    told = {
        "time": f"{shown}simulated time{', to the nanosecond' if real else ''}",
        "nonzero_values": "numbers in the message that are not zero; with a threshold, those sent",
        "steps": "recorded training steps follow each other without a gap; others are left out",
        **{key: trace.attributes.get(key) for key in ("name", "order", "iterations", "hardware")},
    }
    out.write(f'\n],"displayTimeUnit":"ns","otherData":{json.dumps(told)}}}\n'.encode())
    return Outcome((f"{told['time']}; {told['steps']}",))


def _microseconds_per_unit(table: TableReader, steps: list[Span]) -> float:
    """Return 1, or the power of ten that makes the shortest event last a microsecond.

    Perfetto counts whole nanoseconds, while a hardware model may count seconds.
    """
    shortest, rows = math.inf, slice(steps[0].rows.start, steps[-1].rows.stop)
    for _, columns in table.blocks(("start", "end"), rows, BLOCK_BYTES):
        durations = columns["end"] - columns["start"]
        shortest = min(shortest, durations[durations > 0].min(initial=math.inf))
    return 1.0 if shortest >= 0.1 else 10.0 ** math.ceil(-math.log10(shortest))


def _metadata(trace: TraceReader) -> Iterator[dict[str, Any]]:
    """Name the tracks, and put them into an order: input first."""
    yield from _process(
        RUN, f"run {trace.attributes.get('name', '')}: {trace.attributes.get('order', '?')}", 0
    )
    yield from _process(LAYERS, "layers", 1)
    yield from _process(LINKS, "links", 2)
    yield from _thread(RUN, STEPS, "training steps", 0)
    sizes = trace.attributes.get("layers", [])
    for layer, size in enumerate(sizes):
        role = " (input)" if layer == 0 else " (output)" if layer == len(sizes) - 1 else ""
        yield from _thread(LAYERS, FIRST_LAYER + layer, f"layer {layer}{role}, {size} neurons", layer)
    for lower in range(len(sizes) - 1):
        for source, target in ((lower, lower + 1), (lower + 1, lower)):
            track = _link(source, target)
            yield from _thread(LINKS, track, f"link {source} → {target}", track - FIRST_LINK)


def _process(pid: int, name: str, place: int) -> Iterator[dict[str, Any]]:
    yield {"ph": "M", "pid": pid, "tid": 0, "name": "process_name", "args": {"name": name}}
    yield {"ph": "M", "pid": pid, "tid": 0, "name": "process_sort_index", "args": {"sort_index": place}}


def _thread(pid: int, tid: int, name: str, place: int) -> Iterator[dict[str, Any]]:
    yield {"ph": "M", "pid": pid, "tid": tid, "name": "thread_name", "args": {"name": name}}
    yield {"ph": "M", "pid": pid, "tid": tid, "name": "thread_sort_index", "args": {"sort_index": place}}


def _link(source: int, target: int) -> int:
    return FIRST_LINK + 2 * min(source, target) + (source > target)


def _records(
    trace: TraceReader, table: TableReader, steps: list[Span], unit: float, progress: Progress
) -> Iterator[str]:
    """Yield all trace events as JSON, sorted by time."""
    energies, offset, in_flight = _energies(trace), 0, 0
    for done, span in enumerate(steps, 1):
        clock = Clock(unit, offset)
        end = clock.at(span.end)
        yield _slice(RUN, STEPS, f"step {span.step}", "step", offset, end - offset, "{}")
        counted = _energy_records(span, clock, energies.get(span.step, []))
        for record in heapq.merge(_in_order(_event_records(table, span, clock)), counted):
            in_flight += record.in_flight
            yield record.text or _counter("messages in flight", record.nanoseconds, in_flight)
        offset = end
        progress(done / len(steps))


def _energies(trace: TraceReader) -> dict[int, list[float]]:
    """Return the free energy after each iteration 0 … T, by recorded training step."""
    found: dict[int, list[float]] = {}
    if "summary" in trace.tables and "free_energy" in trace.table("summary").columns:
        for _, columns in trace.table("summary").blocks(("step", "free_energy"), max_bytes=BLOCK_BYTES):
            totals = columns["free_energy"].sum(axis=2).tolist()
            found |= dict(zip(columns["step"].tolist(), totals, strict=True))
    return found


def _energy_records(span: Span, clock: Clock, energies: list[float]) -> Iterator[Record]:
    """Yield the free energy where each iteration ends; JSON has no number for one that blew up."""
    for end, energy in zip(span.iteration_ends.tolist(), energies, strict=False):
        if math.isfinite(energy):
            at = clock.at(end)
            yield Record(at, span.rows.stop, 0, _counter("free energy", at, energy))


def _event_records(table: TableReader, span: Span, clock: Clock) -> Iterator[Record]:
    """Yield the records of one training step; a row's first is at its start, which never goes back."""
    meanings = table.flags("name")
    waiting: dict[int, list[Arrival]] = {}  # in the inboxes of layers that have not acted since
    for block, columns in table.blocks(COLUMNS, span.rows, BLOCK_BYTES):
        lists = zip(*(columns[name].tolist() for name in COLUMNS), strict=True)
        for row, values in enumerate(lists, block.start):
            kind, name, *others = values
            event = Row(row, span.step, clock, meanings[name], kind, *others)
            if event.kind:
                yield from _message(event)
                waiting.setdefault(event.target, []).append(Arrival(row, event.end, event.name))
            else:
                yield from _operation(event, waiting)
    yield from _never_read(waiting, span, clock)


def _operation(event: Row, waiting: dict[int, list[Arrival]]) -> Iterator[Record]:
    """Yield a slice on the layer, and the arrows from the messages that it finds in its inbox."""
    at, track = event.clock.at(event.start), FIRST_LAYER + event.layer
    args = f'{{"step":{event.step},"iteration":{event.iteration},"multiplications":{event.multiplications}}}'
    duration = event.clock.at(event.end) - at
    yield Record(at, event.row, 0, _slice(LAYERS, track, event.name, "operation", at, duration, args))
    later = []
    for place, arrival in enumerate(waiting.get(event.layer, ()), 1):
        if arrival.time <= event.start:
            arrow = _flow("f", arrival.row, arrival.name, LAYERS, track, at)
            yield Record(at, event.row, place, arrow)
        else:
            later.append(arrival)
    waiting[event.layer] = later


def _message(event: Row) -> Iterator[Record]:
    """Yield a slice on the link, the beginning of an arrow, and the counter up and down."""
    at, arrival = event.clock.at(event.start), event.clock.at(event.end)
    track = _link(event.layer, event.target)
    args = (
        f'{{"step":{event.step},"iteration":{event.iteration},"values":{event.values},'
        f'"nonzero_values":{event.nonzero_values},"bytes":{event.bytes}}}'
    )
    yield Record(at, event.row, 0, _slice(LINKS, track, event.name, "message", at, arrival - at, args))
    yield Record(at, event.row, 1, _flow("s", event.row, event.name, LINKS, track, at))
    yield Record(at, event.row, 2, "", +1)
    yield Record(arrival, event.row, 3, "", -1)


def _never_read(waiting: dict[int, list[Arrival]], span: Span, clock: Clock) -> Iterator[Record]:
    """Yield a mark for each message whose receiver did nothing after it came: every arrow needs an end."""
    at = clock.at(span.end)
    for layer, arrivals in waiting.items():
        for arrival in arrivals:
            track = FIRST_LAYER + layer
            mark = _slice(LAYERS, track, "never read", "message", at, 0, "{}")
            yield Record(at, span.rows.stop + arrival.row, 0, mark)
            arrow = _flow("f", arrival.row, arrival.name, LAYERS, track, at)
            yield Record(at, span.rows.stop + arrival.row, 1, arrow)


def _in_order(records: Iterator[Record]) -> Iterator[Record]:
    """Sort by time what is nearly sorted: a row's records lie ahead of it, and wait for the rows between."""
    ahead: list[Record] = []
    for record in records:
        if record.place == 0:  # a row's first: nothing earlier will come
            while ahead and ahead[0] < record:
                yield heapq.heappop(ahead)
        heapq.heappush(ahead, record)
    yield from sorted(ahead)


def _slice(pid: int, tid: int, name: str, category: str, at: int, duration: int, args: str) -> str:
    return (
        f'{{"ph":"X","name":{_quoted(name)},"cat":"{category}","pid":{pid},"tid":{tid},'
        f'"ts":{_microseconds(at)},"dur":{_microseconds(duration)},"args":{args}}}'
    )


def _flow(phase: str, row: int, name: str, pid: int, tid: int, at: int) -> str:
    """Return one end of an arrow, which belongs to the slice that lies there ("bp": "e")."""
    return (
        f'{{"ph":"{phase}","bp":"e","id":{row},"name":{_quoted(name)},"cat":"message","pid":{pid},'
        f'"tid":{tid},"ts":{_microseconds(at)}}}'
    )


def _counter(name: str, at: int, value: float) -> str:
    return (
        f'{{"ph":"C","name":"{name}","cat":"counter","pid":{RUN},"tid":{STEPS},'
        f'"ts":{_microseconds(at)},"args":{{"value":{value!r}}}}}'
    )


@cache
def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


def _microseconds(nanoseconds: int) -> str:
    return f"{nanoseconds // 1000}.{nanoseconds % 1000:03d}"
