"""`pcsim verify`: golden cases, replayed."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pcsim.commands import AsJson, Backend, print_json


class EngineChoice(StrEnum):
    """How a program is run."""

    FAST = "fast"
    EVENT = "event"


def verify(
    cases: Annotated[list[Path], typer.Argument(metavar="CASE.npz…", help="Golden cases.")],
    engine: Annotated[EngineChoice, typer.Option(help="Which engine replays them.")] = EngineChoice.FAST,
    backend: Backend = "reference",
    tolerance: Annotated[float, typer.Option(min=0, help="Largest deviation that counts as equal.")] = 1e-10,
    as_json: AsJson = False,
) -> None:
    """Replay golden cases in float64; exit code 1 if one deviates.

    Example, in a checkout, which has cases: `pcsim verify tests/golden/*.npz --engine event`
    """
    from pcsim.experiments.verify import verify as verify_case
    from pcsim.terminal import show_deviations

    deviations = [verify_case(case, engine=engine.value, backend=backend) for case in cases]
    if as_json:
        print_json([deviation.to_dict() for deviation in deviations])
    else:
        show_deviations(deviations, tolerance)
    if any(not deviation.largest <= tolerance for deviation in deviations):
        raise typer.Exit(1)
