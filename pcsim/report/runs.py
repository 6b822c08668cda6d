"""What a trace says about the run that wrote it: the facts of a report's table, and its name in pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pcsim.times import unit_of
from pcsim.tracing.provenance import NAME, in_short
from pcsim.tracing.reader import TraceReader
from pcsim.tracing.settings import unusual
from pcsim.tracing.table_reader import TableReader


@dataclass(frozen=True)
class Run:
    """The facts about a run; None where the trace does not tell.

    Attributes:
        path: of the trace.
        name: of the experiment.
        order: of the schedule.
        iterations: T.
        engine: fast or event.
        rule: learning rule with its constants.
        seed: of initial weights and shuffling.
        sizes: neurons of each layer, from input to output.
        batch: samples a mini-batch.
        data: name of the data set.
        state: of the trace; `running` also if the run was killed.
        recorded: training steps in the summary.
        events: operations and messages in the timeline.
        epochs: done.
        training_steps: done at the end of the last whole epoch.
        test_accuracy: after the last whole epoch, 0 to 1.
        test_loss: after the last whole epoch.
        messages: sent up to then.
        values: numbers in them.
        nonzero_values: of these, not zero.
        multiplications: in products with weights.
        simulated_time: in the hardware's time units.
        time_unit: of these: "ns" of a machine with prices in time, else "".
        seconds: of wall-clock time.
        kernels: who did the arithmetic.
        computed_by: what its last bits depend on, in words by name.
        created: start of the run, ISO 8601.
        pcsim_version: that wrote the trace.
        schema_version: of the trace.
        experiment: what decides the numbers.
        settings: of messages, states, faults and hardware that are not the defaults, in words by section.
    """

    path: str
    name: str | None
    order: str | None
    iterations: int | None
    engine: str | None
    rule: str | None
    seed: int | None
    sizes: tuple[int, ...]
    batch: int | None
    data: str | None
    state: str
    recorded: int
    events: int
    epochs: int | None
    training_steps: int | None
    test_accuracy: float | None
    test_loss: float | None
    messages: int | None
    values: int | None
    nonzero_values: int | None
    multiplications: int | None
    simulated_time: float | None
    time_unit: str
    seconds: float | None
    kernels: str | None
    computed_by: dict[str, str]
    created: str | None
    pcsim_version: str | None
    schema_version: int | None
    experiment: dict[str, Any]
    settings: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary fit for JSON."""
        return asdict(self)

    @property
    def title(self) -> str:
        """Order and T: what a picture calls the run, if no other has them too."""
        if self.backprop:
            return "backprop"
        return f"{self.order or '?'}, T = {'?' if self.iterations is None else self.iterations}"

    @property
    def backprop(self) -> bool:
        """Whether it is of the backprop baseline: no iterations, no messages."""
        return self.order == "backprop"

    def family(self) -> str:
        """Return what runs have in common that differ only in their seed; the path if that is not known."""
        if not self.experiment:
            return self.path
        training = {k: v for k, v in _mapping(self.experiment.get("training")).items() if k != "seed"}
        return json.dumps([self.engine, self.experiment | {"training": training}], sort_keys=True)


def read_run(trace: TraceReader) -> Run:
    """Return what a trace says about its run.

    Raises:
        TraceError: the file is damaged.
    """
    given = trace.attributes
    experiment = _mapping(given.get("experiment"))
    last = _last_epoch(trace)
    return Run(
        path=str(trace.path),
        name=_text(given.get("name")),
        order=_text(given.get("order")),
        iterations=_whole(given.get("iterations")),
        engine=_text(given.get("engine")),
        rule=_text(experiment.get("learning")),
        seed=_whole(given.get("seed")),
        sizes=_sizes(given.get("layers")),
        batch=_whole(given.get("batch")),
        data=_text(experiment.get("data")),
        state=trace.state,
        recorded=rows_of(trace, "summary"),
        events=rows_of(trace, "events"),
        kernels=_text(given.get("kernels")),
        computed_by=in_short(given.get(NAME)),
        created=_text(given.get("created")),
        pcsim_version=_text(given.get("pcsim_version")),
        schema_version=_whole(given.get("schema_version")),
        experiment=experiment,
        settings=unusual(given),
        epochs=_count(last.get("epoch")),
        training_steps=_count(last.get("training_steps")),
        test_accuracy=_not_negative(last.get("test_accuracy")),
        test_loss=_not_negative(last.get("test_loss")),
        messages=_count(last.get("messages")),
        values=_count(last.get("values")),
        nonzero_values=_count(last.get("nonzero_values")),
        multiplications=_count(last.get("multiplications")),
        simulated_time=_not_negative(last.get("simulated_time")),
        time_unit=unit_of(given),
        seconds=_not_negative(last.get("seconds")),
    )


def labels(runs: Sequence[Run]) -> list[str]:
    """Return a name for each run that no other has: order and T, and what else tells them apart."""
    names = [run.title for run in runs]
    facts = (
        [(run.rule or "?").partition("(")[0] for run in runs],
        [run.rule or "?" for run in runs],
        ["-".join(map(str, run.sizes)) for run in runs],
        [f"{run.engine} engine" for run in runs],
        [f"seed {run.seed}" for run in runs],
        [run.name or "?" for run in runs],
        [run.path for run in runs],
    )
    for fact in facts:
        for name in set(names):
            same = [index for index, other in enumerate(names) if other == name]
            if len({fact[index] for index in same}) > 1:
                for index in same:
                    names[index] = f"{name}, {fact[index]}"
    return [f"{name} ({names[:index].count(name) + 1})" if names.count(name) > 1 else name
            for index, name in enumerate(names)]  # fmt: skip


def rows_of(trace: TraceReader, table: str) -> int:
    """Return how many rows a table has; 0 if there is none."""
    return trace.table(table).rows if table in trace.tables else 0


def _last_epoch(trace: TraceReader) -> dict[str, Any]:
    if not rows_of(trace, "learning"):
        return {}
    table: TableReader = trace.table("learning")
    return {name: table.read(name, slice(table.rows - 1, table.rows))[0].item() for name in table.columns}


def _mapping(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def _not_negative(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and value >= 0 else None


def _sizes(value: object) -> tuple[int, ...]:
    whole = isinstance(value, list) and all(isinstance(size, int) and size > 0 for size in value)
    return tuple(value) if whole and isinstance(value, list) else ()
