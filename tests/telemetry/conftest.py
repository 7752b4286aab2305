"""Where the logs and databases of these tests lie, and the journal that they know of."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.linux.journal import Journal
from agent.telemetry.journal import Logbook
from tests.linux.journald import Journald


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log" / "api.log"


@pytest.fixture
def disk_size() -> str:
    """Of a small disk, as mount(8) takes it."""
    return "256k"


@pytest.fixture
def small_disk(tmp_path: Path, disk_size: str) -> Iterator[Path]:
    """A file system of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    target = tmp_path / "disk"
    target.mkdir()
    if libc.mount(b"tmpfs", os.fsencode(target), b"tmpfs", 0, f"size={disk_size}".encode()):
        raise OSError(ctypes.get_errno(), "mounting a tmpfs")
    yield target
    libc.umount2(os.fsencode(target), 2)


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    made = Journald(tmp_path / "socket")
    yield made
    made.go()


@pytest.fixture
def logbook(journald: Journald) -> Iterator[Logbook]:
    journal = Journal(journald.path)
    yield Logbook(journal)
    journal.close()
