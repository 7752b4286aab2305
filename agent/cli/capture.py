"""``agentctl capture``: the commands about captured packets, each imported when it is typed."""

from __future__ import annotations

import click

from agent.cli.base import CONTEXT_SETTINGS, EXIT_CODES, Commands, epilog, shared_options
from agent.cli.commands import CAPTURE


class CaptureCommands(Commands):
    """The commands of ``agentctl capture``."""

    table = CAPTURE


@click.group(
    "capture",
    cls=CaptureCommands,
    context_settings=CONTEXT_SETTINGS,
    params=[*shared_options()],
    epilog=epilog(("agentctl capture list",), EXIT_CODES),
)
def capture() -> None:
    """Ask captures for packets, and tell them what to keep.

    What is stored is read from PREFIX/spool, whether the agent runs or not.
    """
