"""A dense connection with mini-batches of one: driven by events, neuron by neuron.

Weights lie line by line: what one neuron sends to all others is one line, `lines = weight.T`. A rectified
neuron that is silent (ĥ_i ≤ 0, so f(ĥ_i) = 0) sends nothing, its gate f'(ĥ_i) is closed and its weights learn
nothing, so its line is not touched. What is left out is exactly 0, and a step is bound by the memory that it
touches: with half of the neurons silent it takes little more than half the time.

What one sample teaches a weight is an outer product. While samples stream in it may be put off until the next
one is predicted, where the same pass over the lines adds it first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pcsim.kernels import Array, Relaxation, passes
from pcsim.kernels.dense import DenseSynapses
from pcsim.kernels.layout import LEAKS, roomy_copy
from pcsim.kernels.loops import scaled_copy

if TYPE_CHECKING:
    from pcsim.kernels.cpu import CpuKernels


@dataclass(frozen=True, eq=False)
class Update:
    """What one sample teaches a weight: lines += scale · senders receiversᵀ.

    Attributes:
        lines: (n, m).
        senders: (n,).
        receivers: (m,).
        scale: step size.
    """

    lines: Array
    senders: Array
    receivers: Array
    scale: float


class Postponed(threading.local):
    """Updates that wait for the next prediction through their weight, one for each; every thread has its own.

    Threads may share kernels: where one ends its block, others go on.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[Array, Update]] = {}
        self.allowed = False

    def put(self, weight: Array, update: Update) -> None:
        """Let an update wait; the one before must have been taken."""
        self._waiting[id(weight)] = weight, update  # kept alive, so that its number stays its own

    def take(self, weight: Array) -> Update | None:
        """Return the update that waits for a weight, which then waits no longer."""
        return self._waiting.pop(id(weight), (weight, None))[1]

    @contextmanager
    def until_the_end(self, apply: Callable[[Update], None]) -> Iterator[None]:
        """Allow updates to wait in this block; what still waits as it ends is applied."""
        self.allowed = True
        try:
            yield
        finally:
            self.allowed = False
            while self._waiting:
                apply(self._waiting.popitem()[1][1])


@dataclass(frozen=True)
class OnlineSynapses(DenseSynapses):
    """One dense connection with mini-batches of one; weights that do not lie by lines go the usual way."""

    kernels: CpuKernels

    def place(self, weight: Array) -> Array:
        """Return the weight line by line: a copy, unless it lies so."""
        return weight if by_lines(weight) else roomy_copy(weight, order="F")

    def settled(self, weight: Array) -> Array:
        """Return the weight after the update that was put off, if there is one."""
        return self.kernels.settled(weight)

    def predict(self, activity: Array, weight: Array, bias: Array, out: Array) -> None:
        """p_{l+1} = W_l f(ĥ_l) + b_l, from the neurons that are not silent."""
        if not by_lines(weight):
            super().predict(activity, weight, bias, out)
            return
        kernels, lines, into = self.kernels, weight.T, out[0]
        rates, parts = kernels.rates(self.activation, activity)[:, 0], kernels.parts(into)
        late = kernels.postponed.take(weight)
        if late is None:
            kernels.crew.share(passes.predict, weight.size, lines, rates, bias, parts, into)
        else:
            update = late.senders, late.receivers, late.scale
            kernels.crew.share(
                passes.learn_and_predict, weight.size, lines, *update, rates, bias, parts, into
            )

    def feedback(
        self, activity: Array, error_above: Array, weight: Array, precision_above: float, out: Array
    ) -> None:
        """W_lᵀ γ_{l+1} e_{l+1}, and 0 where the gate is closed."""
        if not by_lines(weight):
            super().feedback(activity, error_above, weight, precision_above, out)
            return
        opens, into = 0.0 if LEAKS.get(self.activation) == 0 else -np.inf, out[0]
        self.kernels.crew.share(
            passes.feedback, weight.size, weight.T, error_above[0], activity[0], opens, into
        )
        if precision_above != 1:
            scaled_copy(into, precision_above, into)


@dataclass(frozen=True)
class RectifiedSynapses(OnlineSynapses):
    """The same for what is linear on either side of 0: relaxing and predicting can share a pass."""

    def can_relax_and_predict(self, weight: Array) -> bool:
        """Whether it lies line by line."""
        return by_lines(weight)

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
        """Equation (2), then p_{l+1} = W_l f(ĥ_l) + b_l."""
        leak = LEAKS[self.activation]
        opens = 0.0 if leak == 0 else -np.inf
        rows = weight.T, activity[0], error[0], error_above[0], bias
        parts = self.kernels.parts(out[0])
        self.kernels.crew.share(
            passes.relax_and_predict, weight.size, *rows, constants, leak, opens, parts, out[0]
        )


def by_lines(weight: Array) -> bool:
    """Return whether a weight lies in memory as `OnlineSynapses` places it."""
    return weight.flags.f_contiguous
