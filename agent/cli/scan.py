"""``agentctl scan``: the commands about scans, each imported when it is typed."""

from __future__ import annotations

import click

from agent.cli.base import CONTEXT_SETTINGS, EXIT_CODES, Commands, epilog, shared_options
from agent.cli.commands import SCAN


class ScanCommands(Commands):
    """The commands of ``agentctl scan``."""

    table = SCAN


@click.group(
    "scan",
    cls=ScanCommands,
    context_settings=CONTEXT_SETTINGS,
    params=[*shared_options()],
    epilog=epilog(
        (
            "agentctl scan now lan_scan",
            "agentctl scan diff lan_scan",
            "agentctl scan hosts",
            "agentctl scan export csv lan_scan -o hosts.csv",
            "agentctl scan pause lan_scan",
        ),
        EXIT_CODES,
    ),
)
def scan() -> None:
    """Run, hold and end scans, and show what they found.

    Scans run at their declared times without any of this. What they found is read from PREFIX/spool, whether the agent
    runs or not; now, pause, resume and stop ask the agent.
    """
