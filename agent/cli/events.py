"""``agentctl events [-f]``: what happened to the services, oldest first."""

from __future__ import annotations

from typing import Any

import click

from agent.cli import streams, text
from agent.cli.base import Session, command
from agent.cli.names import SERVICE

DEFAULT_COUNT = 50


@command(
    "events",
    examples=(
        "agentctl events -n 200",
        "agentctl events -f --service api",
        "agentctl events -f --json | jq 'select(.kind == \"failed\")'",
    ),
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on, until Ctrl-C.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0, streams.MOST),
    default=DEFAULT_COUNT,
    show_default=True,
    metavar="N",
    help="Begin with the last N events.",
)
@click.option("--service", type=SERVICE, metavar="NAME", help="Only those of the service NAME.")
def events(session: Session, follow: bool, lines: int, service: str | None) -> None:
    """Show what happened: started, ready, exited, restarted, failed, reloaded and so on.

    With --json each event is one line, {"cursor", "time", "service", "kind", "message", "data"}; the stored ones and
    the ones that follow alike.
    """
    query = {"limit": str(lines), "follow": "true" if follow else "false"}
    if service is not None:
        query["service"] = service
    streams.show(session, "/v1/events", query, line)


def line(event: dict[str, Any]) -> str:
    """One event: local time, service (``(agent)`` for its own), kind and message."""
    service, kind = event["service"] or "(agent)", event["kind"].replace("_", " ")
    return text.safe(f"{text.moment(event['time'])}  {service:<16}  {kind:<14}  {event['message']}".rstrip())
