"""Who our workers are, written down for the agent that comes after us.

When the agent is killed its workers live on, and its successor ends them all (``agent.supervisor.predecessors``). So
the random mark that a service's processes carry is on record before the first of them exists, and each spawn with PID,
kernel start time and boot id right after it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from agent.errors import StorageFailure
from agent.linux.files import write_atomic
from agent.linux.process import Identity, boot_id

COMPACT_AT = 1024 * 1024
"""Bytes at which the record is rewritten with only the newest entry of each service."""

_OPEN = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class Entry(msgspec.Struct, frozen=True):
    """A line of JSON in ``run/agent.generation.json``: one spawn, or with PID 0 one that is about to be."""

    name: str
    pid: int
    start_time: int
    boot_id: str
    mark: str

    @property
    def identity(self) -> Identity:
        return Identity(self.pid, self.start_time, self.boot_id)


class Generation:
    """The record of this agent's spawns. A full disk costs the record (until there is room), never a service."""

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        """A new record; with ``resume`` the one that an earlier program in this process has kept."""
        self._path = path
        self._newest: dict[str, Entry] = {}
        self._size = 0
        self._torn = False
        self._fd = -1
        if resume:
            with suppress(StorageFailure):
                self._newest = {entry.name: entry for entry in read_entries(path)}
        with suppress(OSError):
            # Not a new file: on a full disk the old one is what there is.
            self._fd = os.open(path, _OPEN | os.O_CREAT | (0 if resume else os.O_TRUNC), 0o600)
            os.fchmod(self._fd, 0o600)
            self._size = os.fstat(self._fd).st_size
            self._torn = self._size > 0 and not path.read_bytes().endswith(b"\n")
        if self._torn:
            self._rewrite()

    @property
    def complete(self) -> bool:
        """Whether everything is on record."""
        return self._fd >= 0 and not self._torn

    def expect(self, name: str, mark: str) -> None:
        """Processes with that mark may exist from now on."""
        known = self._newest.get(name)
        if known is None or known.mark != mark:
            self._add(Entry(name, 0, 0, boot_id(), mark))

    def record(self, name: str, identity: Identity, mark: str) -> None:
        """Remember one spawn, unless it is on record: an earlier program in this process may have seen to that."""
        entry = Entry(name, identity.pid, identity.start_time, identity.boot_id, mark)
        if self._newest.get(name) != entry:
            self._add(entry)

    def close(self) -> None:
        """After a clean stop there is nobody to end: the record goes."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        with suppress(OSError):
            self._path.unlink()

    def _add(self, entry: Entry) -> None:
        self._newest[entry.name] = entry
        line = _line(entry)
        try:
            self._torn = self._torn or self._fd < 0 or os.write(self._fd, line) < len(line)
        except OSError:
            self._torn = True
        self._size += len(line)
        if self._torn or self._size > COMPACT_AT:
            self._rewrite()

    def _rewrite(self) -> None:
        lines = b"".join(map(_line, self._newest.values()))
        try:
            write_atomic(self._path, lines, mode=0o600)
            fd = os.open(self._path, _OPEN)
        except (OSError, StorageFailure):
            return  # the next one tries again
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._size, self._torn = fd, len(lines), False


def read_entries(path: Path) -> list[Entry]:
    """What is on record, oldest first. A missing file is an empty record; a torn line is skipped.

    Raises ``StorageFailure`` when there is a record that cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageFailure(f"{path}: what an earlier agent left cannot be read: {error.strerror}") from error
    entries = []
    for line in lines:
        with suppress(ValueError, RecursionError):
            entries.append(msgspec.json.decode(line, type=Entry))
    return entries


def _line(entry: Entry) -> bytes:
    return msgspec.json.encode(entry) + b"\n"
