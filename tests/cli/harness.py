"""Running agentctl as a user does: as a process, with its output in a pipe or on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import agent

ROOT = Path(agent.__file__).parent.parent

Done = subprocess.CompletedProcess[str]


class Agentctl:
    """``python -m agent`` on one prefix."""

    def __init__(self, prefix: Path, directory: Path) -> None:
        self.prefix = prefix
        self.directory = directory
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "PREFIX": str(prefix),
            "PYTHONPATH": str(ROOT),
            # Python's development mode without asyncio's, which says on a busy machine that a callback took its time.
            "PYTHONWARNINGS": "default",
            "PYTHONMALLOC": "debug",
            "PYTHONFAULTHANDLER": "1",
        }

    def command(self, *arguments: str) -> list[str]:
        """What starts it."""
        return [sys.executable, "-m", "agent", *arguments]

    def __call__(self, *arguments: str, **variables: str) -> Done:
        """Run it to its end, its output in pipes."""
        with self.start(*arguments, **variables) as process:
            out, err = process.communicate(timeout=30)
        return Done(arguments, process.returncode, out, err)

    @contextmanager
    def start(self, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
        """Start it, its output in pipes; it is killed at the end, if it has not ended by then."""
        with subprocess.Popen(
            self.command(*arguments),
            env=self.environment | variables,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def on_terminal(self, *arguments: str, columns: int = 100, **variables: str) -> str:
        """Run it with a terminal as its output; returns what the terminal was sent."""
        terminal, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        process = subprocess.Popen(
            self.command(*arguments),
            env=self.environment | {"TERM": "xterm-256color"} | variables,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=side,
            stderr=side,
        )
        os.close(side)
        sent = b""
        try:
            while data := os.read(terminal, 65536):
                sent += data
        except OSError:  # EIO: the last one who had the terminal open is gone
            pass
        finally:
            os.close(terminal)
            process.wait(30)
        return sent.decode()
