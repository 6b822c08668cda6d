"""What a layer had in its inbox when it relaxed, found out from what probes recorded.

A probe keeps the last message of each iteration. Which of them a layer had when it moved its activity
depends on the order: with the simultaneous order all are of the iteration before, with the sequential order
the error from above is of the same iteration. Equation (2) of arXiv 2305.13562 decides: the messages are
those with which it gives the recorded new activity from the recorded old one, to the arithmetic's precision
and that of the format in which layers keep activities.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pcsim.export.functions import ACTIVATIONS
from pcsim.export.recorded import Model, Parameters, States

Array = npt.NDArray[np.float64]
NEIGHBOURHOOD = 5  # iterations


@dataclass(frozen=True)
class Inbox:
    """Both messages that a layer had when it relaxed.

    Attributes:
        prediction: p_l (samples, n_l).
        error_above: e_{l+1} (samples, n_{l+1}).
        prediction_from: what of the trace it is, such as `prediction_2[0]` with the iteration in brackets.
        error_above_from: what of the trace it is.
    """

    prediction: Array
    error_above: Array
    prediction_from: str
    error_above_from: str


@dataclass(frozen=True)
class Relaxation:
    """Equation (2) of one layer: ĥ += k (f' ⊙ (γ_{l+1} Wᵀe_{l+1} − γ_l^decay f) − γ_l (ĥ − p)).

    Attributes:
        activation: name of f.
        weight: W_l (n_{l+1}, n_l).
        step: k.
        precision: γ_l.
        precision_above: γ_{l+1}.
        decay: γ_l^decay.
    """

    activation: str
    weight: Array
    step: float
    precision: float
    precision_above: float
    decay: float

    @classmethod
    def of(cls, model: Model, layer: int, weight: Array, iteration: int) -> Relaxation:
        """Return the equation of a layer in an inference iteration 1 … T."""
        return cls(
            model.activation[layer],
            weight,
            model.steps[iteration - 1],
            model.precision[layer],
            model.precision[layer + 1],
            model.decay[layer],
        )

    @property
    def terms(self) -> int:
        """Roundings of one element: n_{l+1} of the product, 10 of everything else and of the records."""
        return len(self.weight) + 10

    def new_activity(self, activity: Array, prediction: Array, error_above: Array) -> Array:
        """Return the activity (samples, n_l) after the iteration."""
        f = ACTIVATIONS[self.activation]
        drive = self.precision_above * (error_above @ self.weight) - self.decay * f.value(activity)
        own = self.precision * (activity - prediction)
        return np.asarray(activity + self.step * (f.slope(activity) * drive - own))

    def scale(self, activity: Array, prediction: Array, error_above: Array) -> Array:
        """Return the sum of the sizes of all terms: what a relative rounding error is relative to."""
        f = ACTIVATIONS[self.activation]
        drive = self.precision_above * (np.abs(error_above) @ np.abs(self.weight))
        drive = drive + self.decay * np.abs(f.value(activity))
        own = self.precision * (np.abs(activity) + np.abs(prediction))
        return np.asarray(np.abs(activity) + self.step * (f.steepest * drive + own))

    def rounding(self, activity: Array, prediction: Array, error_above: Array, relative: float) -> Array:
        """Return a bound of how far rounding to a relative precision can take the new activity."""
        f = ACTIVATIONS[self.activation]
        drive = self.precision_above * (np.abs(error_above) @ np.abs(self.weight))
        bend = f.slope_error(activity, relative * float(np.abs(activity).max(initial=0.0))) * drive
        size = self.scale(activity, prediction, error_above)
        return np.asarray(relative * self.terms * size + self.step * bend)


def find_inbox(
    states: States, model: Model, parameters: Parameters, layer: int, iteration: int
) -> Inbox | None:
    """Return what the layer had when it relaxed in an iteration, 1 … T; None if no record explains it.

    Messages of this iteration and of the one before come first: orders with a list use no others. Then
    others of the neighbourhood, for orders in which layers run ahead of each other.
    """
    relaxation = Relaxation.of(model, layer, parameters.weight, iteration)
    recent = range(iteration - 1, iteration + 1)
    near = range(max(0, iteration - NEIGHBOURHOOD), min(model.iterations, iteration + NEIGHBOURHOOD) + 1)
    for iterations, activities in ((recent, [iteration]), (near, near)):
        predictions = _predictions(states, layer, iterations)
        errors = _errors(states, layer, iterations, activities)
        best = _best(relaxation, states, model, layer, iteration, predictions, errors)
        if best is not None:
            return best
    return None


def _best(
    relaxation: Relaxation,
    states: States,
    model: Model,
    layer: int,
    iteration: int,
    predictions: dict[str, Array],
    errors: dict[str, Array],
) -> Inbox | None:
    """Return the messages that explain the new activity best; None if rounding explains no deviation."""
    before, after = states.arrays[f"activity_{layer}"][iteration - 1 : iteration + 1]
    none, own = np.zeros_like(before), relaxation.step * relaxation.precision
    kept = model.channels.states.error(after)
    best, smallest = None, 1.0
    for error_name, error in errors.items():
        # The new activity is linear in the prediction.
        without = relaxation.new_activity(before, none, error) - after
        allowed = relaxation.rounding(before, none, error, states.precision)
        allowed = allowed + states.precision * np.abs(after) + np.finfo(float).tiny + kept
        for name, prediction in predictions.items():
            room = allowed + states.precision * relaxation.terms * own * np.abs(prediction)
            misfit = float((np.abs(without + own * prediction) / room).max(initial=0.0))
            if misfit < smallest:
                best, smallest = Inbox(prediction, error, name, error_name), misfit
    return best


def _predictions(states: States, layer: int, iterations: Iterable[int]) -> dict[str, Array]:
    """Return what could have been in the inbox from below."""
    found: dict[str, Array] = {}
    for n in iterations:
        for column in (f"prediction_{layer}", f"prediction_message_{layer - 1}"):
            _add(found, f"{column}[{n}]", states.arrays[column][n])
    return found


def _errors(
    states: States, layer: int, iterations: Iterable[int], activities: Iterable[int]
) -> dict[str, Array]:
    """Return what could have been in the inbox from above.

    The probe keeps an iteration's last error only; earlier ones are formed again, from the activity above
    and from a prediction that was there.
    """
    arrays, above = states.arrays, layer + 1
    found: dict[str, Array] = {}
    for n in iterations:
        for column in (f"error_message_{above}", f"error_{above}"):
            _add(found, f"{column}[{n}]", arrays[column][n])
    if f"activity_{above}" in arrays:
        for a in activities:
            for n in iterations:
                for column in (f"prediction_{above}", f"prediction_message_{layer}"):
                    formed = arrays[f"activity_{above}"][a] - arrays[column][n]
                    _add(found, f"activity_{above}[{a}] - {column}[{n}]", formed)
    return found


def _add(found: dict[str, Array], name: str, array: Array) -> None:
    if not any(np.array_equal(array, other) for other in found.values()):
        found[name] = array
