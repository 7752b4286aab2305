"""The client of the control socket: what agentctl, and a script in Python, talk to the agent with.

Synchronous, one connection for each request (so one ``Client`` may be used from several threads), and quick to import:
no asyncio, no http.client.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import h11

from agent.errors import DeclarationError, NotRunning, Problem, RequestRefused
from agent.linux.sockets import connect_unix

QUESTION_SECONDS = 10.0
"""How long an answer to a GET may be in coming."""

CHANGE_SECONDS = 900.0
"""How long an answer to a change may be in coming: it comes when the change is done."""

ANSWER_LIMIT = 64 * 1024 * 1024
LINE_LIMIT = 1024 * 1024

_READ = 64 * 1024
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def quote(text: str) -> str:
    """Text as one segment of a path or one value of a query (RFC 3986, 2.1)."""
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in text.encode("utf-8", "replace"))


class Client:
    """Talks to the agent at ``socket_path``.

    ``timeout`` is how many seconds an answer may be in coming, all of it, before the agent counts as not running; by
    default it depends on the request (``QUESTION_SECONDS``, ``CHANGE_SECONDS``). Of a stream it is for how long the
    agent may be silent; a followed one may be silent for ever.
    """

    def __init__(self, socket_path: Path, timeout: float | None = None) -> None:
        self._path = socket_path
        self._timeout = timeout

    def request(self, method: str, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The answer to one request, decoded.

        Raises ``NotRunning`` when nobody answers, ``DeclarationError`` when the agent found mistakes in its
        declaration, and ``RequestRefused`` for any other answer that is an error.
        """
        with closing(_Exchange(self._path, self._patience(method), method, path, query)) as exchange:
            return _object(b"".join(exchange.body(ANSWER_LIMIT)), self._path)

    def stream(self, path: str, query: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
        """The lines of a stream, decoded, as they come, until the agent ends it.

        A line with ``"gap": true`` stands for lines that are gone. Raises as ``request`` does; ``NotRunning`` also
        when the agent goes away in the middle.
        """
        with closing(_Exchange(self._path, self._patience("GET"), "GET", path, query)) as exchange:
            exchange.be_patient(None if query and query.get("follow") == "true" else self._patience("GET"))
            rest = b""
            for data in exchange.body(None):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    yield _object(line, self._path)
                if len(rest) > LINE_LIMIT:
                    raise NotRunning(
                        str(self._path), f"a line of more than {LINE_LIMIT} bytes is no answer of an agent"
                    )

    def _patience(self, method: str) -> float:
        if self._timeout is not None:
            return self._timeout
        return QUESTION_SECONDS if method in ("GET", "HEAD") else CHANGE_SECONDS


class _Exchange:
    """One request on its own connection, its header answered."""

    def __init__(self, path: Path, timeout: float, method: str, target: str, query: Mapping[str, str] | None) -> None:
        self._path = path
        self._timeout = timeout
        self._deadline: float | None = time.monotonic() + timeout
        self._http = h11.Connection(h11.CLIENT)
        self._heard = self._begun = False
        self._socket = self._connect()
        try:
            if query:
                target += "?" + "&".join(f"{quote(name)}={quote(value)}" for name, value in query.items())
            self._ask(method, target)
            answer = self._event()
            while isinstance(answer, h11.InformationalResponse):
                answer = self._event()
            self._begun = True
            if answer.status_code >= 400:
                raise _refusal(answer.status_code, b"".join(self.body(ANSWER_LIMIT)))
        except BaseException:
            self.close()
            raise

    def be_patient(self, silence: float | None) -> None:
        """From now on all of it may take as long as it likes; only that long without a word, if there is a limit."""
        self._deadline = None
        self._socket.settimeout(silence)

    def body(self, limit: int | None) -> Iterator[bytes]:
        """The pieces of the body, at most ``limit`` bytes of them."""
        size = 0
        while isinstance(event := self._event(), h11.Data):
            size += len(event.data)
            if limit is not None and size > limit:
                raise NotRunning(str(self._path), f"an answer of more than {limit} bytes is none of an agent")
            yield bytes(event.data)

    def close(self) -> None:
        self._socket.close()

    def _connect(self) -> socket.socket:
        while True:
            try:
                return connect_unix(self._path, self._timeout)
            except BlockingIOError as error:  # more clients are waiting to be let in than the kernel keeps
                if not self._left():
                    raise NotRunning(str(self._path), "too many others wait for it") from error
                time.sleep(0.01)
            except OSError as error:
                raise NotRunning(str(self._path), _reason(error, self._timeout)) from error

    def _ask(self, method: str, target: str) -> None:
        headers = [("host", "localhost"), ("accept", "application/json"), ("connection", "close")]
        if method not in ("GET", "HEAD"):
            headers.append(("content-length", "0"))
        request = self._http.send(h11.Request(method=method, target=target, headers=headers)) or b""
        try:
            self._socket.sendall(request)
        except TimeoutError as error:
            raise NotRunning(str(self._path), _reason(error, self._timeout)) from error
        except OSError:
            pass  # closed before we had finished: it may have said why, so read
        self._http.send(h11.EndOfMessage())

    def _read(self) -> bytes:
        if self._deadline is not None:
            # Whoever answers by single bytes, each in time, must not hold us either.
            if not (left := self._left()):
                raise TimeoutError
            self._socket.settimeout(left)
        return self._socket.recv(_READ)

    def _left(self) -> float:
        """Seconds until the whole answer is due; 0 when it is late."""
        return 0.0 if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)

    def _event(self) -> Any:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                data = self._read()
                self._heard = self._heard or bool(data)
                self._http.receive_data(data)
            return event
        except h11.RemoteProtocolError as error:
            reason = "it closed the connection without an answer"
            if self._begun:
                reason = "it went away in the middle of an answer"
            elif self._heard:
                reason = "what answers there does not speak HTTP"
            raise NotRunning(str(self._path), reason) from error
        except OSError as error:
            raise NotRunning(str(self._path), _reason(error, self._timeout)) from error


def _reason(error: OSError, timeout: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout:g} s"
    return (error.strerror or type(error).__name__).lower()


def _object(data: bytes, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise NotRunning(str(path), "what answers there does not speak JSON") from error
    if not isinstance(value, dict):
        raise NotRunning(str(path), "what answers there is no agent: its JSON is no object")
    return value


def _refusal(status: int, data: bytes) -> RequestRefused | DeclarationError:
    """The error that the agent reported; of something else that answers, only the status."""
    try:
        error = json.loads(data)["error"]
        problems = [Problem(p["file"], int(p["line"]), p["where"], p["text"]) for p in error.get("problems", ())]
        message = str(error["message"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return RequestRefused(status, f"the agent answered with status {status} and no reason")
    return DeclarationError(problems) if status == 422 and problems else RequestRefused(status, message)
