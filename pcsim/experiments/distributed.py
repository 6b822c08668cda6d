"""What a distributed run refuses, and what its trace wants to see of layers in other processes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pcsim.engine.distributed.plan import Distribution, Watch, stages_of
from pcsim.errors import ConfigurationError
from pcsim.experiments.experiment import Experiment
from pcsim.network.network import Network
from pcsim.schedule.program import Program, Reaction
from pcsim.tracing.probes import Probe

WANTED: dict[str, Literal["activity", "error", "prediction", "message", "weight"]] = {
    "activity": "activity",
    "error": "error",
    "prediction": "prediction",
    "message": "message",
    "weight": "weight",
    "update": "weight",
    "bias": "weight",
    "bias_update": "weight",
}


def check_distributed(experiment: Experiment, plan: Program | Reaction, distribution: Distribution) -> None:
    """Refuse what cannot run in several processes, before anything is begun.

    Raises:
        ConfigurationError: says what, and what to do.
    """
    if isinstance(plan, Reaction):
        raise ConfigurationError(
            f"order '{experiment.schedule.name}' depends on when messages arrive: use --engine event"
        )
    if experiment.channels.active:
        raise ConfigurationError(
            "engine distributed sends messages as they are: expected a model without messages, states and "
            "faults; use --engine event or fast"
        )
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise ConfigurationError("engine distributed: needs torch; install pcsim[torch]")
    from pcsim.engine.distributed.learning import check_replicas

    stages_of(plan, distribution.processes or 1)
    check_replicas(experiment.rule, experiment.batch, distribution.replicas, "cpu")


def watches_of(probes: Iterable[Probe], network: Network) -> tuple[Watch, ...]:
    """Return what the layers have to show for the probes of a trace."""
    return tuple(
        Watch(
            probe.every,
            frozenset(WANTED[name] for name in probe.record),
            frozenset(range(len(network.sizes)) if probe.layers is None else probe.layers),
        )
        for probe in probes
    )
