"""What every command shares: the session, the options that work everywhere, and a group that imports on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.commands import COMMANDS
from agent.paths import DEFAULT_PREFIX, Paths

if TYPE_CHECKING:
    from agent.control.client import Client

EXIT_CODES = (
    "Exit codes: 0 success, 1 the declaration or the command line is wrong, 2 it failed while running, 130 Ctrl-C."
)

CONTEXT_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@dataclass(slots=True)
class Session:
    """What the global options said. They may stand before or after the subcommand; the later one wins."""

    prefix: Path | None = None
    json: bool = False

    def paths(self, declaration: Path | None = None) -> Paths:
        """The layout below the prefix, with the declaration named on the command line, if one was."""
        return Paths.of(self.prefix, declaration)

    def client(self, timeout: float | None = None) -> Client:
        """A client of this prefix's agent. ``timeout`` is in seconds; the client has its own default."""
        from agent.control.client import Client

        return Client(self.paths().socket, timeout)


def command(
    name: str, *, examples: tuple[str, ...] = (), exit_codes: str = EXIT_CODES, **attributes: Any
) -> Callable[[Callable[..., None]], click.Command]:
    """Make a click command of a function that takes the ``Session`` first.

    ``examples`` and ``exit_codes`` close the help text.
    """

    def wrap(function: Callable[..., None]) -> click.Command:
        made = click.command(
            name,
            cls=click.Command,
            context_settings={**CONTEXT_SETTINGS, **attributes.pop("context_settings", {})},
            epilog=epilog(examples, exit_codes),
            **{"short_help": COMMANDS[name][1] if name in COMMANDS else None, **attributes},
        )(click.pass_obj(function))
        made.params.extend(shared_options())
        return made

    return wrap


def shared_options() -> list[click.Option]:
    """``--prefix`` and ``--json``, which every command takes."""
    prefix = click.Option(
        ["--prefix"],
        type=click.Path(path_type=Path),
        metavar="DIR",
        help=f"Work below DIR.  [default: $PREFIX, else where it is installed, else {DEFAULT_PREFIX}]",
        expose_value=False,
        callback=_take_prefix,
    )
    machine = click.Option(
        ["--json"], is_flag=True, help="Print JSON instead of text.", expose_value=False, callback=_take_json
    )
    return [prefix, machine]


def _take_prefix(context: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.ensure_object(Session).prefix = value


def _take_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Session).json = True


def epilog(examples: tuple[str, ...], exit_codes: str) -> str:
    shown = "".join(f"  {example}\n" for example in examples)
    return f"\b\nExamples:\n{shown}\n{exit_codes}" if examples else exit_codes


class Commands(click.Group):
    """The commands of a table, each imported when it is asked for."""

    table = COMMANDS

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.table:
            return None
        module, _, attribute = self.table[cmd_name][0].partition(":")
        found: click.Command = getattr(import_module(f"agent.cli.{module}"), attribute)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.table and not args[0].startswith("-"):
            raise click.UsageError(no_such("command", args[0], self.table), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click does, but from the table: ``--help`` need not import every command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.table.items()])


def no_such(noun: str, name: str, known: Iterable[str]) -> str:
    """One line saying that ``name`` is not among the ``known``, naming the nearest of them."""
    from agent.declaration.wording import nearest

    near = nearest(name, known)
    return f"no {noun} is named {name!r}" + (f"; did you mean {near}?" if near else "")
