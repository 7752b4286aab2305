"""The control socket in the agent: who comes in, how many, and how it all ends.

No connection, no timer: an agent that nobody asks is not woken.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agent.control.access import role_of
from agent.control.admission import Admission
from agent.control.api import Agent
from agent.control.connection import READ, Connection, Limits, Peer, Shared
from agent.linux.peercred import is_member, peer_credentials
from agent.linux.sockets import listen_unix

SOCKET_MODE = 0o666
"""Everybody may connect; credentials decide (see ``agent.control.access``)."""

ACCEPT_TURNS = 3
"""Turns of the loop from an accept to ``_accepted``: whoever is on the way at the end is let in, to be sent away."""

TURNED_AWAY = 32
"""Connections over the limit that are told so at one time; any more are just closed."""

BACKLOG = 256
"""Connections that the kernel keeps until we have accepted them."""

ROOM = 64
"""Connections that it keeps beyond these while the agent connects to itself."""

AT_ONCE = 16
"""Connections that are accepted in one turn of the loop. Each may cost 0.5 ms, and supervision waits for the turn."""

FIRST_WORDS = 0.5
"""Seconds that a client which has just connected is given to ask something before the agent is somebody else."""

GRACE = 5.0
"""Seconds that answers under way may take when the server stops."""


class ControlServer:
    """Serves ``agent`` at a path (created, and removed again) or on a socket that listens already.

    ``ours`` is the path of such a socket that is to be removed in the end all the same: an earlier program in this
    process has created it. ``on_bug`` is told about every exception that is a mistake in this program; the client only
    learns that there was one.
    """

    def __init__(
        self,
        agent: Agent,
        where: Path | socket.socket,
        *,
        ours: Path | None = None,
        on_bug: Callable[[BaseException], None],
        limits: Limits | None = None,
        admission: Admission | None = None,
    ) -> None:
        self._where = where
        self._remove = where if isinstance(where, Path) else ours
        self._admission = admission or Admission()
        self._shared = Shared(agent, on_bug, limits or Limits(), asyncio.Lock())
        self._connections: dict[asyncio.Task[None], Connection] = {}
        self._turned_away = 0
        self._server: asyncio.Server | None = None
        self._listening: socket.socket | None = None

    async def start(self) -> None:
        """Listen. Raises ``RuntimeFailure`` when the path cannot be used."""
        listening = listen_unix(self._where, SOCKET_MODE) if isinstance(self._where, Path) else self._where
        self._listening = listening
        # Since Python 3.13 closing removes the file, also that of a socket that somebody else made.
        keep: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
        self._server = await asyncio.start_unix_server(
            self._accepted, sock=listening, limit=READ, backlog=AT_ONCE, **keep
        )
        listening.listen(BACKLOG)  # asyncio has one number for what is kept and what is accepted at once

    async def renew(self, path: Path) -> bool:
        """Listen at ``path``, since nobody can reach us any more where we do: somebody has removed the socket's file.

        Whoever is connected stays so. ``False`` when we do not listen at all. Raises as ``start`` does.
        """
        before = self._server
        if before is None:
            return False
        self._where = listen_unix(path, SOCKET_MODE)
        self._remove = path
        await self.start()
        before.close()
        return True

    @contextmanager
    def room(self) -> Iterator[None]:
        """While the block runs, whoever connects finds a place among those who wait to be let in.

        Everybody may connect, and who does so without pause keeps all places taken. The agent cannot wait for one to
        become free: it is the agent that frees them. listen(2) on a socket that listens sets their number.
        """
        if self._server is None or self._listening is None:
            yield
            return
        self._listening.listen(BACKLOG + ROOM)
        try:
            yield
        finally:
            self._listening.listen(BACKLOG)

    async def suspend(self, grace: float = GRACE) -> socket.socket:
        """Stop, but leave the socket listening: who connects from now on waits for whoever serves it next.

        Streams end with a line that asks their readers to come again. Returns the socket, to be inherited or resumed.
        """
        if self._listening is None:
            raise RuntimeError("a server that has not been started cannot be suspended")
        kept = self._listening.dup()
        await self._stop(grace, again=True)
        return kept

    async def resume(self, kept: socket.socket) -> None:
        """Go on where ``suspend`` ended: nobody took over."""
        self._where = kept
        await self.start()

    async def stop(self, grace: float = GRACE) -> None:
        """Take no more requests, finish the answers under way, end the streams, and close everything."""
        if self._remove is not None and self._listening is not None:
            with suppress(OSError):
                self._remove.unlink()
        await self._stop(grace, again=False)

    @property
    def ours(self) -> Path | None:
        """The path of the socket, when it is to be removed in the end."""
        return self._remove

    async def _stop(self, grace: float, *, again: bool) -> None:
        if self._server is None:
            return
        server = self._server
        if not again:
            self._server = None  # whoever is on the way is let in only to be sent away
        if self._listening is not None:
            # First of all no more accepts: one that is under way when a server is closed fails inside asyncio (3.11).
            asyncio.get_running_loop().remove_reader(self._listening)
        for _ in range(ACCEPT_TURNS):
            await asyncio.sleep(0)
        self._server = None
        server.close()
        for task, connection in self._connections.items():
            connection.finish(again=again)
            if connection.idle and not (again and connection.fresh):
                task.cancel()
        if again and self._connections:
            await asyncio.wait(self._connections, timeout=FIRST_WORDS)
            for task, connection in self._connections.items():
                if connection.idle:
                    task.cancel()
        if self._connections:
            await asyncio.wait(self._connections, timeout=grace)
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client, from accept to its end."""
        task = asyncio.current_task()
        try:
            peer = self._peer(writer)
            connection = Connection(reader, writer, peer, self._shared)
            if task is None or self._server is None:
                return
            self._connections[task] = connection
            reason = self._admission.enter(peer.uid, peer.role)
            if reason is None:
                try:
                    await connection.serve()
                finally:
                    self._admission.leave(peer.uid, peer.role)
            elif self._turned_away < TURNED_AWAY:
                self._turned_away += 1
                try:
                    await connection.turn_away(reason)
                finally:
                    self._turned_away -= 1
        except asyncio.CancelledError:
            # By ``stop``, and there is nobody above: until 3.12 asyncio takes a cancelled handler for a mistake.
            pass
        except Exception as error:
            self._shared.on_bug(error)
        finally:
            writer.transport.abort()
            with suppress(OSError, asyncio.CancelledError):
                # How the connection was lost is to be looked at, or asyncio may tell of an exception that nobody did.
                await writer.wait_closed()
            if task is not None:
                self._connections.pop(task, None)

    def _peer(self, writer: asyncio.StreamWriter) -> Peer:
        credentials = peer_credentials(writer.get_extra_info("socket"))
        group = self._shared.agent.reading_group()
        member = group is not None and is_member(credentials, group)
        return Peer(credentials.uid, role_of(credentials.uid, agent_uid=os.geteuid(), in_reading_group=member), group)
