"""Precisions that follow from the state and are refreshed whenever it changes: Theorem 1 on local units.

With normalised rates α_l = 1/N_l, N_l = ‖f(ĥ_l)‖² + 1 (the 1 is the bias), the proximal update of one sample
minimises Loss(ĥ_L) + (1/2β) Σ_l ‖e_l‖²/N_{l−1} over activities (arXiv 2305.13562, Theorem 1; docs/theory.md
says how the printed precisions differ). Layers relax on β times that, so that β is in the clamp alone:

    Δĥ_l = k ( f'(ĥ_l) ⊙ W_lᵀ γ_{l+1} e_{l+1} − γ_l e_l − γ_l^decay f'(ĥ_l) ⊙ f(ĥ_l) ),
    γ_l = 1/N_{l−1},  γ_l^decay = −‖e_{l+1}‖²/N_l²,  ĥ_L = (1 − m) y + m out(p_L),  m = 1/(1 + β N_{L−1}).

Who knows what: N_l is a sum over layer l's own activity, and e_{l+1} is the message in its inbox. So the
weight of the error above, the decay and the learning rate are local. N_{l−1} is presynaptic: layer l − 1
tells it, one number, in a message of its own just before the prediction that it forms from the same activity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pcsim.errors import ConfigurationError, refuse_unless
from pcsim.network.connection import Dense
from pcsim.network.layer import Layer
from pcsim.network.network import Network


@dataclass(frozen=True)
class Refreshing:
    """How precisions follow from the state.

    Attributes:
        output_power: γ_L is β to this power times 1/N_{L−1} in what layer L − 1 feels of the output's error.
        decay: γ_l^decay is so many times ‖e_{l+1}‖²/N_l².
    """

    output_power: int
    decay: float

    def relax(self, network: Network, layer: int, step: float) -> RefreshedRelax:
        """Return the action that relaxes a hidden layer of a network by a step."""
        above = proximal_step(network) ** self.output_power if layer == network.top - 1 else 1.0
        return RefreshedRelax(step, above, self.decay)


CONSTANT = "constant"
PRECISIONS: Mapping[str, Refreshing | None] = {
    CONSTANT: None,  # those of the network
    "theorem 1": Refreshing(output_power=0, decay=-1.0),
    "theorem 1 as printed": Refreshing(output_power=-1, decay=1.0),
    "theorem 1 with printed decay": Refreshing(output_power=0, decay=1.0),
}


@dataclass(frozen=True)
class RefreshedRelax:
    """The action of relaxing with the precisions of this moment; two of the same numbers are the same action.

    Attributes:
        step: k.
        above: factor of γ_{l+1} = 1/N_l.
        decay: factor of ‖e_{l+1}‖²/N_l² in γ_l^decay.
    """

    step: float
    above: float
    decay: float

    def __call__(self, unit: Layer) -> None:
        """Move the activity of a layer."""
        unit.relax_by_norms(self.step, self.above, self.decay)


def proximal_step(network: Network) -> float:
    """Return β of a network with a soft clamp, whose mix is 1/(1 + β)."""
    mix = network.traits[-1].mix
    return (1 - mix) / mix


def check_precisions(precisions: str, network: Network) -> None:
    """Refuse refreshed precisions where Theorem 1 says nothing of them.

    Raises:
        ConfigurationError: convolutions, a hard clamp, or precisions and decays of the network's own.
    """
    if PRECISIONS[precisions] is None:
        return
    what = f"schedule.precisions = '{precisions}'"
    if not all(isinstance(one, Dense) for one in network.connections):
        raise ConfigurationError(f"{what}: the network has convolutions: expected dense layers only")
    if not network.soft_clamp:
        raise ConfigurationError(f"{what}: the clamp is hard: expected a soft one, as it takes proximal_step")
    own = [(traits.precision, traits.activity_decay) for traits in network.traits[1:]]
    if not np.array_equal(own, [(1.0, 0.0)] * len(own)):
        raise ConfigurationError(
            f"{what}: the network has precisions or activity decays of its own: expected it to have none"
        )


def check_mini_batch(precisions: str, batch: int) -> None:
    """Refuse refreshed precisions with more than one sample: they would not be one number a layer.

    Raises:
        ConfigurationError: a mini-batch of several samples.
    """
    good = PRECISIONS[precisions] is None or batch == 1
    refuse_unless(good, "batch", batch, f"1, as schedule.precisions = '{precisions}' (one sample each)")
