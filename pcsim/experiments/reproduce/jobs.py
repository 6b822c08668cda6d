"""One run of a plan: where it lies, what it trains, and how far it has come."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pcsim.config import ModelConfig, load_model
from pcsim.config.sections import ScheduleConfig
from pcsim.errors import ConfigurationError, DataError
from pcsim.experiments.checkpoint import FILE as CHECKPOINT
from pcsim.experiments.experiment import build_rule, describe_rule
from pcsim.experiments.reproduce.plans import Algorithm, Task
from pcsim.experiments.sweep.settings import as_override
from pcsim.experiments.workers import TRACE
from pcsim.shipped import models_folder
from pcsim.tracing.reader import TraceReader, open_trace
from pcsim.training.dataset import Dataset
from pcsim.training.datasets.registry import KNOWN, data_root

State = Literal["missing", "unfinished", "finished", "other epochs", "other"]
MODELS = models_folder()
FAILURE = "failure.json"
SUBSET_SEED = 0


@dataclass(frozen=True)
class Place:
    """Where runs, model files and data lie, and how much of the data is taken.

    Attributes:
        runs: folder of all runs: TASK/ALGORITHM/seedN.
        models: folder of the model files.
        data_dir: folder with a folder for each data set; the usual place if None.
        subset: training samples that are taken; all if None.
    """

    runs: Path
    models: Path = MODELS
    data_dir: Path | None = None
    subset: int | None = None

    @property
    def words(self) -> str:
        """What to add to a title, so that nobody takes a part of the data for the whole."""
        return "" if self.subset is None else f" ({self.subset:,} training samples)"

    def folder(self, name: str) -> Path:
        """Return the folder of a task's runs, or of a target's results; those on a subset have their own."""
        return self.runs / (name if self.subset is None else f"{name}-subset-{self.subset}")

    def has(self, data: str) -> bool:
        """Whether there is a folder of this data set."""
        known = KNOWN.get(data)
        return known is None or any(one.exists() for one in known.places(None, data_root(self.data_dir)))


@dataclass(frozen=True)
class Job:
    """A run: one algorithm on one task with one seed."""

    place: Place
    task: Task
    algorithm: Algorithm
    seed: int
    epochs: int

    @property
    def name(self) -> str:
        """The run in a few words."""
        return f"{self.task.name} {self.algorithm.name} seed {self.seed}"

    @property
    def folder(self) -> Path:
        """Where its trace and its checkpoint lie."""
        return self.place.folder(self.task.name) / self.algorithm.name / f"seed{self.seed}"

    @property
    def trace(self) -> Path:
        """Its trace."""
        return self.folder / TRACE

    def model(self) -> ModelConfig:
        """Return the model file with this run's constants.

        Raises:
            ConfigurationError: the model file is missing or broken.
        """
        settings = [f"training.seed={self.seed}", f"training.epochs={self.epochs}"]
        if self.place.data_dir is not None:
            settings.append(as_override("data.directory", str(self.place.data_dir)))
        path = self.place.models / self.task.model
        if not path.exists():
            raise ConfigurationError(f"no model file {path}: expected pcsim's models/ folder; give --models")
        return load_model(path, [*self.algorithm.overrides, *settings])


@dataclass(frozen=True)
class Standing:
    """How far a run has come.

    Attributes:
        state: missing, unfinished (it can be resumed), finished (it has all epochs that are asked for), other
            epochs (it is not, and was begun with another number of epochs), or other: what lies there
            belongs to another run.
        epochs: done.
        why: of the last two.
    """

    state: State
    epochs: int = 0
    why: str = ""


def look(job: Job) -> Standing:
    """Say how far a run has come, by its trace.

    Raises:
        TraceError: the trace is damaged.
        ConfigurationError: the model file is missing or broken.
    """
    if not job.trace.exists():
        if (job.folder / CHECKPOINT).exists():
            return Standing("other", why=f"{job.folder} holds a checkpoint without its trace; remove it")
        return Standing("missing")
    with open_trace(job.trace) as trace:
        done = trace.table("learning").rows if "learning" in trace.tables else 0
        asked, found = expected(job), recorded(trace)
    for name, value in asked.items():
        if found.get(name) != value:
            why = f"{job.trace} is another run, its {name} is {found.get(name)}: expected {value}"
            return Standing("other", done, f"{why}; give another --runs folder")
    if done >= job.epochs:
        return Standing("finished", done)
    if found["epochs"] != job.epochs:
        why = f"{job.trace} is a run of {found['epochs']} epochs, {done} done, not of {job.epochs}"
        return Standing(
            "other epochs", done, f"{why}: give --epochs {found['epochs']}, or another --runs folder"
        )
    return Standing("unfinished", done)


def expected(job: Job) -> dict[str, Any]:
    """Return what the trace of this run says of itself, as far as it is known without the data."""
    model = job.model()
    return {
        "engine": job.algorithm.engine,
        "layers": list(model.network.architecture.sizes),
        "schedule": model.schedule.model_dump(),
        "learning": describe_rule(build_rule(model.learning)),
        "data": data_name(model.data.name, job.place.subset),
        "batch": model.training.batch,
        "seed": job.seed,
    }


def recorded(trace: TraceReader) -> dict[str, Any]:
    """Return what a trace says of itself, by the names of `expected`, and its `epochs`."""
    experiment = trace.attributes.get("experiment")
    described = experiment if isinstance(experiment, dict) else {}
    training = described.get("training", {})
    return {
        "engine": trace.attributes.get("engine"),
        "layers": trace.attributes.get("layers"),
        "schedule": _with_defaults(described.get("schedule")),
        "learning": described.get("learning"),
        "data": described.get("data"),
        "batch": training.get("batch"),
        "seed": training.get("seed"),
        "epochs": training.get("epochs"),
    }


def _with_defaults(schedule: object) -> object:
    """Return a schedule with what a trace leaves out: a setting that is usual, or younger than the trace."""
    return ScheduleConfig().model_dump() | schedule if isinstance(schedule, dict) else schedule


def data_name(name: str, subset: int | None) -> str:
    """Return the name under which a data set, or a part of it, is described in traces and checkpoints."""
    return name if subset is None else f"{name}, {subset} training samples drawn with seed {SUBSET_SEED}"


def take(dataset: Dataset, subset: int | None) -> Dataset:
    """Return a data set with some of its training samples, the same for every run; the test set is whole.

    Raises:
        DataError: it has fewer.
    """
    if subset is None:
        return dataset
    samples = len(dataset.train_inputs)
    if subset > samples:
        raise DataError(f"{dataset.name} has {samples} training samples: expected --subset up to as many")
    rows = np.random.default_rng(SUBSET_SEED).permutation(samples)[:subset]
    return replace(
        dataset,
        name=data_name(dataset.name, subset),
        train_inputs=dataset.train_inputs[rows],
        train_targets=dataset.train_targets[rows],
    )


def note_failure(job: Job, reason: str | None) -> None:
    """Keep in a run's folder why it failed; forget it if there is no reason."""
    path = job.folder / FAILURE
    if reason is None:
        path.unlink(missing_ok=True)
        return
    with suppress(OSError):  # a full disk may be the reason
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"run": job.name, "reason": reason}) + "\n")


def failure(job: Job) -> str | None:
    """Return why a run failed when it was last tried; None if it did not."""
    try:
        return str(json.loads((job.folder / FAILURE).read_text())["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
