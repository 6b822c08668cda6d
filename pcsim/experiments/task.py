"""What a run is asked to do: an experiment and its engine, refused where the two cannot go together."""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from pcsim.engine.backprop import check_rule
from pcsim.engine.distributed.plan import Distribution
from pcsim.errors import ConfigurationError, nearest
from pcsim.experiments.clocks import describe_clock
from pcsim.experiments.distributed import check_distributed
from pcsim.experiments.experiment import Experiment, check_channels, without_addresses
from pcsim.schedule.program import Program, Reaction
from pcsim.training.loop import check_fit

EngineName = Literal["fast", "event", "backprop", "distributed"]


@dataclass(frozen=True)
class Task:
    """An experiment on an engine.

    Attributes:
        experiment: what is trained.
        engine: which runs it.
        plan: the schedule, written out for the network; None for backpropagation, which has none.
        distribution: over how many processes; of no meaning on other engines.
    """

    experiment: Experiment
    engine: EngineName
    plan: Program | Reaction | None
    distribution: Distribution

    @classmethod
    def build(cls, experiment: Experiment, engine: EngineName, distribution: Distribution | None) -> Self:
        """Check that the engine can do it, before there is a trace that would be in the way of the next try.

        Raises:
            ConfigurationError: an engine that there is not, or that cannot run this.
            ShapeError: data and network do not fit.
            DataError: there are fewer training samples than one mini-batch, or targets out of reach.
        """
        if engine not in get_args(EngineName):
            raise ConfigurationError(f"engine '{engine}': {nearest(engine, get_args(EngineName))}")
        plan = experiment.schedule.plan(experiment.network, experiment.channels)
        if engine == "fast" and isinstance(plan, Reaction):
            raise ConfigurationError(
                f"order '{experiment.schedule.name}' depends on when messages arrive: use --engine event"
            )
        check_fit(experiment.network, experiment.dataset, experiment.batch)
        check_channels(experiment, engine)
        if engine == "backprop":
            check_rule(experiment.rule)
            return cls(experiment, engine, None, Distribution())
        if engine == "distributed":
            distribution = distribution or Distribution()
            check_distributed(experiment, plan, distribution)
            return cls(experiment, engine, plan, distribution)
        return cls(experiment, engine, plan, Distribution())

    @property
    def program(self) -> Program:
        """The plan, on an engine that runs no other than a fixed list."""
        assert isinstance(self.plan, Program)
        return self.plan

    @property
    def learns(self) -> bool:
        """Whether anything changes a weight: backprop does, and what reacts to messages does in the end."""
        if not isinstance(self.plan, Program):
            return True
        return any(place.name == "weight" for one in self.plan.operations for place in one.writes)

    @property
    def order(self) -> str:
        """Name of the order."""
        return "backprop" if self.plan is None else self.experiment.schedule.name

    @property
    def iterations(self) -> int:
        """T; 0 for backpropagation."""
        return 0 if self.plan is None else self.plan.iterations

    def describe(self) -> dict[str, Any]:
        """Return everything that decides the numbers, fit for JSON."""
        clock = describe_clock(self.experiment.hardware)
        described = self.experiment.describe() | {"engine": self.engine, "hardware": clock}
        if self.plan is not None and self.experiment.schedule.own:  # a name says nothing of what it does
            described["schedule"] |= {"operations": _digest(self.plan)}
        if self.distribution.replicas > 1:  # they round differently; the number of processes decides nothing
            described["replicas"] = self.distribution.replicas
        return described


def _digest(plan: Program | Reaction) -> str:
    """Return a fingerprint of what an own order does, as far as a list of operations or its source tells."""
    if isinstance(plan, Program):
        told = [
            f"{one} {one.iteration} {one.sends} {sorted(map(str, one.reads))} {sorted(map(str, one.writes))} "
            f"{without_addresses(repr(one.action))}"
            for one in plan.operations
        ]
    else:
        try:
            told = [inspect.getsource(plan.order)]
        except (OSError, TypeError):
            told = []
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]
