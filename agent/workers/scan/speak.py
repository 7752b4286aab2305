"""Whether an open port speaks at all, found out before nmap is asked what it is.

A port that takes a connection and never answers costs nmap's service detection 40 to 160 s, since each of its questions
runs into its time limit. Here all questions are put side by side, each on a connection of its own, so that it costs
4 s; and who speaks first (SSH, SMTP, FTP) is asked nothing.

Who closes the connection has reacted too: that costs nmap nothing. Who speaks is listened to until he has finished: one
that never does, a tarpit, costs nmap any amount.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

from agent.errors import ScanFailure
from agent.workers.scan.connect import MOST, descriptors, spared
from agent.workers.scan.itself import met_itself
from agent.workers.scan.requests import LINES, NEVER_ASKED, requests_for

How = Literal["banner", "odd", "lines", "http", "tls", "protocol", "closed", "endless", "nothing", "unreachable"]
"""To what a port reacted: to nothing but the connection (``odd``: with words that begin no protocol known here), to a
question (``requests``), by closing it; or not at all: ``nothing`` came, or it was ``unreachable``. ``endless``: it
spoke, and would not stop."""

MUTE: Final = frozenset({"nothing", "endless"})
"""Of whom nmap would learn nothing, for a long time."""

GRACE: Final = 0.5
"""Seconds that a port has to speak first, before it is asked anything."""

BANNER: Final = 2.0
"""Seconds after which the connection on which it could speak first gets two empty lines."""

LIMIT: Final = 4.0
"""Seconds after the connection at which a port counts as silent, when nothing had to wait for a permit."""

CONNECT: Final = 3.0
"""Seconds for a connection: a SYN is sent again after one (RFC 6298)."""

QUIET: Final = 1.2
"""Seconds without a word after which somebody has finished. Who drips more slowly is soon alone with nmap (``odd``)."""

TALK: Final = 4.0
"""Seconds after his first word at which somebody who still has not finished never will."""

FLOOD: Final = 65_536
"""Bytes after which he never will either: no greeting is that long."""

PORTS_AT_ONCE: Final = 128
"""Ports looked at at the same time."""

HOST_AT_ONCE: Final = 64
"""Those of one host."""

NO_ROOM: Final = 60.0
"""Seconds without room for a connection on this host, which is out of descriptors or memory, until that is a failure:
a sweep that takes all of them beside gives some back many times in that."""

CONNECTIONS: Final = 4
"""Most connections to one port at the same time."""

_OTHERS = 128  # of the descriptors that a sweep leaves, those for nmap, the database and so on
_FULL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_ROOM_AGAIN = 0.1  # seconds until this host is asked again for room for a connection

_GREETING = re.compile(
    rb"SSH-[12]\.|[1-5][0-9]{2}[ -]|\+OK|-ERR|\* (OK|PREAUTH|BYE)|HTTP/|RFB 0|@RSYNCD: |:\S+ |NOTICE |OK MPD|ICY "
    rb"|\xff[\xfb-\xfe]|...\x00\x0a|\x16\x03|\x15\x03|AMQP|\{\"|INFO \{|\(success ",
    re.DOTALL,
)
"""How those begin who speak first: SSH (RFC 4253), replies of three digits (RFC 959, 5321, 3977), POP3 (1939), IMAP
(9051), VNC (6143), rsync, IRC (2812), MPD, telnet (854), MySQL (protocol 10), TLS alerts, AMQP, NATS, Subversion."""


@dataclass(frozen=True, slots=True)
class Clock:
    """The waits of a look, in seconds, as above."""

    grace: float = GRACE
    banner: float = BANNER
    limit: float = LIMIT
    connect: float = CONNECT
    quiet: float = QUIET
    talk: float = TALK


async def _at_once(_address: str) -> None:
    """No limit on rates: the connection may be made at once."""


def room_for_ports() -> asyncio.Semaphore:
    """For all looks of a process: as many ports as it has descriptors for, at most ``PORTS_AT_ONCE``."""
    return asyncio.Semaphore(max(1, min(PORTS_AT_ONCE, (spared(descriptors(MOST)) - _OTHERS) // CONNECTIONS)))


async def look(
    asked: Mapping[str, Sequence[int]],
    *,
    permit: Callable[[str], Awaitable[None]] = _at_once,
    clock: Clock = Clock(),
    heard: Callable[[str, int, How], None] = lambda address, port, how: None,
    room: asyncio.Semaphore | None = None,
    rate: int = HOST_AT_ONCE,
) -> dict[str, dict[int, How]]:
    """Ask TCP ports, by address (which may carry a zone), whether they speak.

    ``permit`` is awaited before each connection to an address, ``heard`` is called for each port as soon as it is
    known. ``room`` is shared by looks that go on at the same time. ``rate`` is how many permits a second there are for
    one address: so many of its ports at most are looked at at once, since more would take the places of others only to
    wait. Ports of ``NEVER_ASKED`` are left out. Takes about ``limit`` seconds for each ``PORTS_AT_ONCE`` silent ports.
    """
    found: dict[str, dict[int, How]] = {address: {} for address in asked}
    everybody = room or room_for_ports()

    async def one(address: str, port: int, of_host: asyncio.Semaphore) -> None:
        async with of_host:
            found[address][port] = how = await hear(address, port, permit=permit, clock=clock, room=everybody)
        heard(address, port, how)

    async with asyncio.TaskGroup() as group:
        for address, ports in asked.items():
            of_host = asyncio.Semaphore(max(1, min(HOST_AT_ONCE, rate)))
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
    room: asyncio.Semaphore | None = None,
) -> How:
    """Ask one TCP port, not one of ``NEVER_ASKED``. That ``permit`` may take long is not held against it.

    It takes a place of ``room`` only when it has the first permit: whoever waits for his takes nobody's.
    Raises ``ScanFailure`` when this host has no room for a connection in ``NO_ROOM`` seconds, and what ``permit`` does.
    """
    await permit(address)
    async with room or nullcontext():
        return await _hear(address, port, permit, clock)


async def _hear(address: str, port: int, permit: Callable[[str], Awaitable[None]], clock: Clock) -> How:
    try:
        first = await _connected(address, port, clock)
    except OSError:
        return "unreachable"
    voice = asyncio.Event()
    with first:
        speaking = [asyncio.ensure_future(_spoken_first(first, clock, voice))]
        try:
            await asyncio.wait(speaking, timeout=clock.grace)
            for name, request in requests_for(port, os.urandom(32)).items():
                if not (voice.is_set() or speaking[0].done()):
                    await permit(address)
                if voice.is_set() or speaking[0].done():
                    break
                speaking.append(asyncio.ensure_future(_asked(address, port, name, request, clock, voice)))
            with suppress(TimeoutError):
                async with asyncio.timeout(clock.limit - clock.grace):
                    return await _first_reaction(speaking, voice)
            if voice.is_set():  # somebody began to speak, and is heard out
                with suppress(TimeoutError):
                    async with asyncio.timeout(clock.talk + clock.quiet):
                        return await _first_reaction(speaking, voice)
                return "endless"
        finally:
            for task in speaking:
                task.cancel()
            await asyncio.gather(*speaking, return_exceptions=True)
    return "nothing"


async def _first_reaction(speaking: Sequence[asyncio.Future[How]], voice: asyncio.Event) -> How:
    """The first that is a word; a connection that was closed counts when there is none on another, nor will be."""
    waiting, closed = set(speaking), False
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for how in (task.result() for task in done):
            if how not in ("closed", "unreachable"):
                return how
            closed = closed or how == "closed"
        if closed and not voice.is_set():
            break
    return "closed" if closed else "nothing"


async def _spoken_first(connection: socket.socket, clock: Clock, voice: asyncio.Event) -> How:
    """What comes of itself, or after two empty lines. ``voice`` is set by the first byte."""
    loop = asyncio.get_running_loop()
    how: How = "banner"
    said = None
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(clock.banner):
                said = await loop.sock_recv(connection, 4096)
        if said is None:
            how = "lines"
            await loop.sock_sendall(connection, LINES)
            said = await loop.sock_recv(connection, 4096)
    except OSError:
        said = b""
    if not said:
        return "closed"
    voice.set()
    if not await _heard_out(connection, said, clock):
        return "endless"
    return how if how == "lines" or _GREETING.match(said) else "odd"


async def _asked(address: str, port: int, name: str, request: bytes, clock: Clock, voice: asyncio.Event) -> How:
    """How a port takes one question, on a connection of its own."""
    loop = asyncio.get_running_loop()
    try:
        connection = await _connected(address, port, clock)
    except OSError:
        return "unreachable"
    with connection:
        try:
            await loop.sock_sendall(connection, request)
            said = await loop.sock_recv(connection, 4096)
        except OSError:
            return "closed"
        if not said:
            return "closed"
        voice.set()
        # Whoever answers in a protocol may have much to say: a film, for example.
        known = name == "protocol" or said.startswith((b"HTTP/", b"ICY ", b"\x16\x03", b"\x15\x03"))
        if not known and not await _heard_out(connection, said, clock):
            return "endless"
    return "http" if name == "http" else "tls" if name == "tls" else "protocol"


async def _heard_out(connection: socket.socket, said: bytes, clock: Clock) -> bool:
    """Hear what is said; whether there was an end of it, or a silence."""
    loop = asyncio.get_running_loop()
    until, total = loop.time() + clock.talk, len(said)
    try:
        while True:
            async with asyncio.timeout(clock.quiet):
                more = await loop.sock_recv(connection, 65_536)
            total += len(more)
            if not more:
                return True
            if total > FLOOD or loop.time() >= until:
                return False
    except OSError:  # a TimeoutError is one
        return True


async def _connected(address: str, port: int, clock: Clock) -> socket.socket:
    """Raises ``OSError``, of which ``TimeoutError`` is one, and ``ScanFailure`` as ``hear`` does."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    family, kind, protocol, _, end = socket.getaddrinfo(
        address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    )[0]
    async with asyncio.timeout(clock.connect) as patience:
        while True:
            try:
                return await _connect(family, kind, protocol, end)
            except OSError as error:
                # The sweep beside has taken all; that is nobody's fault who is asked, and takes none of his time.
                if error.errno not in _FULL:
                    raise
                if loop.time() - began >= NO_ROOM:
                    why = f"this host has had no room for a connection for {NO_ROOM:.0f} s: {error.strerror}"
                    raise ScanFailure(why) from error
            await asyncio.sleep(_ROOM_AGAIN)
            patience.reschedule(loop.time() + clock.connect)


async def _connect(family: int, kind: int, protocol: int, end: Any) -> socket.socket:
    connection = socket.socket(family, kind, protocol)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, end)
        if met_itself(connection):
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    except BaseException:
        connection.close()
        raise
    return connection
