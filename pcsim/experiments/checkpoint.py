"""Where a run stands, in one file: what training has changed, what decides how it goes on, what came of it.

Arrays are stored as safetensors, everything else as JSON in the same file's metadata, so that one replacement
of a file, which a file system does at once or not at all, moves both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pcsim.engine.state import Facts
from pcsim.errors import CheckpointError, ConfigurationError
from pcsim.hidden_file import remove_abandoned, replacing
from pcsim.kernels import Array
from pcsim.network.stored import CHECKPOINT
from pcsim.places import what_is
from pcsim.training.loop import Engine, Epoch, Position

FILE = CHECKPOINT  # as `Network.load` looks for it
VERSION = 2


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run at the end of an epoch.

    Attributes:
        experiment: what decides the run's numbers (`Experiment.describe`), and on which engine.
        arrays: weights, biases and the state of the learning rules, by name.
        facts: the rest, fit for JSON: results of the epochs so far, random states, totals.
    """

    experiment: Mapping[str, Any]
    arrays: Mapping[str, Array]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write the file, or leave the one before.

        Raises:
            CheckpointError: the folder cannot be written.
        """
        from safetensors.numpy import save

        # safetensors takes no view of another order than C's: it would store other numbers.
        arrays = {name: np.asarray(array, order="C") for name, array in self.arrays.items()}
        kept = {"version": VERSION, "experiment": self.experiment, "facts": self.facts}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(folder / FILE) as file:
                file.write(save(arrays, {"pcsim": json.dumps(kept)}))
        except OSError as error:
            raise CheckpointError(f"cannot write a checkpoint to {folder}: {error.strerror}") from error

    @classmethod
    def load(cls, folder: Path, experiment: Mapping[str, Any]) -> Checkpoint | None:
        """Return the checkpoint in a folder; None if there is none yet.

        Raises:
            CheckpointError: it is damaged, of another version, or of another experiment.
        """
        from safetensors import SafetensorError, safe_open

        path = folder / FILE
        if not path.exists():
            return None
        if not path.is_file():
            raise CheckpointError(f"{path} is {what_is(path)}: expected a checkpoint of pcsim")
        try:
            with safe_open(path, framework="numpy") as file:
                kept = json.loads((file.metadata() or {})["pcsim"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            version, described, facts = kept["version"], kept["experiment"], kept["facts"]
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CheckpointError(
                f"{path} is not a checkpoint of pcsim, or damaged: {_line(error)}"
            ) from error
        if version not in (1, VERSION):
            raise CheckpointError(
                f"{path} is of checkpoint version {str(version)[:40]}: expected {VERSION}; "
                "use another version of pcsim"
            )
        wanted = json.loads(json.dumps(experiment))
        if version == 1:
            described = _as_of_today(described, wanted)
        if described != wanted:
            raise CheckpointError(
                f"{path} is of another experiment: {_difference(described, wanted)}: expected the same; "
                "run it with what the checkpoint has, or give another --checkpoint folder"
            )
        return cls(described, arrays, facts)


def _as_of_today(described: Any, wanted: Mapping[str, Any]) -> Any:  # noqa: ANN401 - whatever a file holds
    """Return what a checkpoint of version 1 says of its experiment; what it did not keep is trusted."""
    if not isinstance(described, dict) or not isinstance(described.get("schedule"), dict):
        return described
    schedule = {name: wanted["schedule"][name] for name in ("operations",) if name in wanted["schedule"]}
    new = {name: wanted[name] for name in ("samples", "hardware")}
    return new | described | {"schedule": schedule | described["schedule"]}


class ResumableEngine(Engine, Protocol):
    """An engine whose state can be put aside."""

    def state(self) -> tuple[dict[str, Array], Facts]:
        """Return what decides the mini-batches to come."""
        ...

    def restore(self, arrays: Mapping[str, Array], facts: Facts) -> None:
        """Go on from a state."""
        ...


@dataclass(frozen=True)
class Bookmark:
    """Where a run keeps its checkpoint, and the one that it goes on from.

    Attributes:
        folder: for the checkpoint; None if the run keeps none.
        experiment: what decides the run's numbers.
        resume: whether the run goes on where it was.
        found: the checkpoint to go on from; None at a beginning.
    """

    folder: Path | None
    experiment: Mapping[str, Any]
    resume: bool = False
    found: Checkpoint | None = None

    @classmethod
    def open(
        cls, folder: str | os.PathLike[str] | None, resume: bool, experiment: Mapping[str, Any]
    ) -> Bookmark:
        """Look into the folder.

        Raises:
            ConfigurationError: nothing to resume from was given.
            CheckpointError: there is a checkpoint and the run is a new one, or it is damaged or another's.
        """
        if folder is None:
            if resume:
                raise ConfigurationError(
                    "resume: expected a checkpoint folder to go on from; give --checkpoint"
                )
            return cls(None, experiment)
        found = Checkpoint.load(Path(folder), experiment)
        if found is not None:
            _check_facts(Path(folder) / FILE, found.facts)
        if found is not None and not resume:
            raise CheckpointError(f"{folder} holds a checkpoint: give --resume to go on, or another folder")
        remove_abandoned(Path(folder) / FILE)
        return cls(Path(folder), experiment, resume, found)

    @property
    def training_steps(self) -> int:
        """Training steps that the run has behind it."""
        epochs = self.found.facts["epochs"] if self.found else []
        return int(epochs[-1]["training_steps"]) if epochs else 0

    def restore(self, engine: ResumableEngine) -> Position:
        """Put the engine where it was; return where the training stands.

        Raises:
            CheckpointError: arrays or facts that are not this network's.
        """
        if self.found is None:
            return Position()
        facts = self.found.facts
        try:
            engine.restore(self.found.arrays, facts["engine"])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise CheckpointError(f"{self.folder}: a checkpoint that does not fit: {_line(error)}") from error
        return Position(tuple(Epoch(**epoch) for epoch in facts["epochs"]), facts["order"])

    def save(self, engine: ResumableEngine, position: Position) -> None:
        """Write where the run stands, if it keeps checkpoints.

        Raises:
            CheckpointError: the folder cannot be written.
        """
        if self.folder is None:
            return
        arrays, own = engine.state()
        epochs = [asdict(epoch) for epoch in position.epochs]
        facts = {"engine": own, "epochs": epochs, "order": position.order}
        Checkpoint(self.experiment, arrays, facts).save(self.folder)


def _check_facts(path: Path, facts: Mapping[str, Any]) -> None:
    """Refuse results, counters and random states that no run has written: training would stumble over them.

    Raises:
        CheckpointError: says which.
    """
    try:
        steps = 0
        for number, entries in enumerate(facts["epochs"], 1):
            epoch = Epoch(**entries)
            _expect(all(type(value) in (int, float) for value in entries.values()), f"epoch {number}")
            _expect(epoch.epoch == number, f"the number of epoch {number}")
            _expect(type(epoch.training_steps) is int, f"training_steps of epoch {number}")
            _expect(steps <= epoch.training_steps < 2**62, f"training_steps of epoch {number}")
            steps = epoch.training_steps
        if facts["order"] is not None:
            np.random.PCG64(0).state = facts["order"]
        engine = facts["engine"]
        _expect(type(engine["step"]) is int and 0 <= engine["step"] < 2**62, "engine.step")
        for name in ("totals", "carried"):
            good = all(type(value) in (int, float) for value in engine.get(name, {}).values())
            _expect(good, f"engine.{name}")
    # NumPy and Python raise several types on what is not theirs.
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{path} is not a checkpoint of pcsim, or damaged: {_line(error)}") from error


def _expect(good: bool, what: str) -> None:
    if not good:
        raise ValueError(f"{what} is none")


def _line(error: Exception) -> str:
    """What a library's error says, on one short line."""
    text = " ".join(str(error).split())[:200]
    return f"{text} is missing" if isinstance(error, KeyError) else text or type(error).__name__


def _difference(found: Any, wanted: Any, where: str = "") -> str:  # noqa: ANN401 - anything JSON has
    """Say where two descriptions first differ."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in [*wanted, *(key for key in found if key not in wanted)]:
            if found.get(key) != wanted.get(key):
                return _difference(found.get(key), wanted.get(key), f"{where}.{key}" if where else str(key))
    return f"{where} is {str(found)[:100]} in the checkpoint and {str(wanted)[:100]} in this run"
