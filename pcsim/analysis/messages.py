"""What became of messages: how much of each was sent, how it was rounded, and whether it arrived.

From the table `events` of the event engine; link by link over inference iterations and over the training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pcsim.analysis.events import recorded_events
from pcsim.analysis.stream import BLOCK_BYTES, Described, Progress, TraceLike, dataset, opened, watched
from pcsim.errors import TraceError
from pcsim.tracing.reader import TraceReader
from pcsim.tracing.table_reader import TableReader

if TYPE_CHECKING:
    import xarray

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Columns = dict[str, npt.NDArray[Any]]

FATES = ("arrives", "delayed", "reordered", "copy", "lost", "unsent")
AMOUNTS = ("values", "nonzero_values", "bytes")
ROUNDING = ("rounding_error", "root_mean_square", "largest")
MOST_CELLS = 2**22  # links by iterations that are told apart, which take 400 MB
MOST_MOMENTS = 100  # parts of the training that are told apart
SENDS_DOWN = "compare"  # an operation whose name begins so sends an error; others send a prediction


def message_counts(trace: TraceLike, *, progress: Progress | None = None) -> xarray.Dataset:
    """Return what became of the messages of each link.

    A link is a layer that sends and a kind of message, prediction or error. Over (link, iteration) and, with
    `moment_` before the name, over (link, moment), parts of the training of equally many recorded steps:
    `messages` (also by fate), `values`, `nonzero_values`, `bytes`. Unsent messages are no messages: they
    count by fate only. Where numbers were rounded: `rounding_error`, `root_mean_square` (root of the mean
    square over all messages) and `largest` over (link, iteration), and with `activity_` before the name over
    (layer, iteration), of the activities that layers keep. In a trace of version 1 or 2, which does not say
    what became of messages, all have arrived.

    Args:
        trace: an open trace, or the path of one.
        progress: is told how far this has come.

    Raises:
        TraceError: the trace has no events, too many layers and iterations, or cannot be read.
    """
    with opened(trace) as reader:
        table = recorded_events(reader)
        tally = _Tally.of(reader, table)
        blocks = range(0, table.rows, _rows_a_block(table, tally.columns))
        for first in watched(list(blocks), "messages", progress):
            rows = slice(first, min(first + blocks.step, table.rows))
            columns = {name: table.read(name, rows) for name in tally.columns}
            tally.add(columns, _unsent_up(table, rows, columns, tally.fates))
        links = np.arange(tally.links)
        coordinates: dict[str, Described] = {
            "source": (("link",), links // 2, "layer that sends", "1"),
            "target": (("link",), links // 2 + 1 - 2 * (links % 2), "layer that receives", "1"),
            "iteration": (("iteration",), np.arange(tally.iterations), "inference iterations begun", "1"),
            "layer": (("layer",), np.arange(tally.layers), "layer", "1"),
            "fate": (("fate",), np.array(FATES), "what became of the message", "1"),
            "moment": (("moment",), tally.starts, "first recorded training step of the part", "1"),
        }
        used = tally.used()
        whole = dataset(
            reader, "message counts", tally.variables(), coordinates, recorded_steps=len(tally.steps)
        )
        return whole.isel(link=used)


def _rows_a_block(table: TableReader, columns: tuple[str, ...]) -> int:
    """Return how many rows are read at once: whole chunks, as far as they fit."""
    row = sum(table.column(name).row_bytes for name in columns)
    many, chunk = max(1, BLOCK_BYTES // row), table.column("kind").chunk_rows
    return many // chunk * chunk or many


def _unsent_up(
    table: TableReader, rows: slice, columns: Columns, fates: tuple[str, ...]
) -> npt.NDArray[np.bool_]:
    """Tell of each row whether it is a prediction, sent or not."""
    up = columns["target"] > columns["layer"]
    if "fate" not in columns:
        return np.asarray(up)
    unsent = columns["fate"] == fates.index("unsent")
    if unsent.any():
        words = table.decode("name", rows)[unsent]
        up[unsent] = ~np.char.startswith(words, SENDS_DOWN)
    return np.asarray(up)


@dataclass
class _Tally:
    """Sums over rows, (cells, features) each; cells are links by iterations, links by moments, ….

    Attributes:
        layers: of the network.
        iterations: T + 1.
        steps: recorded training steps.
        fates: words of the codes in the column of fates.
        columns: that are read.
        by_iteration: by link and iteration: messages by fate, amounts, weighted squares.
        by_moment: by link and moment: messages by fate and amounts.
        activities: by layer and iteration: operations that have rounded, and squares.
        largest: by link and iteration.
        activity_largest: by layer and iteration.
    """

    layers: int
    iterations: int
    steps: Ints
    fates: tuple[str, ...]
    columns: tuple[str, ...]
    by_iteration: Floats
    by_moment: Floats
    activities: Floats
    largest: Floats
    activity_largest: Floats

    @classmethod
    def of(cls, trace: TraceReader, table: TableReader) -> _Tally:
        """Return empty sums of the right size."""
        steps, top, last = _extents(table)
        sizes = trace.attributes.get("layers")
        layers = max(top + 1, len(sizes) if isinstance(sizes, list) else 0)
        if 2 * layers * (last + 1) > MOST_CELLS:
            raise TraceError(
                f"{trace.path} has {layers:,} layers and {last + 1:,} iterations: expected at most "
                f"{MOST_CELLS // 2:,} by multiplication to tell their messages apart"
            )
        moments = min(len(steps), MOST_MOMENTS)
        columns: tuple[str, ...] = ("step", "kind", "layer", "target", "iteration", *AMOUNTS)
        columns += tuple(name for name in ("fate", *ROUNDING) if name in table.columns)
        features = len(FATES) + len(AMOUNTS)
        return cls(
            layers,
            last + 1,
            steps,
            table.flags("fate") if "fate" in columns else (),
            columns,
            np.zeros((2 * layers * (last + 1), features + 2)),
            np.zeros((2 * layers * moments, features)),
            np.zeros((layers * (last + 1), 3)),
            np.zeros(2 * layers * (last + 1)),
            np.zeros(layers * (last + 1)),
        )

    @property
    def links(self) -> int:
        """How many links there may be: predictions and errors of each layer."""
        return 2 * self.layers

    @property
    def moments(self) -> int:
        """Parts of the training that are told apart."""
        return len(self.by_moment) // self.links

    @property
    def starts(self) -> Ints:
        """First training step of each moment."""
        return self.steps[np.arange(self.moments) * len(self.steps) // self.moments]

    def add(self, columns: Columns, up: npt.NDArray[np.bool_]) -> None:
        """Add some rows; `up` tells which of them are predictions."""
        fate = self._fates(columns)
        sent = fate >= 0
        link = 2 * columns["layer"].astype(np.int64) + ~up
        cell = link * self.iterations + columns["iteration"]
        moment = np.searchsorted(self.starts, columns["step"], side="right") - 1
        features = [*(fate == code for code in range(len(FATES))), *(columns[name] for name in AMOUNTS)]
        squares = [columns[name].astype(float) ** 2 for name in ROUNDING[:2] if name in columns]
        squares = squares or [np.zeros(len(link))] * 2
        weighted = [columns["values"] * square for square in squares]
        _add_up(self.by_iteration, cell[sent], [one[sent] for one in (*features, *weighted)])
        _add_up(self.by_moment, (link * self.moments + moment)[sent], [one[sent] for one in features])
        if "largest" not in columns:
            return
        messages = columns["kind"] == 1
        np.maximum.at(self.largest, cell[messages], columns["largest"][messages])
        rounds = ~messages & (columns["largest"] > 0)
        place = (columns["layer"].astype(np.int64) * self.iterations + columns["iteration"])[rounds]
        _add_up(self.activities, place, [np.ones(len(place)), *(square[rounds] for square in squares)])
        np.maximum.at(self.activity_largest, place, columns["largest"][rounds])

    def _fates(self, columns: Columns) -> Ints:
        """Return for each row the index of its fate; −1 where there is no message."""
        messages = columns["kind"] == 1
        if "fate" not in columns:
            return np.where(messages, FATES.index("arrives"), -1)
        known = np.array([FATES.index(word) if word in FATES else -1 for word in self.fates])
        return np.asarray(known[columns["fate"]])

    def used(self) -> npt.NDArray[np.intp]:
        """Return the links that have sent something, or should have."""
        counts = self.by_moment.reshape(self.links, self.moments, -1)[..., : len(FATES)]
        return np.flatnonzero(counts.sum(axis=(1, 2)))

    def variables(self) -> dict[str, Described]:
        """Return the variables of the dataset."""
        found: dict[str, Described] = {}
        for prefix, dim, size, sums in (
            ("", "iteration", self.iterations, self.by_iteration),
            ("moment_", "moment", self.moments, self.by_moment),
        ):
            dims, shape = ("link", dim), (self.links, size)
            counts = sums[:, : len(FATES)].astype(np.int64).reshape(*shape, len(FATES))
            found[f"{prefix}messages"] = ((*dims, "fate"), counts, "messages", "1")
            for name, column in zip(AMOUNTS, sums.T[len(FATES) :], strict=False):
                words, units = f"{name.replace('_', ' ')} of messages", "B" if name == "bytes" else "1"
                found[f"{prefix}{name}"] = (dims, column.astype(np.int64).reshape(shape), words, units)
        if "largest" in self.columns:
            values = self.by_iteration[:, len(FATES)]
            shape = self.links, self.iterations
            found |= _rounding("", ("link", "iteration"), shape, values, self.by_iteration, self.largest)
            shape, operations = (self.layers, self.iterations), self.activities[:, 0]
            found |= _rounding(
                "activity_",
                ("layer", "iteration"),
                shape,
                operations,
                self.activities,
                self.activity_largest,
            )
        return found


def _rounding(
    prefix: str,
    dims: tuple[str, str],
    shape: tuple[int, int],
    weight: Floats,
    sums: Floats,
    largest: Floats,
) -> dict[str, Described]:
    """Return the variables about rounding; NaN where there were no numbers."""
    described = {
        "rounding_error": "root mean square of what rounding changed numbers by",
        "root_mean_square": "root mean square of the numbers before rounding",
    }
    found: dict[str, Described] = {}
    for (name, words), total in zip(described.items(), sums.T[-2:], strict=True):
        mean = np.divide(total, weight, out=np.full(len(weight), np.nan), where=weight > 0)
        found[f"{prefix}{name}"] = (dims, np.sqrt(mean).reshape(shape), words, "1")
    words = "largest absolute value before rounding"
    there = np.where(weight > 0, largest, np.nan).reshape(shape)
    return found | {f"{prefix}largest": (dims, there, words, "1")}


def _add_up(sums: Floats, cells: Ints, features: list[npt.NDArray[Any]]) -> None:
    """Add features of rows to the sums of their cells."""
    if not len(cells):
        return
    for column, feature in enumerate(features):
        sums[:, column] += np.bincount(cells, feature, len(sums))


def _extents(table: TableReader) -> tuple[Ints, int, int]:
    """Return the recorded training steps, the highest layer and the last iteration."""
    steps: list[Ints] = []
    top = last = 0
    for _, columns in table.blocks(("step", "layer", "target", "iteration")):
        steps.append(np.unique(columns["step"]).astype(np.int64))
        top = max(top, int(columns["layer"].max()), int(columns["target"].max()))
        last = max(last, int(columns["iteration"].max()))
    return np.unique(np.concatenate(steps)), top, last
