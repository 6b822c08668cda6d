"""The constants of a network and what they may be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypedDict

import numpy as np
import numpy.typing as npt

from pcsim.errors import ConfigurationError, ShapeError, nearest, whole
from pcsim.kernels import ActivationName, Array, OutputName

LearnFrom = Literal["activity", "label"]


class Constants(TypedDict, total=False):
    """The constants of a network.

    Attributes:
        activation: f of the hidden layers (relu); it is never applied to the input, which may be signed.
        output: function at the output: softmax for classes, sigmoid for values in [0, 1], identity.
        proximal_step: β of the soft clamp (3), mix m = 1/(1 + β) (100); infinity is the hard clamp.
        precision: γ_l of each layer, 1 if not given; that of the input has no effect and must be 1.
            The output's weighs its error in the free energy; the clamp is set by `proximal_step` alone.
        activity_decay: γ_l^decay of each layer, 0 if not given and at the clamped input and output.
        dtype: "float32" or "float64".
        seed: of the initial weights, where `parameters` are not given.
        parameters: (W_l, b_l) to start from, copied.
        learn_output_from: see `Network`.
    """

    activation: ActivationName
    output: OutputName
    proximal_step: float
    precision: Sequence[float] | None
    activity_decay: Sequence[float] | None
    dtype: npt.DTypeLike
    seed: int
    parameters: Sequence[tuple[Array, Array]] | None
    learn_output_from: LearnFrom


DEFAULTS: Constants = {
    "activation": "relu",
    "output": "softmax",
    "proximal_step": 100.0,
    "precision": None,
    "activity_decay": None,
    "dtype": "float32",
    "seed": 0,
    "parameters": None,
    "learn_output_from": "activity",
}


def check_constants(given: Iterable[str]) -> None:
    """Refuse names that are none: what is misspelt would have no effect."""
    for name in given:
        if name not in DEFAULTS:
            raise ConfigurationError(f"{name}: unknown constant; {nearest(name, DEFAULTS)}")


def checked_sizes(sizes: Sequence[int]) -> list[int]:
    """Return the sizes of layers as they should be."""
    given = list(sizes) if isinstance(sizes, Iterable) else sizes
    if not isinstance(given, list) or len(given) < 2 or not all(whole(size, 1) for size in given):
        raise ShapeError(
            f"layers = {sizes!r}: expected at least an input and an output, each a whole number from 1, "
            "as in [64, 32, 10]"
        )
    return [int(size) for size in given]


def name_of(dtype: npt.DTypeLike) -> str:
    """Return the name of a type of numbers, given as NumPy knows it; what it does not know as it is."""
    try:
        return "None" if dtype is None else np.dtype(dtype).name
    except TypeError:
        return str(dtype)


def check_name(what: str, given: str, known: tuple[str, ...]) -> None:
    """Refuse a name that is none of the known ones."""
    if given not in known:
        raise ConfigurationError(f"{what} = '{given}': {nearest(given, known)}")


def check_clamped(precisions: list[float], decays: list[float]) -> None:
    """Refuse constants that would have no effect: the input and the output are clamped."""
    if decays[0] or decays[-1] or precisions[0] != 1:
        raise ConfigurationError(
            "activity_decay of the input or output, or precision of the input: "
            "expected 0, 0 and 1, since these layers are clamped"
        )


def per_layer(what: str, given: Sequence[float] | None, default: float, depth: int) -> list[float]:
    """Return a constant of each layer, the default for all if none are given."""
    try:
        values = [default] * depth if given is None else [float(value) for value in given]
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"{what} = {given!r}: expected a list of numbers, one for each of the {depth} layers"
        ) from None
    if len(values) != depth:
        raise ShapeError(f"{what} has {len(values)} values: expected one for each of the {depth} layers")
    if not all(np.isfinite(value) and value >= 0 for value in values):
        raise ConfigurationError(f"{what} = {values}: expected finite values, none below 0")
    return values
