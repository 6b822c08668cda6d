"""What `pcsim energy MODEL` does for each order: measures its first mini-batches and charges the machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from pcsim.commands.energy_machines import describe_bills
from pcsim.commands.energy_tables import show_bills
from pcsim.errors import ConfigurationError
from pcsim.experiments.energy import (
    Bills,
    Measured,
    charge_machines,
    charge_mapped,
    check_mapping,
    check_measurable,
)
from pcsim.experiments.experiment import Experiment
from pcsim.hardware.machine import Machine
from pcsim.hardware.mapping import Mapping as Placed
from pcsim.schedule.orders import Reactive
from pcsim.terminal import ProgressBar


@dataclass(frozen=True)
class Charged:
    """What training in one order costs.

    Attributes:
        experiment: the model with that order.
        mini_batches: of training, that were measured.
        bills: by machine.
        measured: what the mini-batches did.
    """

    experiment: Experiment
    mini_batches: int
    bills: Mapping[str, Bills]
    measured: Measured

    def to_dict(self) -> dict[str, Any]:
        """Return what there is to know, fit for JSON."""
        return {
            "order": self.experiment.schedule.name,
            "iterations": self.experiment.schedule.iterations,
            "batch": self.experiment.batch,
            "mini_batches": self.mini_batches,
            "metrics": dict(self.measured.metrics),
            "machines": [describe_bills(both) for both in self.bills.values()],
        }

    def show(self) -> None:
        """Print totals, where they go, and what has no price."""
        batch, schedule, metrics = self.experiment.batch, self.experiment.schedule, self.measured.metrics
        samples = "1 sample" if batch == 1 else f"{batch} samples"
        measured_on = "1 mini-batch" if self.mini_batches == 1 else f"{self.mini_batches} mini-batches"
        title = (
            f"A mini-batch of {samples}, {self.experiment.name}, {schedule.name}, "
            f"T = {schedule.iterations}\nevents: measured on {measured_on} from the start of training"
        )
        show_bills(title, list(self.bills.values()))
        Console().print(
            f"events, a sample: {metrics['Effective_MACs']:,.0f} of {metrics['Dense']:,.0f} multiplications "
            f"with weights; {metrics['ActivationSparsity']:.1%} of f(activity) are 0",
            highlight=False,
        )


def charge_orders(
    experiments: Sequence[Experiment], machines: Sequence[Machine], mapping: Path | None, mini_batches: int
) -> list[Charged]:
    """Charge machines with a model's orders; what cannot be is told before any work begins.

    Raises:
        ConfigurationError: one mapping for several machines, or what `check_measurable` and `check_mapping`
            refuse.
        ShapeError: data, network and mapping do not fit.
    """
    if mapping is not None and len(machines) > 1:
        raise ConfigurationError(f"--mapping {mapping} is for one machine: expected one --hardware")
    placed = None if mapping is None else Placed.load(mapping)
    for experiment in experiments:
        check_measurable(experiment, mini_batches)
        if placed is not None:
            check_mapping(experiment, machines[0], placed)
    return [Charged(one, mini_batches, *_charge(one, machines, placed, mini_batches)) for one in experiments]


def _charge(
    experiment: Experiment, machines: Sequence[Machine], placed: Placed | None, mini_batches: int
) -> tuple[dict[str, Bills], Measured]:
    runs = len(machines) if isinstance(experiment.schedule.written, Reactive) else 1
    with ProgressBar() as bar:
        bar.begin(experiment.schedule.name, runs * mini_batches)
        if placed is None:
            return charge_machines(experiment, machines, mini_batches, bar.step)
        bills, measured = charge_mapped(experiment, machines[0], placed, mini_batches, bar.step)
        return {machines[0].name: bills}, measured
