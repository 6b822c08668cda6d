"""A run under way: trains epoch by epoch, records, keeps checkpoints, and tells how far it has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pcsim.engine.event import EventEngine
from pcsim.errors import NonFiniteError
from pcsim.experiments.checkpoint import Bookmark
from pcsim.experiments.engines import Setup
from pcsim.experiments.recording import epoch_row
from pcsim.experiments.summary import RunSummary, summarise
from pcsim.experiments.task import Task
from pcsim.tracing.interrupts import remembered
from pcsim.tracing.writer import TraceWriter
from pcsim.training.loop import Epoch, Position, train


class Progress(Protocol):
    """Who wants to know how far a run has come."""

    def begin(self, label: str, steps: int) -> None:
        """Learn that a run of so many training steps begins."""
        ...

    def step(self) -> None:
        """Learn that one training step is done."""
        ...

    def epoch(self, epoch: Epoch) -> None:
        """Learn how an epoch went."""
        ...


@dataclass(frozen=True)
class Session:
    """What a run has at hand.

    Attributes:
        task: what it was asked to do.
        setup: the engine, and who looks on.
        writer: the open trace; None if none is written.
        bookmark: where its checkpoints are, and where it goes on.
        progress: is told how far it has come.
    """

    task: Task
    setup: Setup
    writer: TraceWriter | None
    bookmark: Bookmark
    progress: Progress | None

    def train(self, until: int) -> RunSummary:
        """Train from where the bookmark lies to the end of an epoch.

        Raises:
            CheckpointError: a checkpoint that does not fit, or cannot be written.
            NonFiniteError: activities or energy became infinite or NaN; the summary has a last row.
        """
        experiment, setup = self.task.experiment, self.setup
        start = self.bookmark.restore(setup.engine)
        self._tell_beginning(until)

        def after_step(step: int) -> None:
            self._after_step()
            check_interrupt()

        try:
            with remembered() as check_interrupt:
                epochs = train(
                    experiment.network,
                    experiment.dataset,
                    setup.engine,
                    setup.statistics,
                    batch=experiment.batch,
                    epochs=until,
                    seed=experiment.seed,
                    shuffle=experiment.shuffle,
                    after_step=after_step,
                    after_epoch=self._after_epoch,
                    start=start,
                )
        except NonFiniteError:
            if setup.recorder is not None:
                setup.recorder.record_summary()
            raise
        return self._summary(epochs)

    def _tell_beginning(self, until: int) -> None:
        if self.progress is not None:
            steps = self.task.experiment.training_steps_until(until) - self.bookmark.training_steps
            self.progress.begin(f"{self.task.experiment.name} {self.task.order}", max(steps, 0))

    def _after_step(self) -> None:
        engine, recorder, events = self.setup.engine, self.setup.recorder, self.task.experiment.events
        if recorder is not None and recorder.active and events and isinstance(engine, EventEngine):
            recorder.record_timeline(engine.timeline)
        if self.progress is not None:
            self.progress.step()

    def _after_epoch(self, position: Position) -> None:
        epoch, recorder = position.epochs[-1], self.setup.recorder
        if recorder is not None:
            totals = self.setup.totals(epoch.training_steps)
            recorder.record_epoch(**epoch_row(self.task.experiment, epoch, totals))
        if self.writer is not None and self.bookmark.folder is not None:
            self.writer.flush()  # the trace must never be behind the checkpoint
        self.bookmark.save(self.setup.engine, position)
        if self.progress is not None:
            self.progress.epoch(epoch)

    def _summary(self, epochs: Sequence[Epoch]) -> RunSummary:
        trace = None if self.writer is None else str(self.writer.path)
        totals = self.setup.totals(epochs[-1].training_steps if epochs else 0)
        return summarise(self.task, epochs, totals, trace, self.setup.shares())
