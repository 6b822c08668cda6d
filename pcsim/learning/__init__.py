"""Weight updates: what each connection does with its error and its activity, one file a rule."""

from __future__ import annotations

from typing import Protocol

from pcsim.kernels import Array
from pcsim.learning.adam import Adam
from pcsim.learning.mq import MQ
from pcsim.learning.nlms import NLMS
from pcsim.learning.sgd import SGD
from pcsim.network.learner import Learner


class LearningRule(Protocol):
    """Constants of a rule; calling it gives one connection a learner with a state of its own."""

    def __call__(self, weight: Array, bias: Array) -> Learner:
        """Return the learner of the connection with these parameters."""
        ...


__all__ = ["MQ", "NLMS", "SGD", "Adam", "Learner", "LearningRule"]
