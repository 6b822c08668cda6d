"""What a trace says about the network that was run: its functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import erf, expit, softmax

from pcsim.analysis.stream import NotRecordedError
from pcsim.errors import TraceError
from pcsim.tracing.reader import TraceReader

Array = npt.NDArray[Any]
LEAK = 0.01  # slope of the leaky relu below zero


@dataclass(frozen=True)
class Functions:
    """The functions of a network, as the root attribute `experiment` has them.

    Attributes:
        activations: f of each layer, 0 to L; the output's is not used.
        output: function at the output: softmax, sigmoid or identity.
    """

    activations: tuple[str, ...]
    output: str

    @classmethod
    def of(cls, trace: TraceReader) -> Functions:
        """Read what a trace says.

        Raises:
            NotRecordedError: it does not say it.
            TraceError: it names a function that is not known here.
        """
        try:
            network = trace.attributes["experiment"]["network"]
            found = cls(tuple(network["activation"]), network["output"][-1])
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise NotRecordedError(
                f"{trace.path} does not say what network was run ({error}): expected network.activation "
                "and output in the attribute 'experiment'"
            ) from error
        for name in found.activations:
            if name not in ACTIVATIONS:
                raise TraceError(f"{trace.path}: activation '{name}': known: {', '.join(ACTIVATIONS)}")
        if found.output not in ("softmax", "sigmoid", "identity"):
            raise TraceError(f"{trace.path}: output '{found.output}': known: softmax, sigmoid, identity")
        return found

    @property
    def top(self) -> int:
        """L, the index of the output layer."""
        return len(self.activations) - 1

    def activate(self, layer: int, activity: Array) -> Array:
        """Return f(ĥ_l)."""
        return activation(self.activations[layer], activity)

    def slope(self, layer: int, activity: Array) -> Array:
        """Return f'(ĥ_l); 0 at the kink of relu, `LEAK` at that of leaky relu."""
        return slope(self.activations[layer], activity)

    def answer(self, prediction: Array) -> Array:
        """Return out(p_L)."""
        match self.output:
            case "softmax":
                return np.asarray(softmax(prediction, axis=-1))
            case "sigmoid":
                return np.asarray(expit(prediction))
            case _:
                return prediction

    def silent(self, layer: int, activity: Array) -> npt.NDArray[np.bool_]:
        """Return where f(ĥ_l) is 0; at the output, which has no f, where ĥ_L is."""
        name = self.activations[layer] if 0 <= layer < self.top else "identity"
        if name == "relu":
            return activity <= 0
        return np.zeros(activity.shape, dtype=bool) if name == "sigmoid" else activity == 0


ACTIVATIONS = ("relu", "tanh", "sigmoid", "leaky_relu", "gelu", "identity")


def activation(name: str, activity: Array) -> Array:
    """Return f(x)."""
    match name:
        case "relu":
            return np.maximum(activity, 0)
        case "tanh":
            return np.tanh(activity)
        case "sigmoid":
            return np.asarray(expit(activity))
        case "leaky_relu":
            return np.where(activity > 0, activity, LEAK * activity)
        case "gelu":
            return np.asarray(activity * 0.5 * (1 + erf(activity / np.sqrt(2))))
        case _:
            return activity


def slope(name: str, activity: Array) -> Array:
    """Return f'(x); 0 at the kink of relu, `LEAK` at that of leaky relu."""
    match name:
        case "relu":
            return np.where(activity > 0, 1.0, 0.0)
        case "tanh":
            return np.asarray(1 - np.tanh(activity) ** 2)
        case "sigmoid":
            rate = expit(activity)
            return np.asarray(rate * (1 - rate))
        case "leaky_relu":
            return np.where(activity > 0, 1.0, LEAK)
        case "gelu":
            density = np.exp(-0.5 * activity**2) / np.sqrt(2 * np.pi)
            return np.asarray(0.5 * (1 + erf(activity / np.sqrt(2))) + activity * density)
        case _:
            return np.ones_like(activity)
