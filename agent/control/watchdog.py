"""``WATCHDOG=1``, and only when it means something.

A timer that fires proves that a timer fires. Here the keep-alive is sent after the loop has turned and a request over
the real control socket, from connect to a complete answer, has been served by the same code that serves people.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent.linux.notify import SystemdNotifier
from agent.linux.sockets import connect_unix

REQUEST = b"GET /v1/ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
ANSWER_LIMIT = 64 * 1024


async def keep_watchdog(notifier: SystemdNotifier, socket_path: Path) -> None:
    """Ask ourselves twice in the time that systemd allows, for ever; tell it after each good answer."""
    interval = notifier.watchdog_interval
    while interval:
        if await answers(socket_path, interval / 2):
            notifier.watchdog()
        await asyncio.sleep(interval)


async def answers(socket_path: Path, timeout: float) -> bool:
    """Whether the control socket serves a request within ``timeout`` seconds."""
    try:
        async with asyncio.timeout(timeout):
            connection = connect_unix(socket_path, timeout)
            connection.setblocking(False)
            reader, writer = await asyncio.open_unix_connection(sock=connection)
            try:
                writer.write(REQUEST)
                answer = await reader.read(ANSWER_LIMIT)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return answer.startswith(b"HTTP/1.1 200 ")
