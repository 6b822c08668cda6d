"""`pcsim study`: questions that take many runs or simulations to answer, each with a table and a picture."""

from __future__ import annotations

import typer

app = typer.Typer(
    help="Answer a question by many runs or simulations.", no_args_is_help=True, rich_markup_mode="markdown"
)
