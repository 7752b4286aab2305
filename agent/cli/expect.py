"""``agentctl expect``: expectations, written by the program for a person to edit."""

from __future__ import annotations

import click

from agent.cli.base import CONTEXT_SETTINGS, EXIT_CODES, Commands, epilog, shared_options
from agent.cli.commands import EXPECT


class ExpectCommands(Commands):
    """The commands of ``agentctl expect``."""

    table = EXPECT


@click.group(
    "expect",
    cls=ExpectCommands,
    context_settings=CONTEXT_SETTINGS,
    params=[*shared_options()],
    epilog=epilog(("agentctl expect from-scan lan_scan",), EXIT_CODES),
)
def expect() -> None:
    """Write down what is to be expected of hosts.

    `agentctl drift` holds it against what is.
    """
