"""Learning in replicas: each has the Hebbian sum of its own samples; the step takes the mean of all.

The all-reduce of one connection runs while the next one forms its own sum; the step is made when somebody
needs the weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pcsim.engine.distributed.wire import Wire, memory
from pcsim.errors import ConfigurationError
from pcsim.kernels import ActivationName, Array, Kernels, LearningSteps, Synapses, reference
from pcsim.kernels.steps import AddingSteps
from pcsim.learning import LearningRule
from pcsim.network.learner import Learner

ONE_SAMPLE = "replicas with nlms: expected another rule, nlms takes one sample at a time"


@dataclass(frozen=True)
class GivenGradient(AddingSteps):
    """Learning steps, equations (4), (7), (8), with a gradient that is at hand already.

    They stand in for those of `pcsim.kernels.reference`, which form the gradient from one mini-batch.

    Attributes:
        weight_part: G_l, the mean over all replicas.
        bias_part: g_l.
    """

    weight_part: Array
    bias_part: Array

    def add_hebbian(
        self,
        weight: Array,
        bias: Array,
        error_above: Array,
        activity: Array,
        activation: ActivationName,
        rate: float,
    ) -> float:
        """Add rate · [G, g] to weight and bias; return the mean |[G, g]|."""
        return reference.add(weight, bias, (self.weight_part, self.bias_part), rate)

    def nlms_step(
        self, weight: Array, bias: Array, error_above: Array, activity: Array, activation: ActivationName
    ) -> float:
        """Refuse: its rate is that of a single sample, and replicas share a mini-batch of several.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(ONE_SAMPLE)

    def adam_step(
        self,
        weight: Array,
        bias: Array,
        error_above: Array,
        activity: Array,
        activation: ActivationName,
        moments: tuple[Array, Array, Array, Array],
        updates: Array,
        rate: float,
        beta1: float,
        beta2: float,
        epsilon: float,
    ) -> float:
        """Adam (Kingma and Ba, 2015) on −G_l; return the mean |Δ|."""
        parts = self.weight_part, self.bias_part
        return reference.adam_from(parts, weight, bias, moments, updates, rate, beta1, beta2, epsilon)


class SharedLearner:
    """A learner of one of several replicas, whose learning begins in `learn` and ends in `finish`.

    Args:
        rule: the learning rule of this connection, alike in all replicas.
        weight: of this connection, for its shape.
        bias: likewise.
        wire: to the other replicas.
        ranks: of all replicas of this connection.
    """

    one_step: ClassVar = True

    def __init__(self, rule: Learner, weight: Array, bias: Array, wire: Wire, ranks: tuple[int, ...]) -> None:
        self._rule, self._wire, self._ranks = rule, wire, ranks
        self._sum = np.zeros(weight.size + bias.size, weight.dtype)
        self._parts = self._sum[: weight.size].reshape(weight.shape), self._sum[weight.size :]
        self._end: Callable[[], float] | None = None
        self._magnitude = 0.0

    def learn(
        self,
        kernels: LearningSteps,
        weight: Array,
        bias: Array,
        error_above: Array,
        activity: Array,
        activation: ActivationName,
    ) -> float:
        """Form the sum of this replica and begin to add up; the mean |Δ| is that of the update before."""
        self.finish()
        self._sum[:] = 0
        # A step of rate 1 from zero is the gradient, by the very kernels that learn elsewhere.
        kernels.sgd_step(*self._parts, error_above, activity, activation, 1.0)
        work = self._wire.begin_sum(memory(self._sum), self._ranks)

        def end() -> float:
            self._await(work)
            self._sum /= len(self._ranks)
            given = GivenGradient(*self._parts)
            return self._rule.learn(given, weight, bias, error_above, activity, activation)

        self._end = end
        return self._magnitude

    def finish(self) -> None:
        """Wait for the sum and make the step, if one is due."""
        if self._end is not None:
            end, self._end = self._end, None
            self._magnitude = end()

    def __float__(self) -> float:
        """Return the mean |Δ| of the latest update."""
        self.finish()
        return self._magnitude

    def state(self) -> dict[str, Array]:
        """Return the arrays of the rule."""
        self.finish()
        return self._rule.state()

    def place(self, kernels: Kernels, synapses: Synapses) -> None:
        """Move the arrays of the rule to where the kernels work."""
        self._rule.place(kernels, synapses)

    def _await(self, work: Any) -> None:  # noqa: ANN401 - torch's work
        other = next(rank for rank in self._ranks if rank != self._wire.rank)
        self._wire.times.waiting += self._wire.wait(work, other)


def check_replicas(rule: LearningRule, batch: int, replicas: int, backend: str) -> None:
    """Refuse what replicas cannot share.

    Raises:
        ConfigurationError: a mini-batch that does not divide, a GPU, or a rule that looks at samples itself.
    """
    if batch % replicas:
        raise ConfigurationError(
            f"{replicas} replicas of a mini-batch of {batch}: expected a divisor; change training.batch"
        )
    if replicas > 1 and backend == "cuda":
        raise ConfigurationError("replicas with --backend cuda: expected cpu or reference")
    if replicas > 1:
        _rehearse(rule)


def _rehearse(rule: LearningRule) -> None:
    """Let a rule learn once, with errors and activities that leave a mark on whatever looks at them.

    Each replica has those of its own samples only: weights that learn from them drift apart.
    """
    weight, bias, unseen = np.zeros((1, 1)), np.zeros(1), np.full((1, 1), np.nan)
    given = GivenGradient(np.zeros_like(weight), np.zeros_like(bias))
    rule(weight, bias).learn(given, weight, bias, unseen, unseen, "identity")
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise ConfigurationError(
            f"replicas with {type(rule).__name__}: it looks at errors or activities itself, of which each "
            "replica has only those of its own samples; expected a rule that leaves that to "
            "kernels.sgd_step, mq_step or adam_step"
        )
