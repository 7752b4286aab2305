"""``agentctl logs NAME [-f] [-n N]``: what a service printed."""

from __future__ import annotations

from typing import Any

import click

from agent.cli import streams, text
from agent.cli.base import Session, command
from agent.cli.guard import complain
from agent.cli.names import SERVICE

DEFAULT_COUNT = 100


@command(
    "logs",
    examples=("agentctl logs api", "agentctl logs -f -n 0 api", "agentctl logs api --json | jq -r .line"),
)
@click.argument("name", type=SERVICE)
@click.option("-f", "--follow", is_flag=True, help="Go on with what it prints from now on, until Ctrl-C.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0, streams.MOST),
    default=DEFAULT_COUNT,
    show_default=True,
    metavar="N",
    help="Begin with the last N lines.",
)
def logs(session: Session, name: str, follow: bool, lines: int) -> None:
    """Show what the service NAME printed on its stdout and stderr.

    Control characters are shown as escapes such as \\x1b, so that nothing a service prints can act on your terminal.
    The bytes as they were printed are in PREFIX/log/NAME.log. Runs that systemd started are in the journal.
    """
    timers = session.client().request("GET", "/v1/timers")["timers"]
    if any((timer["name"], timer["scheduler"]) == (name, "systemd") for timer in timers):
        complain(f"what {name} printed when systemd started it is in the journal: journalctl -t {name}")
    query = {"n": str(lines), "follow": "true" if follow else "false"}
    streams.show(session, f"/v1/logs/{name}", query, line)


def line(record: dict[str, Any]) -> str:
    """One line as it stands in the log: its time (UTC), then what was printed."""
    return text.safe(f"{record['time']} {record['line']}" if record["time"] else record["line"])
