"""The study of messages: real runs with thresholds, number formats and faults, a row each.

Rows are appended to a file of JSON lines as runs end, so that a study that was interrupted goes on where it
was. A row is found again by what was run: the whole model with its settings, and the engine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pcsim.config import ModelConfig, load_model
from pcsim.errors import ConfigurationError, NonFiniteError
from pcsim.experiments.experiment import Experiment, build_channels
from pcsim.experiments.run import run
from pcsim.experiments.task import EngineName
from pcsim.kernels import Kernels
from pcsim.schedule.channel import IN_TIME
from pcsim.training.loop import check_fit

FILE = "runs.jsonl"
DEAD_LAYER = 1


@dataclass(frozen=True)
class Axis:
    """One thing that a study varies.

    Attributes:
        name: of the option.
        title: of the picture's horizontal axis.
        keys: of the model file that take the value; of two values "a/b" each takes its own.
    """

    name: str
    title: str
    keys: tuple[str, ...]


AXES = {
    axis.name: axis
    for axis in (
        Axis(
            "threshold",
            "entries sent, of those of dense messages",
            ("messages.threshold", "messages.error_threshold"),
        ),
        Axis("format", "bits a value", ("messages.format", "messages.error_format")),
        Axis("state", "format of activities", ("states.format",)),
        Axis("loss", "probability of loss", ("faults.loss",)),
        Axis("duplication", "probability of duplication", ("faults.duplication",)),
        Axis("delay", "probability of delay", ("faults.delay",)),
        Axis("reorder", "probability of being overtaken", ("faults.reorder",)),
        Axis("dead", "share of a dead core's lines", ("faults.dead_share",)),
    )
}


@dataclass(frozen=True)
class Point:
    """One run of a study.

    Attributes:
        axis: what is varied.
        value: of it, as given: "0.01", "Q4.11", "0.02/0.0001"; "none" for the model without it.
        order: of the schedule.
        seed: of weights, sample order, rounding and faults.
    """

    axis: str
    value: str
    order: str
    seed: int

    def overrides(self) -> list[str]:
        """Return what the run changes in the model file.

        Raises:
            ConfigurationError: more values than the axis has.
        """
        seeds = [f"{section}.seed={self.seed}" for section in ("training", "messages", "states", "faults")]
        found = [f"schedule.order={self.order}", *seeds]
        if self.value == "none":
            return found
        keys, parts = AXES[self.axis].keys, self.value.split("/")
        if len(parts) > len(keys):
            raise ConfigurationError(
                f"--{self.axis} {self.value}: expected {len(keys)} value{'s' if len(keys) > 1 else ''}, "
                f"for {' and '.join(keys)}"
            )
        found += [f"{key}={part}" for key, part in zip(keys, parts, strict=False)]
        if self.axis == "dead":
            found.append(f"faults.dead_layer={DEAD_LAYER}")
        return found


@dataclass(frozen=True)
class Row:
    """What one run came to.

    Attributes:
        axis: see `Point`.
        value: see `Point`.
        order: see `Point`.
        seed: see `Point`.
        engine: that ran it.
        test_accuracy: after the last epoch, in full precision; None if the run diverged.
        diverged_at: training step at which activities or energy were not finite; None if they always were.
        messages: sent.
        values: numbers in them, had all entries been sent.
        nonzero_values: entries sent if there is a threshold, else values that are not zero; None if nobody
            has looked.
        bytes: sent.
        lost: messages that did not arrive.
        training_steps: done.
        seconds: of wall-clock time.
        run: fingerprint of the whole model and the engine.
    """

    axis: str
    value: str
    order: str
    seed: int
    engine: EngineName
    test_accuracy: float | None
    diverged_at: int | None
    messages: int
    values: int
    nonzero_values: int | None
    bytes: int
    lost: int
    training_steps: int
    seconds: float
    run: str

    @property
    def share(self) -> float | None:
        """Entries sent, or values that are not zero, by all; None if nobody has looked."""
        return self.nonzero_values / self.values if self.nonzero_values is not None and self.values else None

    @property
    def bits_a_value(self) -> float | None:
        """Bits sent for each value of a dense message, mean over predictions and errors."""
        return 8 * self.bytes / self.values if self.values else None


@dataclass(frozen=True)
class Summary:
    """The runs of one point, over all seeds.

    Attributes:
        axis: see `Point`.
        value: see `Point`.
        order: see `Point`.
        accuracies: of the runs that did not diverge.
        diverged: how many did.
        share: mean of `Row.share` over the others; None if not known.
        bits_a_value: mean of `Row.bits_a_value` over the others.
        lost: messages lost, mean over the others.
    """

    axis: str
    value: str
    order: str
    accuracies: tuple[float, ...]
    diverged: int
    share: float | None
    bits_a_value: float | None
    lost: float

    @property
    def accuracy(self) -> float | None:
        """Mean over the runs that did not diverge."""
        return float(np.mean(self.accuracies)) if self.accuracies else None


def points(values: Mapping[str, Sequence[str]], orders: Sequence[str], seeds: int) -> list[Point]:
    """Return the runs of a study, axis by axis; each axis begins with the model as it is."""
    return [
        Point(axis, value, order, seed)
        for axis, given in values.items()
        if given
        for value in dict.fromkeys(("none", *given))
        for order in orders
        for seed in range(seeds)
    ]


@dataclass(frozen=True)
class Plan:
    """A study that could begin.

    Attributes:
        runs: what is varied, and the model with it.
        folder: where rows are kept; nowhere if None.
        kept: rows that the folder has, by fingerprint.
    """

    runs: tuple[tuple[Point, ModelConfig], ...]
    folder: Path | None
    kept: Mapping[str, Row]


def plan_study(
    model: Path, chosen: Sequence[Point], overrides: Sequence[str], folder: Path | None = None
) -> Plan:
    """Look whether all runs can be done, and which are done already.

    Args:
        model: the model file.
        chosen: the runs, at least one.
        overrides: of the model, for all runs.
        folder: where rows are kept; nowhere if not given.

    Raises:
        ConfigurationError: a value that cannot be, data that are not there, or a folder of something else.
        ShapeError: data and network do not fit.
    """
    runs = [(point, load_model(model, [*overrides, *point.overrides()])) for point in chosen]
    first = Experiment.from_model(runs[0][1])
    check_fit(first.network, first.dataset, first.batch)
    for _, settings in runs:
        build_channels(settings.messages, settings.states, settings.faults).check(first.network)
    return Plan(tuple(runs), folder, {row.run: row for row in _kept(folder)} if folder else {})


def study(plan: Plan, kernels: Kernels, advance: Callable[[], None] = lambda: None) -> list[Row]:
    """Do all runs, but for those that are kept already, and return their rows.

    Args:
        plan: the runs.
        kernels: who does the arithmetic.
        advance: called after each run.

    Raises:
        ConfigurationError: the folder cannot be written.
    """
    folder, kept, rows = plan.folder, dict(plan.kept), []
    for point, settings in plan.runs:
        engine = engine_for(settings)
        name = fingerprint(settings, engine)
        if name not in kept:
            kept[name] = _train(point, settings, engine, name, kernels)
            if folder is not None:
                _append(folder / FILE, kept[name])
        found = asdict(kept[name]) | asdict(point)  # the run without anything belongs to all axes
        rows.append(Row(**found))
        advance()
    return rows


def summaries(rows: Sequence[Row]) -> list[Summary]:
    """Bring the seeds of each point together."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.axis, row.value, row.order), []).append(row)
    return [_summary(*key, group) for key, group in found.items()]


def engine_for(model: ModelConfig) -> EngineName:
    """Return the fast engine where it can run a model, else the event engine; they give the same bits."""
    timed = any(getattr(model.faults, name) for name in IN_TIME)
    return "event" if timed or model.schedule.order == "asynchronous" else "fast"


def fingerprint(model: ModelConfig, engine: str) -> str:
    """Return what tells runs apart: everything that decides the numbers."""
    described = {
        k: v for k, v in model.to_dict().items() if k not in ("trace", "probe", "description", "name")
    }
    return hashlib.sha256(json.dumps([described, engine], sort_keys=True).encode()).hexdigest()[:16]


def _summary(axis: str, value: str, order: str, group: Sequence[Row]) -> Summary:
    good = [row for row in group if row.test_accuracy is not None]
    shares = [row.share for row in good if row.share is not None]
    bits = [row.bits_a_value for row in good if row.bits_a_value is not None]
    return Summary(
        axis,
        value,
        order,
        tuple(row.test_accuracy for row in good if row.test_accuracy is not None),
        len(group) - len(good),
        float(np.mean(shares)) if shares else None,
        float(np.mean(bits)) if bits else None,
        float(np.mean([row.lost for row in good])) if good else 0.0,
    )


def _train(point: Point, model: ModelConfig, engine: EngineName, name: str, kernels: Kernels) -> Row:
    """Do one run; that it diverges is a result too."""
    experiment = Experiment.from_model(model)
    where: dict[str, Any] = asdict(point) | {"engine": engine, "run": name}
    try:
        done = run(experiment, engine=engine, kernels=kernels)
    except NonFiniteError as error:
        nothing: dict[str, Any] = dict.fromkeys(("messages", "values", "bytes", "lost", "seconds"), 0)
        nothing |= {"test_accuracy": None, "nonzero_values": None}
        return Row(**where, **nothing, diverged_at=error.step, training_steps=error.step)
    if done.test_accuracy is None:
        raise ConfigurationError(f"model {model.name} has no test accuracy: expected classes and an epoch")
    names = ("test_accuracy", "messages", "values", "nonzero_values", "bytes", "lost", "training_steps")
    counted = {one: getattr(done, one) for one in names}
    return Row(**where, **counted, diverged_at=None, seconds=done.seconds)


def _kept(folder: Path) -> Iterator[Row]:
    """Yield the rows of earlier runs; a last line that was cut off is none."""
    path = folder / FILE
    if not path.exists():
        return
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}: expected a file of JSON lines") from error
    for number, line in enumerate(lines[:-1], start=1):
        try:
            yield Row(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise ConfigurationError(
                f"{path}, line {number} is no row of this study ({error}): give another folder with -o"
            ) from None


def _append(path: Path, row: Row) -> None:
    """Add a row to the file, in place of a last line that was cut off."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.read_bytes() if path.exists() else b""
        if whole and not whole.endswith(b"\n"):
            path.write_bytes(whole[: whole.rfind(b"\n") + 1])
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error
