"""The steps of SGD and MQ for whoever adds a multiple of the Hebbian product in one pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from pcsim.errors import ShapeError
from pcsim.kernels import ActivationName, Array
from pcsim.kernels.reference import share_kept


class AddingSteps(ABC):
    """Learning steps that never hold the gradient of a whole matrix; arguments as in the reference."""

    @abstractmethod
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

    def sgd_step(
        self,
        weight: Array,
        bias: Array,
        error_above: Array,
        activity: Array,
        activation: ActivationName,
        rate: float,
    ) -> float:
        """W_l += α G_l, b_l += α g_l; return the mean |Δ| over weight and bias."""
        return abs(rate) * self.add_hebbian(weight, bias, error_above, activity, activation, rate)

    def mq_step(
        self,
        weight: Array,
        bias: Array,
        error_above: Array,
        activity: Array,
        activation: ActivationName,
        mean_gradient: Array,
        updates: Array,
        rate: float,
        minimum_rate: float,
        r: float,
        decay: float,
    ) -> float:
        """(7) with the v_l of before the step, then (8); return the mean |Δ|."""
        scale = rate / (float(mean_gradient[0]) + r) + minimum_rate
        mean = self.add_hebbian(weight, bias, error_above, activity, activation, scale)
        kept = share_kept(updates, decay)
        mean_gradient[0] = kept * mean_gradient[0] + (1 - kept) * mean
        return scale * mean


class Shaped(Protocol):
    """An array, wherever it lies."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        ...


def check_operands(weight: Shaped, bias: Shaped, error_above: Shaped, activity: Shaped) -> None:
    """Refuse operands that do not fit: compiled loops look at no shape, and write wherever they are sent.

    Raises:
        ShapeError: says which shapes were given and expected.
    """
    batch, (outputs, inputs) = activity.shape[0], weight.shape
    given = bias.shape, error_above.shape, activity.shape
    expected = (outputs,), (batch, outputs), (batch, inputs)
    if given != expected:
        raise ShapeError(
            "bias, error above and activity of shapes {}, {} and {} at a weight of shape {}: "
            "expected {}, {} and {}".format(*given, weight.shape, *expected)
        )
