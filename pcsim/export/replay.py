"""Reads a test bench back, replays its layer and checks every equation to a bound from the quantisation."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pcsim.errors import TraceError
from pcsim.export.channels import Kept
from pcsim.export.fixed_point import FixedPoint
from pcsim.export.functions import ACTIVATIONS
from pcsim.export.inbox import Relaxation
from pcsim.export.target import MANIFEST

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """How well one equation holds.

    Attributes:
        equation: compare, relax or predict.
        checked: words that were checked.
        largest: the largest deviation of a word's value.
        bound: the largest deviation that quantisation can explain, where it was largest.
        violations: words beyond their own bound.
    """

    equation: str
    checked: int
    largest: float
    bound: float
    violations: int

    @property
    def holds(self) -> bool:
        """Whether words were checked and none is beyond its bound."""
        return self.checked > 0 and self.violations == 0


@dataclass(frozen=True)
class Replay:
    """A test bench that has been read.

    Attributes:
        manifest: what `manifest.json` says.
        numbers: the fixed-point format of each file, by name.
        signals: the values of each file, by name.
    """

    manifest: dict[str, Any]
    numbers: dict[str, FixedPoint]
    signals: dict[str, Array]

    def check(self) -> tuple[Verdict, ...]:
        """Check e = ĥ − p, equation (2) and p = W f(ĥ) + b on the words, step by step.

        A word is off by at most half its signal's least significant bit, h; the bounds follow what that can
        do to each equation, plus the rounding of the simulator's own arithmetic, and what formats and
        thresholds of the run have done. A word that has saturated is off by more, so it breaks an equation
        rather than pass unseen.
        """
        return self._compare(), self._relax(), self._predict()

    def _half(self, signal: str) -> float:
        """Return h of a signal."""
        return self.numbers[signal].step / 2

    def _kept(self, how: str, what: str) -> Kept:
        """Return the format and threshold of what layers keep or send; benches of before know none."""
        return Kept.of(self.manifest.get(how, {}).get(what, {}))

    def _compare(self) -> Verdict:
        """e_l[n] = ĥ_l[n] − p_l[n]: three words, each off by its h."""
        activity, prediction = self.signals["activity"], self.signals["prediction_in"]
        relative = self.manifest["relative_precision"]
        words = sum(self._half(signal) for signal in ("activity", "prediction_in", "error"))
        bound = words + 3 * relative * (np.abs(activity) + np.abs(prediction) + 2 * words)
        return _verdict("compare", self.signals["error"] - (activity - prediction), bound)

    def _relax(self) -> Verdict:
        """Equation (2) for each iteration whose inbox is known."""
        activity = self.signals["activity"]
        constants, deviations, bounds = self.manifest["constants"], [], []
        for told in self.manifest["relaxations"]:
            if not told["known"]:
                continue
            n = told["iteration"]
            relaxation = Relaxation(
                constants["activation"],
                self.signals["weight"],
                constants["step_sizes"][n - 1],
                constants["precision"],
                constants["precision_above"],
                constants["activity_decay"],
            )
            inbox = self.signals["relax_prediction_in"][n - 1], self.signals["relax_error_in"][n - 1]
            deviations.append(activity[n] - relaxation.new_activity(activity[n - 1], *inbox))
            bound = self._relax_bound(relaxation, activity[n - 1], *inbox)
            bounds.append(bound + self._kept("kept", "activity").error(activity[n]))
        return _verdict("relax", np.array(deviations), np.array(bounds))

    def _relax_bound(
        self, relaxation: Relaxation, activity: Array, prediction: Array, error_above: Array
    ) -> Array:
        """Return how far the new activity may be off when every word is off by up to its h."""
        h, of_weight, of_error = (self._half(name) for name in ("activity", "weight", "relax_error_in"))
        f = ACTIVATIONS[relaxation.activation]
        weight, above = np.abs(relaxation.weight), relaxation.precision_above
        drive = np.abs(error_above @ relaxation.weight)
        # Σ (W ± h_W)(e ± h_e) − Σ W e ≤ h_W Σ|e| + h_e Σ|W| + n h_W h_e
        sums = of_weight * np.abs(error_above).sum(axis=1, keepdims=True)
        sums = sums + of_error * (weight.sum(axis=0) + len(weight) * of_weight)
        slope_error = f.slope_error(activity, h)
        value = np.abs(f.value(activity))
        gate = (f.steepest * sums + slope_error * (drive + sums)) * above
        decay = relaxation.decay * (f.steepest**2 * h + slope_error * (value + f.steepest * h))
        own = relaxation.precision * (h + self._half("relax_prediction_in"))
        relative = self.manifest["relative_precision"]
        rounding = relaxation.rounding(activity, prediction, error_above, 2 * relative)
        return np.asarray(2 * h + relaxation.step * (gate + decay + own) + rounding)

    def _predict(self) -> Verdict:
        """p_{l+1} = W_l f(ĥ_l) + b_l, for each prediction whose activity is known."""
        predict = Replay.predictions(
            self.manifest["constants"]["activation"], self.signals["weight"], self.signals["bias"]
        )
        f = ACTIVATIONS[self.manifest["constants"]["activation"]]
        names = ("activity", "weight", "bias", "prediction_out")
        of_activity, of_weight, of_bias, of_sent = (self._half(name) for name in names)
        weight, deviations, bounds = np.abs(self.signals["weight"]), [], []
        for iteration, source in enumerate(self.manifest["predicted_from"]):
            if source is None:
                continue
            activity = self.signals["activity"][source]
            value, rounding = predict(activity, 2 * self.manifest["relative_precision"])
            off = f.steepest * of_activity
            sums = np.abs(f.value(activity)).sum(axis=1, keepdims=True)
            product = off * weight.sum(axis=1) + of_weight * (sums + weight.shape[1] * off)
            sent = self.signals["prediction_out"][iteration]
            deviations.append(sent - value)
            bounds.append(
                of_bias + of_sent + product + rounding + self._kept("sent", "prediction").error(sent)
            )
        return _verdict("predict", np.array(deviations), np.array(bounds))

    @staticmethod
    def predictions(
        activation: str, weight: Array, bias: Array
    ) -> Callable[[Array, float], tuple[Array, Array]]:
        """Return what forms W f(ĥ) + b, and bounds its rounding to a relative precision."""
        f, terms = ACTIVATIONS[activation], weight.shape[1] + 8

        def predict(activity: Array, relative: float) -> tuple[Array, Array]:
            value = f.value(activity)
            size = np.abs(value) @ np.abs(weight).T + np.abs(bias)
            size = size + f.steepest * np.abs(activity) @ np.abs(weight).T
            return value @ weight.T + bias, relative * terms * size

        return predict


def read(folder: str | Path) -> Replay:
    """Read a test bench that `pcsim export --to testbench` has written.

    Raises:
        TraceError: the manifest or a file is missing or is not what the manifest says.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != "testbench":
            raise TraceError(f"{folder} is an export to {manifest['format']}: expected a test bench")
        numbers = {
            name: FixedPoint.parse(told["number_format"]["name"])
            for name, told in manifest["signals"].items()
        }
        signals = {
            name: numbers[name].values(
                numbers[name].read_hex(path.with_name(told["file"]), tuple(told["shape"]))
            )
            for name, told in manifest["signals"].items()
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TraceError(f"{folder} is no test bench: expected its {MANIFEST} ({error})") from error
    return Replay(manifest, numbers, signals)


def _verdict(equation: str, deviation: Array, bound: Array) -> Verdict:
    if not deviation.size:
        return Verdict(equation, 0, 0.0, 0.0, 0)
    off = np.abs(deviation)
    return Verdict(equation, off.size, float(off.max()), float(bound.max()), int((off > bound).sum()))
