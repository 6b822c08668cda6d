"""Probes: which arrays of which layers are kept while a network runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from pcsim.errors import ConfigurationError, TraceError, refuse_unless, whole
from pcsim.network.layer import Layer, MessageKind
from pcsim.network.network import Network
from pcsim.schedule.message import Message
from pcsim.schedule.operation import Operation
from pcsim.tracing.compression import Compression
from pcsim.tracing.schema import Column
from pcsim.tracing.table import Storage
from pcsim.tracing.writer import TraceWriter

Quantity = Literal["activity", "error", "prediction", "message", "weight", "update", "bias", "bias_update"]
Kind = Literal[
    "activity",
    "error",
    "prediction",
    "prediction_message",
    "error_message",
    "weight",
    "update",
    "bias",
    "bias_update",
    "target",
]
DTYPES = ("float16", "float32", "float64")

# What an operation leaves behind at its layer. A prediction is seen when the layer compares with it.
STATES: dict[Kind, Callable[[Layer], npt.NDArray[Any]]] = {
    "activity": lambda unit: unit.activity,
    "error": lambda unit: unit.error,
    "prediction": lambda unit: unit.inbox[MessageKind.PREDICTION],
}
MESSAGES: dict[Kind, MessageKind] = {
    "prediction_message": MessageKind.PREDICTION,
    "error_message": MessageKind.ERROR,
}
# What a layer owns when the training step is over, and its change since the step began.
PARAMETERS: dict[Kind, Callable[[Layer], npt.NDArray[Any]]] = {
    "weight": lambda unit: unit.shaped_weight,
    "bias": lambda unit: unit.bias,
}
# What updates are judged by: probes that record both of these keep y beside the activity of the output.
JUDGED = {"activity", "update"}
CHANGES: dict[Kind, Kind] = {"update": "weight", "bias_update": "bias"}
DESCRIPTIONS: dict[Kind, str] = {
    "activity": "activity of layer {}",
    "error": "error of layer {}",
    "prediction": "prediction of layer {} as it was when the layer compared with it",
    "prediction_message": "last prediction of layer {} as the layer above has it",
    "error_message": "last error of layer {} as the layer below has it",
    "weight": "weight of layer {} after the learning phase",
    "update": "change of the weight of layer {} in this training step",
    "bias": "bias of layer {} after the learning phase",
    "bias_update": "change of the bias of layer {} in this training step",
    "target": "what layer {} is clamped to, before a soft clamp mixes it and a format rounds it",
}


class Recorded(NamedTuple):
    """What one column of a probe holds: a kind of array, and whose."""

    kind: Kind
    layer: int


@dataclass(frozen=True)
class Probe:
    """What to keep of which layers, and how often.

    Attributes:
        name: of the probe and of its table, probes/NAME.
        record: quantities.
        layers: whose; None means all that have the quantity. A message is its sender's.
        samples: which samples of the mini-batch: a number means so many of its first, a tuple their indices.
        every: training steps from one recording to the next.
        dtype: float16, float32 or float64.
        compression: none, gzip, lzf or zstd; the trace's if not given.
        chunk_bytes: of a chunk at most; the trace's if not given.

    Raises:
        ConfigurationError: something of these is not as it should be.
    """

    name: str
    record: tuple[Quantity, ...]
    layers: tuple[int, ...] | None = None
    samples: int | tuple[int, ...] = 1
    every: int = 100
    dtype: str = "float32"
    compression: str | None = None
    chunk_bytes: int | None = None

    def __post_init__(self) -> None:
        where = f"probe {self.name}:"
        known = get_args(Quantity)
        refuse_unless(
            isinstance(self.record, tuple) and bool(self.record) and set(self.record) <= set(known),
            f"{where} record",
            self.record,
            f"a tuple of {', '.join(known)}",
        )
        layers = self.layers
        fine = layers is None or (isinstance(layers, tuple) and all(whole(one, 0) for one in layers))
        refuse_unless(fine, f"{where} layers", layers, "a tuple of layers, as in (1, 2), or None for all")
        good = self.samples >= 1 if isinstance(self.samples, int) else _distinct_indices(self.samples)
        refuse_unless(good, f"{where} samples", self.samples, "1 or more, or a tuple of different indices")
        refuse_unless(self.every >= 1, f"{where} every", self.every, "1 or more")
        refuse_unless(self.dtype in DTYPES, f"{where} dtype", self.dtype, f"one of {', '.join(DTYPES)}")
        packings = (None, *get_args(Compression))
        refuse_unless(
            self.compression in packings,
            f"{where} compression",
            self.compression,
            f"one of {', '.join(map(str, packings))}",
        )
        refuse_unless(
            self.chunk_bytes is None or 2**10 <= self.chunk_bytes <= 2**26,
            f"{where} chunk_bytes",
            self.chunk_bytes,
            "from 1 KiB to 64 MiB",
        )

    def columns(self, network: Network) -> dict[str, Recorded]:
        """Return what is recorded, by the name of its column, such as error_2."""
        inner, senders = range(1, network.top + 1), range(network.top)
        has: dict[Kind, range] = {"activity": range(network.top + 1), "error": inner, "prediction": inner}
        has |= {"prediction_message": senders, "error_message": inner}
        found = {
            f"{kind}_{layer}": Recorded(kind, layer)
            for quantity in self.record
            for kind in _kinds(quantity)
            for layer in has.get(kind, senders)
            if self.layers is None or layer in self.layers
        }
        if set(self.record) >= JUDGED and f"activity_{network.top}" in found:
            found[f"target_{network.top}"] = Recorded("target", network.top)
        return found

    def rows_of(self, batch: int) -> npt.NDArray[np.int64]:
        """Return the indices of the samples that are kept of a mini-batch.

        Raises:
            ConfigurationError: the mini-batch has no such sample.
        """
        if isinstance(self.samples, int):
            return np.arange(min(self.samples, batch))
        if max(self.samples) >= batch:
            raise ConfigurationError(
                f"probe {self.name}: sample {max(self.samples)} of mini-batches of {batch}: "
                f"expected indices from 0 to {batch - 1}"
            )
        return np.array(self.samples)


def _distinct_indices(samples: object) -> bool:
    return (
        isinstance(samples, tuple)
        and bool(samples)
        and all(type(index) is int and index >= 0 for index in samples)
        and len(set(samples)) == len(samples)
    )


def _kinds(quantity: Quantity) -> tuple[Kind, ...]:
    """Return the kinds of columns that a quantity has."""
    return ("prediction_message", "error_message") if quantity == "message" else (quantity,)


class ProbeRecorder:
    """Fills the table of one probe."""

    def __init__(
        self, probe: Probe, writer: TraceWriter, network: Network, iterations: int, batch: int, rows: int
    ) -> None:
        self._probe, self._active, self._step = probe, False, 0
        self._columns = probe.columns(network)
        if not self._columns:
            raise ConfigurationError(
                f"probe {probe.name}: layers {list(probe.layers or ())} have no {' or '.join(probe.record)}: "
                f"expected others of the layers 0 to {network.top}"
            )
        kept = probe.rows_of(batch)
        # A slice copies in one go, a list of indices makes a second copy.
        self._samples = slice(len(kept)) if np.array_equal(kept, np.arange(len(kept))) else kept
        described = {"step": Column((), "int64", "training step, counted from 0")}
        sizes: dict[str, int] = {}
        for name, (kind, layer) in self._columns.items():
            dims = _dims(kind, layer, network)
            described[name] = Column(tuple(dims), probe.dtype, DESCRIPTIONS[kind].format(layer))
            sizes |= dims
        coordinates: dict[str, npt.ArrayLike] = {name: np.arange(size) for name, size in sizes.items()}
        if "iteration" in coordinates:
            coordinates |= {"iteration": np.arange(iterations + 1), "sample": kept}
        self._shapes = {
            name: (iterations + 1, len(kept), sizes[column.dims[2]])
            for name, column in described.items()
            if column.dims[:1] == ("iteration",)
        }
        self._rows: dict[str, npt.NDArray[Any]] = {}
        self._known = {name: np.zeros(iterations + 1, dtype=bool) for name in self._shapes}
        self._before: dict[str, npt.NDArray[Any]] = {}
        storage = Storage(
            probe.compression or writer.storage.compression, probe.chunk_bytes or writer.storage.chunk_bytes
        )
        self._table = writer.table(
            f"probes/{probe.name}", "step", described, coordinates, expected_rows=rows, storage=storage
        )

    @property
    def hears_messages(self) -> bool:
        """Whether it records messages."""
        return "message" in self._probe.record

    def looks_at(self, step: int) -> bool:
        """Return whether it records in this step."""
        return step % self._probe.every == 0

    def begin_step(self, step: int, units: Sequence[Layer]) -> None:
        """Wake up every so many steps; remember what will change."""
        self._active, self._step = self.looks_at(step), step
        if not self._active:
            return
        # New arrays each time: the table takes them over, which is cheaper than to copy them.
        self._rows = {name: np.empty(shape, self._probe.dtype) for name, shape in self._shapes.items()}
        for known in self._known.values():
            known[:] = False
        for name, now in self._changing(units):
            if name in self._before:
                np.copyto(self._before[name], now)
            else:
                self._before[name] = now.copy()

    def observe(self, operation: Operation, unit: Layer) -> None:
        """Copy what the operation has left behind."""
        if not self._active:
            return
        written = {place.name for place in operation.writes}
        for kind, look in STATES.items():
            name = f"{kind}_{operation.layer}"
            source = "error" if kind == "prediction" else kind
            if source in written and name in self._rows:
                self._keep(name, operation.iteration, look(unit))

    def hear(self, message: Message) -> None:
        """Copy what a message tells its receiver."""
        name = f"{message.kind}_message_{message.source}"
        if self._active and name in self._rows and message.payload is not None:
            self._keep(name, message.iteration, message.payload)

    def end_step(self, units: Sequence[Layer]) -> None:
        """Write a row: what did not change in an iteration is as it was before, at first zero."""
        if not self._active:
            return
        row = dict(self._rows)
        for name, rows in self._rows.items():
            for iteration in np.flatnonzero(~self._known[name]):
                rows[iteration] = rows[iteration - 1] if iteration else 0
        dtype = self._probe.dtype
        for name, (kind, layer) in self._columns.items():
            if kind in PARAMETERS:
                row[name] = np.array(PARAMETERS[kind](units[layer]), dtype, order="C")
            elif kind == "target":
                row[name] = np.array(np.asarray(units[layer].target)[self._samples], dtype, order="C")
        for name, now in self._changing(units):
            row[name] = np.subtract(now, self._before[name]).astype(dtype, order="C", copy=False)
        if dtype == "float16":
            for name, rows in row.items():
                _refuse_overflow(self._probe, name, rows)
        self._rows = {}
        self._table.take(step=self._step, **row)

    def _keep(self, name: str, iteration: int, array: npt.NDArray[Any]) -> None:
        # An array of a device comes to the host as a whole.
        self._rows[name][iteration] = np.asarray(array)[self._samples]
        self._known[name][iteration] = True

    def _changing(self, units: Sequence[Layer]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Yield the parameters whose change is recorded, by the name of the change's column."""
        for name, (kind, layer) in self._columns.items():
            if kind in CHANGES:
                yield name, np.asarray(PARAMETERS[CHANGES[kind]](units[layer]))


def _dims(kind: Kind, layer: int, network: Network) -> dict[str, int]:
    """Return the dimensions of a kind of column, with the sizes of those that the network decides."""
    if kind == "target":
        return {"sample": 0, f"neuron_{layer}": network.sizes[layer]}
    if kind not in STATES and kind not in MESSAGES:
        connection = network.connections[layer]
        dims = zip(connection.weight_dims, connection.weight_shape, strict=True)
        sizes = {f"{name}_{layer}": size for name, size in dims}
        return sizes if kind in ("weight", "update") else dict(list(sizes.items())[:1])
    about = layer + 1 if kind == "prediction_message" else layer
    return {"iteration": 0, "sample": 0, f"neuron_{about}": network.sizes[about]}


def _refuse_overflow(probe: Probe, name: str, rows: npt.NDArray[Any]) -> None:
    """Refuse to record infinities that only the narrow type of the probe has made."""
    if np.isinf(rows).any():
        limit = np.finfo(probe.dtype).max
        raise TraceError(
            f"probe {probe.name}: {name} goes beyond {probe.dtype}, whose largest number is {limit:g}: "
            "expected a wider dtype"
        )
