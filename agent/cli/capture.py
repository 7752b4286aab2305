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
    epilog=epilog(
        (
            "agentctl capture list",
            "agentctl capture query host 10.0.0.5 and port 443 --last 10m",
            "agentctl capture stream edge | wireshark -k -i -",
            "agentctl capture pin --last 10m --reason 'the outage'",
            "agentctl capture report --last 1h -o report.html",
        ),
        EXIT_CODES,
    ),
)
def capture() -> None:
    """Ask captures for packets, and tell them what to keep.

    What is stored is read from PREFIX/spool, whether the agent runs or not; rotate alone asks the agent.
    """
