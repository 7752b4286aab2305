"""A program on a real terminal, with keys that can be pressed: what it sends, and how it leaves the terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tests.harness import PATIENCE

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
"""The alternate screen of xterm, control sequences: where a live view draws, and back."""


class Screen:
    """One program on one terminal. ``sent`` is all that it has sent."""

    def __init__(self, terminal: int, side: int, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.sent = ""
        self._terminal = terminal
        self._side = side

    def resize(self, lines: int, columns: int) -> None:
        """The window has another size, as a terminal emulator tells it."""
        size(self._side, lines, columns)
        self.process.send_signal(signal.SIGWINCH)

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._terminal, keys.encode())

    def frame(self) -> list[str]:
        """The lines of what was drawn last."""
        last = self.sent.rpartition("\x1b[H")[2]
        return [line.rstrip() for line in _CONTROL.sub("", last).split("\n")]

    def until(self, words: str) -> None:
        """Read until a frame holds this."""
        self._read(lambda: any(words in line for line in self.frame()), f"no {words!r} is shown")

    def end(self) -> int:
        """Read until the program has ended; its exit code."""
        self._read(lambda: self.process.poll() is not None, "it does not end")
        self._drain()
        return self.process.returncode

    def mode(self) -> list[Any]:
        """The settings of the terminal, termios(3)."""
        return termios.tcgetattr(self._side)

    def _read(self, done: Any, wrong: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < deadline, f"{wrong}: {self.frame()}"
            self._drain(0.05)

    def _drain(self, patience: float = 0) -> None:
        while select.select([self._terminal], [], [], patience)[0]:
            self.sent += os.read(self._terminal, 65536).decode(errors="replace")
            patience = 0


def size(fd: int, lines: int, columns: int) -> None:
    """Set the size of a terminal."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


@contextmanager
def on_screen(
    command: Sequence[str], environment: Mapping[str, str], *, lines: int = 30, columns: int = 100
) -> Iterator[Screen]:
    """Start it as a shell would: in a session of its own whose terminal this is."""
    terminal, side = pty.openpty()
    size(side, lines, columns)
    process = subprocess.Popen(
        list(command),
        env={**environment, "TERM": "xterm-256color"},
        stdin=side,
        stdout=side,
        stderr=side,
        cwd="/",
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    try:
        yield Screen(terminal, side, process)
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
        os.close(side)
