"""What learns at one connection, as a layer sees it; the rules are in `pcsim.learning`."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from pcsim.errors import ConfigurationError
from pcsim.kernels import ActivationName, Array, Kernels, LearningSteps, Synapses


class Learner(Protocol):
    """A learning rule at one connection, with its state; the rules are in `pcsim.learning`."""

    def learn(
        self,
        kernels: LearningSteps,
        weight: Array,
        bias: Array,
        error_above: Array,
        activity: Array,
        activation: ActivationName,
    ) -> float:
        """Update weight and bias in place from what the layer holds; return the mean |Δ| over both."""
        ...

    def state(self) -> dict[str, Array]:
        """Return the arrays that the rule carries from update to update, by name."""
        ...

    def place(self, kernels: Kernels, synapses: Synapses) -> None:
        """Move these arrays to where the kernels work; called once, before the first update.

        Those in the shape of the weight go where `synapses.place` takes the weight.
        """
        ...


def state_of(learner: Learner) -> dict[str, Array]:
    """Return the arrays that a learner carries, which are written to where a run resumes.

    Raises:
        ConfigurationError: it gives other arrays each time, so that what is put back would be lost.
    """
    first, second = learner.state(), learner.state()
    for name, array in first.items():
        other = second.get(name)
        both = isinstance(array, np.ndarray) and isinstance(other, np.ndarray)
        if other is not array and not (both and np.may_share_memory(array, other)):
            raise ConfigurationError(
                f"learning rule {type(learner).__name__}: state() gives another array '{name}' each time: "
                "expected the one that learn changes in place"
            )
    return first


def takes_one_step(learner: object) -> bool:
    """Return whether a learner makes one of the kernels' steps an update, with constants, and nothing else.

    Then the step may be put off, done part by part, or recorded. A class says so by `one_step`; one that
    inherits from it has to say so again.
    """
    return bool(vars(type(learner)).get("one_step", False))
