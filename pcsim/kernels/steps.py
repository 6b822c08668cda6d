"""The steps of SGD and MQ for whoever adds a multiple of the Hebbian product in one pass."""

from __future__ import annotations

from abc import ABC, abstractmethod

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
