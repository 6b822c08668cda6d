"""The program around its commands: its help is a line a command, and Ctrl-C ends each with a word.

The lines all fit a terminal of 80 columns, 24 lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup, TyperOption

from pcsim.commands import interruptible

if TYPE_CHECKING:
    from typer._click import Command, Context, HelpFormatter

INDENT = 2


class PlainGroup(TyperGroup):
    """A group whose commands' help shows flags without a type, and one entry of a list as what it is."""

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        """Return a command whose options say what to type."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            for one in (*command.params, command.get_help_option(ctx)):
                _say_what_to_type(one, ctx)
        return command


def _say_what_to_type(parameter: object, ctx: Context) -> None:
    """Show nothing after a flag, and `<str>` after an option that may be repeated, not `<list[str]>`."""
    if not isinstance(parameter, TyperOption) or parameter.metavar is not None:
        return
    shown = parameter.display_type(ctx)
    if parameter.is_flag:
        parameter.metavar = ""
    elif shown.startswith("<list["):
        parameter.metavar = f"<{shown.removeprefix('<list[').removesuffix(']>')}>"


class FirstScreen(PlainGroup):
    """The program itself; its commands and groups keep Typer's own help, with room for options."""

    def invoke(self, ctx: Context) -> Any:  # noqa: ANN401 - what Typer says
        """Run a command; those that keep something when they are interrupted say so themselves."""
        with interruptible():
            return super().invoke(ctx)

    def format_help(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write what pcsim is, then each command in the order in which a newcomer needs it."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        width = max(map(len, commands)) + 2
        formatter.write(f"{self.help}\n")
        formatter.write(
            f"Usage: {ctx.command_path} COMMAND [ARGUMENTS]...    (--version: print it and leave)\n\n"
        )
        for name, command in commands.items():
            if command is not None and not command.hidden:
                said = command.get_short_help_str(formatter.width - INDENT - width)
                shown = typer.style(name, fg="cyan", bold=True) + " " * (width - len(name))
                formatter.write(f"{'':{INDENT}}{shown}{said}\n")
        formatter.write(f"\n`{ctx.command_path} COMMAND --help` explains a command, with an example.\n")
