"""Adam (Kingma and Ba, 2015) on the local gradient, one optimizer a connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pcsim.errors import real, refuse_unless
from pcsim.kernels import ActivationName, Array, Kernels, LearningSteps, Synapses
from pcsim.kernels.layout import roomy_zeros


@dataclass(frozen=True)
class Adam:
    """Adam's constants, with the customary defaults."""

    rate: float
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        refuse_unless(real(self.rate, above=0), "learning.rate", self.rate, "a value above 0")
        for name in ("beta1", "beta2"):
            beta = getattr(self, name)
            refuse_unless(real(beta, least=0, below=1), f"learning.{name}", beta, "a value from 0 to below 1")
        refuse_unless(real(self.epsilon, above=0), "learning.epsilon", self.epsilon, "a value above 0")

    def __call__(self, weight: Array, bias: Array) -> AdamLearner:
        """Return the learner of one connection."""
        moments = roomy_zeros(weight), roomy_zeros(weight), np.zeros_like(bias), np.zeros_like(bias)
        return AdamLearner(self, moments, np.zeros(1))


@dataclass
class AdamLearner:
    """Adam at one connection.

    Attributes:
        moments: first and second moment of the weight, then of the bias, in their shapes.
        updates: how many updates were made; shape (1,).
    """

    one_step: ClassVar = True
    rule: Adam
    moments: tuple[Array, Array, Array, Array]
    updates: Array

    def learn(
        self,
        kernels: LearningSteps,
        weight: Array,
        bias: Array,
        error_above: Array,
        activity: Array,
        activation: ActivationName,
    ) -> float:
        """Take one Adam step; return the mean |Δ|."""
        rule = self.rule
        return kernels.adam_step(
            weight,
            bias,
            error_above,
            activity,
            activation,
            self.moments,
            self.updates,
            rule.rate,
            rule.beta1,
            rule.beta2,
            rule.epsilon,
        )

    def place(self, kernels: Kernels, synapses: Synapses) -> None:
        """Move the moments and n to where the kernels work."""
        *weights, bias_first, bias_second = self.moments
        first, second = map(synapses.place, weights)
        self.moments = first, second, kernels.to_device(bias_first), kernels.to_device(bias_second)
        self.updates = kernels.to_device(self.updates)

    def state(self) -> dict[str, Array]:
        """Return the moments and the number of updates."""
        names = ("weight_first", "weight_second", "bias_first", "bias_second")
        moments: dict[str, Array] = dict(zip(names, self.moments, strict=True))
        return moments | {"updates": self.updates}
