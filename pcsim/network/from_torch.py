"""What a torch Sequential says, in pcsim's words: the reading half of `Network.from_torch`.

torch is imported inside these functions only. Weights have torch's shapes on both sides, so nothing is
transposed: what changes hands are copies of the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pcsim.errors import ConfigurationError, refuse_unless
from pcsim.kernels import ActivationName, Array, OutputName
from pcsim.kernels.reference import LEAK

if TYPE_CHECKING:
    from torch import nn

    Module = nn.Module
    Named = tuple[str, Module]

KNOWN = (
    "Linear, Conv2d, ReLU, Tanh, Sigmoid, LeakyReLU, GELU, Identity, MaxPool2d, AvgPool2d, Flatten, Softmax"
)


@dataclass(frozen=True)
class Translation:
    """What a torch module says, in pcsim's words.

    Attributes:
        layers: in words; see `pcsim.architecture`.
        activation: f of the hidden layers; None if there are none.
        output: the function at the end.
        dtype: of the parameters.
        parameters: (W_l, b_l) of each connection, copied.
        names: of the modules that hold them, as in the state_dict.
    """

    layers: tuple[str, ...]
    activation: ActivationName | None
    output: OutputName
    dtype: str
    parameters: tuple[tuple[Array, Array], ...]
    names: tuple[str, ...]


def translate(
    module: nn.Sequential, image: tuple[int, int, int] | None, output: OutputName | None
) -> Translation:
    """Read a Sequential of Linear or Conv2d, activations, pools and Flatten; see `Network.from_torch`.

    Raises:
        ConfigurationError: no torch, or a module, or a setting of one, that pcsim has no equal for.
    """
    require_torch()
    stages = list(_stages(_leaves(module)))
    kinds = {_activation(stage) for stage in stages[:-1]}
    if len(kinds) > 1:
        raise ConfigurationError(
            f"activations {', '.join(sorted(kinds))}: expected the same one after each hidden layer"
        )
    layers = [_words(stage, last=stage is stages[-1]) for stage in stages]
    holders = [stage[0] for stage in stages]
    parameters = tuple(_parameters(*holder) for holder in holders)
    dtypes = {array.dtype.name for pair in parameters for array in pair}
    refuse_unless(len(dtypes) == 1, "dtypes of the parameters", sorted(dtypes), "one for all of them")
    return Translation(
        (_input(holders[0], image), *layers),
        next(iter(kinds), None),
        _output(stages[-1], output),
        dtypes.pop(),
        parameters,
        tuple(name for name, _ in holders),
    )


def require_torch() -> None:
    """Refuse to go on without torch.

    Raises:
        ConfigurationError: torch is not installed.
    """
    if find_spec("torch") is None:
        raise ConfigurationError("networks from and to torch need torch; install pcsim[torch]")


def _leaves(module: nn.Sequential) -> list[Named]:
    """Return what a Sequential does, in order; Sequentials within it are opened."""
    from torch import nn

    if type(module) is not nn.Sequential:
        raise ConfigurationError(f"module is a {type(module).__name__}: expected a torch.nn.Sequential")
    # A module that stands in two places, as one ReLU may, is done in both.
    named = module.named_modules(remove_duplicate=False)
    leaves = [(name, one) for name, one in named if type(one) is not nn.Sequential]
    for name, one in leaves:
        kind = type(one).__name__
        if type(one) is not getattr(nn, kind, None) or kind not in KNOWN.split(", "):
            raise ConfigurationError(f"module '{name}' is a {kind}: expected one of {KNOWN}")
    holders = [one for _, one in leaves if _holds(one)]
    refuse_unless(len(set(holders)) == len(holders), "modules", "one of them twice", "weights of their own")
    return leaves


def _holds(module: Module) -> bool:
    return type(module).__name__ in ("Linear", "Conv2d")


def _stages(leaves: list[Named]) -> Iterator[list[Named]]:
    """Cut after each layer of weights: it and what follows it, without modules that do nothing."""
    begun = 0
    groups: list[list[Named]] = [[]]
    for leaf in leaves:
        begun += _holds(leaf[1])
        if len(groups) <= begun:
            groups.append([])
        groups[begun].append(leaf)
    before, *stages = groups
    for name, one in before:
        if not _is_flatten(one):
            raise ConfigurationError(f"module '{name}' is a {_said(one)}: expected Linear or Conv2d first")
    refuse_unless(bool(stages), "module", "no Linear in it", "one Linear or more")
    if before and type(stages[0][0][1]).__name__ == "Conv2d":
        raise ConfigurationError(f"module '{before[0][0]}' flattens an image: expected Conv2d to read it")
    for stage in stages:
        yield [leaf for leaf in stage if type(leaf[1]).__name__ != "Identity"]


def _activation(stage: list[Named]) -> ActivationName:
    """Return f of a hidden layer, which follows its weights at once."""
    return _function(stage[1]) or "identity" if len(stage) > 1 else "identity"


def _function(leaf: Named) -> ActivationName | None:
    """Return which activation a module is, or None; refuse settings that ours has not."""
    one, kind = leaf[1], type(leaf[1]).__name__
    known: dict[str, ActivationName] = {
        "ReLU": "relu",
        "Tanh": "tanh",
        "Sigmoid": "sigmoid",
        "LeakyReLU": "leaky_relu",
        "GELU": "gelu",
    }
    _need(leaf, kind != "LeakyReLU" or getattr(one, "negative_slope", None) == LEAK, f"negative_slope={LEAK}")
    _need(leaf, kind != "GELU" or getattr(one, "approximate", None) == "none", "approximate='none'")
    return known.get(kind)


def _words(stage: list[Named], *, last: bool) -> str:
    """Return one stage as a layer in words; what is left over has no place in a network of ours."""
    (name, holder), *rest = stage
    if rest and (last or _function(rest[0])):
        _need(rest[0], not last or _end(rest[0]) is not None, "Softmax, Sigmoid or nothing at the end")
        rest = rest[1:]
    if type(holder).__name__ == "Linear":
        words = f"dense {_whole(holder, 'out_features')}"
    else:
        words = _conv_words((name, holder))
        if rest and type(rest[0][1]).__name__ in ("MaxPool2d", "AvgPool2d"):
            words += _pool_words(rest.pop(0))
        if rest and _is_flatten(rest[0][1]):
            rest = rest[1:]
    for leaf in rest:
        _need(leaf, False, "Linear, activation; or Conv2d, activation, pool; Flatten before the first Linear")
    return words


def _conv_words(leaf: Named) -> str:
    settings: Any = leaf[1]  # torch types most of these as unions of text and tuples
    kernel, stride = _pair(settings.kernel_size), _pair(settings.stride)
    _need(leaf, kernel[0] == kernel[1] and stride[0] == stride[1], "a square kernel and one stride")
    plain = _pair(settings.padding) == (0, 0) and _pair(settings.dilation) == (1, 1) and settings.groups == 1
    _need(leaf, plain, "padding=0, dilation=1, groups=1")
    return f"conv {settings.out_channels} {kernel[0]}x{kernel[1]}/{stride[0]}"


def _pool_words(leaf: Named) -> str:
    settings: Any = leaf[1]
    size = _pair(settings.kernel_size)
    plain = size[0] == size[1] and _pair(settings.stride) == size and _pair(settings.padding) == (0, 0)
    plain = plain and not settings.ceil_mode and _pair(getattr(settings, "dilation", 1)) == (1, 1)
    plain = plain and not getattr(settings, "return_indices", False)
    plain = plain and getattr(settings, "divisor_override", None) is None
    _need(leaf, plain, "a square window, stride=kernel_size, padding=0, dilation=1, ceil_mode=False")
    return f" {'max' if type(settings).__name__ == 'MaxPool2d' else 'average'} {size[0]}"


def _input(first: Named, image: tuple[int, int, int] | None) -> str:
    """Return the input in words; a Conv2d does not know how large its images are."""
    name, one = first
    if type(one).__name__ == "Linear":
        refuse_unless(image is None, "image", image, "none, since the first module is a Linear")
        return str(_whole(one, "in_features"))
    refuse_unless(
        image is not None and len(image) == 3 and image[0] == _whole(one, "in_channels"),
        "image",
        image,
        f"image=({_whole(one, 'in_channels')}, height, width), which Conv2d '{name}' does not know",
    )
    assert image is not None
    return "x".join(map(str, image))


def _output(stage: list[Named], given: OutputName | None) -> OutputName:
    """Return the function at the end: the module's, or a given one for a module that ends in logits."""
    found = _end(stage[1]) if len(stage) > 1 else None
    if found is not None and given not in (None, found):
        raise ConfigurationError(f"output = '{given}': expected '{found}', with which the module ends")
    return found or given or "identity"


def _end(leaf: Named) -> OutputName | None:
    kind = type(leaf[1]).__name__
    if kind == "Softmax":
        _need(leaf, getattr(leaf[1], "dim", None) in (1, -1), "dim=1")
        return "softmax"
    return "sigmoid" if kind == "Sigmoid" else None


def _parameters(name: str, module: Module) -> tuple[Array, Array]:
    """Copy weight and bias out of torch."""
    import torch

    weight, bias = module.weight, module.bias
    if not isinstance(bias, torch.Tensor) or not isinstance(weight, torch.Tensor):
        raise ConfigurationError(f"module '{name}' has no bias: expected bias=True")
    kinds = (torch.float32, torch.float64)
    _need((name, module), weight.dtype in kinds and bias.dtype in kinds, "float32 or float64; .float() it")
    copied = (one.detach().cpu().numpy().copy() for one in (weight, bias))
    return next(copied), next(copied)


def _is_flatten(module: Module) -> bool:
    settings: Any = module
    return type(module).__name__ == "Flatten" and (settings.start_dim, settings.end_dim) == (1, -1)


def _whole(module: Module, name: str) -> int:
    return int(getattr(module, name))


def _pair(setting: Any) -> tuple[Any, Any]:  # noqa: ANN401 - torch takes a number, a pair or text
    return setting if isinstance(setting, tuple) else (setting, setting)


def _said(module: Module) -> str:
    return " ".join(str(module).split())


def _need(leaf: Named, good: bool, expected: str) -> None:
    if not good:
        raise ConfigurationError(f"module '{leaf[0]}' is {_said(leaf[1])} here: expected {expected}")
