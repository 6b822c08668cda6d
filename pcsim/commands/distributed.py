"""Options of `pcsim run --engine distributed`, and the table of what each process did."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from pcsim.errors import ConfigurationError

if TYPE_CHECKING:
    from pcsim.engine.distributed.plan import Distribution
    from pcsim.experiments.summary import RunSummary

Processes = Annotated[
    int | None,
    typer.Option(min=1, help="Distributed: groups of layers in processes of their own [2; torchrun's]."),
]
Replicas = Annotated[
    int | None, typer.Option(min=1, help="Distributed: copies of the network that share a mini-batch [1].")
]
Timeout = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Distributed: silence after which a process counts as lost [60]."),
]


def distribution_of(
    engine: str, processes: int | None, replicas: int | None, timeout: float | None, orders: int
) -> Distribution | None:
    """Return how a run is spread over processes; None on another engine.

    Raises:
        ConfigurationError: the options need the distributed engine, or go with one order only.
    """
    given = {"--processes": processes, "--replicas": replicas, "--timeout": timeout}
    if engine != "distributed":
        names = [name for name, value in given.items() if value is not None]
        if names:
            raise ConfigurationError(f"{names[0]} with --engine {engine}: expected --engine distributed")
        return None
    if orders > 1:
        raise ConfigurationError("--engine distributed: expected at most one --order")
    from pcsim.engine.distributed.plan import TIMEOUT, Distribution

    return Distribution(processes, replicas or 1, TIMEOUT if timeout is None else timeout)


def serve_if_worker(distribution: Distribution | None) -> None:
    """Be a worker to the end of the run, where torchrun has started this command as another rank than 0."""
    if distribution is None or os.environ.get("RANK", "0") == "0" or "WORLD_SIZE" not in os.environ:
        return
    from pcsim.engine.distributed.worker import serve

    code = serve(distribution.timeout)
    sys.stderr.flush()
    os._exit(code)  # torch's own threads may wait for a process that is no more


def show_shares(runs: Sequence[RunSummary]) -> None:
    """Print what each process did with its time, one row a process."""
    from rich.console import Console

    from pcsim.terminal import new_table, scaled

    shares = [share for run in runs for share in run.shares]
    if not shares:
        return
    table = new_table("Where the time of each process went", "process")
    headings = (
        "layers",
        "multipli-\ncations\na batch",
        "compute",
        "communi-\ncation",
        "waiting",
        "elsewhere",
    )
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for share in shares:
        first, last = share.layers
        seconds = (share.compute, share.communication, share.waiting, share.elsewhere)
        total = sum(seconds) or 1.0
        table.add_row(
            str(share.rank),
            str(first) if first == last else f"{first} to {last}",
            scaled(share.multiplications),
            *(f"{part / total:.0%}" for part in seconds),
        )
    Console(markup=False).print(table)
