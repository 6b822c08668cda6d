"""Messages as traffic: a table of who sends how much to whom and when, and a Noxim traffic table.

Noxim (https://github.com/davidepatti/noxim) reads lines `source target pir por`: the packet injection rate
is the chance that the source sends a packet to the target in a clock cycle.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pcsim.export.events import BLOCK_BYTES, spans, timeline
from pcsim.export.options import Options, Outcome, Progress, counted
from pcsim.tracing.reader import TraceReader
from pcsim.tracing.table_reader import TableReader

Columns = dict[str, npt.NDArray[Any]]
MAPPING = "one layer is one core, numbered as the layers, and neighbours are one hop apart"
DESCRIPTIONS = {
    "step": "training step",
    "source": "core that sends",
    "target": "core that receives",
    "time": "start on the link, in hardware time units from the beginning of the training step",
    "bytes": "size of the message",
    "events": "numbers in the message that are not zero; with a threshold, those sent",
    "hops": "links between the cores",
    "message": "prediction or error",
}


class Sink(Protocol):
    """Where the rows of the traffic table go."""

    def write(self, columns: Columns) -> None:
        """Write some rows."""
        ...


class CsvSink:
    """Writes rows as CSV."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._writer = csv.writer(stack.enter_context(path.open("w", newline="", encoding="utf-8")))
        self._writer.writerow(DESCRIPTIONS)

    def write(self, columns: Columns) -> None:
        """Write some rows."""
        self._writer.writerows(zip(*(columns[name].tolist() for name in DESCRIPTIONS), strict=True))


class ParquetSink:
    """Writes rows as Parquet, a row group at a time.

    Raises:
        ImportError: pyarrow is not installed.
    """

    def __init__(self, path: Path, stack: ExitStack) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        types = {"time": pa.float64(), "message": pa.string(), "step": pa.int64()}
        types |= {"bytes": pa.int64(), "events": pa.int64()}
        self._schema = pa.schema(
            [
                pa.field(name, types.get(name, pa.int32()), metadata={"description": text})
                for name, text in DESCRIPTIONS.items()
            ],
            metadata={"mapping": MAPPING},
        )
        self._table = pa.table
        self._writer = stack.enter_context(pq.ParquetWriter(path, self._schema))

    def write(self, columns: Columns) -> None:
        """Write some rows as one row group."""
        self._writer.write_table(self._table(columns, schema=self._schema))


def write(trace: TraceReader, out: Path, options: Options, progress: Progress) -> Outcome:
    """Write `traffic.csv`, `traffic.parquet` if pyarrow is there, and `noxim.txt`.

    Raises:
        TraceError: the trace has no events.
    """
    del options
    table = timeline(trace)
    duration = sum(span.end for span in spans(trace))
    packets: Counter[tuple[int, int]] = Counter()
    sizes: Counter[tuple[int, int]] = Counter()
    notes = [f"Without a mapping, {MAPPING}."]
    with ExitStack() as stack:
        sinks: list[Sink] = [CsvSink(out / "traffic.csv", stack)]
        try:
            sinks.append(ParquetSink(out / "traffic.parquet", stack))
        except ImportError:
            notes.append("traffic.parquet is left out, it needs pyarrow: pip install 'pcsim[export]'.")
        for columns in _messages(table, progress):
            for sink in sinks:
                sink.write(columns)
            links = list(zip(columns["source"].tolist(), columns["target"].tolist(), strict=True))
            packets.update(links)
            for link, size in zip(links, columns["bytes"].tolist(), strict=True):
                sizes[link] += size
    if duration:
        cycle = _cycle(packets, duration)
        (out / "noxim.txt").write_text(_noxim(packets, sizes, duration, cycle), encoding="utf-8")
        length = counted(cycle, "hardware time unit")
        notes.append(f"In noxim.txt a message is a packet, and a clock cycle lasts {length}.")
    else:
        notes.append("noxim.txt is left out: the hardware model takes no time, so there are no rates.")
    return Outcome(tuple(notes), {"mapping": MAPPING, "columns": DESCRIPTIONS})


def _messages(table: TableReader, progress: Progress) -> Iterator[Columns]:
    """Yield the messages of a timeline in blocks."""
    names = ("kind", "step", "layer", "target", "start", "bytes", "nonzero_values")
    for block, columns in table.blocks(names, max_bytes=BLOCK_BYTES):
        messages = columns["kind"] == 1
        words = table.decode("name", block)[messages]
        some = {name: values[messages] for name, values in columns.items()}
        yield {
            "step": some["step"],
            "source": some["layer"],
            "target": some["target"],
            "time": some["start"],
            "bytes": some["bytes"],
            "events": some["nonzero_values"],
            "hops": np.abs(some["target"] - some["layer"]),
            "message": words,
        }
        progress(block.stop / table.rows)


def _cycle(packets: Counter[tuple[int, int]], duration: float) -> float:
    """Return a clock cycle in time units: 1, or a smaller power of ten in which no core sends two packets."""
    by_source: Counter[int] = Counter()
    for (source, _), number in packets.items():
        by_source[source] += number
    busiest = max(by_source.values(), default=0)
    if duration >= busiest:
        return 1.0
    return float(10.0 ** math.floor(math.log10(duration / busiest)))


def _noxim(
    packets: Counter[tuple[int, int]], sizes: Counter[tuple[int, int]], duration: float, cycle: float
) -> str:
    cycles = duration / cycle
    lines = [
        "% Noxim traffic table made by pcsim: source target pir por",
        f"% {MAPPING}",
        f"% one packet is one message; one cycle is {counted(cycle, 'hardware time unit')}",
        "% configuration: traffic_distribution: TRAFFIC_TABLE_BASED, traffic_table_filename: noxim.txt",
    ]
    for (source, target), number in sorted(packets.items()):
        rate = min(1.0, number / cycles)
        mean = counted(sizes[source, target] / number, "byte")
        lines.append(f"% {counted(number, 'packet')} of {mean} on average")
        lines.append(f"{source} {target} {rate:.9g} {rate:.9g}")
    return "\n".join(lines) + "\n"
