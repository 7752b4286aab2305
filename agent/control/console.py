"""The agent in the foreground: what happens, in plain lines, and now and then how the workers get on."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import TextIO

import msgspec

from agent.supervisor.lifecycle import Phase
from agent.supervisor.unit import Unit
from agent.telemetry.events import Event

PROGRESS_EVERY = 5.0
"""Seconds between two progress lines of one service."""


class Console:
    """Prints events and progress. A reader that is gone ends the printing, not the agent."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._progress: dict[str, tuple[float, str]] = {}
        self._broken = False

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
        if self._broken:
            return
        safe = "".join(char if char.isprintable() else "?" for char in text)
        try:
            self._stream.write(f"{time.strftime('%H:%M:%S')} {safe}\n")
            self._stream.flush()
        except (OSError, ValueError):
            self._broken = True


class JsonConsole:
    """Each event as one line of JSON on standard output, as ``agentctl events --json`` has them; nothing else."""

    def event(self, event: Event) -> None:
        # A reader that is gone ends the printing, not the agent.
        with suppress(OSError):
            os.write(1, msgspec.json.encode(event) + b"\n")

    def changed(self, unit: Unit) -> None:
        """How a worker gets on is no event."""

    def line(self, text: str) -> None:
        """Nobody reads prose here."""
