"""``agentctl capture pin``, ``pins`` and ``unpin``: which packets are to stay when others go.

A pin is a file in the store. So it can be set whether the agent runs or not, and a capture that runs finds it within
about a second.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import click

from agent.cli import output, table, text
from agent.cli.base import Session, command
from agent.cli.instants import SECOND, span, spanned
from agent.cli.names import CAPTURE
from agent.cli.stores import find, nothing, warn
from agent.cli.which import of_services
from agent.errors import RuntimeFailure, UsageError

if TYPE_CHECKING:
    from agent.workers.capture.pins import Pin
    from agent.workers.capture.retention import Stored

HEADS = ("SERVICE", "PIN", "FROM", "TO", "SEGMENTS", "SIZE", "BY", "REASON")


@command(
    "pin",
    short_help="Keep the packets of a time when others go.",
    examples=(
        "agentctl capture pin edge --last 10m --reason 'the outage'",
        "agentctl capture pin edge --from 14:00 --to 14:05:30",
        "agentctl capture pin --last 1m --for 5m",
    ),
)
@click.argument("names", metavar="[NAME]...", nargs=-1, type=CAPTURE)
@spanned
@click.option("--for", "ahead", metavar="DURATION", help="Until so long after --from, or after now.")
@click.option("--reason", metavar="TEXT", default="", help="Why, for whoever finds it.")
def pin(
    session: Session,
    names: tuple[str, ...],
    last: str | None,
    begin: str | None,
    end: str | None,
    ahead: str | None,
    reason: str,
) -> None:
    """Keep what the captures NAME, or all, have stored, or will, of a time: it is removed only when nothing else is
    left to remove.

    Every segment that may hold a packet of that time is kept, of all interfaces, also when it becomes older than
    `max_age`. Pinned segments count towards the budget.
    """
    from agent.workers.capture import pins as files
    from agent.workers.capture.stock import stock, within

    now = time.time_ns()
    wanted = span(now, last, begin, end, ahead)
    if wanted is None:
        raise UsageError("say which time: --last 10m, --from 14:00 --to 14:05, or --for 5m from now on")
    why = checked(reason)
    paths = session.paths()
    there = find(paths, names)  # all of them, before anything is pinned
    if not there.stores:
        raise RuntimeFailure(nothing(paths))
    found: list[tuple[str, Pin, list[Stored]]] = []
    for store in there.stores:
        with store.seen() as directory:
            made = files.add(directory, wanted.begin, wanted.end, created=now, reason=why, by=_who())
            found.append((store.name, made, within(stock(directory), made.begin, made.end)))
    warn(there.notes)
    if session.json:
        output.document({"pins": [_told(*each) for each in found], "unreadable": there.notes})
        return
    for one, made, kept in found:
        held = (
            f"{text.count(len(kept), 'segment')}, {text.size(sum(part.size for part in kept))}"
            if kept
            else "nothing stored yet"
        )
        print(f"{one}: pin {made.id}: {text.instant(made.begin)} to {text.instant(made.end)}, {held}")


@command(
    "pins",
    short_help="Show what is pinned.",
    examples=("agentctl capture pins", "agentctl capture pins --service edge --json | jq -r '.pins[].id'"),
)
@of_services
def pins(session: Session, services: tuple[str, ...]) -> None:
    """Show the pins of captures, and what they hold."""
    from agent.workers.capture.pins import read_all
    from agent.workers.capture.stock import stock, within

    there = find(session.paths(), services)
    warn(there.notes)
    found: list[tuple[str, Pin, list[Stored]]] = []
    for store in there.stores:
        with store.seen() as directory:
            if made := read_all(directory):
                all_of_it = stock(directory)
                found += [(store.name, pin, within(all_of_it, pin.begin, pin.end)) for pin in made]
    if session.json:
        output.document({"pins": [_told(*one) for one in found], "unreadable": there.notes})
    elif found:
        rows = [
            (
                *(service, pin.id, text.instant(pin.begin), text.instant(pin.end)),
                *(str(len(kept)), text.size(sum(one.size for one in kept)), text.optional(pin.by), pin.reason),
            )
            for service, pin, kept in found
        ]
        table.show(HEADS, rows, right=("SEGMENTS", "SIZE"))
    else:
        print("nothing is pinned" if there.stores else nothing(session.paths()))


@command("unpin", short_help="Take pins back.", examples=("agentctl capture unpin edge 0mrh3v7k2",))
@click.argument("name", type=CAPTURE)
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
def unpin(session: Session, name: str, ids: tuple[str, ...]) -> None:
    """Take pins of capture NAME back: what they held goes as it would have without them."""
    from agent.workers.capture import pins as files

    (store,) = find(session.paths(), (name,)).stores
    with store.seen() as directory:
        missing = [one for one in ids if not files.remove(directory, one)]
    if session.json:
        output.document({"service": name, "unpinned": [one for one in ids if one not in missing], "missing": missing})
    if missing:
        raise UsageError(f"{name} has no pin {text.some(missing)}; `agentctl capture pins --service {name}` shows all")
    if not session.json:
        print(f"{name}: {text.count(len(ids), 'pin')} taken back")


def _told(service: str, pin: Pin, kept: list[Stored]) -> dict[str, Any]:
    return {
        "service": service,
        "id": pin.id,
        "from": pin.begin / SECOND,
        "to": pin.end / SECOND,
        "reason": pin.reason,
        "by": pin.by,
        "created": pin.created / SECOND,
        "segments": len(kept),
        "bytes": sum(one.size for one in kept),
    }


def checked(reason: str) -> str:
    """The reason of a pin. Raises ``UsageError``."""
    from agent.workers.capture.pins import LONGEST_REASON

    if len(reason) > LONGEST_REASON:
        raise UsageError(f"a reason has at most {LONGEST_REASON} characters; this one has {len(reason)}")
    return _text(reason)


def _text(reason: str) -> str:
    """What the shell gave, as something that JSON can hold."""
    return reason.encode(errors="surrogateescape").decode(errors="replace")


def _who() -> str:
    """Who sets it, as far as that can be known; sudo(8) says whom it works for."""
    from agent.linux.users import resolve_user

    uid = os.getuid()
    return _text(os.environ.get("SUDO_USER", "") if uid == 0 else "")[:64] or resolve_user(str(uid), None).name
