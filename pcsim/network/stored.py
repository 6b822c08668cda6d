"""Networks in files: safetensors for the parameters, and JSON in its metadata for the rest.

A checkpoint of a run is such a file, too: it says the same of its network, among other things.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pcsim import hidden_file
from pcsim.architecture import Architecture, ConvLayer, DenseLayer
from pcsim.errors import NetworkError, PcsimError, ShapeError
from pcsim.kernels import Array
from pcsim.network.network import Network, connections_of
from pcsim.places import what_is

CHECKPOINT = "checkpoint.safetensors"  # its name in the folder of a run
KEY = "pcsim"  # of the metadata


def save(network: Network, path: Path, overwrite: bool) -> None:
    """See `Network.save`."""
    from safetensors.numpy import save as packed

    if path.exists() and not overwrite:
        raise NetworkError(f"{path} exists: expected a new name, or overwrite=True")
    arrays: dict[str, Array] = {}
    for layer, (weight, bias) in enumerate(network.parameters):
        arrays |= {f"weight_{layer}": np.ascontiguousarray(weight), f"bias_{layer}": bias}
    told = json.dumps({"experiment": {"network": network.describe()}})
    try:
        with hidden_file.replacing(path) as file:
            file.write(packed(arrays, {KEY: told}))
    except OSError as error:
        raise NetworkError(f"cannot write {path}: {error.strerror}") from error


def load(path: Path) -> Network:
    """See `Network.load`."""
    from safetensors import SafetensorError, safe_open

    path = path / CHECKPOINT if path.is_dir() else path
    if not path.is_file():
        found = what_is(path) if path.exists() else "missing"
        raise NetworkError(f"{path} is {found}: expected a file from Network.save or a checkpoint")
    try:
        with safe_open(path, framework="numpy") as file:
            told = json.loads((file.metadata() or {})[KEY])["experiment"]["network"]
            count = len(told["connections"])
            names = [(f"weight_{layer}", f"bias_{layer}") for layer in range(count)]
            pairs = [(file.get_tensor(weight), file.get_tensor(bias)) for weight, bias in names]
        return build(told, pairs)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, IndexError, PcsimError) as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise NetworkError(f"{path} holds no network of pcsim, or is damaged: {line}") from error


def build(told: Mapping[str, Any], parameters: Sequence[tuple[Array, Array]]) -> Network:
    """Return the network that `Network.describe` has described.

    Args:
        told: the description.
        parameters: (W_l, b_l) of each connection; a convolution's weight may be a matrix, (channels, terms).

    Raises:
        PcsimError: values that no network can have.
        KeyError, TypeError, ValueError, IndexError: it describes none.
    """
    shapes = [tuple(int(length) for length in shape) for shape in told["shapes"]]
    layers: list[ConvLayer | DenseLayer] = []
    for below, above, one in zip(shapes, shapes[1:], told["connections"], strict=False):
        conv = one["kind"] == "conv"
        layers.append(_convolution(below, above, one) if conv else DenseLayer(math.prod(above)))
    after = [one["activation"] for one in told["connections"] if one["kind"] == "conv"]
    architecture = Architecture(shapes[0], tuple(layers))
    if architecture.shapes != tuple(shapes):
        raise ShapeError(f"layers of shapes {shapes}: expected {list(architecture.shapes)}")
    connections, _ = connections_of(architecture, "relu")
    fitting = [
        (weight.reshape(connection.weight_shape), bias)
        for connection, (weight, bias) in zip(connections, parameters, strict=True)
    ]
    network = Network.build(
        architecture,
        activation=after[0] if after else told["activation"][1] if len(shapes) > 2 else "relu",
        output=told["output"][-1],
        precision=told["precision"],
        activity_decay=told["activity_decay"],
        dtype=told["dtype"],
        learn_output_from=told["learn_output_from"],
        parameters=fitting,
    )
    # The step that gives this mix would give it back to rounding only.
    last = replace(network.traits[-1], mix=float(told["mix"][-1]))
    return replace(network, traits=(*network.traits[:-1], last))


def _convolution(below: Sequence[int], above: Sequence[int], told: Mapping[str, Any]) -> ConvLayer:
    """Return a convolution between layers of two shapes."""
    channels, height, width = below
    kernel, stride, size = (int(told[name]) for name in ("kernel", "stride", "pool_size"))
    return ConvLayer((channels, height, width), above[0], kernel, stride, told["pool"], size)
