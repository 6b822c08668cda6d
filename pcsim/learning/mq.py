"""MQ: one adaptive scalar a weight matrix in place of Adam's two moments a weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pcsim.errors import real, refuse_unless
from pcsim.kernels import ActivationName, Array, Kernels, LearningSteps, Synapses


@dataclass(frozen=True)
class MQ:
    """Steps of matrix-wise equal size, equations (7) and (8) of arXiv 2305.13562.

    Attributes:
        rate: α_l; also where v_l starts.
        minimum_rate: α_min.
        r: keeps the quotient finite.
        decay: ρ of the running mean v_l; 0.9999 for dense, 0.999 for convolutional networks.
    """

    rate: float
    minimum_rate: float = 1e-3
    r: float = 1e-6
    decay: float = 0.9999

    def __post_init__(self) -> None:
        for name in ("rate", "r"):
            value = getattr(self, name)
            refuse_unless(real(value, above=0), f"learning.{name}", value, "a value above 0")
        least, decay = self.minimum_rate, self.decay
        refuse_unless(real(least, least=0), "learning.minimum_rate", least, "0 or more")
        refuse_unless(real(decay, least=0, most=1), "learning.decay", decay, "a value from 0 to 1")

    def __call__(self, weight: Array, bias: Array) -> MQLearner:
        """Return the learner of one connection."""
        return MQLearner(self, np.array([self.rate]), np.zeros(1))


@dataclass
class MQLearner:
    """MQ at one connection.

    Attributes:
        mean_gradient: v_l, the running mean of |[G_l, g_l]|; shape (1,), float64.
        updates: how many updates were made; shape (1,).
    """

    one_step: ClassVar = True
    rule: MQ
    mean_gradient: Array
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
        """W_l += (α/(v_l + r) + α_min) G_l, then update v_l; return the mean |Δ|."""
        rule = self.rule
        return kernels.mq_step(
            weight,
            bias,
            error_above,
            activity,
            activation,
            self.mean_gradient,
            self.updates,
            rule.rate,
            rule.minimum_rate,
            rule.r,
            rule.decay,
        )

    def place(self, kernels: Kernels, synapses: Synapses) -> None:
        """Move v_l and n to where the kernels work."""
        self.mean_gradient = kernels.to_device(self.mean_gradient)
        self.updates = kernels.to_device(self.updates)

    def state(self) -> dict[str, Array]:
        """Return v_l and the number of updates."""
        return {"mean_gradient": self.mean_gradient, "updates": self.updates}
