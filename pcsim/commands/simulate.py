"""`pcsim simulate`: one mini-batch on the clock."""

from __future__ import annotations

from typing import Annotated

import typer

from pcsim.commands import AsJson, DataDir, Model, Seed, Set, print_json, tell_unpriced, with_options


def simulate(
    model: Model,
    overrides: Set = [],  # noqa: B006 - typer copies it
    seed: Seed = None,
    data_dir: DataDir = None,
    limit: Annotated[int, typer.Option(min=0, help="Events to print; 0 prints all.")] = 40,
    as_json: AsJson = False,
) -> None:
    """Send one mini-batch through the event queue: its timeline and totals.

    Example: `pcsim simulate digits --set schedule.order=asynchronous`
    """
    from dataclasses import asdict

    from pcsim.config import load_model
    from pcsim.experiments.experiment import Experiment
    from pcsim.experiments.simulate import simulate_one
    from pcsim.kernels import reference
    from pcsim.terminal import show_timeline

    experiment = Experiment.from_model(load_model(model, with_options(overrides, seed, data_dir)))
    tell_unpriced(experiment.hardware.unpriced)
    timeline, totals = simulate_one(experiment, reference)
    if as_json:
        print_json(
            {
                "totals": asdict(totals),
                "time_unit": experiment.hardware.unit,
                "timeline": [asdict(event) for event in timeline],
            }
        )
    else:
        show_timeline(timeline, totals, limit, experiment.hardware.unit)
