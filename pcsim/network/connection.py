"""How layer l reaches layer l + 1: geometry only; the weights belong to the presynaptic layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pcsim.kernels import ActivationName, Array


@dataclass(frozen=True)
class Dense:
    """A fully connected layer of weights, p_{l+1} = W_l f(ĥ_l) + b_l.

    Attributes:
        inputs: number of presynaptic neurons, n_l.
        outputs: number of postsynaptic neurons, n_{l+1}.
        activation: f of the presynaptic layer; the identity on the clamped input.
    """

    inputs: int
    outputs: int
    activation: ActivationName

    @property
    def multiplications(self) -> int:
        """Multiplications of one product with the weights (or of one outer product), one sample."""
        return self.inputs * self.outputs

    @property
    def parameters(self) -> int:
        """Number of weights and biases."""
        return self.inputs * self.outputs + self.outputs

    def initial_parameters(
        self, rng: np.random.Generator, dtype: np.dtype[np.floating]
    ) -> tuple[Array, Array]:
        """Draw (n_{l+1}, n_l) weights and (n_{l+1},) biases uniformly within ±1/√n_l.

        These are the bounds of torch.nn.Linear, with which the paper's networks started. Draws are made
        in float64 and rounded, so that one seed means one network in either dtype.
        """
        bound = 1 / np.sqrt(self.inputs)
        weight = rng.uniform(-bound, bound, (self.outputs, self.inputs))
        bias = rng.uniform(-bound, bound, self.outputs)
        return weight.astype(dtype), bias.astype(dtype)
