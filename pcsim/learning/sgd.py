"""Plain gradient steps: W_l += α G_l."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pcsim.errors import real, refuse_unless
from pcsim.kernels import ActivationName, Array, Kernels, LearningSteps, Synapses


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent on the free energy with one rate α for all connections."""

    rate: float

    def __post_init__(self) -> None:
        refuse_unless(real(self.rate, above=0), "learning.rate", self.rate, "a value above 0")

    def __call__(self, weight: Array, bias: Array) -> SGDLearner:
        """Return the learner of one connection."""
        return SGDLearner(self)


@dataclass(frozen=True)
class SGDLearner:
    """SGD at one connection; it has no state."""

    one_step: ClassVar = True
    rule: SGD

    def learn(
        self,
        kernels: LearningSteps,
        weight: Array,
        bias: Array,
        error_above: Array,
        activity: Array,
        activation: ActivationName,
    ) -> float:
        """W_l += α G_l, b_l += α g_l; return the mean |Δ|."""
        return kernels.sgd_step(weight, bias, error_above, activity, activation, self.rule.rate)

    def place(self, kernels: Kernels, synapses: Synapses) -> None:
        """Nothing to move."""

    def state(self) -> dict[str, Array]:
        """Return nothing: SGD remembers nothing."""
        return {}
