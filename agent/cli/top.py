"""``agentctl top``: services, rates, drops and the largest flows, as they are now."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from agent.cli import output
from agent.cli.base import Session, command
from agent.cli.instants import Duration
from agent.cli.names import SERVICE
from agent.cli.which import of_interfaces
from agent.errors import UsageError
from agent.linux import priority

if TYPE_CHECKING:
    from agent.cli.terminal import Keys
    from agent.cli.top_data import Watcher

LEAST, MOST = "200ms", "1h"
"""From one look to the next."""

NICENESS = 19
"""A view that is looked at has to go on where others are busy, and so it is not at idle priority."""

FIRST = 1.0
"""Seconds after which the first rates come, at most."""

HINT = "q quits"


@command(
    "top",
    examples=(
        "agentctl top",
        "agentctl top --interval 5s",
        "agentctl top --once",
        "agentctl top --json --count 10 | jq -c '.interfaces[]'",
    ),
)
@click.option(
    "--interval", type=Duration(LEAST, MOST), default="2s", show_default=True, help="Look again after so long."
)
@click.option("--once", is_flag=True, help="Print one look as plain text, and end.")
@click.option(
    "--count", type=click.IntRange(1), metavar="N", help="End after N looks.  [default: 1 in a pipe and with --json]"
)
@click.option(
    "--service", "services", metavar="NAME", type=SERVICE, multiple=True, help="Of this service only; may be repeated."
)
@of_interfaces
def top(
    session: Session,
    interval: float,
    once: bool,
    count: int | None,
    services: tuple[str, ...],
    interfaces: tuple[str, ...],
) -> None:
    """Show services and their states, rates of each interface, drops, and the largest flows of the last 10 seconds.

    On a terminal it is shown anew every INTERVAL, until q is pressed. In a pipe, and with --once, it is printed as
    plain text after one INTERVAL: rates need two looks. With --json each look is one line.

    Rates of interfaces and flows are read from the segments that are being written. Where more comes than can be read
    in time, a part is: numbers told from a part begin with a ~. Without an agent all is told from the stores alone.
    """
    if once and count is not None:
        raise UsageError("--once is --count 1; write one or the other")
    from agent.cli.top_data import Watcher

    priority.stand_back(NICENESS)
    watcher = Watcher(session, services, interfaces)
    try:
        if session.json or once or not (sys.stdout.isatty() and sys.stdin.isatty()):
            _printed(watcher, interval, count or 1, json=session.json)
        else:
            _live(watcher, interval, count)
    finally:
        watcher.close()


def _printed(watcher: Watcher, interval: float, count: int, *, json: bool) -> None:
    from agent.cli.top_view import plain, view

    watcher.look()
    due = time.monotonic()
    for number in range(count):
        due = max(due + interval, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
        snapshot = watcher.look()
        if json:
            output.line(snapshot)
        else:
            print(*([""] if number else []), *plain(view(snapshot)), sep="\n", flush=True)


def _live(watcher: Watcher, interval: float, count: int | None) -> None:
    from rich.console import Console
    from rich.live import Live

    from agent.cli.guard import interruptible
    from agent.cli.terminal import Ended, keys

    console = Console(highlight=False)
    try:
        with (
            interruptible(),
            keys(sys.stdin.fileno()) as typed,
            Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live,
        ):
            _shown(watcher, interval, count, console, live, typed)
    except Ended as end:
        click.get_current_context().exit(128 + end.number)


def _shown(watcher: Watcher, interval: float, count: int | None, console: Any, live: Any, typed: Keys) -> None:
    """Look and draw until ``q`` is pressed, or ``count`` looks had their time."""
    snapshot = watcher.look()
    live.update(_drawn(snapshot, console), refresh=True)
    due = time.monotonic() + min(interval, FIRST)
    looks = 0
    while "q" not in ((pressed := typed.wait(due)) or "").lower():
        if pressed is None:
            if looks == count:
                return
            snapshot = watcher.look()
            looks += 1
            due = time.monotonic() + interval
        live.update(_drawn(snapshot, console), refresh=True)


def _drawn(snapshot: dict[str, Any], console: Any) -> Any:
    from rich.text import Text

    from agent.cli.top_view import view

    width, height = console.size
    lines = view(snapshot, width, height, hint=HINT)
    drawn = Text(no_wrap=True, overflow="ellipsis", end="")
    for number, line in enumerate(lines):
        if number:
            drawn.append("\n")
        for piece in line:
            drawn.append(piece.words, piece.style or None)
    return drawn
