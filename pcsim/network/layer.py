"""The local unit: a layer that owns its state and knows nothing but its inbox.

A layer has no reference to any other layer, so its operations can only touch what they own and what
others have sent. Who acts when is the schedule's business; who carries messages is the engine's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, SupportsFloat, cast, runtime_checkable

import numpy as np

from pcsim.errors import ProgramError, ShapeError
from pcsim.kernels import (
    ActivationName,
    Array,
    ComparingSynapses,
    FusingKernels,
    FusingSynapses,
    Kernels,
    LearningSteps,
    OutputName,
    Relaxation,
    Synapses,
)
from pcsim.network.connection import Connection, as_matrix
from pcsim.network.learner import Learner, takes_one_step


class MessageKind(StrEnum):
    """What layers tell each other."""

    PREDICTION = "prediction"
    """p_{l+1}, sent up by layer l; shape (batch, n_{l+1})."""
    ERROR = "error"
    """e_l, sent down by layer l; shape (batch, n_l)."""


@runtime_checkable
class PartwiseSynapses(Synapses, Protocol):
    """Synapses that need nothing as large as their layer to relax it, nor all windows at once to learn.

    Attributes:
        steps: what a learning rule uses in the kernels' place, with e_{l+1} and ĥ_l as they are.
    """

    steps: LearningSteps

    def relax(
        self, activity: Array, error: Array, error_above: Array, weight: Array, constants: Relaxation
    ) -> None:
        """Move ĥ_l by equation (2), part by part."""
        ...


@dataclass(frozen=True)
class LayerTraits:
    """The constants of one layer.

    Attributes:
        index: position, 0 the input, L the output.
        size: number of neurons, n_l.
        activation: f of this layer.
        output: the output function, at layer L only.
        mix: share of out(p_L) in the clamped output, m; 0 is the hard clamp.
        precision: γ_l, the weight of ½‖e_l‖² in the free energy.
        precision_above: γ_{l+1}, a constant of the outgoing connection.
        activity_decay: γ_l^decay, the weight of ½‖f(ĥ_l)‖² in the free energy.
    """

    index: int
    size: int
    activation: ActivationName
    output: OutputName | None = None
    mix: float = 0.0
    precision: float = 1.0
    precision_above: float = 1.0
    activity_decay: float = 0.0


class Layer:
    """Layer l: activity ĥ_l and error e_l (batch, n_l), connection (W_l, b_l), learner, inbox.

    Attributes:
        inbox: the latest message of each kind: the prediction from below, the error from above.
        target: what the layer is clamped to: x at the input, y at the output, None elsewhere.
        outgoing: the buffer (batch, n_{l+1}) in which the next prediction is formed.
        compared: ½‖e_l‖² as `compare` has found it, if its kernels did; see `squared_error`.
        magnitude: mean |Δ| of the last learning step as the kernels returned it; see `update_magnitude`.
        norm_below: N_{l−1} = ‖f(ĥ_{l−1})‖² + 1 as the layer below has told it in this mini-batch, (1,); 0 if
            it has not.
        weight: W_l as a matrix, (n_{l+1}, n_l), of a convolution (channels, terms).
    """

    def __init__(
        self,
        traits: LayerTraits,
        batch: int,
        dtype: np.dtype[np.floating],
        kernels: Kernels,
        connection: Connection | None = None,
        parameters: tuple[Array, Array] | None = None,
        learner: Learner | None = None,
    ) -> None:
        self.traits, self.kernels, self.connection, self.learner = traits, kernels, connection, learner
        self.activity = kernels.mini_batch((batch, traits.size), dtype)
        self.error = kernels.mini_batch((batch, traits.size), dtype)
        self.target: Array | None = None
        self.inbox: dict[MessageKind, Array] = {}
        self.compared: float | None = None
        self.magnitude: SupportsFloat = 0.0
        self.norm_below: Array = np.zeros(1)
        if connection is not None and parameters is not None:
            self.synapses = connection.synapses(kernels, batch, dtype)
            self._parts = self.synapses if isinstance(self.synapses, PartwiseSynapses) else None
            self._comparing = self.synapses if isinstance(self.synapses, ComparingSynapses) else None
            self._weight = self.synapses.place(as_matrix(parameters[0]))
            self.bias = kernels.to_device(parameters[1])
            if learner is not None:
                learner.place(kernels, self.synapses)
            self.outgoing = kernels.mini_batch((batch, connection.outputs), dtype)
            self.feedback = kernels.mini_batch((batch, traits.size), dtype)
        else:
            self.correction = kernels.mini_batch((batch, traits.size), dtype)

    def __repr__(self) -> str:
        """Say which layer it is, but no numbers."""
        batch, size = self.activity.shape
        return f"Layer(index={self.traits.index}, size={size}, batch={batch})"

    @property
    def weight(self) -> Array:
        """W_l with all that it has learnt; see `pcsim.kernels.Kernels.postponing`."""
        return self.synapses.settled(self._weight)

    @weight.setter
    def weight(self, weight: Array) -> None:
        self._weight = self.synapses.place(weight)

    @property
    def memory(self) -> tuple[Array, ...]:
        """What the connection keeps of the last prediction; nothing if it is dense, or there is none."""
        return () if self.connection is None else self.synapses.memory

    @property
    def shaped_weight(self) -> Array:
        """W_l in the shape that its network keeps it in; of a convolution (out, in, kernel, kernel)."""
        assert self.connection is not None
        if not self.connection.remembers:
            return self.weight
        return np.asarray(self.weight).reshape(self.connection.weight_shape)

    @property
    def update_magnitude(self) -> float:
        """Mean |Δ| over weight and bias of the last learning step; on a GPU this waits for it."""
        return float(self.magnitude)

    def initialise(self) -> None:
        """ĥ_l = p_l; at the output ĥ_L = out(p_L), a plain forward pass."""
        prediction = self.inbox[MessageKind.PREDICTION]
        if self.traits.output is not None:
            prediction = self.kernels.output(self.traits.output, prediction)
        self.activity[...] = prediction

    def clamp(self) -> None:
        """ĥ_0 = x at the input; ĥ_L = y (hard) or (1 − m) y + m out(p_L) (soft) at the output."""
        assert self.target is not None
        if self.traits.output is None or self.traits.mix == 0:
            self.kernels.copy(self.target, self.activity)
        else:
            prediction = self.inbox[MessageKind.PREDICTION]
            self.kernels.soft_clamp(
                self.target, prediction, self.traits.output, self.traits.mix, self.activity
            )

    def predict(self) -> Array:
        """Form and return p_{l+1}: W_l f(ĥ_l) + b_l, or through a convolution."""
        self.synapses.predict(self.activity, self._weight, self.bias, self.outgoing)
        return self.outgoing

    def compare(self) -> Array:
        """Form and return e_l = ĥ_l − p_l, at the output ĥ_L − out(p_L)."""
        prediction, output = self.inbox[MessageKind.PREDICTION], self.traits.output
        if output is None:
            self.compared = self.kernels.compare(self.activity, prediction, self.error)
        else:
            self.compared = self.kernels.compare_output(self.activity, prediction, output, self.error)
        return self.error

    def compare_target(self) -> Array:
        """Form and return y − out(p_L), from which the last connection learns if it is to see y itself."""
        assert self.target is not None
        assert self.traits.output is not None
        prediction = self.inbox[MessageKind.PREDICTION]
        self.kernels.compare_output(self.target, prediction, self.traits.output, self.correction)
        return self.correction

    def relax(self, step: float) -> None:
        """Move ĥ_l by one step of size k down the free energy, equation (2)."""
        assert self.connection is not None
        traits = self.traits
        error_above = self.inbox[MessageKind.ERROR]
        if self._parts is not None:
            constants = Relaxation(step, traits.precision, traits.precision_above, traits.activity_decay)
            self._parts.relax(self.activity, self.error, error_above, self.weight, constants)
            return
        self.synapses.feedback(self.activity, error_above, self.weight, traits.precision_above, self.feedback)
        self.kernels.relax(
            self.activity,
            self.error,
            self.feedback,
            self.connection.activation,
            step,
            traits.precision,
            traits.activity_decay,
        )

    def tell_norm(self) -> Array:
        """Return N_l = ‖f(ĥ_l)‖² + 1 of one sample: first in a message as wide as p_{l+1}, then zeros."""
        message = np.zeros(self.outgoing.shape, self.outgoing.dtype)
        message[0, 0] = self._norm()
        self.outgoing[...] = message
        return self.outgoing

    def take_norm(self) -> None:
        """Keep the N_{l−1} that lies in the inbox."""
        self.norm_below[0] = np.asarray(self.inbox[MessageKind.PREDICTION])[0, 0]

    def clamp_by_norm(self) -> None:
        """ĥ_L = (1 − m) y + m out(p_L), m = 1/(1 + β N_{L−1}); the constant mix is that for N_{L−1} = 1."""
        assert self.target is not None
        assert self.traits.output is not None
        traits, prediction = self.traits, self.inbox[MessageKind.PREDICTION]
        mix = traits.mix / (traits.mix + (1 - traits.mix) * float(self.norm_below[0]))
        self.kernels.soft_clamp(self.target, prediction, self.traits.output, mix, self.activity)

    def relax_by_norms(self, step: float, above: float, decay: float) -> None:
        """Move ĥ_l by one step of size k down the free energy, equation (2), with precisions of this moment.

        γ_l = 1/N_{l−1}, γ_{l+1} = above/N_l and γ_l^decay = decay ‖e_{l+1}‖²/N_l²; one sample.
        """
        assert self.connection is not None
        error_above, norm = self.inbox[MessageKind.ERROR], self._norm()
        squared = 2 * float(self.kernels.squared_error(error_above))
        self.synapses.feedback(self.activity, error_above, self.weight, above / norm, self.feedback)
        self.kernels.relax(
            self.activity,
            self.error,
            self.feedback,
            self.connection.activation,
            step,
            1 / float(self.norm_below[0]),
            decay * squared / norm**2,
        )

    def _norm(self) -> float:
        """Return N_l = ‖f(ĥ_l)‖² + 1; the decay's share of equation (1) is half of that square.

        Raises:
            ShapeError: more than one sample, which would have a norm each.
        """
        assert self.connection is not None
        if len(self.activity) != 1:
            raise ShapeError(f"mini-batch of {len(self.activity)}: expected 1, as precisions are refreshed")
        half = self.kernels.free_energy(self.activity, 0.0, self.connection.activation, 0.0, 1.0)
        return 2 * float(half) + 1

    @property
    def can_relax_and_predict(self) -> bool:
        """Whether one pass over the weight does both."""
        if self.connection is None or not isinstance(self.synapses, FusingSynapses):
            return False
        return self.synapses.can_relax_and_predict(self.weight)

    def relax_and_predict(self, step: float) -> Array:
        """Do what `relax` and then `predict` do, in one pass over the weight."""
        synapses = cast("FusingSynapses", self.synapses)
        traits, error_above = self.traits, self.inbox[MessageKind.ERROR]
        constants = Relaxation(step, traits.precision, traits.precision_above, traits.activity_decay)
        synapses.relax_and_predict(
            self.activity, self.error, error_above, self.weight, self.bias, constants, self.outgoing
        )
        return self.outgoing

    @property
    def can_compare_on_the_way(self) -> bool:
        """Whether one pass over memory relaxes or clamps it and compares it with its prediction."""
        alone = self.connection is None or self._parts is None  # a convolution may relax part by part
        return alone and isinstance(self.kernels, FusingKernels)

    def relax_and_compare(self, step: float) -> Array:
        """Do what `relax` and then `compare` do, in one pass over memory; return the error."""
        assert self.connection is not None
        kernels, traits = cast("FusingKernels", self.kernels), self.traits
        above, below = self.inbox[MessageKind.ERROR], self.inbox[MessageKind.PREDICTION]
        if self._comparing is not None:
            constants = Relaxation(step, traits.precision, traits.precision_above, traits.activity_decay)
            own = self.activity, self.error
            self.compared = self._comparing.relax_and_compare(
                *own, above, self.weight, below, self.feedback, constants
            )
            return self.error
        self.synapses.feedback(self.activity, above, self.weight, traits.precision_above, self.feedback)
        self.compared = kernels.relax_and_compare(
            self.activity,
            self.error,
            self.feedback,
            below,
            self.connection.activation,
            step,
            traits.precision,
            traits.activity_decay,
        )
        return self.error

    def clamp_and_compare(self) -> Array:
        """Do what `clamp` and then `compare` do at the output, in one pass over memory; return the error."""
        assert self.target is not None
        assert self.traits.output is not None
        kernels, prediction = cast("FusingKernels", self.kernels), self.inbox[MessageKind.PREDICTION]
        given = self.target, prediction, self.traits.output, self.traits.mix
        self.compared = kernels.clamp_and_compare(*given, self.activity, self.error)
        return self.error

    def learn(self) -> None:
        """Let the learning rule update (W_l, b_l) from e_{l+1} in the inbox and f(ĥ_l), equation (4).

        Raises:
            ProgramError: the layer was made without a rule.
        """
        if self.learner is None:
            raise ProgramError(
                f"layer {self.traits.index} has no learning rule: make the layers with one, as in "
                "network.layers(batch, pcsim.MQ(1e-3))"
            )
        if self._parts is not None and takes_one_step(self.learner):
            ends = self.inbox[MessageKind.ERROR], self.activity
            kernels = self._parts.steps
            self.magnitude = self.learner.learn(kernels, self.weight, self.bias, *ends, "identity")
            return
        operands = self.synapses.operands(self.inbox[MessageKind.ERROR], self.activity)
        self.magnitude = self.learner.learn(self.kernels, self.weight, self.bias, *operands)

    def squared_error(self) -> float:
        """Return ½‖e_l‖², the mean over the batch."""
        return self.kernels.squared_error(self.error)

    def free_energy(self, squared_error: float) -> float:
        """Return this layer's share of the free energy, equation (1), from its ½‖e_l‖².

        With refreshed precisions it is that of β Loss(ĥ_L) + ½ Σ_l ‖e_l‖²/N_{l−1}.
        """
        traits = self.traits
        if self.norm_below:  # of one number; to take it out would cost more than all else here
            return self._energy_by_norm(squared_error, float(self.norm_below[0]))
        if traits.output is None:
            if traits.activity_decay == 0:  # most often, and while others wait
                return traits.precision * squared_error
            return self.kernels.free_energy(
                self.activity, squared_error, traits.activation, traits.precision, traits.activity_decay
            )
        assert self.target is not None
        prediction = self.inbox[MessageKind.PREDICTION]
        return self.kernels.output_free_energy(
            self.target, self.activity, prediction, squared_error, traits.output, traits.precision
        )

    def _energy_by_norm(self, squared_error: float, norm: float) -> float:
        """Return ½‖e_l‖²/N_{l−1}, at the output with β Loss(ĥ_L)."""
        traits = self.traits
        if traits.output is None:
            return float(squared_error) / norm
        assert self.target is not None
        prediction, beta = self.inbox[MessageKind.PREDICTION], (1 - traits.mix) / traits.mix
        return beta * self.kernels.output_free_energy(
            self.target, self.activity, prediction, squared_error, traits.output, 1 / (beta * norm)
        )
