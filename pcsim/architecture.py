"""The layers of a network in words: "3x32x32", "conv 64 5x5/2", "conv 64 5x5/1 max 2", "dense 10"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

from pcsim.errors import ConfigurationError, refuse_unless

PoolName = Literal["none", "max", "average"]

EXPECTED = (
    "expected an input '3x32x32' or '3072', then any number of 'conv 64 5x5/2' (channels, kernel/stride; "
    "'max 2' or 'average 2' behind it pools), then 'dense 10' once or more"
)
_INPUT = re.compile(r"([1-9]\d*)(?:x([1-9]\d*)x([1-9]\d*))?")
_DENSE = re.compile(r"dense ([1-9]\d*)")
_CONV = re.compile(r"conv ([1-9]\d*) ([1-9]\d*)x([1-9]\d*)/([1-9]\d*)(?: (max|average) ([1-9]\d*))?")


@dataclass(frozen=True)
class ConvLayer:
    """A convolution without padding, and the pooling behind it.

    Attributes:
        image: (channels, height, width) of what it reads.
        channels: of what it makes.
        kernel: height and width of the window that it slides over the image.
        stride: pixels from one window to the next.
        pool: how neighbours are summed up after the non-linearity.
        pool_size: height and width of the pooled window, also its stride; 1 without pooling.
    """

    image: tuple[int, int, int]
    channels: int
    kernel: int
    stride: int
    pool: PoolName = "none"
    pool_size: int = 1

    @property
    def rows(self) -> int:
        """Height of what the convolution makes, before pooling."""
        return (self.image[1] - self.kernel) // self.stride + 1

    @property
    def columns(self) -> int:
        """Width of what the convolution makes, before pooling."""
        return (self.image[2] - self.kernel) // self.stride + 1

    @property
    def positions(self) -> int:
        """Places of the window on the image."""
        return self.rows * self.columns

    @property
    def terms(self) -> int:
        """Numbers that a window sees: what one number of the result sums over."""
        return self.image[0] * self.kernel**2

    @property
    def result(self) -> tuple[int, int, int]:
        """(channels, height, width) after pooling; a border that fills no window is dropped."""
        return self.channels, self.rows // self.pool_size, self.columns // self.pool_size


@dataclass(frozen=True)
class DenseLayer:
    """A fully connected layer of so many neurons."""

    neurons: int


@dataclass(frozen=True)
class Architecture:
    """Shapes of a network.

    Attributes:
        input: (channels, height, width), or (neurons,).
        layers: what follows it; convolutions first.
    """

    input: tuple[int, ...]
    layers: tuple[ConvLayer | DenseLayer, ...]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of each layer's activity, one sample: (channels, height, width) or (neurons,)."""
        return (
            self.input,
            *(one.result if isinstance(one, ConvLayer) else (one.neurons,) for one in self.layers),
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Neurons a layer."""
        return tuple(prod(shape) for shape in self.shapes)


def parse(layers: Sequence[str]) -> Architecture:
    """Read layers in words.

    Raises:
        ConfigurationError: a word that is none, or layers that do not fit; says which and what would.
    """
    texts = isinstance(layers, list | tuple) and all(isinstance(text, str) for text in layers)
    refuse_unless(texts, "layers", layers, "a list of texts, such as ['64', 'dense 10']")
    first = _INPUT.fullmatch(layers[0]) if layers else None
    if first is None or len(layers) < 2:
        raise ConfigurationError(f"layers = {list(layers)}: {EXPECTED}")
    shape = tuple(int(number) for number in first.groups() if number)
    read: list[ConvLayer | DenseLayer] = []
    for text in layers[1:]:
        dense = _DENSE.fullmatch(text)
        layer = DenseLayer(int(dense[1])) if dense else _convolution(text, shape)
        read.append(layer)
        shape = layer.result if isinstance(layer, ConvLayer) else (layer.neurons,)
    if isinstance(read[-1], ConvLayer):
        raise ConfigurationError(f"layers end with '{layers[-1]}': expected 'dense N' as the output")
    return Architecture(tuple(int(number) for number in first.groups() if number), tuple(read))


def _convolution(text: str, shape: tuple[int, ...]) -> ConvLayer:
    """Read one convolution and check it against the shape that it would read."""
    found = _CONV.fullmatch(text)
    if found is None:
        raise ConfigurationError(f"layer '{text}': {EXPECTED}")
    if len(shape) != 3:
        raise ConfigurationError(
            f"layer '{text}' reads {shape[0]} neurons without a shape: expected an image below it, "
            "from an input such as '3x32x32' or from another conv"
        )
    channels, height, width, stride, pool_size = (int(found[i] or 1) for i in (1, 2, 3, 4, 6))
    if height != width:
        raise ConfigurationError(f"layer '{text}': expected a square kernel, such as {height}x{height}")
    pool: PoolName = "none" if found[5] is None else "max" if found[5] == "max" else "average"
    layer = ConvLayer((shape[0], shape[1], shape[2]), channels, height, stride, pool, pool_size)
    if min(shape[1:]) < height or min(layer.result) < 1:
        size = "x".join(map(str, shape))
        raise ConfigurationError(f"layer '{text}' does not fit its image {size}: expected smaller windows")
    return layer
