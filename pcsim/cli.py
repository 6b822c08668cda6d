"""The command line: every command is a thin layer over the Python face."""

from __future__ import annotations

import io
import sys
from typing import Annotated, Any, Never

import typer

from pcsim.commands import (
    analyze,
    bench,
    compare,
    data,
    energy,
    export,
    info,
    models,
    plot,
    report,
    reproduce,
    run,
    simulate,
    study,
    sweep,
    theory,
    verify,
)
from pcsim.commands import (
    map as map_command,
)
from pcsim.commands.first_screen import FirstScreen
from pcsim.errors import PcsimError

# Heavy imports wait inside the commands, so that --help answers at once.
app = typer.Typer(
    name="pcsim",
    cls=FirstScreen,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Event-driven simulator of predictive coding networks."""
    if version:
        from importlib.metadata import version as installed

        typer.echo(installed("pcsim"))
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


# In the order in which a newcomer needs them.
app.command()(run.run)
app.command(short_help="Send one mini-batch through the event queue: timeline, totals.")(simulate.simulate)
app.command(short_help="Say what a trace or a model file holds; --machine: how fast it is.")(info.info)
app.command()(verify.verify)
app.command(short_help="Time training steps beside other libraries', and recording.")(bench.bench)
app.command(short_help="Say how errors, energy, updates and number formats behave.")(analyze.analyze)
app.command()(compare.compare)
app.command(short_help="Charge training to machines: energy, time, where they go.")(energy.energy)
app.command()(export.export)
app.command("map", short_help="Place a network on a chip; simulate its mesh.")(map_command.map_network)
app.command()(models.models)
app.command(short_help="Draw traces: error flow, energy, learning, timeline, traffic, …")(plot.plot)
app.command(short_help="Write a page about traces that needs no network and no server.")(report.report)
app.command(short_help="Run the paper's experiments, beside the paper's numbers.")(reproduce.reproduce)
app.command(short_help="Run a model with many settings: grids, draws, seeds, halving.")(sweep.sweep)
app.add_typer(data.app, name="data")
app.add_typer(study.app, name="study")
app.add_typer(theory.app, name="theory")


def main() -> None:
    """Run the command line; whatever was wrong with the input becomes one line and exit code 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a table with question marks, where letters are missing
    try:
        # Not standalone: Typer raises what it would draw a frame around.
        code = app(prog_name="pcsim", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code)
    except typer.TyperException as error:
        _refuse(_usage(error))
    except PcsimError as error:
        _refuse(str(error))
    except MemoryError as error:
        _refuse(f"not enough memory ({error}): expected a smaller network or batch")
    except BrokenPipeError:  # whoever reads has seen enough
        raise
    except OSError as error:
        _refuse(f"{error.filename or 'output'}: {error.strerror}")


def _refuse(message: str) -> Never:
    """Say what was wrong, if the command has not said it, and leave."""
    if message:
        typer.echo(f"error: {message}", err=True)
    sys.exit(2)


def _wrong_value(error: typer.TyperException) -> str:
    """Say in this program's words which value cannot be; nothing for other errors."""
    from pydantic import ValidationError

    from pcsim.config.problems import expected
    from pcsim.errors import closest

    parameter: Any = getattr(error, "param", None)
    if parameter is None or not isinstance(error.__cause__, ValidationError):
        return ""
    details = error.__cause__.errors(include_url=False)[0]
    given = details["input"]
    name = (
        max(parameter.opts, key=len) if parameter.param_type_name == "option" else parameter.display_name_raw
    )
    if choices := [str(getattr(one, "value", one)) for one in parameter.type_descriptor.choices or ()]:
        hint = closest(str(given), choices)
        wanted = f"one of {', '.join(choices)}" + (f"; {hint}" if hint else "")
    else:
        wanted = expected(details["type"], details.get("ctx", {}), details["msg"])
    return f"{name} = {given!r}: expected {wanted}"


def _usage(error: typer.TyperException) -> str:
    """Return in one line what Typer has against the arguments; nothing where it has shown the help."""
    message = " ".join(error.format_message().split()).rstrip(".")
    context: typer.Context | None = getattr(error, "ctx", None)
    if context is None or not message:
        return message
    message = _wrong_value(error) or message
    return f"{context.command_path}: {message}; see {context.command_path} --help"
