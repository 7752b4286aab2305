"""``log/NAME.log``: what a child wrote, stamped, rotated, and kept within its size.

What cannot be written (a full disk) is held as far as there is room, and then dropped; it is always the **end** that is
kept, because the last lines say why a program died. A marker line says how much is missing:
``[agent] dropped N bytes: REASON``.

Nothing is raised for what a child or a disk does. The output comes from a ``LogPump``; reading the files back is
``agent.telemetry.logread``.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

TAIL = 64 * 1024
"""Bytes kept in memory of what cannot be written (yet)."""

SMALLEST = 4 * 1024
"""Bytes below which no file is rotated; a smaller ``size`` means this."""

RETRY = 1.0
"""Seconds between attempts to write to a disk that refused."""

_NEWLINE = 0x0A


class LineState(msgspec.Struct, frozen=True):
    """A line on its way to the journal between two programs: what there is of it, and what became of its beginning."""

    text: bytes = b""
    begun: bool = False
    skipping: bool = False
    priority: int = 6


class LogState(msgspec.Struct, frozen=True):
    """A log between two programs: whether a line is under way, what a full disk has not taken, and what is lost.

    ``cut`` is whether the file ends in the middle of a line of ours, ``inside`` whether the output does.
    """

    inside: bool = False
    held: bytes = b""
    missing: int = 0
    reason: str = ""
    dropped_bytes: int = 0
    cut: bool = False
    line: LineState = LineState()


class LogFile:
    """The log at ``path``: lines with an RFC 3339 UTC stamp (milliseconds), in files of at most ``size`` bytes.

    Full files are renamed ``path.1`` (the youngest) to ``path.KEEP``; older ones are deleted. Mode 0640. ``clock``
    gives unix seconds. A line is stamped when its beginning arrives; one that a rotation cuts in two is stamped again.

    ``dropped_bytes`` counts what is lost for good, in bytes of the file (the stamps of a failed write included).
    """

    def __init__(self, path: Path, size: int, keep: int, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.dropped_bytes = 0
        self._size = max(size, SMALLEST)
        self._keep = max(keep, 0)
        self._clock = clock
        self._fd = -1
        self._written = 0
        self._bare = True  # nothing but a stamp is in the file, so rotating it would gain nothing
        self._cut = False  # the file ends inside a line
        self._inside = False  # the output so far ends inside a line
        self._resumes = False  # the line that the file ends in is ours to go on with
        self._held = bytearray()
        self._missing = 0
        self._reason = ""
        self._tried = 0.0

    def freeze(self) -> LogState:
        """What another program in this process needs to go on with this log, in the middle of a line if need be."""
        self.flush()
        return LogState(self._inside, bytes(self._held), self._missing, self._reason, self.dropped_bytes, self._cut)

    def thaw(self, state: LogState) -> None:
        """Go on where an earlier program was frozen; for a log to which nothing has been written yet."""
        self._resumes = self._cut = state.cut
        self._inside, self._missing, self._reason = state.inside, state.missing, state.reason
        self._held = bytearray(state.held)
        self.dropped_bytes = state.dropped_bytes

    def write(self, data: bytes) -> None:
        """Append a piece of output, which may begin and end anywhere in a line."""
        if not data:
            return
        text = self._stamped(data)
        if not self._reason:
            self._hold(self._put(text))
            return
        self._hold(text)
        if abs(self._clock() - self._tried) >= RETRY:
            self.flush()

    def adjust(self, size: int, keep: int) -> None:
        """Another size and number of old files, from the next write on."""
        self._size = max(size, SMALLEST)
        self._keep = max(keep, 0)

    def end_line(self) -> None:
        """Finish the line that a program left unfinished."""
        if self._inside:
            self.write(b"\n")

    def dropped(self, count: int, reason: str) -> None:
        """Count ``count`` bytes that never got here, and say so in the log."""
        self.dropped_bytes += count
        self.end_line()
        self.write(_marker(count, reason))

    def flush(self) -> bool:
        """Write what a failing disk made us hold back; whether nothing is held back any more."""
        if not self._reason:
            return True
        reason, held, missing = self._reason, bytes(self._held), self._missing
        text = held
        if missing:
            text = (b"\n" if self._cut else b"") + self._stamp() + _marker(missing, reason) + held
        self._reason, self._missing = "", 0
        rest = self._put(text)
        self._held = bytearray(rest)
        if len(rest) == len(text):
            self._held, self._missing = bytearray(held), missing
        return not self._reason

    def close(self) -> None:
        """Finish the last line, write what was held back if that is possible now, and let go of the file."""
        self.end_line()
        if not self.flush():
            self.dropped_bytes += len(self._held)
            self._held.clear()
        self._shut()

    # -- text ---------------------------------------------------------------------------------------------------------

    def _stamp(self) -> bytes:
        now = self._clock()
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03}Z ".encode()

    def _stamped(self, data: bytes) -> bytes:
        """The piece with a stamp before each line that begins in it: one look at the clock, one pass in C."""
        stamp = self._stamp()
        text = data.replace(b"\n", b"\n" + stamp)
        if not self._inside:
            text = stamp + text
        self._inside = data[-1] != _NEWLINE
        return text if self._inside else text[: -len(stamp)]

    def _hold(self, text: bytes) -> None:
        """Keep the end of what could not be written, from the start of a line where there is one."""
        self._held += text
        excess = len(self._held) - TAIL
        if excess > 0:
            cut = self._held.find(b"\n", excess - 1) + 1 or excess
            del self._held[:cut]
            self._missing += cut
            self.dropped_bytes += cut

    # -- the file -----------------------------------------------------------------------------------------------------

    def _put(self, text: bytes) -> bytes:
        """Write, rotating where needed; returns what could not be written, the reason then being noted."""
        view, at = memoryview(text), 0
        try:
            self._ready()
            while at < len(text):
                end = len(text)
                # One byte is kept free: a rotation may have to end a line.
                room = self._size - self._written - 1
                if end - at > room:
                    end = text.rfind(b"\n", at, at + max(room, 0)) + 1
                    if end <= at and not self._bare:
                        self._rotate()
                        continue
                    if end <= at:
                        end = at + room
                count = os.write(self._fd, view[at:end])
                at += count
                self._written += count
                self._bare = False
                self._cut = text[at - 1] != _NEWLINE
        except OSError as error:
            self._reason = error.strerror or type(error).__name__
            self._tried = self._clock()
        return text[at:]

    def _ready(self) -> None:
        """Have the file open that has the name now: it may have been renamed or removed. Raises ``OSError``."""
        if self._fd >= 0:
            ours = os.fstat(self._fd)
            self._written = ours.st_size
            try:
                if os.path.samestat(ours, os.lstat(self.path)):
                    return
            except FileNotFoundError:
                pass
        self._shut()
        self._open()
        for number in itertools.count(self._keep + 1):  # left over from a time when more were kept
            try:
                self._numbered(number).unlink()
            except FileNotFoundError:
                break

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Not blocking: somebody may have put a FIFO there.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(self.path, flags, 0o640)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file", str(self.path))
        self._fd, self._written, self._bare, self._cut = fd, found.st_size, found.st_size == 0, False
        if self._bare:
            os.fchmod(fd, 0o640)
        elif os.pread(fd, 1, found.st_size - 1) != b"\n":
            if self._resumes:  # ours, by an earlier program in this process: it goes on
                self._cut = True
            else:  # an agent was killed in the middle of a line
                self._written += os.write(fd, b"\n")
        self._resumes = False

    def _rotate(self) -> None:
        if self._cut:
            os.write(self._fd, b"\n")
        for number in range(self._keep - 1, 0, -1):
            if self._numbered(number).exists():
                self._numbered(number).rename(self._numbered(number + 1))
        if self._keep:
            self.path.rename(self._numbered(1))
        else:
            self.path.unlink()
        was_cut = self._cut
        self._shut()
        self._open()
        if was_cut:
            self._written += os.write(self._fd, self._stamp())
            self._cut = True

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _shut(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _marker(count: int, reason: str) -> bytes:
    return f"[agent] dropped {count} bytes: {reason}\n".encode()
