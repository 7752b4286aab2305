"""``agentctl flows``: who talked to whom, shown or exported."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agent.cli.base import CONTEXT_SETTINGS, EXIT_CODES, Commands, epilog, shared_options
from agent.cli.commands import FLOWS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class FlowCommands(Commands):
    """``agentctl flows EXPR`` is ``agentctl flows top EXPR``."""

    table = FLOWS

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``top`` where no command stands: at the first word that is none of the options every command takes."""
        place = 0
        if ctx.resilient_parsing and not args:  # a shell completes the first word: either a command, or an expression
            return super().parse_args(ctx, args)
        while place < len(args) and (args[place] in ("--json", "--prefix") or args[place].startswith("--prefix=")):
            place += 2 if args[place] == "--prefix" else 1
        if not {*args[place : place + 1]} & {*FLOWS, *ctx.help_option_names}:
            args = [*args[:place], "top", *args[place:]]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """As the first word stand commands, or the options of `top`, which may be left out."""
        found = super().shell_complete(ctx, incomplete)
        top = self.get_command(ctx, "top") if incomplete.startswith("-") else None
        if top is not None:
            known = {item.value for item in found}
            with top.make_context("top", [], ctx, resilient_parsing=True) as below:
                found += [item for item in top.shell_complete(below, incomplete) if item.value not in known]
        return found


@click.group(
    "flows",
    cls=FlowCommands,
    context_settings=CONTEXT_SETTINGS,
    params=[*shared_options()],
    epilog=epilog(
        (
            "agentctl flows --last 10m",
            "agentctl flows host 10.0.0.5 and not port 22 --by pair",
            "agentctl flows top --help",
            "agentctl flows export --last 1d --ipfix flows.example.org:4739",
        ),
        EXIT_CODES,
    ),
    subcommand_metavar="[top|export] [EXPR]... [OPTIONS]",
)
def flows() -> None:
    """Show who talked to whom, or export it. Without a command: `top`.

    What is stored is read from PREFIX/spool, whether the agent runs or not.
    """
