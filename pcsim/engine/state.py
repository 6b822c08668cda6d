"""What training has changed, by name: how runs are put aside and taken up again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pcsim.errors import CheckpointError
from pcsim.kernels import Array
from pcsim.network.layer import Layer
from pcsim.network.learner import state_of

Facts = dict[str, Any]  # fit for JSON


def learnt(layers: Sequence[Layer]) -> dict[str, Array]:
    """Return copies of weights, biases and the learning rules' state, such as weight_0, mean_gradient_0."""
    return {name: np.array(array) for name, array in _named(layers)}


def relearn(layers: Sequence[Layer], arrays: Mapping[str, Array]) -> None:
    """Put back what `learnt` has returned.

    Raises:
        CheckpointError: an array is missing or of another shape.
    """
    for name, array in _named(layers):
        put(array, arrays, name)


def put(array: Any, arrays: Mapping[str, Array], name: str) -> None:  # noqa: ANN401 - also on a device
    """Overwrite an array with the one of that name.

    Raises:
        CheckpointError: there is none, or it has another shape.
    """
    if name not in arrays or arrays[name].shape != tuple(array.shape):
        found = f"of shape {arrays[name].shape}" if name in arrays else "missing"
        raise CheckpointError(f"checkpoint: {name} is {found}, expected shape {tuple(array.shape)}")
    array[...] = arrays[name]


def _named(layers: Sequence[Layer]) -> Iterator[tuple[str, Array]]:
    for layer in layers[:-1]:
        index = layer.traits.index
        yield f"weight_{index}", layer.weight
        yield f"bias_{index}", layer.bias
        if layer.learner is not None:
            for name, array in state_of(layer.learner).items():
                yield f"{name}_{index}", array
