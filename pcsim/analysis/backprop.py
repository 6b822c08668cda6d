"""Angle and length of weight updates against backprop's, computed from a trace alone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcsim.analysis.convolution import Convolution, convolutions
from pcsim.analysis.network import Array, Functions
from pcsim.analysis.statistics import Floats
from pcsim.analysis.stream import (
    BLOCK_BYTES,
    KEPT_BYTES,
    NotRecordedError,
    Progress,
    TraceLike,
    dataset,
    is_backprop,
    missing_probe,
    opened,
    pieces,
    steps,
    watched,
)
from pcsim.errors import TraceError
from pcsim.tracing.reader import TraceReader
from pcsim.tracing.table_reader import TableReader

if TYPE_CHECKING:
    import xarray

TARGETS_SINCE = 4  # version of the trace format whose probes keep y where they keep what it is needed for
QUANTITIES = ("activity", "weight", "update", "bias", "bias_update")


def backprop_angles(
    trace: TraceLike, *, probe: str | None = None, progress: Progress | None = None
) -> xarray.Dataset:
    """Return the angle between each weight update and backprop's, and the ratio of their lengths.

    Backprop's step is −∂Loss/∂W_l, the batch mean, at the weights before the training step (weight −
    update) for the recorded input and target; the loss is the (binary) cross-entropy for a softmax (sigmoid)
    output and ½‖y − out‖² for identity. No gradient of a whole matrix is ever formed.

    Variables over (step, connection): `angle` in degrees (NaN where an update or gradient is zero),
    `length_ratio` (‖ΔW_l‖ / ‖∇‖), `update_norm`, `gradient_norm`; over connection `angle_mean` and
    `length_ratio_mean`. Of very many steps every `step_stride`-th is looked at.

    Args:
        trace: an open trace, or the path of one.
        probe: name of the probe to use; the first suitable one if not given.
        progress: is told how far this has come.

    Raises:
        TraceError: no probe has activity, weight, update, bias and bias_update of all layers for all samples
            of the mini-batch, the trace is of a version that kept no targets, or it cannot be read.
    """
    with opened(trace) as reader:
        functions = Functions.of(reader)
        table = _suitable(reader, functions.top, probe)
        recorded = _Recorded(_Rows(table, _needed(functions.top)), functions, convolutions(reader))
        stride = max(1, math.ceil(table.rows * functions.top * 8 / KEPT_BYTES))
        rows = list(range(0, table.rows, stride))
        sums = np.array([recorded.products(row) for row in watched(rows, "backprop", progress)])
        with np.errstate(divide="ignore", invalid="ignore"):
            update, gradient = np.sqrt(sums[..., 0]), np.sqrt(sums[..., 1])
            cosine = sums[..., 2] / (update * gradient)
            ratio = update / gradient
        angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        dims = ("step", "connection")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a connection that never changes has no mean
            angle_mean, ratio_mean = np.nanmean(angle, axis=0), np.nanmean(ratio, axis=0)
        return dataset(
            reader,
            "updates against backprop",
            {
                "angle_mean": (dims[1:], angle_mean, "mean angle over training steps", "degree"),
                "length_ratio_mean": (dims[1:], ratio_mean, "mean ratio of lengths over steps", "1"),
                "angle": (dims, angle, "angle between the weight update and backprop's", "degree"),
                "length_ratio": (dims, ratio, "length of the update by that of the gradient", "1"),
                "update_norm": (dims, update, "Frobenius norm of the weight update", "1"),
                "gradient_norm": (dims, gradient, "Frobenius norm of the loss gradient", "1"),
            },
            {
                "step": (("step",), steps(table)[::stride], "training step, counted from 0", "1"),
                "connection": (dims[1:], np.arange(functions.top), "connection, from layer l to l + 1", "1"),
            },
            probe=table.name,
            recorded_steps=table.rows,
            step_stride=stride,
        )


def has_angles(trace: TraceReader) -> bool:
    """Tell whether a trace has what `backprop_angles` needs, from its names and sizes alone."""
    try:
        _suitable(trace, Functions.of(trace).top, None)
    except TraceError:
        return False
    return True


def _needed(top: int) -> list[str]:
    """Return the columns without which there is no gradient."""
    parameters = [f"{kind}_{layer}" for kind in QUANTITIES[1:] for layer in range(top)]
    return ["activity_0", f"target_{top}", *parameters]


def _suitable(trace: TraceReader, top: int, probe: str | None) -> TableReader:
    """Return the table of a probe that has all that is needed, or say what is missing."""
    names = [name for name in trace.tables if name.startswith("probes/")]
    if probe is not None:
        names = [trace.table(f"probes/{probe}").name]
    needed, batch = _needed(top), trace.attributes.get("batch")
    if is_backprop(trace):
        raise NotRecordedError(
            f"{trace.path} is a run of backprop itself: expected one of inference learning"
        )
    suited = [name for name in names if not set(needed) - set(trace.table(name).columns)]
    if not suited:
        _refuse_without_targets(trace, names, set(needed) - {f"target_{top}"})
        what = f"all of {', '.join(QUANTITIES)} of all layers and samples"
        raise missing_probe(trace, what, *QUANTITIES, samples=batch)
    for name in suited:
        samples = trace.table(name).column("activity_0").shape[2]
        if samples == batch and trace.table(name).rows:
            return trace.table(name)
    if not any(trace.table(name).rows for name in suited):
        raise NotRecordedError(f"{trace.path}: {suited[0]} has no rows: expected at least one recorded step")
    samples = trace.table(suited[0]).column("activity_0").shape[2]
    raise NotRecordedError(
        f"{trace.path}: {suited[0]} has {samples} of {batch} samples of a mini-batch: "
        f"expected all, set samples = {batch}"
    )


def _refuse_without_targets(trace: TraceReader, names: Sequence[str], others: set[str]) -> None:
    """Refuse a trace whose probes have all other columns, but were written before targets were kept."""
    version = trace.attributes["schema_version"]
    if version < TARGETS_SINCE and any(others <= set(trace.table(name).columns) for name in names):
        raise NotRecordedError(
            f"{trace.path} has version {version} of the trace format, which keeps no targets: "
            f"expected version {TARGETS_SINCE}, run it again"
        )


@dataclass(frozen=True)
class _Recorded:
    """A probe's rows, the functions of the network, and those of its connections that are convolutions."""

    rows: _Rows
    functions: Functions
    convolutions: Mapping[int, Convolution]

    def products(self, row: int) -> Floats:
        """Return ‖ΔW_l‖², ‖∇‖² and their inner product for each connection in one training step, (L, 3)."""
        activities, drives = self._forward(row)
        target = self.rows.read(f"target_{self.functions.top}", row)
        sensitivity = target - self.functions.answer(activities[-1])
        found = np.zeros((self.functions.top, 3))
        for layer in reversed(range(self.functions.top)):
            through = self._through_windows if layer in self.convolutions else self._through_matrix
            rates = self.functions.activate(layer, activities[layer])
            found[layer], back = through(layer, row, sensitivity, rates, drives.get(layer))
            sensitivity = self.functions.slope(layer, activities[layer]) * back
        return found

    def _through_matrix(
        self, layer: int, row: int, sensitivity: Array, rates: Array, _: Array | None
    ) -> tuple[Floats, Array]:
        """Return the products of a dense connection and the sensitivity of f(ĥ_l)."""
        found, back = np.zeros(3), np.zeros_like(rates)
        for part, weight, update in self._before(layer, row):
            gradient = sensitivity[:, part].T @ rates / len(rates)
            found += _products(update, gradient)
            back += sensitivity[:, part] @ weight
        return found, back

    def _through_windows(
        self, layer: int, row: int, sensitivity: Array, rates: Array, drive: Array | None
    ) -> tuple[Floats, Array]:
        """Return the products of a convolution and the sensitivity of what it reads."""
        assert drive is not None
        convolution, (weight, update) = self.convolutions[layer], self._kernels(layer, row)
        delta = convolution.back(sensitivity, drive)
        gradient = convolution.gradient(delta, rates, weight.shape[-1])
        return _products(update, gradient), convolution.below(delta, weight)

    def _forward(self, row: int) -> tuple[list[Array], dict[int, Array]]:
        """Return ĥ_0 and p_1, …, p_L of a plain forward pass before the step; z of each convolution."""
        clamped = self.rows.shape("activity_0")[0] - 1  # the last iteration: by then it is, in any order
        activities, drives = [self.rows.read("activity_0", row, clamped)], {}
        for layer in range(self.functions.top):
            rates = self.functions.activate(layer, activities[layer])
            bias = self.rows.read(f"bias_{layer}", row) - self.rows.read(f"bias_update_{layer}", row)
            if layer in self.convolutions:
                convolution = self.convolutions[layer]
                drives[layer] = convolution.drive(rates, self._kernels(layer, row)[0], bias)
                activities.append(convolution.prediction(drives[layer]))
                continue
            parts = [rates @ weight.T for _, weight, _ in self._before(layer, row)]
            activities.append(np.concatenate(parts, axis=1) + bias)
        return activities, drives

    def _kernels(self, layer: int, row: int) -> tuple[Array, Array]:
        """Return the weight of a convolution before the step, and its update."""
        update = self.rows.read(f"update_{layer}", row)
        return self.rows.read(f"weight_{layer}", row) - update, update

    def _before(self, layer: int, row: int) -> Iterator[tuple[slice, Array, Array]]:
        """Yield rows of the weight before the step, with its update: which target neurons, W, ΔW."""
        weight, update = f"weight_{layer}", f"update_{layer}"
        targets, sources = self.rows.shape(weight)
        for (part,) in pieces((targets,), 8 * sources):
            change = self.rows.read(update, row, part)
            yield part, self.rows.read(weight, row, part) - change, change


def _products(update: Array, gradient: Array) -> Floats:
    """Return ‖update‖², ‖gradient‖² and their inner product."""
    pairs = (update, update), (gradient, gradient), (update, gradient)
    return np.array([np.vdot(one, other) for one, other in pairs], dtype=np.float64)


class _Rows:
    """Rows of a table's columns; small ones are read many at a time."""

    def __init__(self, table: TableReader, names: Sequence[str]) -> None:
        self.table = table
        self._shapes = {name: table.column(name).shape[1:] for name in names}
        self._many = BLOCK_BYTES // max(1, 8 * sum(map(math.prod, self._shapes.values())))
        self._first, self._window = 0, dict[str, Array]()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a row."""
        return self._shapes[name]

    def read(self, name: str, row: int, part: slice | int = slice(None)) -> Floats:
        """Return a part of a row."""
        if self._many < 2:
            return self.table.column(name)[row, part].astype(np.float64)
        first = row // self._many * self._many
        if first != self._first:
            self._first, self._window = first, {}
        if name not in self._window:
            self._window[name] = self.table.read(name, slice(first, first + self._many))
        return np.asarray(self._window[name][row - first, part], dtype=np.float64)
