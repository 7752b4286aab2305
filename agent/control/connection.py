"""One connection to the control socket: requests in, answers out, every wait and every buffer bounded.

h11 is the protocol, asyncio the wire. A request is read whole before it is answered; the engine's part of an answer is
one call that never waits for the client; and what is sent goes out in pieces, each of which the client must take in
time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import h11
import msgspec

from agent.control import access
from agent.control.api import Agent, ErrorBody, ErrorReply, Mistake
from agent.control.routes import Arguments, MethodNotAllowed, Route, resolve
from agent.control.streams import Follow
from agent.errors import AgentError, ConfigurationError, DeclarationError, RequestRefused

READ = 16 * 1024
PIECE = 64 * 1024
LINGER_BYTES = 1024 * 1024
LINGER_SECONDS = 1.0

UNFINISHED = "the agent becomes another version of itself and waits for this no longer: see what became of it"

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes and seconds that one connection may take."""

    header_bytes: int = 16 * 1024
    body_bytes: int = 64 * 1024
    header_seconds: float = 5.0
    """From the connection, or from the first byte of a later request, to the end of its header."""
    body_seconds: float = 5.0
    idle_seconds: float = 30.0
    """Between two requests."""
    progress_seconds: float = 10.0
    """For the client to take ``PIECE`` bytes of an answer."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end. ``group`` is the one that may read, for the message to who is not in it."""

    uid: int
    role: access.Role
    group: str | None


@dataclass(frozen=True, slots=True)
class Shared:
    """What all connections have in common.

    ``turns`` lets one request at a time through to the engine, with a turn of the loop in between, so that a crowd of
    clients delays supervision by one answer and not by all of theirs.
    """

    agent: Agent
    on_bug: Callable[[BaseException], None]
    limits: Limits
    turns: asyncio.Lock


class _Late(Exception):
    """The client took too long over its request."""


class _Broken(Exception):
    """A stream failed in the middle; the client can only be told by breaking it off."""


class Connection:
    """Serves one client until it goes, misbehaves, or ``finish`` is called."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer, shared: Shared) -> None:
        self.idle = False
        self._reader = reader
        self._writer = writer
        self._peer = peer
        self._shared = shared
        self._limits = shared.limits
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=shared.limits.header_bytes)
        self._head = False
        self.fresh = True
        """Whether it has not asked for anything yet."""
        self._closing = self._again = False
        self._follow: Follow | None = None
        writer.transport.set_write_buffer_limits(high=PIECE)

    async def serve(self) -> None:
        """Answer requests until the connection ends."""
        try:
            while (self.fresh or not self._closing) and await self._exchange():
                self._http.start_next_cycle()
                await asyncio.sleep(0)
            await self._close()
        except (OSError, _Broken):  # it has gone, does not read, or must see that a stream broke
            pass
        finally:
            self._writer.transport.abort()

    async def turn_away(self, reason: str) -> None:
        """Answer 503 without listening."""
        try:
            await self._refuse(RequestRefused(503, f"{reason}: try again later"), close=True)
            await self._linger()
            await self._close()
        except OSError:
            pass
        finally:
            self._writer.transport.abort()

    def finish(self, *, again: bool = False) -> None:
        """End after the answer that is under way; a stream ends now, between two lines.

        ``again``: somebody will serve this socket right afterwards, and who follows a stream is told to come back. So
        is who still waits for an answer when the connection's task is cancelled.
        """
        self._closing, self._again = True, again
        if self._follow:
            self._follow.end(again=again)

    # -- one request --------------------------------------------------------------------------------------------------

    async def _exchange(self) -> bool:
        """Read a request and answer it; whether there may be another."""
        self._head = False
        try:
            self.idle = True
            request = await self._request()
            self.idle = False
            if request is None:
                return False
            self._head = request.method == b"HEAD"
            refused: RequestRefused | None = None
            try:
                route, arguments = self._judge(request)
            except RequestRefused as refusal:
                refused = refusal
            if refused and self._http.they_are_waiting_for_100_continue:
                await self._refuse(refused, close=True)
                return False
            await self._body()
        except h11.RemoteProtocolError as error:
            return await self._hang_up(RequestRefused(error.error_status_hint, f"malformed HTTP: {str(error)[:200]}"))
        except _Late:
            return await self._hang_up(RequestRefused(408, "the request did not arrive in time"))
        except RequestRefused as refusal:  # too large to be read
            return await self._hang_up(refusal)
        if refused:
            await self._refuse(refused)
        else:
            await self._answer(route, arguments)
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _request(self) -> h11.Request | None:
        """The next request's header; ``None`` when the client has ended the connection, or never used it."""
        limits = self._limits
        if not self.fresh and not self._http.trailing_data[0]:
            try:
                async with asyncio.timeout(limits.idle_seconds):
                    self._http.receive_data(await self._reader.read(READ))
            except TimeoutError:
                return None
        try:
            async with asyncio.timeout(limits.header_seconds):
                event = await self._event()
        except TimeoutError:
            if not self._http.trailing_data[0]:
                return None
            raise _Late from None
        self.fresh = False
        if not isinstance(event, h11.Request):
            return None
        if event.http_version not in (b"1.0", b"1.1"):
            raise RequestRefused(505, "this is an HTTP/1.1 server")
        size = len(event.target) + sum(len(name) + len(value) + 4 for name, value in event.headers)
        if size > limits.header_bytes:
            raise RequestRefused(431, f"the header is longer than {limits.header_bytes} bytes")
        return event

    async def _body(self) -> None:
        """Read the body to its end. No call takes one, so it is only measured."""
        limit = self._limits.body_bytes
        size = 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                if self._http.they_are_waiting_for_100_continue:
                    await self._send(h11.InformationalResponse(status_code=100, headers=[]))
                while isinstance(event := await self._event(), h11.Data):
                    size += len(event.data)
                    if size > limit:
                        raise RequestRefused(413, f"the body is longer than {limit} bytes")
        except TimeoutError:
            raise _Late from None

    async def _event(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(READ))
        return event

    def _judge(self, request: h11.Request) -> tuple[Route, Arguments]:
        """The route and its arguments, if this peer may have them. Raises ``RequestRefused``."""
        access.check_headers(request.headers)
        if self._peer.role == "stranger":  # who learns nothing at all, not even which routes there are
            access.check_role(self._peer.role, "read", uid=self._peer.uid, group=self._peer.group)
        route, arguments = resolve(request.method, request.target)
        access.check_role(self._peer.role, route.access, uid=self._peer.uid, group=self._peer.group)
        for name, value in request.headers:
            if name == b"content-length" and int(value) > self._limits.body_bytes:
                raise RequestRefused(413, f"the body is longer than {self._limits.body_bytes} bytes")
        return route, arguments

    # -- one answer ---------------------------------------------------------------------------------------------------

    async def _answer(self, route: Route, arguments: Arguments) -> None:
        async with self._shared.turns:
            await asyncio.sleep(0)
        try:
            if route.stream:
                self._follow = Follow() if arguments["follow"] else None
                lines = route.stream(self._shared.agent, arguments, self._follow)
            elif route.answer:
                body = msgspec.json.encode(await route.answer(self._shared.agent, arguments))
        except asyncio.CancelledError:
            if not self._again:
                raise
            await self._refuse(RequestRefused(503, UNFINISHED))
            return
        except Exception as error:
            await self._refuse(error)
            return
        if route.stream:
            await self._stream(lines)
        else:
            await self._reply(200, body + b"\n")

    async def _stream(self, lines: AsyncGenerator[bytes, None]) -> None:
        watch = asyncio.create_task(self._watch(self._follow)) if self._follow else None
        try:
            headers = self._headers(b"application/x-ndjson", close=self._follow is not None or self._closing)
            await self._send(h11.Response(status_code=200, headers=headers, reason=_phrase(200)))
            async with aclosing(lines):
                while not self._head and (piece := await self._next(lines)) is not None:
                    if piece:
                        await self._send(h11.Data(data=piece))
                    await asyncio.sleep(0)
            await self._send(h11.EndOfMessage())
        finally:
            self._follow = None
            if watch:
                watch.cancel()

    async def _next(self, lines: AsyncGenerator[bytes, None]) -> bytes | None:
        """The next piece. What goes wrong in making it is a bug, and not to be taken for a lost client."""
        try:
            return await anext(lines, None)
        except Exception as error:
            self._shared.on_bug(error)
            raise _Broken from error

    async def _watch(self, follow: Follow) -> None:
        """End the stream when the client hangs up (or talks on: nothing it says can be answered any more)."""
        left = self._limits.body_bytes
        with suppress(OSError):
            while left > 0 and (data := await self._reader.read(READ)):
                left -= len(data)
        follow.end()

    async def _refuse(self, error: Exception, *, close: bool = False) -> None:
        """Say what went wrong, in JSON."""
        status, message, problems = 500, "internal error, see the log", []
        if isinstance(error, RequestRefused):
            status, message = error.status, str(error)
        elif isinstance(error, DeclarationError):
            count = f"{len(error.problems)} mistake{'' if len(error.problems) == 1 else 's'}"
            status, message = 422, f"the declaration has {count}, so nothing was changed"
            problems = [Mistake(file=p.file, line=p.line, where=p.where, text=p.text) for p in error.problems]
        elif isinstance(error, AgentError):
            status, message = (400 if isinstance(error, ConfigurationError) else 500), str(error)
        else:
            self._shared.on_bug(error)
        extra: Headers = []
        if isinstance(error, MethodNotAllowed):
            extra = [(b"Allow", ", ".join(error.allowed).encode())]
        reply = ErrorReply(error=ErrorBody(status=status, message=message, problems=problems))
        await self._reply(status, msgspec.json.encode(reply) + b"\n", extra, close=close)

    async def _reply(self, status: int, body: bytes, extra: Headers | None = None, *, close: bool = False) -> None:
        headers = self._headers(b"application/json", close=close or self._closing) + (extra or [])
        headers.append((b"Content-Length", str(len(body)).encode()))
        head = h11.Response(status_code=status, headers=headers, reason=_phrase(status))
        await self._send(head, *([] if self._head else [h11.Data(data=body)]), h11.EndOfMessage())

    def _headers(self, media: bytes, *, close: bool) -> Headers:
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()).encode()
        headers = [(b"Content-Type", media), (b"Date", date), (b"Cache-Control", b"no-store")]
        return [*headers, (b"Connection", b"close")] if close else headers

    # -- the wire -----------------------------------------------------------------------------------------------------

    async def _send(self, *events: h11.Event) -> None:
        """Send, in pieces; raises ``TimeoutError`` when the client does not take one in time."""
        data = b"".join(self._http.send(event) or b"" for event in events)
        for at in range(0, len(data), PIECE):
            self._writer.write(data[at : at + PIECE])
            async with asyncio.timeout(self._limits.progress_seconds):
                await self._writer.drain()

    async def _hang_up(self, refusal: RequestRefused) -> bool:
        """Refuse what cannot be read to its end, and end the connection."""
        self.idle = False
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self._refuse(refusal, close=True)
            await self._linger()
        return False

    async def _linger(self) -> None:
        """Let the client read the answer before the connection breaks under what it is still sending."""
        left = LINGER_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                self._writer.write_eof()
                while left > 0 and (data := await self._reader.read(READ)):
                    left -= len(data)

    async def _close(self) -> None:
        """Close, once the client has taken what is still in our buffer."""
        self._writer.close()
        async with asyncio.timeout(self._limits.progress_seconds):
            await self._writer.wait_closed()


def _phrase(status: int) -> bytes:
    """The reason phrase that goes with a status, for people who read the wire."""
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
