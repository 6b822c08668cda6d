"""Theorem 1's precisions, refreshed every iteration, as an order of local operations.

Who knows what: layer l knows ‖f(ĥ_l)‖² from its own activity, and ‖e_{l+1}‖² from its inbox. So the weight
of the error above, 1/(‖f(ĥ_l)‖² + 1), its own decay and its learning rate are local. The weight of its own
error, 1/(‖f(ĥ_{l−1})‖² + 1), is not, nor is the output's soft clamp: layer l − 1 has to tell that norm, one
number a sample. The simulator's upward link carries vectors of the receiver's width, so `announce` sends the
number in each place; the message takes the place of the prediction, which `compare` has used by then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pcsim.kernels import Array
from pcsim.kernels.reference import activate, derivative, output
from pcsim.network.layer import Layer, MessageKind
from pcsim.schedule.operation import Operation, Operations, Place

Direction = Literal["sequential", "simultaneous"]


@dataclass(frozen=True)
class Setting:
    """How precisions follow from the state, with normalised rates α_l = 1/(‖f(ĥ_l)‖² + 1) = 1/N_l.

    γ_l = 1/N_{l−1} weighs a layer's own error, the clamp takes m = 1/(1 + β N_{L−1}).

    Attributes:
        name: for tables.
        proximal_step: β.
        output_precision: factor of γ_L = 1/N_{L−1} in what layer L − 1 feels of the output's error.
        decay: factor of ‖e_{l+1}‖²/N_l² in γ_l^decay.
    """

    name: str
    proximal_step: float
    output_precision: float
    decay: float


def exact(proximal_step: float) -> Setting:
    """Return the setting whose fixed points are stationary points of the proximal problem."""
    return Setting("exact", proximal_step, 1.0, -1.0)


def printed(proximal_step: float) -> Setting:
    """Return the paper's setting: γ_L = α_{L−1}(1/β + N_{L−1}) − 1 = 1/(β N_{L−1}), a decay above 0."""
    return Setting("printed", proximal_step, 1 / proximal_step, 1.0)


def rescaled(proximal_step: float) -> Setting:
    """Return the paper's setting with β where it belongs: in the clamp, not in the feedback."""
    return Setting("printed, β moved", proximal_step, 1.0, 1.0)


@dataclass(frozen=True)
class Refreshed:
    """An order: relax with refreshed precisions, then learn. Use it with NLMS and a mini-batch of one.

    The inference phase works for any mini-batch, each sample with precisions of its own. In a trace, the
    prediction of a layer and the free energy of the output do not mean what they mean elsewhere, because
    the upward link carries norms too.

    Attributes:
        setting: see `Setting`.
        direction: "sequential" from the output down, or "simultaneous".
    """

    setting: Setting
    direction: Direction = "sequential"

    @property
    def __name__(self) -> str:
        """The order's name."""
        return f"{self.direction}, Theorem 1, {self.setting.name}"

    def __call__(self, ops: Operations) -> Iterator[Operation]:
        """Yield the operations of one mini-batch."""
        yield ops.clamp(0)
        for layer in ops.senders:
            yield ops.predict(layer)
            if layer + 1 in ops.hidden:
                yield ops.initialise(layer + 1)
                yield ops.compare(layer + 1)
            else:
                yield self._residual(ops, 0)
            yield announce(ops, layer, 0)
        yield self._clamp(ops, 0)
        for iteration in ops.iterations:
            for layer in reversed(ops.hidden):
                yield self._relax(ops, layer, iteration)
                if self.direction == "sequential":
                    yield _tell(layer, iteration)
            yield _tell(1, iteration)
            for layer in ops.hidden:
                yield ops.predict(layer, iteration)
                if layer + 1 in ops.hidden:
                    yield ops.compare(layer + 1, iteration)
                else:
                    yield self._residual(ops, iteration)
                yield announce(ops, layer, iteration)
            yield self._clamp(ops, iteration)
        for layer in ops.senders:
            yield ops.learn(layer, len(ops.iterations))

    def _relax(self, ops: Operations, layer: int, iteration: int) -> Operation:
        """Move ĥ_l, and e_l along with it: p_l has not changed, and its inbox holds the norm instead."""
        factor = self.setting.output_precision if layer == ops.top - 1 else 1.0
        reads = _places(layer, "activity error weight inbox.error inbox.prediction")
        action = _Relax(ops.step_sizes[iteration - 1], factor, self.setting.decay)
        work = ops.network.connections[layer].multiplications
        writes = _places(layer, "activity error")
        return Operation("relax", layer, iteration, reads, writes, multiplications=work, action=action)

    def _residual(self, ops: Operations, iteration: int) -> Operation:
        """At the output, keep y − out(p_L) before the norm takes the prediction's place."""
        reads = _places(ops.top, "target inbox.prediction")
        return Operation(
            "compare_target", ops.top, iteration, reads, _places(ops.top, "error"), action=_keep_residual
        )

    def _clamp(self, ops: Operations, iteration: int) -> Operation:
        """Set ĥ_L and e_L by the norm that has come in; send e_L down."""
        top = ops.top
        reads, writes = _places(top, "target error inbox.prediction"), _places(top, "activity error")
        action = _Clamp(self.setting.proximal_step)
        return Operation("clamp", top, iteration, reads, writes, MessageKind.ERROR, 0, 0, action=action)


def announce(ops: Operations, layer: int, iteration: int) -> Operation:
    """Send N_l = ‖f(ĥ_l)‖² + 1 up, the 1 for the bias."""
    kind = MessageKind.PREDICTION
    reads = _places(layer, "activity")
    return Operation("announce", layer, iteration, reads, frozenset(), kind, 0, 0, action=_announce)


def _places(layer: int, names: str) -> frozenset[Place]:
    return frozenset(Place(layer, name) for name in names.split())


def _tell(layer: int, iteration: int) -> Operation:
    """Send e_l down as it is."""
    kind, reads = MessageKind.ERROR, _places(layer, "error")
    return Operation("tell", layer, iteration, reads, frozenset(), kind, 0, 0, action=_error)


def _error(unit: Layer) -> Array:
    return unit.error


def _norm(unit: Layer) -> Array:
    """Return N_l of each sample, (batch, 1)."""
    assert unit.connection is not None
    rates = activate(unit.connection.activation, unit.activity)
    return np.asarray((rates**2).sum(axis=1, keepdims=True) + 1)


def _announce(unit: Layer) -> Array:
    unit.outgoing[...] = _norm(unit)
    return unit.outgoing


def _keep_residual(unit: Layer) -> None:
    assert unit.target is not None
    assert unit.traits.output is not None
    unit.error[...] = unit.target - output(unit.traits.output, unit.inbox[MessageKind.PREDICTION])


@dataclass(frozen=True)
class _Clamp:
    """ĥ_L = (1 − m) y + m out(p_L) = y − m r and e_L = (1 − m) r, r = y − out(p_L), m = 1/(1 + β N_{L−1})."""

    proximal_step: float

    def __call__(self, unit: Layer) -> Array:
        assert unit.target is not None
        mix = 1 / (1 + self.proximal_step * unit.inbox[MessageKind.PREDICTION])
        unit.activity[...] = unit.target - mix * unit.error
        unit.error *= 1 - mix
        return unit.error


@dataclass(frozen=True)
class _Relax:
    """Equation (2) with precisions of this moment, a sample each."""

    step: float
    factor: float
    decay: float

    def __call__(self, unit: Layer) -> None:
        assert unit.connection is not None
        name, above = unit.connection.activation, unit.inbox[MessageKind.ERROR]
        norm, rates = _norm(unit), activate(name, unit.activity)
        unit.synapses.feedback(unit.activity, above, unit.weight, self.factor, unit.feedback)
        decay = self.decay * (above**2).sum(axis=1, keepdims=True) / norm**2
        drive = derivative(name, unit.activity) * (unit.feedback / norm - decay * rates)
        move = self.step * (drive - unit.error / unit.inbox[MessageKind.PREDICTION])
        unit.activity += move
        unit.error += move
