"""What a trace says about its network, and what its probes hold, wherever they hold it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pcsim.errors import TraceError
from pcsim.export.channels import Channels
from pcsim.tracing.reader import TraceReader
from pcsim.tracing.table_reader import TableReader

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Model:
    """The constants of a network and of its schedule.

    Attributes:
        sizes: neurons of each layer.
        connections: kind of each connection, dense or conv, the input's first.
        activation: name of f of each layer.
        output: name of the output function.
        mix: m of the soft clamp; 0 is the hard clamp.
        precision: γ_l of each layer.
        decay: γ_l^decay of each layer.
        order: name of the schedule.
        step_size: ε.
        step_decay: harmonic or none.
        iterations: T.
        dtype: type that the simulator computed in.
        channels: what happened to messages, and to activities that layers keep.
    """

    sizes: tuple[int, ...]
    connections: tuple[str, ...]
    activation: tuple[str, ...]
    output: str
    mix: float
    precision: tuple[float, ...]
    decay: tuple[float, ...]
    order: str
    step_size: float
    step_decay: str
    iterations: int
    dtype: str
    channels: Channels = field(default_factory=Channels)

    @property
    def top(self) -> int:
        """L."""
        return len(self.sizes) - 1

    @property
    def steps(self) -> tuple[float, ...]:
        """Return k of each inference iteration 1 … T."""
        harmonic = self.step_decay == "harmonic"
        return tuple(self.step_size / (1 + t) if harmonic else self.step_size for t in range(self.iterations))


def read_model(trace: TraceReader) -> Model:
    """Return what the root attribute `experiment` says.

    Raises:
        TraceError: it is missing, or says something else than expected.
    """
    told = trace.attributes.get("experiment")
    try:
        network, schedule = told["network"], told["schedule"]  # type: ignore[index]
        precisions = str(schedule.get("precisions", "constant"))  # older traces know no others
    except (KeyError, TypeError, AttributeError):
        raise _not_told(trace) from None
    if precisions != "constant":
        raise TraceError(
            f"{trace.path} was recorded with schedule.precisions = '{precisions}': expected constant "
            "precisions, which are all that an equation outside of pcsim is given; record a run with them"
        )
    try:
        return Model(
            tuple(network["layers"]),
            tuple(connection["kind"] for connection in network["connections"]),
            tuple(network["activation"]),
            str(network["output"][-1]),
            float(network["mix"][-1]),
            tuple(network["precision"]),
            tuple(network["activity_decay"]),
            str(schedule["order"]),
            float(schedule["step_size"]),
            str(schedule["step_decay"]),
            int(schedule["iterations"]),
            str(network["dtype"]),
            Channels.of(told),  # type: ignore[arg-type]
        )
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise _not_told(trace) from error


def _not_told(trace: TraceReader) -> TraceError:
    return TraceError(
        f"{trace.path} does not say what its network is: expected the root attribute experiment of pcsim.run"
    )


@dataclass(frozen=True)
class States:
    """Arrays of one training step.

    Attributes:
        arrays: (T + 1, samples, n) by column.
        samples: of the mini-batch.
        precision: relative precision of the widest rounding on the way: of the simulator or of a probe.
    """

    arrays: dict[str, Array]
    samples: npt.NDArray[np.int64]
    precision: float


@dataclass(frozen=True)
class Parameters:
    """A connection's weight (targets, sources) and bias (targets,), and the words for when they were so."""

    weight: Array
    bias: Array
    when: str


class Recording:
    """All probes of a trace.

    Args:
        trace: an open trace.
    """

    def __init__(self, trace: TraceReader) -> None:
        self.trace, self.model = trace, read_model(trace)
        self._probes = [trace.table(name) for name in trace.tables if name.startswith("probes/")]
        self._steps = {probe.name: probe.read("step") for probe in self._probes if "step" in probe.columns}

    def has(self, column: str, step: int) -> bool:
        """Say whether some probe holds a column at a training step."""
        return self._place(column, step) is not None

    def steps(self, columns: Iterable[str]) -> list[int]:
        """Return the training steps at which every one of the columns is recorded, ascending.

        Raises:
            TraceError: there is none; names the first column that is missing.
        """
        common: set[int] | None = None
        for column in columns:
            found = {
                int(step)
                for probe in self._probes
                if column in probe.columns
                for step in self._steps[probe.name][: probe.rows]
            }
            if not found:
                raise self._missing(column)
            common = found if common is None else common & found
        if not common:
            raise TraceError(
                f"{self.trace.path}: the probes have no training step in common: "
                "expected the same every in their sections"
            )
        return sorted(common)

    def choose(self, columns: Iterable[str], step: int | None) -> int:
        """Return the step asked for, or the last at which all columns are recorded.

        Raises:
            TraceError: it is not recorded.
        """
        steps = self.steps(columns)
        if step is not None and step not in steps:
            listed = ", ".join(map(str, steps[:5])) + (", …" if len(steps) > 5 else "")
            raise TraceError(
                f"{self.trace.path}: training step {step} is not in its probes: recorded are {listed}"
            )
        return steps[-1] if step is None else step

    def states(self, columns: Iterable[str], step: int) -> States:
        """Return columns of one training step for the samples that all of them have.

        Raises:
            TraceError: a column is not recorded at that step, or they have no sample in common.
        """
        places = {column: self._required(column, step) for column in columns}
        samples: npt.NDArray[np.int64] | None = None
        for table, _ in places.values():
            own = table.coordinate("sample")
            samples = own if samples is None else np.intersect1d(samples, own)
        if samples is None or not len(samples):
            raise TraceError(
                f"{self.trace.path}: the probes have no sample in common: expected the same samples"
            )
        arrays, precision = {}, float(np.finfo(self.model.dtype).eps)
        for column, (table, row) in places.items():
            reader = table.column(column)
            kept = np.flatnonzero(np.isin(table.coordinate("sample"), samples))
            arrays[column] = reader[row][:, kept].astype(np.float64)
            precision = max(precision, float(np.finfo(reader.dtype).eps))
        return States(arrays, samples, precision)

    def require_dense(self, *layers: int) -> None:
        """Refuse convolutions, whose p = pool(f(conv(ĥ) + b)) is not the equation that a format knows.

        Raises:
            TraceError: the connection of one of the layers is none that is dense.
        """
        for layer in layers:
            if (kind := self.model.connections[layer]) != "dense":
                raise TraceError(
                    f"{self.trace.path}: the connection from layer {layer} to {layer + 1} is {kind}: this "
                    "format knows p = W f(ĥ) + b only, expected a dense one"
                )

    def parameters(self, layer: int, step: int) -> Parameters:
        """Return a connection as it was in the inference phase of a training step, if that is known.

        That is what the last recorded step before it left behind, or what this one left behind less its
        change; failing both, it is what this one left behind.

        Raises:
            TraceError: weight or bias are not recorded.
        """
        weight, weight_used = self._used("weight", "update", layer, step)
        bias, bias_used = self._used("bias", "bias_update", layer, step)
        if weight_used and bias_used:
            return Parameters(weight, bias, f"used in the inference phase of training step {step}")
        after = self._matrix(f"weight_{layer}", step), self._matrix(f"bias_{layer}", step)
        return Parameters(*after, f"left by the learning phase of training step {step}")

    def _used(self, kind: str, change: str, layer: int, step: int) -> tuple[Array, bool]:
        column = f"{kind}_{layer}"
        if step > 0 and self.has(column, step - 1):
            return self._matrix(column, step - 1), True
        after = self._matrix(column, step)
        if self.has(f"{change}_{layer}", step):
            return after - self._matrix(f"{change}_{layer}", step), True
        return after, False

    def _matrix(self, column: str, step: int) -> Array:
        table, row = self._required(column, step)
        return table.column(column)[row].astype(np.float64)

    def _required(self, column: str, step: int) -> tuple[TableReader, int]:
        place = self._place(column, step)
        if place is None:
            raise self._missing(column, f" at training step {step}")
        return place

    def _place(self, column: str, step: int) -> tuple[TableReader, int] | None:
        """Return the probe that holds a column at a step in the widest type, and the row."""
        found = []
        for probe in self._probes:
            if column in probe.columns:
                rows = np.flatnonzero(self._steps[probe.name][: probe.rows] == step)
                found += [(probe, int(row)) for row in rows[-1:]]
        return max(found, key=lambda place: place[0].column(column).dtype.itemsize, default=None)

    def _missing(self, column: str, where: str = "") -> TraceError:
        quantity, layer = column.rsplit("_", 1)
        record = "message" if quantity.endswith("_message") else quantity
        return TraceError(
            f"{self.trace.path} has no probe with {quantity} of layer {layer}{where}: "
            f'add record = ["{record}"] to a [probe.NAME] section of the model'
        )
