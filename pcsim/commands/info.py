"""`pcsim info`: what a trace or a model file holds, and how fast this machine is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pcsim.commands import AsJson, print_json
from pcsim.commands.models import show_model
from pcsim.errors import ConfigurationError
from pcsim.shipped import names_model


def info(
    trace: Annotated[
        Path | None, typer.Argument(metavar="TRACE.h5|MODEL", help="Trace file, or model file or name.")
    ] = None,
    machine: Annotated[bool, typer.Option("--machine", help="Test this machine instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a trace holds or a model file describes, or with --machine how fast this machine multiplies.

    Example: `pcsim info traces/digits-sequential.h5`
    """
    if machine == (trace is not None):
        raise ConfigurationError("info: expected either a trace, a model file or --machine")
    if trace is None:
        _show_this_machine(as_json)
    elif names_model(trace):
        show_model(trace, as_json=as_json)
    else:
        _show_trace(trace, as_json)


def _show_this_machine(as_json: bool) -> None:
    from pcsim.experiments.machine import examine
    from pcsim.kernels.backends import check_backend
    from pcsim.terminal import show_machine

    check_backend("cpu")
    found = examine()
    print_json(found.to_dict()) if as_json else show_machine(found)


def _show_trace(path: Path, as_json: bool) -> None:
    from pcsim.terminal import show_trace
    from pcsim.tracing.reader import open_trace
    from pcsim.tracing.sizes import trace_sizes

    with open_trace(path) as reader:
        if as_json:
            facts = {"path": str(path), "state": reader.state, "attributes": reader.attributes}
            print_json(facts | trace_sizes(reader).to_dict())
        else:
            show_trace(reader)
