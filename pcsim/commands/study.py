"""`pcsim study`: questions that take many runs or simulations to answer, each with a table and a picture."""

from __future__ import annotations

import typer

from pcsim.commands import study_messages, study_parallelism, study_show
from pcsim.commands.first_screen import PlainGroup

app = typer.Typer(
    cls=PlainGroup,
    help="Answer a question by many runs or simulations.\n\nExample: `pcsim study show studies/digits_rates`",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

app.command()(study_messages.formats)
app.command()(study_messages.messages)
app.command()(study_parallelism.parallelism)
app.command()(study_parallelism.accuracy)
app.command()(study_show.show)
