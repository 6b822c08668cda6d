"""Successive halving (Jamieson and Talwalkar, 2016): the best after few epochs get more.

Rounds are synchronous: a round ends when all its runs have ended. So who goes on does not depend on how many
workers there are or how fast they are, and a study that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pcsim.experiments.sweep.file import HalvingConfig
from pcsim.experiments.sweep.job import Row

Measure = Literal["accuracy", "loss"]


@dataclass(frozen=True)
class Round:
    """One round.

    Attributes:
        until: epoch that its runs come to.
        configurations: how many take part.
    """

    until: int
    configurations: int


def rounds(halving: HalvingConfig | None, configurations: int, epochs: int) -> tuple[Round, ...]:
    """Return the rounds of a sweep; a single one without halving.

    Args:
        halving: first round and factor.
        configurations: how many there are at the start.
        epochs: of a whole run.
    """
    if halving is None:
        return (Round(epochs, configurations),)
    found, until, left = [], halving.first, configurations
    while until < epochs and left > 1:
        found.append(Round(until, left))
        until, left = until * halving.factor, math.ceil(left / halving.factor)
    return (*found, Round(epochs, left))


def survivors(values: Mapping[str, float], number: int) -> list[str]:
    """Return the configurations with the largest values, best first; of equal ones, the first in order.

    Args:
        values: of each, more is better; −infinity for one that failed, which never survives.
        number: how many survive at most.
    """
    ranked = sorted(values, key=lambda name: -values[name])
    return [name for name in ranked if values[name] > -math.inf][:number]


def best_epoch(epochs: Sequence[Row], measure: Measure) -> Row | None:
    """Return the epoch that does best on the validation set, the first if several do; None without any."""
    name = f"validation_{measure}"
    known = [row for row in epochs if name in row and not math.isnan(row[name])]
    sign = 1 if measure == "accuracy" else -1
    return max(known, key=lambda row: sign * row[name], default=None)


def measure_of(runs: Mapping[str, Sequence[Row]]) -> Measure:
    """Return what counts: validation accuracy, or, for autoencoders and values as targets, loss."""
    rows = [row for epochs in runs.values() for row in epochs]
    accuracies = [row.get("validation_accuracy", math.nan) for row in rows]
    return "loss" if rows and all(math.isnan(one) for one in accuracies) else "accuracy"


def value(runs: Sequence[Sequence[Row]], until: int, measure: Measure) -> float:
    """Return how good a configuration is after so many epochs: the mean of its seeds' best epochs.

    More is better; −infinity if a seed has nothing to show.
    """
    best = [best_epoch(epochs[:until], measure) for epochs in runs]
    numbers = [-math.inf if row is None else row[f"validation_{measure}"] for row in best]
    if measure == "loss":
        numbers = [number if number == -math.inf else -number for number in numbers]
    return sum(numbers) / len(numbers)
