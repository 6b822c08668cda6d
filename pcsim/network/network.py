"""A network: sizes, functions, constants and parameters, from which local units are made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, get_args

import numpy as np

from pcsim.architecture import Architecture, ConvLayer, DenseLayer, parse
from pcsim.errors import ShapeError, refuse_unless, whole
from pcsim.kernels import ActivationName, Array, Kernels, OutputName, reference
from pcsim.kernels.layout import roomy_copy
from pcsim.network.connection import Connection, Conv, Dense, as_matrix
from pcsim.network.constants import (
    DEFAULTS,
    Constants,
    LearnFrom,
    check_clamped,
    check_constants,
    check_name,
    checked_sizes,
    name_of,
    per_layer,
)
from pcsim.network.layer import Layer, LayerTraits
from pcsim.network.learner import Learner
from pcsim.network.predictor import Predictor

if TYPE_CHECKING:
    from torch import nn

LearnerFactory = Callable[[Array, Array], Learner]


@dataclass(frozen=True, eq=False)
class Network:
    """A predictive coding network; its parameters change in place when it learns.

    Attributes:
        sizes: neurons a layer, (n_0, …, n_L).
        traits: the constants of each layer.
        connections: one a layer but the last.
        parameters: (W_l, b_l) of each connection; W_l is (n_{l+1}, n_l), of a convolution (channels out,
            channels in, kernel, kernel); b_l is (n_{l+1},) or (channels out,).
        learn_output_from: "activity": the last connection learns from e_L = ĥ_L − out(p_L), as all others
            do; "label": from y − out(p_L), which the output layer sends before the learning phase.
        names: what each connection is called in the torch module that it came from; () if from none.
    """

    sizes: tuple[int, ...]
    traits: tuple[LayerTraits, ...]
    connections: tuple[Connection, ...]
    parameters: tuple[tuple[Array, Array], ...]
    learn_output_from: LearnFrom = "activity"
    names: tuple[str, ...] = ()

    @classmethod
    def dense(cls, sizes: Sequence[int], **constants: Unpack[Constants]) -> Network:
        """Build a fully connected network.

        Args:
            sizes: neurons a layer from input to output, at least two layers.
            **constants: see `Constants`.

        Raises:
            ConfigurationError: an unknown constant, function or dtype, or a constant out of its range.
            ShapeError: sizes, constants or parameters that do not fit each other.
        """
        first, *others = checked_sizes(sizes)
        return cls.build(Architecture((first,), tuple(DenseLayer(size) for size in others)), **constants)

    @classmethod
    def of(cls, layers: Sequence[str], **constants: Unpack[Constants]) -> Network:
        """Build a network from layers in words, such as "3x32x32", "conv 64 5x5/2", "dense 10".

        The non-linearity of a convolution follows its weights, so what reads its image reads it as it is.

        Args:
            layers: see `pcsim.architecture`.
            **constants: see `Constants`.

        Raises:
            ConfigurationError: layers that cannot be, or as `dense`.
            ShapeError: constants or parameters that do not fit.
        """
        return cls.build(parse(layers), **constants)

    @classmethod
    def build(cls, architecture: Architecture, **constants: Unpack[Constants]) -> Network:
        """Build a network of given shapes; see `of`."""
        check_constants(constants)
        given: Constants = {**DEFAULTS, **constants}
        dtype = name_of(given["dtype"])
        sizes, depth = architecture.sizes, len(architecture.sizes)
        activation, output = given["activation"], given["output"]
        check_name("activation", activation, get_args(ActivationName))
        check_name("output", output, get_args(OutputName))
        check_name("dtype", dtype, ("float32", "float64"))
        check_name("learn_output_from", given["learn_output_from"], get_args(LearnFrom))
        step, seed = given["proximal_step"], given["seed"]
        refuse_unless(
            isinstance(step, Real) and step > 0,
            "proximal_step",
            step,
            'a value above 0; float("inf") is the hard clamp',
        )
        refuse_unless(whole(seed, 0), "seed", seed, "a whole number from 0")
        precisions = per_layer("precision", given["precision"], 1.0, depth)
        decays = per_layer("activity_decay", given["activity_decay"], 0.0, depth)
        check_clamped(precisions, decays)
        connections, activations = connections_of(architecture, activation)
        traits = tuple(
            LayerTraits(
                index=layer,
                size=size,
                activation=activations[layer],
                output=output if layer == depth - 1 else None,
                mix=1 / (1 + step) if layer == depth - 1 else 0.0,
                precision=precisions[layer],
                precision_above=precisions[layer + 1] if layer < depth - 1 else 1.0,
                activity_decay=decays[layer],
            )
            for layer, size in enumerate(sizes)
        )
        drawn = _parameters(connections, given["parameters"], np.dtype(dtype), seed)
        return cls(sizes, traits, connections, drawn, given["learn_output_from"])

    @classmethod
    def from_torch(
        cls, module: nn.Sequential, image: tuple[int, int, int] | None = None, **constants: Unpack[Constants]
    ) -> Network:
        """Build a network that does what a torch Sequential does, with copies of its weights.

        The module is read as: Conv2d (without padding), activation, pool, any number of times; Flatten;
        Linear, activation, any number of times; at last Softmax, Sigmoid or nothing. All hidden layers have
        the same activation. Sequentials may hold Sequentials.

        Args:
            module: what to read; it may lie on a GPU and stays as it is.
            image: (channels, height, width) of the input, if the first module is a Conv2d.
            **constants: see `Constants`; activation, dtype and parameters come from the module. So does
                the output, unless the module ends in logits: `output="softmax"` makes a classifier of it.

        Raises:
            ConfigurationError: torch is not installed; a module, or a setting of one, that has no equal
                here; a constant that the module says itself.
            ShapeError: modules that do not fit each other.
        """
        from pcsim.network.from_torch import translate

        check_constants(constants)
        for name in ("activation", "dtype", "parameters", "seed"):
            refuse_unless(name not in constants, name, constants.get(name), "nothing: the module says it")
        said = translate(module, image, constants.get("output"))
        given: Constants = {**constants, "output": said.output, "dtype": said.dtype}
        given["parameters"] = said.parameters
        if said.activation is not None:
            given["activation"] = said.activation
        return replace(cls.of(said.layers, **given), names=said.names)

    def to_torch(self) -> nn.Sequential:
        """Return a torch Sequential with copies of the weights, whose output is that of `predict`.

        It takes (samples, n_0); if the first layer is a convolution (samples, channels, height, width). A
        network from `from_torch` keeps the names of its module's state_dict.

        Raises:
            ConfigurationError: torch is not installed.
        """
        from pcsim.network.to_torch import build_module

        return build_module(self.connections, self.parameters, self.traits[-1].output, self.names)

    def describe(self) -> dict[str, Any]:
        """Return everything but the parameters, fit for JSON; see `stored.build`."""
        names = ("activation", "output", "mix", "precision", "activity_decay")
        return {name: [getattr(one, name) for one in self.traits] for name in names} | {
            "layers": list(self.sizes),
            "shapes": [list(shape) for shape in self.shapes],
            "connections": [connection.describe() for connection in self.connections],
            "learn_output_from": self.learn_output_from,
            "dtype": self.dtype.name,
        }

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the network to a safetensors file that holds all of it: `load` needs nothing else.

        Args:
            path: of the file; other tools find weight_0, bias_0, weight_1, … in it.
            overwrite: whether a file that is there is replaced.

        Raises:
            NetworkError: the file is there already, or cannot be written.
        """
        from pcsim.network.stored import save

        save(self, Path(path), overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Network:
        """Read a network that `save` has written, or that a run with --checkpoint has trained.

        Args:
            path: of the file, or the folder of the checkpoint.

        Raises:
            NetworkError: no such file, or none of these.
        """
        from pcsim.network.stored import load

        return load(Path(path))

    def copy(self) -> Network:
        """Return the network with parameters of its own."""
        parameters = tuple((weight.copy(), bias.copy()) for weight, bias in self.parameters)
        return replace(self, parameters=parameters)

    def __repr__(self) -> str:
        """Say the shapes and functions, but no weights."""
        shapes = ", ".join("x".join(map(str, shape)) for shape in self.shapes)
        inner = {one.after if isinstance(one, Conv) else one.activation for one in self.connections}
        functions = (*sorted(inner - {"identity"}), self.traits[-1].output)
        return f"Network({shapes}; {', '.join(map(str, functions))}; {self.dtype})"

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """Type of parameters and activities."""
        return self.parameters[0][0].dtype

    @property
    def top(self) -> int:
        """L, the index of the output layer."""
        return len(self.sizes) - 1

    @property
    def soft_clamp(self) -> bool:
        """Whether the output is clamped softly, so that clamping reads the prediction."""
        return self.traits[-1].mix > 0

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of each layer's activity, one sample: (channels, height, width) of an image, else (n_l,)."""
        first = self.connections[0]
        below = first.layer.image if isinstance(first, Conv) else (first.inputs,)
        above = [one.layer.result if isinstance(one, Conv) else (one.outputs,) for one in self.connections]
        return (below, *above)

    def layers(
        self, batch: int, learner: LearnerFactory | None = None, kernels: Kernels = reference
    ) -> tuple[Layer, ...]:
        """Make the local units for mini-batches of `batch` samples; they share the network's parameters.

        The units learn by the rule `learner`, such as `pcsim.MQ(1e-3)`; without one they cannot learn.

        Where the kernels want a weight in another layout, the network takes over their copies of weight and
        bias, so that `parameters` shows what the latest units have learnt (but for a GPU: see `gather`), and
        units that were made before go on with parameters of their own.

        Raises:
            ConfigurationError: a batch or a learner that is none.
        """
        refuse_unless(whole(batch, 1), "batch", batch, "a whole number from 1")
        if learner is not None:
            check_rule("learner", learner)
        made = []
        for traits, connection, (weight, bias) in zip(
            self.traits, self.connections, self.parameters, strict=False
        ):
            rule = learner and learner(as_matrix(weight), bias)
            made.append(Layer(traits, batch, self.dtype, kernels, connection, (weight, bias), rule))
        taken = tuple(_shared(unit, own) for unit, own in zip(made, self.parameters, strict=True))
        object.__setattr__(self, "parameters", taken)  # frozen are its names and numbers, not its layout
        return (*made, Layer(self.traits[-1], batch, self.dtype, kernels))

    def gather(self, units: Iterable[Layer]) -> None:
        """Fetch what the units have learnt, if they work on copies of the parameters elsewhere (a GPU)."""
        for unit, own in zip(units, self.parameters, strict=False):
            for home, away in zip(own, (unit.weight, unit.bias), strict=True):
                if not (isinstance(away, np.ndarray) and np.may_share_memory(home, away)):
                    home[...] = np.asarray(away).reshape(home.shape)

    def predict(self, inputs: Array, kernels: Kernels = reference) -> Array:
        """Return the output for inputs of shape (samples, n_0): a forward pass, nothing learns.

        Raises:
            ShapeError: inputs of another width.
        """
        return self.predictor(kernels)(inputs)

    def predictor(self, kernels: Kernels = reference) -> Predictor:
        """Return what predicts again and again with the parameters of this moment."""
        output = self.traits[-1].output
        assert output is not None
        return Predictor(self.connections, self.parameters, output, kernels)


def _shared(unit: Layer, own: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return the parameters in memory that a unit works on, if it works in memory.

    Whoever has a weight of its own gets a bias of its own, too: half a connection in common would be no use.
    """
    weight, bias = own
    if isinstance(unit.weight, np.ndarray) and not np.may_share_memory(unit.weight, weight):
        weight, bias = unit.weight, bias.copy()
        unit.bias = bias
    return weight, bias


def check_rule(what: str, given: object) -> None:
    """Refuse what is no learning rule; its class alone has no constants.

    Raises:
        ConfigurationError: says what to give instead.
    """
    good = callable(given) and not isinstance(given, type)
    refuse_unless(good, what, given, "a learning rule with its constants, as in pcsim.MQ(1e-3)")


def connections_of(
    architecture: Architecture, activation: ActivationName
) -> tuple[tuple[Connection, ...], tuple[ActivationName, ...]]:
    """Return the connections of given shapes, and each layer's own f on the way up.

    The clamped input and what a convolution has made, f included, are read as they are.
    """
    plain = [True, *(isinstance(one, ConvLayer) for one in architecture.layers)]
    own: list[ActivationName] = ["identity" if one else activation for one in plain]
    connections = tuple(
        Conv(one, activation) if isinstance(one, ConvLayer) else Dense(below, one.neurons, own[layer])
        for layer, (one, below) in enumerate(zip(architecture.layers, architecture.sizes, strict=False))
    )
    return connections, tuple(own)


def _parameters(
    connections: tuple[Connection, ...],
    given: Sequence[tuple[Array, Array]] | None,
    dtype: np.dtype[np.floating],
    seed: int,
) -> tuple[tuple[Array, Array], ...]:
    if given is None:
        rng = np.random.default_rng(seed)
        return tuple(connection.initial_parameters(rng, dtype) for connection in connections)
    refuse_unless(
        isinstance(given, list | tuple) and all(_is_pair(pair) for pair in given),
        "parameters",
        given,
        "a list with a pair of NumPy arrays, (weight, bias), for each connection",
    )
    if len(given) != len(connections):
        raise ShapeError(f"{len(given)} pairs of parameters: expected {len(connections)}")
    for layer, (connection, (weight, bias)) in enumerate(zip(connections, given, strict=True)):
        expected = connection.weight_shape
        if weight.shape != expected or bias.shape != expected[:1]:
            raise ShapeError(
                f"weight {weight.shape} and bias {bias.shape} of layer {layer}: "
                f"expected {expected} and {expected[:1]}"
            )
    return tuple((roomy_copy(weight, dtype), np.array(bias, dtype)) for weight, bias in given)


def _is_pair(given: object) -> bool:
    return (
        isinstance(given, list | tuple)
        and len(given) == 2
        and all(isinstance(array, np.ndarray) for array in given)
    )
