"""An agent that cannot start, and whoever waits for its answer on a socket that systemd holds.

systemd starts a service when somebody connects to its socket, and again as long as somebody is waiting there when the
service has ended. Left waiting, the first one who asks an agent with a wrong declaration would have it started, several
times a second and for ever, and be told nothing. So everybody is let in, told why, and sent away.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import msgspec

from agent.control.access import role_of
from agent.control.api import ErrorBody, ErrorReply
from agent.errors import AgentError, DeclarationError
from agent.linux.peercred import peer_credentials

MOST = 512
"""Who are let in at once. The kernel keeps 4,096 at most; whoever is left is the business of the next start."""

PATIENCE = 0.5
"""Seconds in which all of them together get to send what they ask."""

ASKED = 64 * 1024
"""Bytes of a question that are read; unread ones would take our answer from those who send before they read."""

STATUS = 503


@contextmanager
def excused(control: socket.socket | None) -> Iterator[None]:
    """If what runs within fails, tell those who wait on this listening socket why; then it has failed all the same."""
    try:
        yield
    except AgentError as error:
        if control is not None:
            with closing(control), suppress(OSError):
                send_away(control, error)
        raise


def send_away(control: socket.socket, error: AgentError) -> None:
    """Answer each who waits there, and close the connection."""
    deadline = time.monotonic() + PATIENCE
    for connection in _let_in(control):
        with closing(connection), suppress(OSError):
            if select.select([connection], [], [], max(0.0, deadline - time.monotonic()))[0]:
                connection.recv(ASKED)
            connection.send(_answer(_told(error, connection)))


def _let_in(control: socket.socket) -> list[socket.socket]:
    waiting: list[socket.socket] = []
    control.setblocking(False)
    with suppress(OSError):
        while len(waiting) < MOST:
            connection, _ = control.accept()
            connection.setblocking(False)
            waiting.append(connection)
    return waiting


def _told(error: AgentError, connection: socket.socket) -> str:
    """Why. What stands in the declaration is not for everybody."""
    if role_of(peer_credentials(connection).uid, agent_uid=os.geteuid(), in_reading_group=False) != "admin":
        return "the agent cannot start; its journal says why"
    if isinstance(error, DeclarationError):
        more = len(error.problems) - 1
        return f"the agent cannot start: {error.problems[0]}" + (
            f" (and {more} more: agentctl validate)" if more else ""
        )
    return f"the agent cannot start: {error}"


def _answer(message: str) -> bytes:
    body = msgspec.json.encode(ErrorReply(error=ErrorBody(status=STATUS, message=message))) + b"\n"
    head = (
        f"HTTP/1.1 {STATUS} Service Unavailable\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
