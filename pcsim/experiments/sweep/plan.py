"""What a sweep file comes to: configurations, and the runs of each, one a seed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcsim.config import ModelConfig, load_model
from pcsim.errors import ConfigurationError
from pcsim.experiments.sweep.file import HalvingConfig, SweepConfig, read_sweep
from pcsim.experiments.sweep.settings import Settings, as_override, of_draws, of_grid
from pcsim.experiments.task import EngineName
from pcsim.training.data import check_place

MOST_RUNS = 20_000
HELD_OUT = 0.1  # of the training samples, where the model holds none out: a choice by test samples is no test
ENGINE = "engine"  # the one key of a grid that no model file has
SEED = "training.seed"


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study.

    Attributes:
        run: what tells it from all others: 12 digits of a hash of all that it is made of.
        configuration: the same without the seed.
        settings: what the grid or the draw gave, by key.
        overrides: all that it changes in the model file, for `pcsim run --set`.
        seed: of weights and shuffling.
        engine: which runs it.
        model: the whole model, as `ModelConfig.to_dict` gives it.
        epochs: of the whole run.
    """

    run: str
    configuration: str
    settings: Settings
    overrides: tuple[str, ...]
    seed: int
    engine: EngineName
    model: Mapping[str, Any]
    epochs: int


@dataclass(frozen=True)
class Plan:
    """All runs of a sweep.

    Attributes:
        file: as it was read.
        model: its model file, from the working folder, or the name of one that pcsim ships.
        runs: configuration by configuration, seed by seed.
    """

    file: SweepConfig
    model: str
    runs: tuple[PlannedRun, ...]

    @property
    def configurations(self) -> dict[str, list[PlannedRun]]:
        """The runs by configuration."""
        found: dict[str, list[PlannedRun]] = {}
        for run in self.runs:
            found.setdefault(run.configuration, []).append(run)
        return found

    @property
    def epochs(self) -> int:
        """Epochs that a successive halving ends with; of the longest run without one."""
        return max(run.epochs for run in self.runs)


def read_plan(path: Path, data_dir: Path | None = None) -> Plan:
    """Read a sweep file and write out its runs; every model is checked before the first run.

    Args:
        path: the sweep file.
        data_dir: folder with a folder for each data set; no part of what a run is.

    Raises:
        ConfigurationError: one line with file, key, what was given and what was expected.
    """
    file = read_sweep(path)
    for key in (SEED, "data.directory"):
        if any(text.partition("=")[0].strip() == key for text in file.set):
            raise ConfigurationError(f"{path}: set holds {key}: expected {_place_of(key)}")
    runs: dict[str, PlannedRun] = {}
    for settings in list(_all_settings(file, path)):  # counted before the first model is read
        for seed in file.seeds:
            run = _planned(file, path, settings, seed, data_dir)
            runs.setdefault(run.run, run)
    plan = Plan(file, _model_of(file, path), tuple(runs.values()))
    _check_halving(file.halving, plan, path)
    return plan


def check_data(plan: Plan) -> None:
    """Look whether the data of all runs are where this process would read them.

    Raises:
        DataError: they are not, and how to get them.
    """
    sets = {tuple(run.model["data"][key] for key in ("name", "path", "directory")) for run in plan.runs}
    for name, path, directory in sorted(sets, key=str):
        check_place(name, path=path, directory=directory)


def _place_of(key: str) -> str:
    return "seeds = [0, 1, 2]" if key == SEED else "--data-dir on the command line"


def _all_settings(file: SweepConfig, path: Path) -> Iterator[Settings]:
    """Return the settings of all configurations: each of the grids with each of the draws."""
    names = ["grid" if len(file.grid) == 1 else f"grid[{index}]" for index in range(len(file.grid))]
    draws = of_draws(file.random, f"{path}: random") if file.random else [{}]
    number = 0
    for grid, name in zip(file.grid or ({},), names or [""], strict=True):
        for chosen in of_grid(grid, f"{path}: {name}"):
            for drawn in draws:
                number += len(file.seeds)
                if number > MOST_RUNS:
                    raise ConfigurationError(f"{path}: more than {MOST_RUNS:,} runs: expected fewer")
                if both := chosen.keys() & drawn.keys():
                    raise ConfigurationError(f"{path}: {min(both)} is in grid and random: expected it once")
                if odd := {SEED, "data.directory"} & {*chosen, *drawn}:
                    raise ConfigurationError(f"{path}: {min(odd)} is swept: expected {_place_of(min(odd))}")
                yield chosen | drawn


def _planned(
    file: SweepConfig, path: Path, settings: Settings, seed: int, data_dir: Path | None
) -> PlannedRun:
    """Return one run, its model checked."""
    changes = {key: value for key, value in settings.items() if key != ENGINE}
    overrides = (*file.set, *(as_override(key, value) for key, value in changes.items()), f"{SEED}={seed}")
    where = [] if data_dir is None else [as_override("data.directory", str(data_dir))]
    source = _model_of(file, path)
    try:
        model = load_model(source, [*overrides, *where])
        if not model.data.validation_fraction:
            overrides = (*overrides, f"data.validation_fraction={HELD_OUT}")
            model = load_model(source, [*overrides, *where])
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    engine = settings.get(ENGINE, file.engine)
    if engine not in ("fast", "event", "backprop"):
        raise ConfigurationError(f"{path}: engine = {engine!r}: expected one of fast, event, backprop")
    if not model.training.epochs:
        raise ConfigurationError(f"{path}: training.epochs = 0: expected at least 1")
    run, configuration = (_identity(model, engine, seeded) for seeded in (True, False))
    epochs = model.training.epochs
    return PlannedRun(run, configuration, settings, overrides, seed, engine, model.to_dict(), epochs)


def _model_of(file: SweepConfig, path: Path) -> str:
    return os.path.normpath(path.parent / file.model) if file.model.endswith(".toml") else file.model


def _identity(model: ModelConfig, engine: str, seeded: bool) -> str:
    """Return a hash of what makes a run; a key that pcsim adds one day with a default changes none."""
    content = model.model_dump(mode="json", exclude_defaults=True, exclude={"name", "description"})
    content["data"].pop("directory", None)
    content["training"].pop("seed", None)
    content |= {"engine": engine, "rule": model.learning.rule, "hardware model": model.hardware.model}
    content |= {"seed": model.training.seed} if seeded else {}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _check_halving(halving: HalvingConfig | None, plan: Plan, path: Path) -> None:
    """Refuse a successive halving that makes no sense."""
    if halving is None:
        return
    epochs = {run.epochs for run in plan.runs}
    if len(epochs) > 1:
        raise ConfigurationError(
            f"{path}: halving, and training.epochs from {min(epochs)} to {max(epochs)}: expected the same "
            "for all runs"
        )
    if halving.first >= plan.epochs:
        raise ConfigurationError(
            f"{path}: halving.first = {halving.first}: expected fewer than training.epochs = {plan.epochs}"
        )
