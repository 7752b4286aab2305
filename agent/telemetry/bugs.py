"""Where a bug leaves its traceback: never in front of a user, always in ``log/agent.log``."""

from __future__ import annotations

import traceback
from pathlib import Path

from agent.telemetry.logs import LogFile

SIZE = 1024 * 1024
KEEP = 2


class BugLog:
    """Appends tracebacks to a small rotated log, opened when the first one comes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log: LogFile | None = None

    def record(self, error: BaseException) -> None:
        """Write one traceback down. Never raises: the log itself counts what it cannot write."""
        if self._log is None:
            self._log = LogFile(self._path, SIZE, KEEP)
        self._log.write("".join(traceback.format_exception(error)).encode())
