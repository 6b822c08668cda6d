"""Messages as traffic: packets between cores, what each link carries, and a Noxim traffic table.

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
from typing import Protocol

import numpy as np

from pcsim.errors import TraceError
from pcsim.export.events import BLOCK_BYTES, spans, timeline
from pcsim.export.mapped import Columns, Packets, in_a_row, mapping_of
from pcsim.export.options import Options, Outcome, Progress, counted
from pcsim.hardware.chip import Chip
from pcsim.hardware.mapping import Mapping
from pcsim.tracing.reader import TraceReader
from pcsim.tracing.table_reader import TableReader

MAPPING = "one layer is one core, numbered as the layers, and neighbours are one hop apart"
DESCRIPTIONS = {
    "step": "training step",
    "packet": "number of the packet; one to several cores has a row for each",
    "source": "core that sends",
    "target": "core that receives",
    "source_tile": "tile that sends, by its place in the mapping; the layer where there is none",
    "target_tile": "tile that receives",
    "time": "start on the link, in hardware time units from the beginning of the training step",
    "end": "arrival, in the same units; of a lost message, when it should have come",
    "bytes": "size of the packet",
    "events": "numbers in the packet that are not zero; with a threshold, those sent",
    "hops": "links between the cores",
    "message": "prediction or error",
    "fate": "what became of the message: arrives, delayed, reordered, copy (a second time) or lost",
}
LINKS = {
    "from": "core at the beginning of the link",
    "to": "core at its end",
    "packets": "that crossed it, in all recorded training steps together",
    "bytes": "in them",
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

    def __init__(self, path: Path, stack: ExitStack, mapping: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        types = dict.fromkeys(("step", "packet", "bytes", "events"), pa.int64())
        types |= dict.fromkeys(("time", "end"), pa.float64())
        types |= dict.fromkeys(("message", "fate"), pa.string())
        self._schema = pa.schema(
            [
                pa.field(name, types.get(name, pa.int32()), metadata={"description": text})
                for name, text in DESCRIPTIONS.items()
            ],
            metadata={"mapping": mapping},
        )
        self._table = pa.table
        self._writer = stack.enter_context(pq.ParquetWriter(path, self._schema))

    def write(self, columns: Columns) -> None:
        """Write some rows as one row group."""
        self._writer.write_table(self._table(columns, schema=self._schema))


def write(trace: TraceReader, out: Path, options: Options, progress: Progress) -> Outcome:
    """Write `traffic.csv`, `traffic.parquet` if pyarrow is there, `links.csv` and `noxim.txt`.

    Raises:
        ConfigurationError: the mapping is none, or that of another network.
        TraceError: the trace has no events, or does not tell its layers.
    """
    table, sizes = timeline(trace), _sizes(trace)
    mapping = mapping_of(options.mapping, sizes) if options.mapping else in_a_row(sizes)
    where = _where(options.mapping, mapping)
    duration = sum(span.end for span in spans(trace))
    packets, noxim = Packets(mapping), Noxim(mapping.chip)
    notes = [where[0].upper() + where[1:] + "."]
    with ExitStack() as stack:
        sinks: list[Sink] = [CsvSink(out / "traffic.csv", stack)]
        try:
            sinks.append(ParquetSink(out / "traffic.parquet", stack, where))
        except ImportError:
            notes.append("traffic.parquet is left out, it needs pyarrow: pip install 'pcsim[export]'.")
        for messages in _messages(table, progress):
            for columns in packets.split(messages):
                for sink in (*sinks, noxim):
                    sink.write(columns)
    _write_links(out / "links.csv", packets)
    if duration:
        cycle = noxim.cycle(duration)
        (out / "noxim.txt").write_text(noxim.text(where, duration, cycle), encoding="utf-8")
        length = counted(cycle, "hardware time unit")
        notes.append(f"In noxim.txt a message is a packet, and a clock cycle lasts {length}.")
    else:
        notes.append("noxim.txt is left out: the hardware model takes no time, so there are no rates.")
    manifest = {"mapping": where, "columns": DESCRIPTIONS, "links": LINKS, "noxim": noxim.mesh}
    manifest |= {"traffic": packets.totals(), "placement": mapping.to_json()}
    return Outcome(tuple(notes), manifest)


def _sizes(trace: TraceReader) -> tuple[int, ...]:
    """Return the neurons of each layer.

    Raises:
        TraceError: the trace does not tell.
    """
    given = trace.attributes.get("layers")
    if not isinstance(given, list) or not given or any(type(one) is not int or one < 1 for one in given):
        raise TraceError(f"{trace.path} does not say how many neurons its layers have: expected `layers`")
    return tuple(given)


def _where(path: Path | None, mapping: Mapping) -> str:
    """Say where the layers are, in a sentence without its full stop."""
    if path is None:
        return f"without a mapping, {MAPPING}"
    mesh = f"{mapping.chip.rows}x{mapping.chip.columns}"
    return (
        f"{len(mapping.tiles)} tiles on {mesh} cores, as mapped; packets go along the row, then along the "
        "column, at the times of the recorded run, which knew no mesh"
    )


def _messages(table: TableReader, progress: Progress) -> Iterator[Columns]:
    """Yield the messages of a timeline in blocks, between layers."""
    names = ("kind", "step", "layer", "target", "start", "end", "bytes", "nonzero_values")
    for block, columns in table.blocks(names, max_bytes=BLOCK_BYTES):
        messages = columns["kind"] == 1
        some = {name: values[messages] for name, values in columns.items()}
        # In older traces every message arrives.
        fates = table.decode("fate", block) if "fate" in table.columns else np.full(len(messages), "arrives")
        yield {
            "step": some["step"],
            "source": some["layer"],
            "target": some["target"],
            "time": some["start"],
            "end": some["end"],
            "bytes": some["bytes"],
            "events": some["nonzero_values"],
            "message": table.decode("name", block)[messages],
            "fate": fates[messages],
        }
        progress(block.stop / table.rows)


def _write_links(path: Path, packets: Packets) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(LINKS))
        writer.writeheader()
        writer.writerows(packets.links())


class Noxim:
    """Sums packets up for a Noxim traffic table; one to several cores counts at each, as Noxim has none.

    Args:
        chip: whose cores Noxim's nodes are: it numbers them row by row, too.
    """

    def __init__(self, chip: Chip) -> None:
        self.mesh = {"mesh_dim_x": chip.columns, "mesh_dim_y": chip.rows}
        self._packets: Counter[tuple[int, int]] = Counter()
        self._bytes: Counter[tuple[int, int]] = Counter()

    def write(self, columns: Columns) -> None:
        """Count some packets; those within a core take no link."""
        ends = zip(columns["source"].tolist(), columns["target"].tolist(), strict=True)
        for link, size in zip(ends, columns["bytes"].tolist(), strict=True):
            if link[0] != link[1]:
                self._packets[link] += 1
                self._bytes[link] += size

    def cycle(self, duration: float) -> float:
        """Return a clock cycle in time units: 1, or a smaller power of ten in which no core sends twice."""
        by_source: Counter[int] = Counter()
        for (source, _), number in self._packets.items():
            by_source[source] += number
        busiest = max(by_source.values(), default=0)
        if duration >= busiest:
            return 1.0
        return float(10.0 ** math.floor(math.log10(duration / busiest)))

    def text(self, where: str, duration: float, cycle: float) -> str:
        """Return the table."""
        cycles = duration / cycle
        lines = [
            "% Noxim traffic table made by pcsim: source target pir por",
            f"% {where}",
            f"% one packet is one message; one cycle is {counted(cycle, 'hardware time unit')}",
            "% configuration: traffic_distribution: TRAFFIC_TABLE_BASED, traffic_table_filename: noxim.txt",
            f"% configuration: {', '.join(f'{name}: {size}' for name, size in self.mesh.items())}",
        ]
        for (source, target), number in sorted(self._packets.items()):
            rate = min(1.0, number / cycles)
            mean = counted(self._bytes[source, target] / number, "byte")
            lines.append(f"% {counted(number, 'packet')} of {mean} on average")
            lines.append(f"{source} {target} {rate:.9g} {rate:.9g}")
        return "\n".join(lines) + "\n"
