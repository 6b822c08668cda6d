"""What a study came to: one row a configuration, the best by validation first."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pcsim.experiments.significance import mean_sd, welch
from pcsim.experiments.sweep.halving import Measure, best_epoch, measure_of
from pcsim.experiments.sweep.index import Index, IndexRow
from pcsim.experiments.sweep.job import Row
from pcsim.report.numbers import plain

NOTHING = "–"


@dataclass(frozen=True)
class Configuration:
    """What the runs of one setting came to, seed by seed.

    Attributes:
        configuration: its name in the index.
        settings: what the sweep set, by key.
        overrides: all that it changes in the model file, the seed aside.
        engine: which ran it.
        runs: their names in the index, seed by seed.
        seeds: of the runs that have results.
        states: how many of its runs are finished, stopped, failed, paused or waiting.
        epochs: done, a seed.
        best_epoch: the best on the validation set, a seed.
        validation: accuracy in percent, or loss, at that epoch, a seed.
        test: the same on the test set, at the same epoch.
        seconds: of training, all seeds together.
        curves: validation accuracy in percent, or loss, after each epoch, a seed.
        errors: why runs failed, each reason once.
        p: of Welch's two-sided t-test of its test results against the first row's; None where there is none.
    """

    configuration: str
    settings: dict[str, Any]
    overrides: tuple[str, ...]
    engine: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    states: dict[str, int]
    epochs: tuple[int, ...]
    best_epoch: tuple[int, ...]
    validation: tuple[float, ...]
    test: tuple[float, ...]
    seconds: float
    curves: tuple[tuple[float, ...], ...]
    errors: tuple[str, ...]
    p: float | None = None

    @property
    def finished(self) -> bool:
        """Whether all its runs are."""
        return self.states.keys() == {"finished"}

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary fit for JSON, with means and deviations."""
        spreads = {f"{name}_mean_sd": mean_sd(getattr(self, name)) for name in ("validation", "test")}
        return {name: plain(value) for name, value in (asdict(self) | spreads).items()}


@dataclass(frozen=True)
class StudyResults:
    """A whole study.

    Attributes:
        name: of the sweep.
        folder: of the study.
        model: its model file, as the sweep file names it.
        measure: accuracy, in percent, more is better; or loss, less is better.
        keys: what was swept.
        rows: the best first; finished ones before those that have fewer epochs, failed ones last.
    """

    name: str
    folder: Path
    model: str
    measure: Measure
    keys: tuple[str, ...]
    rows: tuple[Configuration, ...]

    @property
    def best(self) -> Configuration | None:
        """The first row, if it has results."""
        return self.rows[0] if self.rows and self.rows[0].validation else None

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary fit for JSON."""
        return {
            "study": str(self.folder),
            "name": self.name,
            "measure": self.measure,
            "keys": list(self.keys),
            "best": None if self.best is None else self.best.configuration,
            "configurations": [row.to_dict() for row in self.rows],
        }


def read_results(folder: Path, only: set[str] | None = None) -> StudyResults:
    """Read what a study came to so far, from its index.

    Args:
        folder: of the study.
        only: names of the configurations that count; all if not given.

    Raises:
        StudyError: it is none, or damaged.
    """
    with Index.open(folder) as index:
        rows, epochs, facts = index.rows(), index.epochs(), index.facts()
    rows = [row for row in rows if only is None or row.configuration in only]
    measure = measure_of({row.run: epochs.get(row.run, []) for row in rows})
    grouped: dict[str, list[IndexRow]] = {}
    for row in rows:
        grouped.setdefault(row.configuration, []).append(row)
    found = [_configuration(several, epochs, measure) for several in grouped.values()]
    found.sort(key=lambda one: _rank(one, measure))
    keys = tuple(dict.fromkeys(key for row in rows for key in row.settings))
    first = found[0].test if found else ()
    tested = [replace(one, p=welch(one.test, first) if place else None) for place, one in enumerate(found)]
    name, model = facts.get("name", folder.name), facts.get("model", "MODEL.toml")
    return StudyResults(name, folder, model, measure, keys, tuple(tested))


def _configuration(rows: Sequence[IndexRow], epochs: dict[str, list[Row]], measure: Measure) -> Configuration:
    factor = 100 if measure == "accuracy" else 1
    shown = [(row, epochs[row.run]) for row in rows if row.state != "failed" and epochs.get(row.run)]
    best = [(row, several, best_epoch(several, measure)) for row, several in shown]
    known = [(row, several, one) for row, several, one in best if one is not None]
    states = [row.state for row in rows]
    return Configuration(
        configuration=rows[0].configuration,
        settings=dict(rows[0].settings),
        overrides=tuple(one for one in rows[0].overrides if not one.startswith("training.seed=")),
        engine=rows[0].engine,
        runs=tuple(row.run for row in rows),
        seeds=tuple(row.seed for row, _, _ in known),
        states={state: states.count(state) for state in dict.fromkeys(states)},
        epochs=tuple(len(several) for _, several, _ in known),
        best_epoch=tuple(int(one["epoch"]) for _, _, one in known),
        validation=tuple(factor * one[f"validation_{measure}"] for _, _, one in known),
        test=tuple(factor * one.get(f"test_{measure}", math.nan) for _, _, one in known),
        seconds=sum(several[-1]["seconds"] for _, several in shown),
        curves=tuple(
            tuple(factor * row.get(f"validation_{measure}", math.nan) for row in several)
            for _, several, _ in known
        ),
        errors=tuple(dict.fromkeys(row.error for row in rows if row.error)),
    )


def _rank(one: Configuration, measure: Measure) -> tuple[bool, bool, int, float]:
    """Return what sorts the rows: not failed, finished, many epochs, good on the validation set."""
    if not one.validation:
        return True, True, 0, 0.0
    mean = mean_sd(one.validation)[0]
    fewest = 0 if one.finished else -min(one.epochs)
    return "failed" in one.states, not one.finished, fewest, -mean if measure == "accuracy" else mean


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Return each key without its section, or whole where two sections have one of that name."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)}


def headings(keys: Sequence[str]) -> list[str]:
    """Return keys as the heads of narrow columns."""
    return [name.replace(".", "\n").replace("_", "\n") for name in short_keys(keys).values()]


def setting(value: object) -> str:
    """Return a setting for people: 0.001, sequential, rule mq, rate 0.001."""
    if value is None:
        return NOTHING
    if isinstance(value, dict):
        return ", ".join(f"{name} {setting(one)}" for name, one in value.items())
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value)


def spread(values: Sequence[float], measure: Measure) -> str:
    """Return mean ± standard deviation, both with two decimals of a percentage, or the mean's four digits."""
    mean, deviation = mean_sd(values)
    if math.isnan(mean):
        return NOTHING
    text = f"{mean:.2f}" if measure == "accuracy" else f"{mean:#.4g}"
    whole, _, decimals = text.partition(".")
    alike = f".{len(decimals)}f" if whole and "e" not in decimals else ".2g"
    return text if math.isnan(deviation) else f"{text} ± {deviation:{alike}}"
