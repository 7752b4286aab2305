"""Messages to a collector over UDP: at a bounded rate, templates again and again, and what it refuses is noticed.

Nobody acknowledges a datagram. What the network says of one (no such port, no route) is told by the kernel at the next
one, or a moment later; so what was sent shortly before a failure may be lost.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from agent.declaration.collector import Collector
from agent.errors import RuntimeFailure
from agent.workers.flows.ipfix import Domain, template_message

RATE = 1000.0
"""Messages a second: 1.4 MB, some 20,000 records."""

BURST = 20
"""Messages at once: 28 kB, which the buffer of any collector holds."""

TEMPLATES_EVERY = 30.0
"""Seconds after which the templates are sent again: a collector that was started since knows none (RFC 7011, 8.4)."""


class CollectorFailure(RuntimeFailure):
    """The collector cannot be reached."""


class Pace:
    """How long to wait before the next message. ``rate`` is per second; ``burst`` may be sent at once."""

    def __init__(self, rate: float = RATE, burst: int = BURST) -> None:
        self._interval = 1 / rate
        self._slack = (burst - 1) / rate
        self._due = float("-inf")

    def delay(self, now: float) -> float:
        """Seconds to wait at ``now`` (of any clock that does not go back) before the next one is sent."""
        self._due = max(self._due, now - self._slack) + self._interval
        return max(0.0, self._due - self._interval - now)


class Sender:
    """A connected socket. ``wait`` sleeps so many seconds, and says whether to stop. Close it when done.

    Raises ``CollectorFailure``: everything here does.
    """

    def __init__(self, collector: Collector, wait: Callable[[float], bool] | None = None, rate: float = RATE) -> None:
        self.collector = collector
        self.messages = 0
        self.records = 0
        self._pace = Pace(rate)
        self._wait = wait if wait is not None else _sleep
        self._told: dict[int, float] = {}
        self._socket = self._connected()

    def _connected(self) -> socket.socket:
        try:
            # As bytes: a text would go through the codec of internationalised names, and there is nothing for it to do.
            found = socket.getaddrinfo(self.collector.host.encode(), self.collector.port, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError) as error:
            raise self._failure(f"cannot be resolved: {_why(error)}") from error
        refused: OSError | None = None
        for family, kind, protocol, _, address in found:
            try:
                made = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
            except OSError as error:
                refused = error
                continue
            try:
                made.connect(address)
            except OSError as error:
                made.close()
                refused = error
                continue
            return made
        raise self._failure(f"cannot be reached: {_why(refused)}")

    def send(self, of: Domain, messages: Iterable[tuple[bytes, int]]) -> bool:
        """Send messages, templates before the first of them if it is time; ``False`` when it was told to stop."""
        for message, records in messages:
            now = time.monotonic()
            if now - self._told.get(of.number, float("-inf")) >= TEMPLATES_EVERY:
                # Made after the message that it goes before, and says the same: no data record lies between them.
                before = Domain(of.number, (of.sequence - records) & 0xFFFFFFFF)
                if not self._put(template_message(before, int(time.time()))):
                    return False
                self._told[of.number] = now
            if not self._put(message):
                return False
            self.records += records
        return True

    def _put(self, message: bytes) -> bool:
        if (delay := self._pace.delay(time.monotonic())) > 0 and self._wait(delay):
            return False
        try:
            self._socket.send(message)
        except OSError as error:
            raise self._failure(_why(error)) from error
        self.messages += 1
        return True

    def settle(self, patience: float) -> None:
        """Wait up to so many seconds for the network to say that what was sent arrived nowhere."""
        poll = select.poll()
        poll.register(self._socket, 0)  # errors are always told
        if poll.poll(patience * 1000):
            number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                raise self._failure(_why(OSError(number, "")))

    def close(self) -> None:
        """Let go of the socket. Twice does no harm."""
        self._socket.close()

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _failure(self, reason: str) -> CollectorFailure:
        return CollectorFailure(f"collector {self.collector}: {reason}")


def _why(error: Exception | None) -> str:
    import errno
    import os

    if isinstance(error, ConnectionRefusedError) or getattr(error, "errno", None) == errno.ECONNREFUSED:
        return "nobody listens on that port"
    if isinstance(error, socket.gaierror):
        return (error.strerror or "unknown").lower()
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error)


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False
