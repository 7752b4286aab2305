"""What a child writes, on its way from the pipe to its log: bounded, and never in the child's way.

When there is more than may be written (a flood), the child goes on and output is dropped, and it is always the **end**
that is kept; the log gets a line that says how much is missing (see ``agent.telemetry.logs``).

Nothing is raised for what a child does.
"""

from __future__ import annotations

import fcntl
import os
import termios
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from agent.telemetry.events import Schedule
from agent.telemetry.logs import TAIL

LAST_LINE = 200
"""Bytes of the last line that are kept to be told with an exit."""

READ = 64 * 1024
"""Bytes of one read: what a pipe holds by default (pipe(7))."""

TURN = 4
"""Reads of one call of ``read_ready``, so that other descriptors get their turn."""

RATE = 16 * 1024 * 1024
"""Bytes per second of one child's output that are written for any length of time."""


class PumpState(msgspec.Struct, frozen=True):
    """A pump between two programs: the end of what came through, and the counts."""

    recent: bytes = b""
    written_bytes: int = 0
    dropped_bytes: int = 0


class Log(Protocol):
    """Where a ``LogPump`` puts what it reads: a ``LogFile``, or something in front of one."""

    def write(self, data: bytes) -> None: ...
    def end_line(self) -> None: ...
    def dropped(self, count: int, reason: str) -> None: ...


class LogPump:
    """Empties the pipe ``fd`` (owned from now on, made non-blocking) into ``log``, as fast as the child fills it.

    ``rate`` is bytes per second, ``burst`` how many bytes may come at once (a quarter of a second's worth by default).
    What is over that is dropped, the last ``TAIL`` bytes of each flood excepted. ``schedule`` (``loop.call_later``)
    brings that tail into the log when the child has fallen silent; without it, it comes with the child's next output
    or its end. ``clock`` is monotonic.
    """

    def __init__(
        self,
        fd: int,
        log: Log,
        *,
        rate: int = RATE,
        burst: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        schedule: Schedule | None = None,
    ) -> None:
        self.written_bytes = 0
        self.dropped_bytes = 0
        self._fd = fd
        self._log = log
        self._rate = rate
        self._burst = burst if burst is not None else rate // 4
        self._clock = clock
        self._schedule = schedule
        self._budget = float(self._burst)
        self._filled = clock()
        self._flooded = False
        self._tail = bytearray()
        self._missing = 0
        self._recent = b""
        os.set_blocking(fd, False)

    def fileno(self) -> int:
        """The descriptor to watch for reading."""
        return self._fd

    @property
    def last_line(self) -> str:
        """The last line that says something, printable and at most ``LAST_LINE`` bytes of it: why a program died."""
        lines = [line for line in self._recent.decode(errors="replace").splitlines() if line.strip()]
        return "".join(char if char.isprintable() else " " for char in lines[-1]).strip() if lines else ""

    def freeze(self) -> PumpState:
        """What another program in this process needs to go on emptying the pipe. A flood ends here."""
        self._surface()
        return PumpState(self._recent, self.written_bytes, self.dropped_bytes)

    def thaw(self, state: PumpState) -> None:
        """Go on where an earlier program was frozen."""
        self._recent = state.recent
        self.written_bytes, self.dropped_bytes = state.written_bytes, state.dropped_bytes

    def read_ready(self) -> bool:
        """Take a bounded amount of what is there; ``False`` at the end, when nobody holds the other end any more."""
        for _ in range(TURN):
            data = self._read()
            if data is None:
                return True
            if not data:
                self._finish()
                return False
            self._take(data)
        return True

    def drain(self, deadline: float) -> bool:
        """Take what a child has left in the pipe, after its exit; whether that was the end of it.

        ``False`` when another process still holds the pipe: what that one writes from now on is not waited for, so the
        call ends with what was there when it began, or at ``deadline`` (of the clock) when that comes first.
        """
        left = int.from_bytes(fcntl.ioctl(self._fd, termios.FIONREAD, bytes(4)), "little")
        while self._clock() < deadline:
            data = self._read()
            if data == b"":
                self._finish()
                return True
            if data is None:
                break
            self._take(data)
            left -= len(data)
            if left < 0:
                break
        self._surface()
        return False

    def close(self) -> None:
        """Write what is held back, finish the last line and close the pipe. The log stays open."""
        if self._fd >= 0:
            self._finish()
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> bytes | None:
        """Some output, ``b""`` at the end, ``None`` when there is nothing at the moment."""
        try:
            return os.read(self._fd, READ)
        except BlockingIOError:
            return None
        except OSError:  # EIO: the other side of a terminal is gone
            return b""

    def _take(self, data: bytes) -> None:
        self._recent = (self._recent + data if len(data) < LAST_LINE else data)[-LAST_LINE:]
        now = self._clock()
        self._budget = min(self._burst, self._budget + (now - self._filled) * self._rate)
        self._filled = now
        if not self._flooded:
            if self._budget > 0:
                self._pass(data)
                return
            self._flooded = True
            if self._schedule:
                self._schedule((self._burst / 2 - self._budget) / self._rate, self._surface)
        self._tail += data
        excess = len(self._tail) - TAIL
        if excess > 0:
            del self._tail[:excess]
            self._missing += excess
            self.dropped_bytes += excess
        if self._budget >= self._burst / 2:
            self._surface()

    def _surface(self) -> None:
        """End a flood: say what is missing, and write the end of it."""
        if not self._flooded:
            return
        self._flooded = False
        tail, self._tail = bytes(self._tail), bytearray()
        if self._missing:
            cut = tail.find(b"\n") + 1  # the line that the cut went through tells nothing
            if cut < len(tail):
                tail, self._missing = tail[cut:], self._missing + cut
                self.dropped_bytes += cut
            self._log.dropped(self._missing, f"output faster than {self._rate} bytes per second")
            self._missing = 0
        self._pass(tail)

    def _pass(self, data: bytes) -> None:
        self._budget -= len(data)
        self.written_bytes += len(data)
        self._log.write(data)

    def _finish(self) -> None:
        self._surface()
        self._log.end_line()
