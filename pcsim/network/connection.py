"""How layer l reaches layer l + 1: geometry only; the weights belong to the presynaptic layer.

Both kinds of connection offer the same, so that a layer never asks which kind it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from pcsim.architecture import ConvLayer
from pcsim.kernels import ActivationName, Array, Kernels, Synapses
from pcsim.kernels.layout import roomy


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

    remembers = False
    positions = 1
    laid_out = 0
    weight_dims = ("target_neuron", "source_neuron")

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight, (n_{l+1}, n_l)."""
        return self.outputs, self.inputs

    @property
    def multiplications(self) -> int:
        """Multiplications of one product with the weights (or of one outer product), one sample."""
        return self.inputs * self.outputs

    @property
    def parameters(self) -> int:
        """Number of weights and biases."""
        return _count_parameters(self.weight_shape)

    def describe(self) -> dict[str, Any]:
        """Return what kind of connection it is, fit for JSON."""
        return {"kind": "dense"}

    def synapses(self, kernels: Kernels, batch: int, dtype: np.dtype[np.floating]) -> Synapses:
        """Return the arithmetic of this connection for mini-batches of `batch` samples."""
        return kernels.dense(self.activation, batch)

    def initial_parameters(
        self, rng: np.random.Generator, dtype: np.dtype[np.floating]
    ) -> tuple[Array, Array]:
        """Draw weights and (n_{l+1},) biases uniformly within ±1/√n_l, as torch.nn.Linear does."""
        return _draw(self.weight_shape, rng, dtype)


@dataclass(frozen=True)
class Conv:
    """A convolution, p_{l+1} = pool(f(conv(ĥ_l; W_l) + b_l)): the non-linearity follows the weights.

    Layer l reads the image in its own activity as it is: on the way up its own activation is the identity.
    Neurons are the numbers of an image, channel by channel, then row by row.

    Attributes:
        layer: image, window, stride and pooling.
        after: f, applied to what the convolution makes.
    """

    layer: ConvLayer
    after: ActivationName

    remembers = True
    weight_dims = ("target_channel", "source_channel", "kernel_row", "kernel_column")

    @property
    def activation(self) -> ActivationName:
        """What the presynaptic layer does on the way up: nothing."""
        return "identity"

    @property
    def inputs(self) -> int:
        """Number of presynaptic neurons, n_l."""
        return prod(self.layer.image)

    @property
    def outputs(self) -> int:
        """Number of postsynaptic neurons, n_{l+1}."""
        return prod(self.layer.result)

    @property
    def positions(self) -> int:
        """Places of the window on the image, each of which takes one product with the weights."""
        return self.layer.positions

    @property
    def laid_out(self) -> int:
        """Numbers in all windows of one sample, or in what they make, which kernels lay out as matrices."""
        return self.positions * max(self.layer.terms, self.layer.channels)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight, (channels out, channels in, kernel, kernel)."""
        return self.layer.channels, self.layer.image[0], self.layer.kernel, self.layer.kernel

    @property
    def multiplications(self) -> int:
        """Multiplications of one product with the weights, its transpose or one update, one sample."""
        return prod(self.weight_shape) * self.positions

    @property
    def parameters(self) -> int:
        """Number of weights and biases."""
        return _count_parameters(self.weight_shape)

    def describe(self) -> dict[str, Any]:
        """Return what kind of connection it is, fit for JSON; shapes are those of the layers."""
        names = ("kernel", "stride", "pool", "pool_size")
        numbers = {name: getattr(self.layer, name) for name in names}
        return {"kind": "conv", **numbers, "activation": self.after}

    def synapses(self, kernels: Kernels, batch: int, dtype: np.dtype[np.floating]) -> Synapses:
        """Return the arithmetic of this connection for mini-batches of `batch` samples."""
        return kernels.convolution(self.layer, self.after, batch, dtype)

    def initial_parameters(
        self, rng: np.random.Generator, dtype: np.dtype[np.floating]
    ) -> tuple[Array, Array]:
        """Draw weights and (channels,) biases within ±1/√(in · kernel²), as torch.nn.Conv2d does."""
        return _draw(self.weight_shape, rng, dtype)


Connection = Dense | Conv


def as_matrix(weight: Array) -> Array:
    """Return a weight as a matrix, (n_{l+1} or channels, terms): a view."""
    return weight if weight.ndim == 2 else weight.reshape(len(weight), -1)


def _count_parameters(weight_shape: tuple[int, ...]) -> int:
    return prod(weight_shape) + weight_shape[0]


def _draw(
    weight_shape: tuple[int, ...], rng: np.random.Generator, dtype: np.dtype[np.floating]
) -> tuple[Array, Array]:
    """Draw within ±1/√terms, the bounds with which the paper's networks started.

    Draws are made in float64 and rounded, so that one seed means one network in either dtype.
    """
    bound = 1 / np.sqrt(prod(weight_shape[1:]))
    weight = roomy(weight_shape, dtype)
    for row in weight:  # together they would take twice the memory of the weight besides
        row[...] = rng.uniform(-bound, bound, weight_shape[1:])
    return weight, rng.uniform(-bound, bound, weight_shape[0]).astype(dtype)
