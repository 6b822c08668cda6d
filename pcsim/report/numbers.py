"""The numbers behind the pictures: what `pcsim.analysis` finds, thinned to what can be drawn."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from pcsim.analysis import backprop_angles, error_norms, event_counts, free_energy, update_magnitudes
from pcsim.analysis.stream import NotRecordedError, Progress, is_backprop
from pcsim.errors import TraceError
from pcsim.report.runs import read_run, rows_of
from pcsim.tracing.reader import TraceReader
from pcsim.tracing.table_reader import TableReader

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOST_STEPS = 1000  # recorded training steps that are drawn


@dataclass(frozen=True)
class Numbers:
    """What all numbers of a picture have in common."""

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary fit for JSON; numbers that are not finite become None."""
        return {name: plain(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class ErrorFlow(Numbers):
    """Error norms.

    Attributes:
        steps: recorded training steps that were read, (S,).
        iterations: inference iterations done, (T + 1,).
        layers: 1, …, L.
        norms: root of the batch mean of ‖e_l‖², (S, T + 1, L).
        front: first iteration with an error at each layer in any recorded step, −1 if none, (L,).
        recorded: training steps in the trace; more than S if they were thinned.
    """

    steps: Ints
    iterations: Ints
    layers: Ints
    norms: Floats
    front: Ints
    recorded: int


@dataclass(frozen=True)
class Energy(Numbers):
    """Free energy of the whole network over the iterations.

    Attributes:
        iterations: inference iterations done, (T + 1,).
        lower, median, upper: quartiles over the training steps that were read, (T + 1,) each.
        left_lower, left, left_upper: likewise of what is left of the energy at iteration 0, as a share.
        steps: how many were read.
        recorded: how many the trace holds.
    """

    iterations: Ints
    lower: Floats
    median: Floats
    upper: Floats
    left_lower: Floats
    left: Floats
    left_upper: Floats
    steps: int
    recorded: int


@dataclass(frozen=True)
class Updates(Numbers):
    """Update magnitudes.

    Attributes:
        steps: recorded training steps that were read, (S,).
        connections: 0, …, L − 1.
        magnitudes: mean of |ΔW_l| and |Δb_l|, (S, L).
        recorded: training steps in the trace.
    """

    steps: Ints
    connections: Ints
    magnitudes: Floats
    recorded: int


@dataclass(frozen=True)
class Angles(Numbers):
    """Weight updates against backprop's.

    Attributes:
        steps: recorded training steps that were read, (S,).
        connections: 0, …, L − 1.
        angles: between ΔW_l and backprop's step, degrees, NaN where one of them is zero, (S, L).
        ratios: length of the one by that of the other, (S, L).
        recorded: training steps that the probe has.
    """

    steps: Ints
    connections: Ints
    angles: Floats
    ratios: Floats
    recorded: int


@dataclass(frozen=True)
class Learning(Numbers):
    """Learning curves of one run: after each epoch.

    Attributes:
        epochs: 1, 2, …, (E,).
        test_accuracy: 0 to 1, (E,); None without classes.
        test_loss: half the squared distance to the target, test mean, (E,).
    """

    epochs: Ints
    test_accuracy: Floats | None
    test_loss: Floats


@dataclass(frozen=True)
class Timeline(Numbers):
    """The operations and messages of one training step, in order of their start.

    Attributes:
        step: which.
        names: what each is.
        messages: whether it is a message, else an operation, (N,).
        layer: who acts or sends, (N,).
        target: who receives; −1 for an operation, (N,).
        start, end: in the hardware's time units, (N,).
        values, nonzero_values, bytes: of messages, (N,).
        fates: what became of each message, as `pcsim.analysis.messages.FATES`; of an operation "unsent" where
            its core was too dead to send what it says, else "none".
        events: in that training step; more than N if the rest was cut off.
        total_layers: of the network.
        unit: of start and end, "ns" or none.
    """

    step: int
    names: tuple[str, ...]
    messages: npt.NDArray[np.bool_]
    layer: Ints
    target: Ints
    start: Floats
    end: Floats
    values: Ints
    nonzero_values: Ints
    bytes: Ints
    fates: tuple[str, ...]
    events: int
    total_layers: int
    unit: str

    def times(self) -> tuple[object, ...]:
        """Return who does what when: the same where only the numbers in messages differ."""
        arrays = self.layer, self.target, self.start, self.end
        return self.names, self.fates, self.events, *(one.tobytes() for one in arrays)


@dataclass(frozen=True)
class Traffic(Numbers):
    """What layers send each other in a training step, mean over all that were recorded.

    Attributes:
        steps: recorded training steps.
        bytes: [s, t] from layer s to layer t, (L + 1, L + 1); predictions if s < t, else errors.
        messages: how many, likewise.
    """

    steps: int
    bytes: Floats
    messages: Floats


def read_error_flow(
    trace: TraceReader, most: int = MOST_STEPS, progress: Progress | None = None
) -> ErrorFlow:
    """Read error norms, of at most so many recorded training steps, evenly chosen.

    Raises:
        TraceError: nothing was recorded, or the file is damaged.
    """
    found = error_norms(trace, progress=progress)
    chosen = evenly(found.sizes["step"], most)
    return ErrorFlow(
        found["step"].values[chosen],
        found["iteration"].values,
        found["layer"].values,
        found["error_norm"].values[chosen],
        found["front_earliest"].values,
        int(found.attrs["recorded_steps"]),
    )


def read_energy(trace: TraceReader, progress: Progress | None = None) -> Energy:
    """Read the free energy and its quartiles over the recorded training steps, those not finite left out.

    Raises:
        TraceError: nothing was recorded, or the file is damaged.
    """
    found = free_energy(trace, progress=progress)
    energies = found["total"].values
    energies = energies[np.isfinite(energies).all(axis=1)]
    if not len(energies):
        raise NotRecordedError(f"{trace.path} has no finite free energy: expected one in 'summary'")
    begin = energies[:, :1]
    left = np.divide(energies, begin, out=np.ones_like(energies), where=begin != 0)
    low, middle, high = np.quantile(np.stack([energies, left]), (0.25, 0.5, 0.75), axis=1)
    return Energy(
        found["iteration"].values,
        lower=low[0],
        median=middle[0],
        upper=high[0],
        left_lower=low[1],
        left=middle[1],
        left_upper=high[1],
        steps=len(energies),
        recorded=int(found.attrs["recorded_steps"]),
    )


def read_updates(trace: TraceReader, most: int = MOST_STEPS, progress: Progress | None = None) -> Updates:
    """Read update magnitudes of at most so many recorded training steps, evenly chosen.

    Raises:
        TraceError: nothing was recorded, or the file is damaged.
    """
    found = update_magnitudes(trace, progress=progress)
    chosen = evenly(found.sizes["step"], most)
    return Updates(
        found["step"].values[chosen],
        found["connection"].values,
        found["update_magnitude"].values[chosen],
        int(found.attrs["recorded_steps"]),
    )


def read_angles(trace: TraceReader, most: int = MOST_STEPS, progress: Progress | None = None) -> Angles:
    """Read angles and lengths of updates of at most so many recorded training steps, evenly chosen.

    Raises:
        TraceError: no probe has what it takes, or the file is damaged.
    """
    found = backprop_angles(trace, progress=progress)
    chosen = evenly(found.sizes["step"], most)
    return Angles(
        found["step"].values[chosen],
        found["connection"].values,
        found["angle"].values[chosen],
        found["length_ratio"].values[chosen],
        int(found.attrs["recorded_steps"]),
    )


def read_learning(trace: TraceReader) -> Learning:
    """Read the learning curve.

    Raises:
        TraceError: no epoch was finished, or the file is damaged.
    """
    if not rows_of(trace, "learning"):
        raise TraceError(
            f"{trace.path} has no finished epoch: expected at least one in 'learning'; train for longer"
        )
    table = trace.table("learning")
    accuracy = np.asarray(table.read("test_accuracy"), dtype=float)
    return Learning(
        np.asarray(table.coordinate("epoch")),
        accuracy if (accuracy >= 0).all() else None,
        np.asarray(table.read("test_loss"), dtype=float),
    )


def read_timeline(trace: TraceReader, step: int | None = None, most: int = 20_000) -> Timeline:
    """Read what happened in one recorded training step, or the first so many events of it.

    Args:
        trace: of the event engine.
        step: training step; the first recorded one if not given.
        most: events to read.

    Raises:
        TraceError: no events were recorded, not that step, or the file is damaged.
    """
    table = _events(trace)
    steps = cast("Sequence[int]", table.column("step"))  # sorted, and read where bisection looks
    step = int(steps[0]) if step is None else step
    first, behind = bisect_left(steps, step), bisect_left(steps, step + 1)
    if first == behind:
        raise TraceError(f"{trace.path} has no events of training step {step}: expected a recorded step")
    rows = slice(first, min(behind, first + most))
    columns = {name: table.read(name, rows) for name in _TIMELINE}
    order = np.lexsort((columns["end"], columns["start"]))
    names, messages = table.decode("name", rows)[order], table.decode("kind", rows)[order] == "message"
    seen = max(columns["layer"].max(), columns["target"].max())
    if "fate" in table.columns:
        fates = table.decode("fate", rows)[order]
    else:  # versions 1 and 2
        fates = np.where(messages, "arrives", "none")
    run = read_run(trace)
    return Timeline(
        step=step,
        names=tuple(str(name) for name in names),
        messages=messages,
        **{name: values[order] for name, values in columns.items()},
        fates=tuple(str(fate) for fate in fates),
        events=behind - first,
        total_layers=max(len(run.sizes), int(seen) + 1),
        unit=run.time_unit,
    )


_TIMELINE = ("layer", "target", "start", "end", "values", "nonzero_values", "bytes")


def read_traffic(trace: TraceReader, progress: Progress | None = None) -> Traffic:
    """Read what each link carries a training step.

    Raises:
        TraceError: no events were recorded, or the file is damaged.
    """
    _events(trace)
    found = event_counts(trace, progress=progress)
    steps, seen = int(found.attrs["recorded_steps"]), found.sizes["source"]
    more = max(0, len(read_run(trace).sizes) - seen)  # layers that have never sent anything
    sums, counts = (
        np.pad(found[name].values.astype(float), (0, more)) for name in ("link_bytes", "link_messages")
    )
    return Traffic(steps, sums / steps, counts / steps)


def evenly(number: int, most: int) -> Ints:
    """Return indices of at most `most` of so many things, first and last among them."""
    return np.unique(np.linspace(0, number - 1, max(1, min(most, number))).round().astype(np.int64))


def plain(value: object) -> object:
    """Return arrays as lists and what is not finite as None: fit for JSON."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _events(trace: TraceReader) -> TableReader:
    """Return the events, of which there is at least one.

    Raises:
        TraceError: there is none.
    """
    if not rows_of(trace, "events"):
        if is_backprop(trace):
            raise TraceError(f"{trace.path} has no events: backprop sends no messages")
        raise TraceError(
            f"{trace.path} has no events: expected some in 'events'; "
            "run with --engine event and trace.events = true"
        )
    return trace.table("events")
