"""The agent in the foreground: what happens, in plain lines, as JSON, or in the journal where that reads along.

Whoever reads along may stop reading (a terminal after Ctrl-S, a pager, a log collector that hangs). Supervision does
not wait for that: what is not taken is left out, and so it is said.
"""

from __future__ import annotations

import os
import select
import time
from typing import Protocol

import msgspec

from agent.control.api import Gap
from agent.supervisor.lifecycle import Phase
from agent.supervisor.unit import Unit
from agent.telemetry.events import Event
from agent.telemetry.journal import Logbook, event_entry, remark

PROGRESS_EVERY = 5.0
"""Seconds between two progress lines of one service."""

HELD = 64 * 1024
"""Bytes of lines that are kept for a reader who is slow."""

PIECE = 512
"""Bytes that a pipe or terminal takes without blocking when it takes any (_POSIX_PIPE_BUF, pipe(7))."""


class Untold(msgspec.Struct, frozen=True):
    """What a reader has not taken yet between two programs: lines, the rest of one first, and how many are left out."""

    held: bytes = b""
    left_out: int = 0


class Outlet:
    """Lines to a descriptor, without ever waiting for its reader. A reader that is gone ends the printing."""

    def __init__(self, fd: int) -> None:
        self.left_out = 0
        """Lines that there was no room for since the last one that there was."""
        self._fd = fd
        self._held = bytearray()
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def has_room(self, size: int) -> bool:
        """Whether a line of ``size`` bytes can be put now; when not, it counts as left out."""
        self._push()
        if len(self._held) + size <= HELD:
            return True
        self.left_out += 1
        return False

    def put(self, line: bytes) -> None:
        """Print a line, or what of it the reader takes now; the rest goes before the next."""
        self._held += line
        self._push()

    def freeze(self) -> Untold:
        """What another program in this process is to print first."""
        self._push()
        return Untold(bytes(self._held), self.left_out)

    def thaw(self, untold: Untold) -> None:
        """Go on where an earlier program was frozen, in the middle of a line if need be."""
        self._held, self.left_out = bytearray(untold.held), untold.left_out

    def _push(self) -> None:
        while self._held and self._takes():
            try:
                count = os.write(self._fd, self._held[:PIECE])
            except OSError:  # nobody reads any more
                self._held.clear()
                return
            del self._held[:count]

    def _takes(self) -> bool:
        return any(events & (select.POLLOUT | select.POLLERR | select.POLLHUP) for _, events in self._poll.poll(0))


class AnyConsole(Protocol):
    """What the agent tells in the foreground."""

    def event(self, event: Event) -> None: ...
    def changed(self, unit: Unit) -> None: ...
    def line(self, text: str) -> None: ...
    def freeze(self) -> Untold: ...
    def thaw(self, untold: Untold) -> None: ...


class Console:
    """Prints events, and now and then how the workers get on, for a person."""

    def __init__(self, fd: int = 2) -> None:
        self._outlet = Outlet(fd)
        self._progress: dict[str, tuple[float, str]] = {}

    def event(self, event: Event) -> None:
        who = event.service or "agent"
        self.line(f"{who}: {event.kind.replace('_', ' ')}: {event.message}")

    def changed(self, unit: Unit) -> None:
        """A worker said something new about itself: print it, but not each time."""
        text = unit.status_text
        if unit.phase is not Phase.RUNNING or not text:
            return
        now = time.monotonic()
        at, before = self._progress.get(unit.name, (-PROGRESS_EVERY, ""))
        if text != before and now - at >= PROGRESS_EVERY:
            self._progress[unit.name] = (now, text)
            self.line(f"{unit.name}: {text}")

    def line(self, text: str) -> None:
        """Print one line, with the time."""
        safe = "".join(char if char.isprintable() else "?" for char in text)
        line = f"{time.strftime('%H:%M:%S')} {safe}\n".encode(errors="backslashreplace")
        if self._outlet.has_room(len(line)):
            missing, self._outlet.left_out = self._outlet.left_out, 0
            if missing:
                self._outlet.put(f"({missing} lines left out: nobody took them; `agentctl events` has them)\n".encode())
            self._outlet.put(line)

    def freeze(self) -> Untold:
        return self._outlet.freeze()

    def thaw(self, untold: Untold) -> None:
        self._outlet.thaw(untold)


class JsonConsole:
    """Each event as one line of JSON, as ``agentctl events --json`` has them; nothing else."""

    def __init__(self, fd: int = 1) -> None:
        self._outlet = Outlet(fd)

    def event(self, event: Event) -> None:
        line = msgspec.json.encode(event) + b"\n"
        if self._outlet.has_room(len(line)):
            missing, self._outlet.left_out = self._outlet.left_out, 0
            if missing:
                gap = Gap(cursor=event.cursor - 1, message=f"{missing} events left out: nobody took them")
                self._outlet.put(msgspec.json.encode(gap) + b"\n")
            self._outlet.put(line)

    def changed(self, unit: Unit) -> None:
        """How a worker gets on is no event."""

    def line(self, text: str) -> None:
        """Nobody reads prose here."""

    def freeze(self) -> Untold:
        return self._outlet.freeze()

    def thaw(self, untold: Untold) -> None:
        self._outlet.thaw(untold)


class JournalConsole:
    """Each event as an entry of the journal, with its fields; on stderr they would be there a second time."""

    def __init__(self, logbook: Logbook) -> None:
        self._logbook = logbook

    def event(self, event: Event) -> None:
        self._logbook.write(event_entry(event))

    def changed(self, unit: Unit) -> None:
        """How a worker gets on is no event; systemd has a line of its own for that."""

    def line(self, text: str) -> None:
        self._logbook.write(remark(text))

    def freeze(self) -> Untold:
        return Untold(left_out=self._logbook.lost)

    def thaw(self, untold: Untold) -> None:
        self._logbook.lost = untold.left_out
