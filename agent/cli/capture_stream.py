"""``agentctl capture stream``: packets as they are captured, for Wireshark on another machine."""

from __future__ import annotations

import errno
import os
import select
import struct
import sys
from typing import TYPE_CHECKING

import click

from agent.cli.base import Session, command
from agent.cli.guard import complain
from agent.cli.names import SERVICE
from agent.errors import UsageError
from agent.linux import ssh
from agent.linux.owner import owner, seen_by
from agent.workers.capture.savefile import LONGEST_CAPTURE, RECORD_HEADER

if TYPE_CHECKING:
    from agent.workers.retrieval.follow import Follower

PACE = 50
"""Milliseconds from one look to the next."""

_HEADER = struct.Struct("=IHHiIII")
_RECORD = struct.Struct("=IIII")
_STDOUT = 1


@command(
    "stream",
    examples=(
        "agentctl capture stream edge | wireshark -k -i -",
        "ssh host agentctl capture stream edge \"'tcp port 443'\" | wireshark -k -i -",
    ),
)
@click.argument("name", type=SERVICE)
@click.argument("expression", default="", metavar="[FILTER]")
@click.option(
    "--interface", "interfaces", metavar="NAME", multiple=True, help="Of this interface alone; may be repeated."
)
def stream(session: Session, name: str, expression: str, interfaces: tuple[str, ...]) -> None:
    """Write what the capture NAME captures from now on to standard output, as pcap, until nobody reads it any more.

    It follows the files of the capture, so it needs no right to capture itself. The SSH connection that it runs in is
    left out.
    """
    if sys.stdout.isatty():
        raise UsageError(
            f"packets are not for a terminal; pipe them: agentctl capture stream {name} | wireshark -k -i -"
        )
    from agent.cli.capture_stores import check_interfaces, stores
    from agent.workers.retrieval.follow import Follower

    paths = session.paths()
    without = _own_traffic()
    with seen_by(owner(*paths.owned)):
        (store,) = stores(paths.spool, (name,))
        check_interfaces([store], interfaces)
        _stream(Follower(store, interfaces, expression, without))


def _own_traffic() -> str | None:
    """What to leave out, as a filter: that of the connection which carries what we write."""
    found = ssh.connection(os.environ)
    if found is None:
        return None
    return (
        f"not (host {found.client} and host {found.server} "
        f"and tcp port {found.client_port} and tcp port {found.server_port})"
    )


def _stream(follower: Follower) -> None:
    """Write what comes, at once. Ends by ``BrokenPipeError``."""
    closed = select.poll()
    closed.register(_STDOUT, 0)  # told even so: that nobody reads any more
    begun, told = False, 0
    while True:
        taken = follower.take()
        if not begun and (link_type := follower.link_type) is not None:
            _write(_HEADER.pack(0xA1B23C4D, 2, 4, 0, 0, LONGEST_CAPTURE, link_type))
            begun = True
        _write(taken[0] if len(taken) == 1 else _sorted(taken))
        for note in follower.notes[told:]:
            complain(f"agentctl: {note}")
        told = len(follower.notes)
        if closed.poll(PACE):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def _sorted(taken: list[bytes]) -> bytes:
    """The records of several interfaces in order of time."""
    records = []
    for part in taken:
        place = 0
        while place < len(part):
            seconds, nanoseconds, captured, _ = _RECORD.unpack_from(part, place)
            end = place + RECORD_HEADER + captured
            records.append((seconds, nanoseconds, part[place:end]))
            place = end
    return b"".join(record for *_, record in sorted(records, key=lambda record: record[:2]))


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(_STDOUT, view) :]
