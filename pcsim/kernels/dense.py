"""A fully connected layer of weights, by the kernels' own products."""

from __future__ import annotations

from dataclasses import dataclass

from pcsim.kernels import ActivationName, Array, Kernels


@dataclass(frozen=True)
class DenseSynapses:
    """One dense connection, which needs nothing of its last prediction; see `pcsim.kernels.Synapses`."""

    kernels: Kernels
    activation: ActivationName
    memory: tuple[Array, ...] = ()

    def place(self, weight: Array) -> Array:
        """See `Synapses`."""
        return self.kernels.to_device(weight)

    def settled(self, weight: Array) -> Array:
        """See `Synapses`."""
        return weight

    def predict(self, activity: Array, weight: Array, bias: Array, out: Array) -> None:
        """p_{l+1} = W_l f(ĥ_l) + b_l."""
        self.kernels.predict(activity, weight, bias, self.activation, out)

    def feedback(
        self, activity: Array, error_above: Array, weight: Array, precision_above: float, out: Array
    ) -> None:
        """W_lᵀ γ_{l+1} e_{l+1}."""
        self.kernels.feedback(error_above, weight, precision_above, out)

    def operands(self, error_above: Array, activity: Array) -> tuple[Array, Array, ActivationName]:
        """The operands of the Hebbian product are the two ends of the connection."""
        return error_above, activity, self.activation
