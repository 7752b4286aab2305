"""The terminal as a live view needs it: keys one by one, at once, and everything as it was before at the end.

However the view ends — a key, Ctrl-C, SIGTERM, a lost line, an exception — the terminal is put back.
"""

from __future__ import annotations

import os
import select
import signal
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGHUP)


class Ended(BaseException):
    """A signal wants the view to end. ``number`` is that of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Keys:
    """Keys of a terminal, and its changes of size."""

    def __init__(self, fd: int, resized: int) -> None:
        self._fd = fd
        self._resized = resized

    def wait(self, until: float) -> str | None:
        """The next keys before ``until`` (of the monotonic clock): ``""`` when only the size changed, ``None`` when the
        time is up. Where there is no more input it is ``q``."""
        left = max(0.0, until - time.monotonic())
        readable, _, _ = select.select([self._fd, self._resized], [], [], left)
        if self._resized in readable:
            with suppress(BlockingIOError):
                os.read(self._resized, 4096)
            return ""
        if self._fd in readable:
            try:
                return os.read(self._fd, 64).decode("ascii", "replace") or "q"
            except OSError:  # EIO: the line is gone
                return "q"
        return None


@contextmanager
def keys(fd: int) -> Iterator[Keys]:
    """Within, keys of the terminal ``fd`` come at once and are not shown; Ctrl-Z does nothing. Ctrl-C still ends it.

    Raises ``Ended`` in the block for a signal that ends the process.
    """
    before = termios.tcgetattr(fd)
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    handlers = {number: signal.signal(number, _end) for number in ENDING}
    handlers[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, lambda number, frame: None)
    woken = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        tty.setcbreak(fd)
        mode = termios.tcgetattr(fd)
        mode[6][termios.VSUSP] = b"\0"  # _POSIX_VDISABLE of Linux: a stopped view would leave the screen as it is
        termios.tcsetattr(fd, termios.TCSADRAIN, mode)
        yield Keys(fd, reader)
    finally:
        with suppress(termios.error):  # the line is gone
            termios.tcsetattr(fd, termios.TCSAFLUSH, before)
        signal.set_wakeup_fd(woken)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)


def _end(number: int, frame: FrameType | None) -> None:
    raise Ended(number)
