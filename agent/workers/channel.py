"""What a companion of a worker tells the worker: the messages of sd_notify(3), over a socket that both hold.

The companion inherits its end by the number in ``SERVICE_CHANNEL``. A message is never waited for: who does not read
loses it, and gets the next.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress

from agent.linux.notify import parse_fields

VARIABLE = "SERVICE_CHANNEL"

_MESSAGE_LIMIT = 32768  # bytes
_BATCH = 64


class Sender:
    """The companion's end. Takes ``SERVICE_CHANNEL`` out of ``environ``. ``fd`` polls readable when it is nudged."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self._socket = socket.socket(fileno=int(environ.pop(VARIABLE)))
        self._socket.setblocking(False)
        self.fd = self._socket.fileno()
        os.set_inheritable(self.fd, False)

    def notify(self, **fields: str) -> bool:
        """Send fields by name, in one message; returns whether it was handed over. Line ends become spaces."""
        message = "\n".join(f"{name}={' '.join(value.splitlines())}" for name, value in fields.items())
        try:
            self._socket.send(message.encode("utf-8", "replace")[:_MESSAGE_LIMIT])
        except OSError:
            return False
        return True

    def heed(self) -> bool:
        """Take note of all nudges so far; ``False`` once no more will come: it is to end. Never blocks."""
        try:
            while self._socket.recv(1):
                pass
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        """Say nothing more."""
        self._socket.close()


class Receiver:
    """The worker's end. ``fd`` polls readable; ``theirs`` is to be inherited, and closed here once it was."""

    def __init__(self) -> None:
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        self.fd = self._socket.fileno()
        self.theirs = other.detach()

    def receive(self) -> list[dict[str, str]]:
        """The messages that have arrived, a batch at most; those that are no messages are left out. Never blocks."""
        found = []
        with suppress(OSError):
            for _ in range(_BATCH):
                data = self._socket.recv(_MESSAGE_LIMIT)
                if not data:
                    break
                if fields := parse_fields(data):
                    found.append(fields)
        return found

    def nudge(self) -> None:
        """Tell the companion that there is something to do. One nudge waits for it, and is enough."""
        with suppress(OSError):
            self._socket.send(b"!")

    def hang_up(self) -> None:
        """Ask the companion to end: there will be no more nudges. What it still says is heard."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close_theirs(self) -> None:
        """The other end is somebody else's now."""
        if self.theirs >= 0:
            os.close(self.theirs)
            self.theirs = -1

    def close(self) -> None:
        """Close both ends. Twice does no harm."""
        self.close_theirs()
        self._socket.close()
