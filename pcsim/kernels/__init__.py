"""The arithmetic of a local unit: one set of function names, one module a backend.

`reference` is NumPy in any floating dtype and reads like the equations. Whatever runs a program calls
these functions and no other arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pcsim.architecture import ConvLayer

Array = npt.NDArray[np.floating[Any]]
ActivationName = Literal["relu", "tanh", "sigmoid", "leaky_relu", "gelu", "identity"]
OutputName = Literal["softmax", "sigmoid", "identity"]


class Synapses(Protocol):
    """The arithmetic of one connection for mini-batches of one size; `weight` is a matrix, (m, terms)."""

    @property
    def memory(self) -> tuple[Array, ...]:
        """What of the last prediction feedback and learning still need, whatever its layout."""
        ...

    def place(self, weight: Array) -> Array:
        """Return a weight, or its moments, where the kernels work and as they want it; maybe a copy."""
        ...

    def settled(self, weight: Array) -> Array:
        """Return the weight with all that it has learnt, also what was put off; see `Kernels.postponing`."""
        ...

    def predict(self, activity: Array, weight: Array, bias: Array, out: Array) -> None:
        """Form p_{l+1} from ĥ_l; (batch, n_l) → (batch, n_{l+1}). The weight may be unsettled, only here."""
        ...

    def feedback(
        self, activity: Array, error_above: Array, weight: Array, precision_above: float, out: Array
    ) -> None:
        """Bring γ_{l+1} e_{l+1} back to ĥ_l; (batch, n_{l+1}) → (batch, n_l).

        The gate f'(ĥ_l) is still to be applied; where it is 0, what comes back may be 0, too.
        """
        ...

    def operands(self, error_above: Array, activity: Array) -> tuple[Array, Array, ActivationName]:
        """Return δ, r and f such that the row mean of δ f(r)ᵀ is G_l, and that of δ is g_l."""
        ...


class Relaxation(NamedTuple):
    """The constants of equation (2).

    Attributes:
        step: k.
        precision: γ_l.
        precision_above: γ_{l+1}.
        activity_decay: γ_l^decay.
    """

    step: float
    precision: float
    precision_above: float
    activity_decay: float


@runtime_checkable
class RecordingKernels(Protocol):
    """Kernels that can be told once what to do in every training step, and from then on just to do it."""

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        """Record what a step does, without doing it; return what does it.

        The step must have run before, wait for no result, and find its arrays where they are.
        """
        ...


@runtime_checkable
class FusingKernels(Protocol):
    """Kernels that compare on the way: one pass over memory in place of two, and the same bits."""

    def relax_and_compare(
        self,
        activity: Array,
        error: Array,
        feedback: Array,
        prediction: Array,
        activation: ActivationName,
        step: float,
        precision: float,
        activity_decay: float,
    ) -> float:
        """Do what `relax` and then `compare` do; return ½‖e_l‖²."""
        ...

    def clamp_and_compare(
        self,
        target: Array,
        prediction: Array,
        output_name: OutputName,
        mix: float,
        activity: Array,
        error: Array,
    ) -> float:
        """Clamp the output, hard if m = 0, and do what `compare_output` does; return ½‖e_L‖²."""
        ...


@runtime_checkable
class ComparingSynapses(Synapses, Protocol):
    """Synapses that use their feedback where they form it, for kernels that compare on the way."""

    def relax_and_compare(
        self,
        activity: Array,
        error: Array,
        error_above: Array,
        weight: Array,
        prediction: Array,
        feedback: Array,
        constants: Relaxation,
    ) -> float:
        """Move ĥ_l by equation (2), form e_l = ĥ_l − p_l, return ½‖e_l‖²; `feedback` is room to work in."""
        ...


@runtime_checkable
class FusingSynapses(Synapses, Protocol):
    """Synapses that relax their layer and predict from its new activity in one pass over the weight."""

    def can_relax_and_predict(self, weight: Array) -> bool:
        """Whether they can with this weight."""
        ...

    def relax_and_predict(
        self,
        activity: Array,
        error: Array,
        error_above: Array,
        weight: Array,
        bias: Array,
        constants: Relaxation,
        out: Array,
    ) -> None:
        """Move ĥ_l by equation (2) and form p_{l+1} from it in `out`."""
        ...


class LearningSteps(Protocol):
    """What learning rules use of a backend, or of what stands in for one; see `pcsim.kernels.reference`."""

    def sgd_step(  # noqa: D102
        self,
        weight: Array,
        bias: Array,
        error_above: Array,
        activity: Array,
        activation: ActivationName,
        rate: float,
    ) -> float: ...

    def nlms_step(  # noqa: D102
        self, weight: Array, bias: Array, error_above: Array, activity: Array, activation: ActivationName
    ) -> float: ...

    def mq_step(  # noqa: D102
        self,
        weight: Array,
        bias: Array,
        error_above: Array,
        activity: Array,
        activation: ActivationName,
        mean_gradient: Array,
        updates: Array,
        rate: float,
        minimum_rate: float,
        r: float,
        decay: float,
    ) -> float: ...

    def adam_step(  # noqa: D102
        self,
        weight: Array,
        bias: Array,
        error_above: Array,
        activity: Array,
        activation: ActivationName,
        moments: tuple[Array, Array, Array, Array],
        updates: Array,
        rate: float,
        beta1: float,
        beta2: float,
        epsilon: float,
    ) -> float: ...


class Kernels(LearningSteps, Protocol):
    """What a backend provides; `pcsim.kernels.reference` documents each function with its equation.

    A float that it returns may be something that becomes one when it is converted: on a GPU that waits.
    """

    def postponing(self) -> AbstractContextManager[None]:
        """Allow updates of weights to wait for the next prediction, until the block ends.

        Then one pass over the weight does both. Meanwhile weights are complete where a layer shows them.
        """
        ...

    def mini_batch(self, shape: tuple[int, int], dtype: np.dtype[np.floating]) -> Array: ...  # noqa: D102

    def to_device(self, host: Array) -> Array: ...  # noqa: D102

    def load(self, host: Array, held: Array | None) -> Array: ...  # noqa: D102

    def snapshot(self, array: Array) -> Array: ...  # noqa: D102

    def copy(self, values: Array, out: Array) -> None: ...  # noqa: D102

    def copy_and_count(self, values: Array, out: Array) -> int: ...  # noqa: D102

    def output(self, name: OutputName, prediction: Array) -> Array: ...  # noqa: D102

    def predict(  # noqa: D102
        self, activity: Array, weight: Array, bias: Array, activation: ActivationName, out: Array
    ) -> None: ...

    def dense(self, activation: ActivationName, batch: int) -> Synapses: ...  # noqa: D102

    def convolution(  # noqa: D102
        self, layer: ConvLayer, activation: ActivationName, batch: int, dtype: np.dtype[np.floating]
    ) -> Synapses: ...

    def compare(self, activity: Array, prediction: Array, out: Array) -> float | None: ...  # noqa: D102

    def compare_output(  # noqa: D102
        self, activity: Array, prediction: Array, output_name: OutputName, out: Array
    ) -> float | None: ...

    def soft_clamp(  # noqa: D102
        self, target: Array, prediction: Array, output_name: OutputName, mix: float, out: Array
    ) -> None: ...

    def feedback(self, error_above: Array, weight: Array, precision_above: float, out: Array) -> None: ...  # noqa: D102

    def relax(  # noqa: D102
        self,
        activity: Array,
        error: Array,
        feedback: Array,
        activation: ActivationName,
        step: float,
        precision: float,
        activity_decay: float,
    ) -> None: ...

    def squared_error(self, error: Array) -> float: ...  # noqa: D102

    def free_energy(  # noqa: D102
        self,
        activity: Array,
        squared_error: float,
        activation: ActivationName,
        precision: float,
        activity_decay: float,
    ) -> float: ...

    def output_free_energy(  # noqa: D102
        self,
        target: Array,
        activity: Array,
        prediction: Array,
        squared_error: float,
        output_name: OutputName,
        precision: float,
    ) -> float: ...
