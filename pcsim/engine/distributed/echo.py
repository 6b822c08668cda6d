"""What rank 0 knows of the layers that live in other processes: what they have told it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import SupportsFloat

import numpy as np

from pcsim.errors import ProgramError
from pcsim.kernels import ActivationName, Array, Kernels, LearningSteps, Synapses
from pcsim.network.connection import Connection
from pcsim.network.layer import Layer, LayerTraits, MessageKind


class Echo(Layer):
    """Looks like a layer to those who look on, and holds copies only; it does no arithmetic.

    Args:
        traits: of the layer.
        connection: of the layer.
        kernels: of rank 0.
        batch: samples a mini-batch, all replicas.
        dtype: of its numbers.
        magnitude: the mean |Δ| of its latest update, to be asked for.

    Attributes:
        payload: what the operation that is told of has sent.
    """

    def __init__(
        self,
        traits: LayerTraits,
        connection: Connection | None,
        kernels: Kernels,
        batch: int,
        dtype: np.dtype[np.floating],
        magnitude: SupportsFloat,
    ) -> None:
        # Not the base's: that would make a layer's buffers.
        self.traits, self.kernels, self.connection = traits, kernels, connection
        self.learner = Remembered() if connection is not None else None
        nothing = np.broadcast_to(np.zeros((), dtype), (batch, traits.size))
        self.activity = self.error = nothing
        self.inbox, self.target, self.magnitude = {}, None, magnitude
        self.payload: Array | None = None

    @property
    def weight(self) -> Array:
        """W_l as it was last fetched."""
        return self._weight

    @weight.setter
    def weight(self, weight: Array) -> None:
        self._weight = weight

    @property
    def memory(self) -> tuple[Array, ...]:
        """Nothing: it stays where the layer is."""
        return ()

    def hear(self, arrays: Mapping[str, Array]) -> None:
        """Take over what an operation has left behind."""
        self.activity = arrays.get("activity", self.activity)
        self.error = arrays.get("error", self.error)
        self.payload = arrays.get("message")
        if "prediction" in arrays:
            self.inbox[MessageKind.PREDICTION] = arrays["prediction"]

    def remember(self, arrays: Mapping[str, Array]) -> None:
        """Take over weight, bias and the rule's state as they are now; names end in the layer's index."""
        end = f"_{self.traits.index}"
        own = {name.removesuffix(end): array for name, array in arrays.items() if name.endswith(end)}
        self.weight, self.bias = own.pop("weight"), own.pop("bias")
        assert isinstance(self.learner, Remembered)
        self.learner.arrays = own


class Remembered:
    """The state of a learning rule that works elsewhere."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}

    def state(self) -> dict[str, Array]:
        """Return the arrays."""
        return self.arrays

    def place(self, kernels: Kernels, synapses: Synapses) -> None:
        """Nothing to move."""

    def learn(
        self,
        kernels: LearningSteps,
        weight: Array,
        bias: Array,
        error_above: Array,
        activity: Array,
        activation: ActivationName,
    ) -> float:
        """Refuse: the layer itself learns.

        Raises:
            ProgramError: always.
        """
        raise ProgramError("an echo cannot learn: expected the process of its layer to do so")
