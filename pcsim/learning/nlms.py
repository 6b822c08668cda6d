"""Normalised least mean squares: the smallest change that makes a prediction equal its activity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pcsim.errors import ShapeError
from pcsim.kernels import ActivationName, Array, Kernels, LearningSteps, Synapses


@dataclass(frozen=True)
class NLMS:
    """α_l = 1/(‖f(ĥ_l)‖² + 1), the 1 for the bias: solves the local prediction problem exactly."""

    def __call__(self, weight: Array, bias: Array) -> NLMSLearner:
        """Return the learner of one connection."""
        return NLMSLearner()


@dataclass(frozen=True)
class NLMSLearner:
    """NLMS at one connection; it has no state."""

    one_step: ClassVar = True

    def learn(
        self,
        kernels: LearningSteps,
        weight: Array,
        bias: Array,
        error_above: Array,
        activity: Array,
        activation: ActivationName,
    ) -> float:
        """Take the exact step; return the mean |Δ|.

        Raises:
            ShapeError: a mini-batch of more than one sample, or a convolution.
        """
        if len(activity) != 1:
            raise ShapeError(
                f"NLMS with a mini-batch of {len(activity)} or windows of a convolution: expected 1; "
                "set training.batch=1 and use no convolution"
            )
        return kernels.nlms_step(weight, bias, error_above, activity, activation)

    def place(self, kernels: Kernels, synapses: Synapses) -> None:
        """Nothing to move."""

    def state(self) -> dict[str, Array]:
        """Return nothing: NLMS remembers nothing."""
        return {}
