"""What happened to messages and activities before somebody had them, as a trace's experiment says it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
# Bits of the significand after its leading one, and fraction bits of the smallest number.
FLOATS = {"float16": (10, 24), "bfloat16": (7, 133), "float32": (23, 149)}
FAULTS = ("loss", "duplication", "delay", "reorder", "dead")


@dataclass(frozen=True)
class Kept:
    """How a number that a layer keeps, or has of a neighbour, may differ from the one that was formed.

    Attributes:
        format: float16, bfloat16, float32 or Qm.n; None leaves numbers as they are.
        rounding: nearest or stochastic.
        threshold: by how much a message's number must have changed to be sent; None if all are.
    """

    format: str | None = None
    rounding: str = "nearest"
    threshold: float | None = None

    @classmethod
    def of(cls, said: Mapping[str, Any], threshold: float | None = None) -> Kept:
        """Return what a trace, or a manifest, says of a format.

        Raises:
            ValueError: a format that is none.
        """
        given = said.get("format")
        if given is not None and given not in FLOATS and not re.fullmatch(r"[Qq]-?\d+\.-?\d+", given):
            raise ValueError(f"format '{given}': expected {', '.join(FLOATS)} or Qm.n")
        return cls(given, said.get("rounding", "nearest"), said.get("threshold", threshold))

    def describe(self) -> dict[str, Any]:
        """Return it, fit for JSON and for `of`."""
        return asdict(self)

    def error(self, values: Array) -> Array:
        """Return how far the numbers that were formed may be from these; one that saturated is further."""
        threshold = self.threshold or 0.0
        if self.format is None:
            return np.full_like(values, threshold)
        if self.format in FLOATS:
            precision, fraction = FLOATS[self.format]
            step = (np.abs(values) + threshold) * 2.0**-precision + 2.0**-fraction
        else:
            step = np.full_like(values, 2.0 ** -int(self.format.partition(".")[2]))
        return threshold + (step / 2 if self.rounding == "nearest" else step)


@dataclass(frozen=True)
class Channels:
    """What happened to messages on their way, and to the activities that layers keep.

    Attributes:
        predictions: as receivers have them.
        errors: as receivers have them.
        states: activities.
        faults: which of `FAULTS` there were.
        dead: the layer whose lines have died; None if none has.
    """

    predictions: Kept = Kept()
    errors: Kept = Kept()
    states: Kept = Kept()
    faults: tuple[str, ...] = ()
    dead: int | None = None

    @classmethod
    def of(cls, experiment: Mapping[str, Any]) -> Channels:
        """Return what the root attribute `experiment` says; nothing happened where it says nothing.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: it says something else than expected.
        """
        said = experiment.get("channels")
        if not said:
            return cls()
        predictions, errors = (
            Kept.of(said[kind]["numbers"], said[kind]["threshold"]) for kind in ("predictions", "errors")
        )
        faults = tuple(one for one in FAULTS if said["faults"].get(one))
        dead = said["faults"].get("dead")
        layer = None if dead is None else int(dead["layer"])
        return cls(predictions, errors, Kept.of(said["states"]), faults, layer)

    def brings_all(self, kind: str, layer: int) -> bool:
        """Return whether each prediction, or error, of a layer brings all its numbers."""
        kept = self.predictions if kind == "prediction" else self.errors
        return kept.threshold is None and layer != self.dead

    def notes(self) -> list[str]:
        """Return what equations without channels do not say, a sentence each."""
        kinds = {"predictions": self.predictions, "errors": self.errors, "activities": self.states}
        formats = [f"{name} {kept.format}" for name, kept in kinds.items() if kept.format]
        thresholds = [
            f"{name} {kept.threshold:g}" for name, kept in kinds.items() if kept.threshold is not None
        ]
        found = []
        if formats:
            found.append(f"Number formats: recorded {', '.join(formats)}; the graph rounds nothing.")
        if thresholds:
            found.append(
                f"Thresholds: {', '.join(thresholds)}; the graph passes on every change, however small."
            )
        if self.faults:
            found.append(f"Faults: {', '.join(self.faults)}; in the graph nothing goes wrong.")
        return found
