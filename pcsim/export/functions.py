"""What linearisation and rounding need to know about the functions of a trace's network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pcsim.analysis.network import LEAK, Functions

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Activation:
    """f, element by element, with bounds of its slope.

    Attributes:
        name: as in the root attribute `experiment`.
        steepest: the largest |f'|.
        curvature: the largest |f''|, where f' is continuous.
        jump: by how much f' jumps at 0.
    """

    name: str
    steepest: float
    curvature: float
    jump: float = 0.0

    def value(self, activity: Array) -> Array:
        """Return f(ĥ)."""
        return Functions((self.name,), "identity").activate(0, activity)

    def slope(self, activity: Array) -> Array:
        """Return f'(ĥ)."""
        return Functions((self.name,), "identity").slope(0, activity)

    def slope_error(self, activity: Array, error: float) -> Array:
        """Return how far f' may be off where the activity is off by at most `error`."""
        return self.curvature * error + np.where(np.abs(activity) <= error, self.jump, 0.0)


ACTIVATIONS = {
    one.name: one
    for one in (
        Activation("identity", 1.0, 0.0),
        Activation("relu", 1.0, 0.0, 1.0),
        Activation("leaky_relu", 1.0, 0.0, 1.0 - LEAK),
        # |f''| is largest where tanh² = 1/3; the logistic function is (1 + tanh(x/2))/2.
        Activation("tanh", 1.0, 4 / (3 * 3**0.5)),
        Activation("sigmoid", 0.25, 1 / (6 * 3**0.5)),
        # f' is largest at √2, Φ(√2) + √2 φ(√2); f'' = (2 − x²) φ(x) is largest at 0, 2 φ(0).
        Activation("gelu", 1.1290, 0.7979),
    )
}


def output_tangent(name: str, prediction: Array) -> tuple[Array, Array]:
    """Return out(p) and its Jacobian (n, n) at one prediction p (n,)."""
    value = Functions(("identity",), name).answer(prediction)
    if name == "softmax":
        return value, np.diag(value) - np.outer(value, value)
    return value, np.diag(value * (1 - value)) if name == "sigmoid" else np.eye(len(prediction))
