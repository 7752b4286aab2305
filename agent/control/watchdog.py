"""``WATCHDOG=1``, and only when it means something.

A timer that fires proves that a timer fires. Here the keep-alive is sent after the loop has turned and a request over
the real control socket, from connect to a complete answer, has been served by the same code that serves people.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from pathlib import Path

from agent.linux.notify import SystemdNotifier
from agent.linux.sockets import connect_unix

REQUEST = b"GET /v1/ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


Room = Callable[[], AbstractContextManager[None]]
"""Makes room for one more connection while its block runs: ``ControlServer.room``."""


Renewal = Callable[[], Awaitable[None]]
"""Listens anew at the socket's path."""


async def keep_watchdog(notifier: SystemdNotifier, socket_path: Path, room: Room, renewal: Renewal) -> None:
    """Ask ourselves twice in the time that systemd allows, for ever; tell it after each good answer.

    An answer may take what is left of that time: there can be a crowd in front of us, and who asks again is its last.
    A socket whose file has gone, with an agent.socket that was stopped for one, is made anew: to end every service for
    that would be worse than the harm.
    """
    interval = notifier.watchdog_interval
    while interval:
        if not socket_path.exists():
            await renewal()
        good = await answers(socket_path, interval, room)
        if good:
            notifier.watchdog()
        await asyncio.sleep(interval if good else interval / 4)


async def answers(socket_path: Path, timeout: float, room: Room) -> bool:
    """Whether the control socket serves a request within ``timeout`` seconds."""
    try:
        async with asyncio.timeout(timeout):
            # Without waiting: when the backlog is full, it is this very loop that has to empty it.
            with room():
                connection = connect_unix(socket_path, 0.0)
            reader, writer = await asyncio.open_unix_connection(sock=connection)
            try:
                writer.write(REQUEST)
                answer = await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return answer.startswith(b"HTTP/1.1 200 ")
