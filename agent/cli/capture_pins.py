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
from agent.cli.names import SERVICE
from agent.errors import UsageError

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
@click.argument("name", type=SERVICE, required=False)
@spanned
@click.option("--for", "ahead", metavar="DURATION", help="Until so long after --from, or after now.")
@click.option("--reason", metavar="TEXT", default="", help="Why, for whoever finds it.")
def pin(
    session: Session,
    name: str | None,
    last: str | None,
    begin: str | None,
    end: str | None,
    ahead: str | None,
    reason: str,
) -> None:
    """Keep what capture NAME, or each, has stored, or will, of a time: it is removed only when nothing else is left to
    remove.

    Every segment that may hold a packet of that time is kept, of all interfaces, also when it becomes older than
    `max_age`. Pinned segments count towards the budget.
    """
    from agent.cli.stores import store_of, stores
    from agent.workers.capture import pins as files
    from agent.workers.capture.stock import stock, within

    now = time.time_ns()
    wanted = span(now, last, begin, end, ahead)
    if wanted is None:
        raise UsageError("say which time: --last 10m, --from 14:00 --to 14:05, or --for 5m from now on")
    why = checked(reason)
    paths = session.paths()
    names = stores(paths) if name is None else [name]
    if not names:
        raise UsageError(f"no packets are stored below {paths.spool}")
    for one in names:
        with store_of(paths, one):  # all of them can be asked, before anything is pinned
            pass
    found: list[tuple[str, Pin, list[Stored]]] = []
    for one in names:
        with store_of(paths, one) as directory:
            made = files.add(directory, wanted.begin, wanted.end, created=now, reason=why, by=_who())
            found.append((one, made, within(stock(directory), made.begin, made.end)))
    if session.json:
        output.document(_told(*found[0]) if name is not None else {"pins": [_told(*each) for each in found]})
        return
    for one, made, kept in found:
        number = f"{len(kept)} segment{'' if len(kept) == 1 else 's'}"
        held = f"{number}, {text.size(sum(part.size for part in kept))}" if kept else "nothing stored yet"
        print(f"{one}: pin {made.id}: {_moment(made.begin)} to {_moment(made.end)}, {held}")


@command(
    "pins",
    short_help="Show what is pinned.",
    examples=("agentctl capture pins", "agentctl capture pins edge --json | jq -r '.pins[].id'"),
)
@click.argument("name", type=SERVICE, required=False)
def pins(session: Session, name: str | None) -> None:
    """Show the pins of capture NAME, or of all, and what they hold."""
    from agent.cli.stores import store_of, stores
    from agent.workers.capture.pins import read_all
    from agent.workers.capture.stock import stock, within

    paths = session.paths()
    found: list[tuple[str, Pin, list[Stored]]] = []
    for one in stores(paths) if name is None else [name]:
        with store_of(paths, one) as directory:
            if made := read_all(directory):
                all_of_it = stock(directory)
                found += [(one, pin, within(all_of_it, pin.begin, pin.end)) for pin in made]
    if session.json:
        output.document({"pins": [_told(*one) for one in found]})
    elif found:
        rows = [
            (
                *(service, pin.id, _moment(pin.begin), _moment(pin.end)),
                *(str(len(kept)), text.size(sum(one.size for one in kept)), text.optional(pin.by), pin.reason),
            )
            for service, pin, kept in found
        ]
        table.show(HEADS, rows, right=("SEGMENTS", "SIZE"))
    else:
        print("nothing is pinned")


@command("unpin", short_help="Take pins back.", examples=("agentctl capture unpin edge 0mrh3v7k2",))
@click.argument("name", type=SERVICE)
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
def unpin(session: Session, name: str, ids: tuple[str, ...]) -> None:
    """Take pins of capture NAME back: what they held goes as it would have without them."""
    from agent.cli.stores import store_of
    from agent.workers.capture import pins as files

    with store_of(session.paths(), name) as directory:
        missing = [one for one in ids if not files.remove(directory, one)]
    if session.json:
        output.document({"service": name, "unpinned": [one for one in ids if one not in missing], "missing": missing})
    if missing:
        raise UsageError(f"{name} has no pin {text.some(missing)}; `agentctl capture pins {name}` shows all")
    if not session.json:
        print(f"{name}: {len(ids)} pin{'' if len(ids) == 1 else 's'} taken back")


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


def _moment(instant: int) -> str:
    return text.moment(instant / SECOND)


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
