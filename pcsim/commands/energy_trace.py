"""`pcsim energy TRACE.h5`: what the recorded training steps of a run cost on machines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from pcsim.commands import print_json
from pcsim.commands.energy_machines import describe_bills
from pcsim.commands.energy_tables import draw, show_bills
from pcsim.experiments.energy_trace import MOST_STEPS, charge_trace, model_of
from pcsim.hardware.machine import Machine
from pcsim.terminal import ProgressBar
from pcsim.tracing.reader import open_trace


def trace_energy(path: Path, machines: Sequence[Machine], out: Path | None, as_json: bool) -> None:
    """Charge the events of a trace, and print, draw or tell scripts what they cost."""
    with open_trace(path) as trace:
        model = model_of(trace)
        with ProgressBar() as bar:
            bar.begin(path.name, len(machines) * min(MOST_STEPS, trace.table("summary").rows))
            found = [charge_trace(trace, machine, bar.step) for machine in machines]
    bills, first = [one.bills for one in found], found[0]
    schedule, batch = model.schedule, model.training.batch
    if out is not None:
        draw([(schedule.order, {both.dense.machine.name: both for both in bills})], out)
    if as_json:
        facts = {"trace": str(path), "model": model.name, "order": schedule.order, "batch": batch}
        steps = {"training_steps": first.steps, "recorded": first.recorded}
        print_json(facts | steps | {"machines": [describe_bills(both) for both in bills]})
        return
    title = (
        f"A mini-batch of {batch} samples, {model.name}, {schedule.order}, T = {schedule.iterations}\n"
        f"mean of {first.steps:,} of {first.recorded:,} recorded training steps; events: messages as recorded"
    )
    show_bills(title, bills)
    typer.echo("a trace does not tell which products are of zeros, so all of them are charged")
    if out is not None:
        typer.echo(f"picture: {out}")
