"""Reading traces piece by piece: no analysis needs more memory because a trace has more rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from pcsim.errors import TraceError
from pcsim.tracing.reader import TraceReader, open_trace
from pcsim.tracing.table_reader import TableReader

if TYPE_CHECKING:
    import xarray

BLOCK_BYTES = 4 * 2**20  # read at once
KEPT_BYTES = 16 * 2**20  # of one quantity that is kept for each training step

# An open trace, or the path of one.
TraceLike: TypeAlias = TraceReader | str | PathLike[str]
Piece: TypeAlias = tuple[slice, ...]
# Dimensions, values, what it is in words, units (`1` for a pure number).
Described: TypeAlias = tuple[tuple[str, ...], Any, str, str]
Thing = TypeVar("Thing")


class Progress(Protocol):
    """Who wants to know how far an analysis has come; `pcsim.terminal.ProgressBar` is one."""

    def begin(self, label: str, steps: int) -> None:
        """Learn that something begins that takes so many steps."""
        ...

    def step(self) -> None:
        """Learn that one step is done."""
        ...


class NotRecordedError(TraceError):
    """A trace that is good, but holds nothing of what an analysis is about."""


@dataclass(frozen=True)
class Signal:
    """One recorded array of a probe.

    Attributes:
        table: the probe's.
        name: of the column, such as `error_2`.
        kind: what it is: activity, error, weight, prediction_message, ….
        layer: whose; −1 if the name does not say.
        shape: (rows, …).
        dtype: type of its numbers.
    """

    table: TableReader
    name: str
    kind: str
    layer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def path(self) -> str:
        """Return its place in the file, such as `probes/hidden/error_2`."""
        return f"{self.table.name}/{self.name}"


@contextmanager
def opened(trace: TraceLike) -> Iterator[TraceReader]:
    """Hand on a trace that is open; open and close one that is given as a path.

    Raises:
        TraceError: there is no such file, or it is not a readable trace.
    """
    if isinstance(trace, TraceReader):
        yield trace
        return
    with open_trace(Path(trace)) as reader:
        yield reader


def pieces(shape: Sequence[int], itemsize: int, chunk_rows: int = 1) -> Iterator[Piece]:
    """Yield indices that together cover an array once, in C order, each of at most `BLOCK_BYTES`.

    Rows are taken whole as long as one of them fits; larger ones are divided along their leading axes.

    Args:
        shape: of the array.
        itemsize: bytes of one number.
        chunk_rows: rows that the file keeps together, so that it is best to read all of them or one.
    """
    if not shape or not math.prod(shape):
        return
    row = math.prod(shape[1:]) * itemsize
    if row <= BLOCK_BYTES or len(shape) == 1:
        many = max(1, BLOCK_BYTES // row)
        many = many // chunk_rows * chunk_rows or many
        for first in range(0, shape[0], many):
            yield (slice(first, min(first + many, shape[0])),)
        return
    for first in range(shape[0]):
        for rest in pieces(shape[1:], itemsize):
            yield (slice(first, first + 1), *rest)


def watched(things: Sequence[Thing], label: str, progress: Progress | None) -> Iterator[Thing]:
    """Yield things one after the other, telling `progress` about each that is done with."""
    if progress is not None:
        progress.begin(label, len(things))
    for thing in things:
        yield thing
        if progress is not None:
            progress.step()


def numbers(
    columns: Sequence[tuple[TableReader, str]], label: str, progress: Progress | None
) -> Iterator[tuple[int, Piece, npt.NDArray[Any]]]:
    """Yield all numbers of columns: which column, which part of it, and what is in it.

    One column after the other is open, for HDF5 keeps a cache for each (of 8 MiB in HDF5 2.0).
    """
    work: list[tuple[int, Piece]] = []
    for number, (table, name) in enumerate(columns):
        column = table.column(name)
        parts = pieces(column.shape, column.dtype.itemsize, column.chunk_rows)
        work.extend((number, piece) for piece in parts)
    opened_number = -1
    for number, piece in watched(work, label, progress):
        if number != opened_number:
            table, name = columns[number]
            column, opened_number = table.column(name), number
        yield number, piece, column[piece]


def signals(trace: TraceReader) -> list[Signal]:
    """Return all recorded arrays of all probes, sorted by table, kind and layer."""
    found = []
    for table_name in trace.tables:
        if not table_name.startswith("probes/"):
            continue
        table = trace.table(table_name)
        for name in table.columns:
            if name != table.unlimited:
                kind, _, layer = name.rpartition("_")
                known = bool(kind) and layer.isdecimal()
                column = table.column(name)
                kind, of = (kind, int(layer)) if known else (name, -1)
                found.append(Signal(table, name, kind, of, column.shape, column.dtype))
    return sorted(found, key=lambda signal: (signal.table.name, signal.kind, signal.layer))


def missing_probe(
    trace: TraceReader, what: str, *quantities: str, samples: object = None
) -> NotRecordedError:
    """Return the error that says which quantities a trace lacks and how to record them.

    Args:
        trace: that lacks them.
        what: in words.
        quantities: to record.
        samples: of each mini-batch, where not any number will do.
    """
    if is_backprop(trace):
        return NotRecordedError(
            f"{trace.path} has no probe with {what}: backprop has only weights and biases"
        )
    record = ", ".join(f'"{quantity}"' for quantity in quantities)
    given = f"record = [{record}]" + (f" and samples = {samples}" if samples is not None else "")
    return NotRecordedError(f"{trace.path} has no probe with {what}: add {given} to a [probe.NAME] section")


def is_backprop(trace: TraceReader) -> bool:
    """Tell whether a trace is of the backprop baseline, which has no iterations and sends no messages."""
    return bool(trace.attributes.get("order") == "backprop")


def summary_table(trace: TraceReader) -> TableReader:
    """Return the table `summary`.

    Raises:
        NotRecordedError: it is not there or has no rows.
    """
    if "summary" in trace.tables and (summary := trace.table("summary")).rows:
        return summary
    raise NotRecordedError(f"{trace.path} has no recorded training step: expected at least one in 'summary'")


def steps(table: TableReader) -> npt.NDArray[np.int64]:
    """Return the training step of each row; the row's number where the table does not say."""
    return np.asarray(table.coordinate(table.unlimited), dtype=np.int64)


@dataclass(frozen=True)
class Block:
    """Some rows of one column.

    Attributes:
        values: float64, (rows, …).
        kept: which of them are kept for each training step, (rows,).
    """

    values: npt.NDArray[np.float64]
    kept: npt.NDArray[np.bool_]


class Rows:
    """Whole rows of one column, block by block, and which of them are kept.

    All rows are kept unless they would take more than `KEPT_BYTES`; then every so many-th.

    Attributes:
        stride: rows from one that is kept to the next.
        steps: training steps of the rows that are kept.
    """

    def __init__(self, table: TableReader, name: str) -> None:
        self._name, self._column = name, table.column(name)
        self._row_bytes = max(1, math.prod(self._column.shape[1:])) * 8
        self.stride = max(1, math.ceil(table.rows * self._row_bytes / KEPT_BYTES))
        self.steps = steps(table)[:: self.stride]

    def blocks(self, progress: Progress | None = None) -> Iterator[Block]:
        """Yield all rows in order."""
        rows = [len(self._column)]
        work = list(pieces(rows, self._row_bytes, self._column.chunk_rows))
        for (part,) in watched(work, self._name.replace("_", " "), progress):
            kept = np.arange(part.start, part.stop) % self.stride == 0
            yield Block(np.asarray(self._column[part], dtype=np.float64), kept)


def dataset(
    trace: TraceReader,
    title: str,
    variables: Mapping[str, Described],
    coordinates: Mapping[str, Described],
    **attributes: str | float,
) -> xarray.Dataset:
    """Return an xarray dataset that says where it comes from.

    Args:
        trace: that it is about.
        title: of the dataset.
        variables: by name.
        coordinates: by name.
        attributes: more of its own.
    """
    import xarray

    def described(given: Mapping[str, Described]) -> dict[str, Any]:
        return {
            name: xarray.Variable(dims, values, {"long_name": words, "units": units})
            for name, (dims, values, words, units) in given.items()
        }

    known = ("name", "order", "iterations", "engine", "state")
    about = {name: trace.attributes[name] for name in known if name in trace.attributes}
    return xarray.Dataset(
        described(variables),
        described(coordinates),
        {"title": title, "trace": str(trace.path), **about, **attributes},
    )
