"""How much room a trace takes, table by table and training step by training step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pcsim.tracing.reader import TraceReader
from pcsim.tracing.table_reader import TableReader, TableSummary


@dataclass(frozen=True)
class TableSizes:
    """How much room a table takes.

    Attributes:
        summary: rows, dimensions, bytes.
        steps: training steps that it has rows of; None without a column `step`.
        bytes_a_step: on disk, for each of those; None without any.
        ratio: of the numbers' bytes to those on disk, above 1 if it is compressed well; chunks that are not
            full make it smaller. None for a table without rows.
    """

    summary: TableSummary
    steps: int | None
    bytes_a_step: float | None
    ratio: float | None


@dataclass(frozen=True)
class TraceSizes:
    """How much room a trace takes.

    Attributes:
        file_bytes: of the whole file, with what holds it together.
        tables: by name.
        seconds: of wall-clock time that training had taken when the last epoch was recorded; None before.
        bytes_a_second: file_bytes over these; None without.
    """

    file_bytes: int
    tables: Mapping[str, TableSizes]
    seconds: float | None
    bytes_a_second: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary fit for JSON; what a table holds and its sizes lie side by side."""
        whole = asdict(self)
        for table in whole["tables"].values():
            table |= table.pop("summary")
        return whole


def trace_sizes(trace: TraceReader) -> TraceSizes:
    """Measure a trace.

    Raises:
        TraceError: the file is damaged.
    """
    tables = {name: _table_sizes(trace.table(name)) for name in trace.tables}
    size, seconds = trace.path.stat().st_size, _seconds(trace)
    return TraceSizes(size, tables, seconds, size / seconds if seconds else None)


def _table_sizes(table: TableReader) -> TableSizes:
    summary = table.summary()
    steps = _distinct_steps(table) if "step" in table.columns else None
    return TableSizes(
        summary,
        steps,
        summary.bytes_on_disk / steps if steps else None,
        summary.bytes_of_numbers / summary.bytes_on_disk if summary.bytes_on_disk and summary.rows else None,
    )


def _distinct_steps(table: TableReader) -> int | None:
    """Count the training steps in a table, whose rows come in their order; None if they are no numbers."""
    count, last = 0, None
    for _, block in table.blocks(["step"]):
        steps = block["step"]
        if steps.dtype.kind not in "iuf":
            return None
        count += int(np.count_nonzero(np.diff(steps))) + (last is None or bool(steps[0] != last))
        last = steps[-1]
    return count


def _seconds(trace: TraceReader) -> float | None:
    if "learning" not in trace.tables:
        return None
    table = trace.table("learning")
    if "seconds" not in table.columns or table.rows == 0:
        return None
    last = np.asarray(table.column("seconds")[-1])
    return float(last) if last.dtype.kind in "iuf" and last.ndim == 0 else None
