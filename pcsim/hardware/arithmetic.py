"""Arithmetic of one value: what f and f' do with it, after `pcsim.kernels.reference`."""

from __future__ import annotations

from collections.abc import Mapping

from pcsim.kernels import ActivationName

Arithmetic = tuple[float, float, float]  # multiplications, additions, functions
ACTIVATE: Mapping[ActivationName, Arithmetic] = {
    "identity": (0, 0, 0),
    "relu": (0, 1, 0),  # a comparison
    "leaky_relu": (1, 1, 0),
    "tanh": (0, 0, 1),
    "sigmoid": (0, 0, 1),
    "gelu": (1, 0, 1),  # x times the normal distribution function
}
DERIVATIVE: Mapping[ActivationName, Arithmetic] = {
    "identity": (0, 0, 0),
    "relu": (0, 1, 0),
    "leaky_relu": (0, 1, 0),
    "tanh": (1, 1, 1),  # 1 − tanh²
    "sigmoid": (1, 1, 1),  # s (1 − s)
    "gelu": (1, 1, 2),  # the distribution function and x times the density
}


def added(*parts: Arithmetic) -> Arithmetic:
    """Add up."""
    multiplications, additions, functions = map(sum, zip(*parts, strict=True))
    return multiplications, additions, functions


def scaled(one: Arithmetic, times: float) -> Arithmetic:
    """Do it so many times."""
    return one[0] * times, one[1] * times, one[2] * times
