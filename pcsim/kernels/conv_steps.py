"""Learning steps of a convolution on a CPU, from its Hebbian product as it is formed, part by part.

They stand in for those of `pcsim.kernels.cpu`, which take both factors as whole matrices: here the second
one, what all windows see, would be larger than everything else that training holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pcsim.kernels import ActivationName, Array, conv_loops, loops
from pcsim.kernels.reference import adam_corrections
from pcsim.kernels.steps import AddingSteps

if TYPE_CHECKING:
    from pcsim.kernels.cpu_conv import CpuConvolution


class ConvolutionSteps(AddingSteps):
    """The learning steps of one convolution; arguments are those of `pcsim.kernels.reference`.

    Activities and errors are those of the two layers, e_{l+1} and ĥ_l, and not patches of them.

    Args:
        synapses: of the connection.
        area: of a window, in pixels.
    """

    def __init__(self, synapses: CpuConvolution, area: int) -> None:
        self._synapses, self._area = synapses, area

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
        """Adam on −G_l, part by part; return the mean |Δ|."""
        corrections = adam_corrections(updates, beta1, beta2)
        constants = loops.AdamConstants(1 / len(activity), rate, beta1, beta2, *corrections, epsilon)
        first_moment, second_moment, bias_first, bias_second = moments
        area = self._area

        def use(first: int, total: Array) -> Array:
            norms = np.empty(len(total) // area)
            conv_loops.adam_turned(weight, total, first, area, first_moment, second_moment, constants, norms)
            return norms

        norms, bias_total = self._synapses.hebbian(error_above, activity, use)
        norm = float(loops.adam(bias, bias_total, bias_first, bias_second, constants))
        return (float(norms.sum()) + norm) / (weight.size + bias.size)

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
        batch, area = len(activity), self._area

        def use(first: int, total: Array) -> Array:
            norms = np.empty(len(total) // area)
            conv_loops.add_turned(weight, total, first, area, rate / batch, norms)
            return norms

        norms, bias_total = self._synapses.hebbian(error_above, activity, use)
        loops.add_scaled(bias, bias_total, rate / batch)
        norm = float(norms.sum()) + float(loops.absolute_sum(bias_total))
        return norm / (batch * (weight.size + bias.size))
