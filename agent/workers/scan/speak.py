"""Whether an open port speaks at all, found out before nmap is asked what it is.

A port that takes a connection and never answers costs nmap's service detection 40 to 160 s, since each of its questions
runs into its time limit. Here all questions are put side by side, each on a connection of its own, so that it costs
4 s; and who speaks first (SSH, SMTP, FTP) is left alone after its first word.

Who closes the connection has reacted too: that costs nmap nothing.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from agent.workers.scan.requests import LINES, NEVER_ASKED, requests_for

How = Literal["banner", "lines", "http", "tls", "protocol", "closed", "nothing", "unreachable"]
"""To what a port reacted: to nothing but the connection, to a question (``requests``), by closing it; or not at all:
``nothing`` came, or it was ``unreachable``."""

GRACE: Final = 0.5
"""Seconds that a port has to speak first, before it is asked anything."""

BANNER: Final = 2.0
"""Seconds after which the connection on which it could speak first gets two empty lines."""

LIMIT: Final = 4.0
"""Seconds after the connection at which a port counts as silent, when nothing had to wait for a permit."""

CONNECT: Final = 3.0
"""Seconds for a connection: a SYN is sent again after one (RFC 6298)."""

PORTS_AT_ONCE: Final = 128
"""Ports looked at at the same time."""

HOST_AT_ONCE: Final = 64
"""Those of one host."""

CONNECTIONS: Final = 4
"""Most connections to one port at the same time."""

_SPARED = 256  # descriptors that others in this process may need


@dataclass(frozen=True, slots=True)
class Clock:
    """The waits of a look, in seconds, as above."""

    grace: float = GRACE
    banner: float = BANNER
    limit: float = LIMIT
    connect: float = CONNECT


async def _at_once(_address: str) -> None:
    """No limit on rates: the connection may be made at once."""


async def look(
    asked: Mapping[str, Sequence[int]],
    *,
    permit: Callable[[str], Awaitable[None]] = _at_once,
    clock: Clock = Clock(),
    into: dict[str, dict[int, How]] | None = None,
) -> dict[str, dict[int, How]]:
    """Ask TCP ports, by address (which may carry a zone), whether they speak.

    ``permit`` is awaited before each connection to an address. Ports of ``NEVER_ASKED`` are left out of the result,
    which is ``into`` where that is given: each port is there as soon as it is known. Takes about ``limit`` seconds
    for each ``PORTS_AT_ONCE`` silent ports.
    """
    found = {} if into is None else into
    found.update({address: {} for address in asked})
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    everybody = asyncio.Semaphore(max(1, min(PORTS_AT_ONCE, (soft - _SPARED) // CONNECTIONS)))

    async def one(address: str, port: int, of_host: asyncio.Semaphore) -> None:
        async with of_host, everybody:
            found[address][port] = await hear(address, port, permit=permit, clock=clock)

    async with asyncio.TaskGroup() as group:
        for address, ports in asked.items():
            of_host = asyncio.Semaphore(HOST_AT_ONCE)
            for port in ports:
                if port not in NEVER_ASKED:
                    group.create_task(one(address, port, of_host))
    return found


async def hear(
    address: str,
    port: int,
    *,
    permit: Callable[[str], Awaitable[None]] = _at_once,
    clock: Clock = Clock(),  # it is frozen
) -> How:
    """Ask one TCP port, not one of ``NEVER_ASKED``. That ``permit`` may take long is not held against it."""
    await permit(address)
    try:
        first = await _connected(address, port, clock)
    except OSError:
        return "unreachable"
    with first:
        speaking = [asyncio.ensure_future(_spoken_first(first, clock))]
        try:
            await asyncio.wait(speaking, timeout=clock.grace)
            for name, request in requests_for(port, os.urandom(32)).items():
                if not speaking[0].done():
                    await permit(address)
                if speaking[0].done():
                    break
                speaking.append(asyncio.ensure_future(_asked(address, port, name, request, clock)))
            with suppress(TimeoutError):
                async with asyncio.timeout(clock.limit - clock.grace):
                    return await _first_reaction(speaking)
        finally:
            for task in speaking:
                task.cancel()
            await asyncio.gather(*speaking, return_exceptions=True)
    return "nothing"


async def _first_reaction(speaking: Sequence[asyncio.Future[How]]) -> How:
    """The first that is a word; a connection that was closed counts when no other brought more at the same time."""
    waiting = set(speaking)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        reactions = [task.result() for task in done if task.result() not in ("nothing", "unreachable")]
        if reactions:
            return next((how for how in reactions if how != "closed"), "closed")
    return "nothing"


async def _spoken_first(connection: socket.socket, clock: Clock) -> How:
    """What comes of itself, or after two empty lines."""
    loop = asyncio.get_running_loop()
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(clock.banner):
                return "banner" if await loop.sock_recv(connection, 1) else "closed"
        await loop.sock_sendall(connection, LINES)
        return "lines" if await loop.sock_recv(connection, 1) else "closed"
    except OSError:
        return "closed"


async def _asked(address: str, port: int, name: str, request: bytes, clock: Clock) -> How:
    """How a port takes one question, on a connection of its own."""
    loop = asyncio.get_running_loop()
    try:
        connection = await _connected(address, port, clock)
    except OSError:
        return "unreachable"
    with connection:
        try:
            await loop.sock_sendall(connection, request)
            if not await loop.sock_recv(connection, 1):
                return "closed"
        except OSError:
            return "closed"
    return "http" if name == "http" else "tls" if name == "tls" else "protocol"


async def _connected(address: str, port: int, clock: Clock) -> socket.socket:
    """Raises ``OSError``, of which ``TimeoutError`` is one."""
    family, kind, protocol, _, end = socket.getaddrinfo(
        address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    )[0]
    connection = socket.socket(family, kind, protocol)
    try:
        connection.setblocking(False)
        async with asyncio.timeout(clock.connect):
            await asyncio.get_running_loop().sock_connect(connection, end)
    except BaseException:
        connection.close()
        raise
    return connection
