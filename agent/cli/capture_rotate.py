"""``agentctl capture rotate``: close the segments that are being written."""

from __future__ import annotations

import click

from agent.cli.actions import perform
from agent.cli.base import Session, command
from agent.cli.names import CAPTURE
from agent.errors import RuntimeFailure


@command(
    "rotate", examples=("agentctl capture rotate", "agentctl capture rotate edge && sleep 1 && ls /srv/spool/edge")
)
@click.argument("names", metavar="[NAME]...", nargs=-1, type=CAPTURE)
def rotate(session: Session, names: tuple[str, ...]) -> None:
    """Have the captures NAME, or all that run, close the segments that they are writing.

    What has been captured up to now is in closed segments a tenth of a second later, with an account beside each, and
    no packet is lost. It is the agent that tells them. Exits 2 when one of them does not capture now.
    """
    if not names:
        services = session.client().request("GET", "/v1/status")["services"]
        running = [service for service in services if service["kind"] == "capture" and service["state"] == "running"]
        names = tuple(str(service["name"]) for service in running)
        if not names:
            raise RuntimeFailure("no capture is running")
    perform(session, "rotate", list(dict.fromkeys(names)), wait=False)
