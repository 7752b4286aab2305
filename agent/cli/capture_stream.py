"""``agentctl capture stream``: packets as they are captured, for Wireshark on another machine."""

from __future__ import annotations

import errno
import os
import select
import struct
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from agent.cli import output
from agent.cli.base import Session, command
from agent.cli.guard import complain
from agent.cli.names import CAPTURE
from agent.cli.which import matching, of_interfaces
from agent.errors import UsageError
from agent.linux import ssh
from agent.workers.capture.savefile import file_header

if TYPE_CHECKING:
    from agent.workers.retrieval.follow import Follower
    from agent.workers.retrieval.offline import Packet

PACE = 50
"""Milliseconds from one look to the next."""

_RECORD = struct.Struct("=IIII")
_STDOUT = 1


@command(
    "stream",
    examples=(
        "agentctl capture stream edge | wireshark -k -i -",
        "ssh host agentctl capture stream edge tcp port 443 | wireshark -k -i -",
    ),
)
@click.argument("name", type=CAPTURE)
@matching("[FILTER]...")
@of_interfaces
def stream(session: Session, name: str, expression: str, interfaces: tuple[str, ...]) -> None:
    """Write what the capture NAME captures from now on to standard output, as pcap, until nobody reads it any more.

    It follows the files of the capture, so it needs no right to capture itself. The SSH connection that it runs in is
    left out. With --json each packet is a line.
    """
    if sys.stdout.isatty() and not session.json:
        raise UsageError(
            f"packets are not for a terminal; pipe them: agentctl capture stream {name} | wireshark -k -i -"
        )
    from agent.cli.stores import check_interfaces, find
    from agent.workers.retrieval.follow import Follower

    without = _own_traffic()
    (store,) = find(session.paths(), (name,)).stores
    check_interfaces([store], interfaces)
    with store.seen() as directory:
        follower = Follower(directory, interfaces, expression, without)
        _stream(follower, _lines(name, follower) if session.json else _savefile(follower))


def _own_traffic() -> str | None:
    """What to leave out, as a filter: that of the connection which carries what we write."""
    found = ssh.connection(os.environ)
    if found is None:
        return None
    return (
        f"not (host {found.client} and host {found.server} "
        f"and tcp port {found.client_port} and tcp port {found.server_port})"
    )


def _stream(follower: Follower, write: Callable[[list[tuple[str, Packet]]], None]) -> None:
    """Write what comes, at once, in order of time. Ends by ``BrokenPipeError``."""
    from agent.workers.retrieval.offline import packets

    closed = select.poll()
    closed.register(_STDOUT, 0)  # told even so: that nobody reads any more
    told = 0
    while True:
        came = [(interface, packet) for interface, records in follower.take() for packet in packets(records)]
        write(sorted(came, key=lambda one: one[1].time))
        for note in follower.notes[told:]:
            complain(f"agentctl: {note}")
        told = len(follower.notes)
        if closed.poll(PACE):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def _savefile(follower: Follower) -> Callable[[list[tuple[str, Packet]]], None]:
    """Writes pcap, of which the header goes out as soon as it is known what kind of packets there are."""
    begun = False

    def write(came: list[tuple[str, Packet]]) -> None:
        nonlocal begun
        if not begun and (link_type := follower.link_type) is not None:
            _write(file_header(link_type))
            begun = True
        parts = []
        for _, (when, length, data) in came:
            seconds, nanoseconds = divmod(when, 1_000_000_000)
            parts += [_RECORD.pack(seconds, nanoseconds, len(data), length), data]
        _write(b"".join(parts))

    return write


def _lines(service: str, follower: Follower) -> Callable[[list[tuple[str, Packet]]], None]:
    """Writes a line of JSON for each packet, as ``agentctl capture query --json`` has them in a list."""
    from agent.workers.retrieval.summary import document

    def write(came: list[tuple[str, Packet]]) -> None:
        for interface, packet in came:
            output.line(document(service, interface, follower.link_type or 0, packet))

    return write


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(_STDOUT, view) :]
