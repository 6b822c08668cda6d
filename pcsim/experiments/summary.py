"""What a run came to, in the numbers that a table or a script shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pcsim.engine.distributed.plan import Share
from pcsim.engine.totals import Totals
from pcsim.experiments.task import EngineName, Task
from pcsim.experiments.totals import UNCOUNTED
from pcsim.training.loop import Epoch


@dataclass(frozen=True)
class RunSummary:
    """What a run came to.

    Attributes:
        name: of the experiment.
        order: of its schedule.
        iterations: T.
        engine: which ran it.
        epochs: done.
        training_steps: mini-batches done.
        test_accuracy: after the last epoch; None without classes or without epochs.
        test_loss: after the last epoch; None without epochs.
        messages: sent in training.
        values: numbers in them, zeros included.
        nonzero_values: numbers in them that an event-driven link would carry; None on the fast engine.
        multiplications: in products with weights, in training.
        simulated_time: of all mini-batches, one after the other, in the hardware's time units; None on the
            fast engine where messages have jitter.
        seconds: of wall-clock time.
        trace: path of the trace; None if none was written.
        validation_accuracy: as test_accuracy; None also without a validation set.
        validation_loss: as test_loss; None also without a validation set.
        bytes: of the messages.
        time_unit: of simulated_time: "ns" of a machine with prices in time, else "".
        lost: messages that did not arrive, or that a dead core did not send.
        shares: what each process of a distributed run did with its time.
        curve: what each epoch came to, those before a resumption included.
    """

    name: str
    order: str
    iterations: int
    engine: EngineName
    epochs: int
    training_steps: int
    test_accuracy: float | None
    test_loss: float | None
    messages: int
    values: int
    nonzero_values: int | None
    multiplications: int
    simulated_time: float | None
    seconds: float
    trace: str | None
    validation_accuracy: float | None = None
    validation_loss: float | None = None
    bytes: int = 0
    time_unit: str = ""
    lost: int = 0
    shares: tuple[Share, ...] = ()
    curve: tuple[Epoch, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary fit for JSON."""
        curve = [{name: _known(value) for name, value in asdict(epoch).items()} for epoch in self.curve]
        return asdict(self) | {"curve": curve}


NO_EPOCH = Epoch(0, 0, math.nan, math.nan, math.nan, 0.0)


def summarise(
    task: Task, epochs: Sequence[Epoch], totals: Totals, trace: str | None, shares: Sequence[Share]
) -> RunSummary:
    """Return the summary of a run after its epochs."""
    last = epochs[-1] if epochs else NO_EPOCH
    return RunSummary(
        name=task.experiment.name,
        order=task.order,
        iterations=task.iterations,
        engine=task.engine,
        epochs=last.epoch,
        training_steps=last.training_steps,
        test_accuracy=_known(last.test_accuracy),
        test_loss=_known(last.test_loss),
        messages=totals.messages,
        values=totals.values,
        nonzero_values=None if totals.nonzero_values == UNCOUNTED else totals.nonzero_values,
        multiplications=totals.multiplications,
        simulated_time=_known(totals.simulated_time),
        seconds=last.seconds,
        trace=trace,
        validation_accuracy=_known(last.validation_accuracy),
        validation_loss=_known(last.validation_loss),
        bytes=totals.bytes,
        time_unit=task.experiment.hardware.unit,
        lost=totals.lost + totals.unsent,
        shares=tuple(shares),
        curve=tuple(epochs),
    )


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number
