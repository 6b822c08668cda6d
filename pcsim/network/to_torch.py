"""A network as a torch Sequential: the writing half of `Network.to_torch`.

torch is imported inside these functions only; parameters are copied.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from pcsim.kernels import ActivationName, Array, OutputName
from pcsim.kernels.reference import LEAK
from pcsim.network.connection import Connection, Conv
from pcsim.network.from_torch import require_torch

if TYPE_CHECKING:
    from torch import nn

    Module = nn.Module


def build_module(
    connections: Sequence[Connection],
    parameters: Sequence[tuple[Array, Array]],
    output: OutputName | None,
    names: Sequence[str],
) -> nn.Sequential:
    """Write connections as a Sequential; see `Network.to_torch`.

    Raises:
        ConfigurationError: torch is not installed.
    """
    require_torch()
    from torch import nn

    made: list[tuple[int | None, Module]] = []  # a connection's index, or None of a module without weights
    if names and names[0].rpartition(".")[2] != "0":
        made += [] if isinstance(connections[0], Conv) else [(None, nn.Flatten())]
    for index, (connection, pair) in enumerate(zip(connections, parameters, strict=True)):
        if isinstance(connection, Conv):
            made.append((index, _conv(connection, *pair)))
            made += [(None, one) for one in (*_plain(connection.after), *_pool(connection))]
        else:
            after_image = index > 0 and isinstance(connections[index - 1], Conv)
            made += [(None, one) for one in _plain(connection.activation)]
            made += [(None, nn.Flatten())] if after_image else []
            made.append((index, _linear(*pair)))
    made += [(None, one) for one in _plain(output or "identity")]
    called = _names([index for index, _ in made], names)
    return _nest([(name, one) for name, (_, one) in zip(called, made, strict=True)])


def _plain(name: ActivationName | OutputName) -> list[Module]:
    """Return the module of a function; none of the identity."""
    from torch import nn

    if name == "identity":
        return []
    made: dict[str, Module] = {
        "relu": nn.ReLU(),
        "tanh": nn.Tanh(),
        "sigmoid": nn.Sigmoid(),
        "leaky_relu": nn.LeakyReLU(LEAK),
        "gelu": nn.GELU(),
        "softmax": nn.Softmax(dim=1),
    }
    return [made[name]]


def _pool(connection: Conv) -> list[Module]:
    from torch import nn

    pool, size = connection.layer.pool, connection.layer.pool_size
    if pool == "none":
        return []
    return [nn.MaxPool2d(size) if pool == "max" else nn.AvgPool2d(size)]


def _linear(weight: Array, bias: Array) -> Module:
    from torch import nn

    outputs, inputs = weight.shape
    return _filled(nn.Linear(inputs, outputs, device="meta"), weight, bias)


def _conv(connection: Conv, weight: Array, bias: Array) -> Module:
    from torch import nn

    layer = connection.layer
    made = nn.Conv2d(layer.image[0], layer.channels, layer.kernel, layer.stride, device="meta")
    return _filled(made, weight, bias)


def _filled(module: nn.Linear | nn.Conv2d, weight: Array, bias: Array) -> Module:
    """Give a module copies of our numbers; it was made on "meta", where nothing is drawn at random."""
    import torch

    module.weight, module.bias = (torch.nn.Parameter(torch.from_numpy(one.copy())) for one in (weight, bias))
    return module


def _names(indices: Sequence[int | None], given: Sequence[str]) -> list[str]:
    """Name each module: those with weights as they were called, the others by the next free number there."""
    if not given:
        return [str(place) for place in range(len(indices))]
    parent, _, _ = given[0].rpartition(".")
    taken, made, last = set(given), [], -1
    for index in indices:
        if index is not None:
            parent, _, own = given[index].rpartition(".")
            last = int(own) if own.isdecimal() else last
            made.append(given[index])
            continue
        last += 1
        while _join(parent, str(last)) in taken:
            last += 1
        made.append(_join(parent, str(last)))
        taken.add(made[-1])
    return made


def _join(parent: str, name: str) -> str:
    return f"{parent}.{name}" if parent else name


def _nest(named: list[tuple[str, Any]]) -> nn.Sequential:
    """Put modules with dotted names into Sequentials within Sequentials; neighbours share a parent."""
    from torch import nn

    children: OrderedDict[str, Module] = OrderedDict()
    for head, group in groupby(named, key=lambda one: one[0].partition(".")[0]):
        members = [(name.partition(".")[2], module) for name, module in group]
        children[head] = members[0][1] if not members[0][0] else _nest(members)
    return nn.Sequential(children)
