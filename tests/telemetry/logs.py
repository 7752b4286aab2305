"""What the tests of logs and of their pumps share."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from agent.telemetry.logs import LogFile, LogState

STAMP = b"2025-11-20T12:00:00.500Z "
NOW = 1_763_640_000.5


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def fill(disk: Path) -> Path:
    """Take every byte that is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(512))
    return filler


def everything(path: Path) -> bytes:
    """All files of the log, oldest first."""
    numbered = sorted(path.parent.glob(f"{path.name}.*"), key=lambda file: -int(file.suffix[1:]))
    return b"".join(file.read_bytes() for file in [*numbered, path])


def another_program(log: LogFile) -> LogFile:
    """The log as the program that follows in this process has it: everything else went with execve(2)."""
    frozen = msgspec.json.encode(log.freeze())
    log._shut()
    follows = LogFile(log.path, log._size, log._keep, log._clock)
    follows.thaw(msgspec.json.decode(frozen, type=LogState))
    return follows


def unstamped(data: bytes) -> bytes:
    return re.sub(rb"(?m)^2025-11-20T12:00:00\.500Z ", b"", data)
