"""Who our workers are, written down for the agent that comes after us.

When the agent is killed its workers live on. The next agent must end every one of them and never anybody else. So
each spawn is recorded (PID, kernel start time, boot id and the random mark in the child's environment) before it
matters, and a successor signals only what it has verified through a pidfd: a PID that was reused, a record from
before a reboot, a process without the mark are left alone.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from agent.linux.cgroup import CgroupTree
from agent.linux.files import read_pid, write_atomic
from agent.linux.process import Identity, Pidfd, boot_id, descendants, identify
from agent.linux.sweep import signal_all, survivors
from agent.paths import Paths
from agent.supervisor.prepare import tidy

COMPACT_AT = 1024 * 1024
"""Bytes at which the record is rewritten with only the living."""
PATIENCE = 10.0
"""Seconds given to the old generation to be gone after SIGKILL."""

ESCAPED = "(escaped)"
"""Stands for the service of a survivor that is known by its mark only."""


class Entry(msgspec.Struct, frozen=True):
    """One spawn: a line of JSON in ``run/agent.generation.json``."""

    name: str
    pid: int
    start_time: int
    boot_id: str
    mark: str

    @property
    def identity(self) -> Identity:
        return Identity(self.pid, self.start_time, self.boot_id)


class Generation:
    """The record of this agent's spawns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._living: dict[str, Entry] = {}
        self._size = 0
        write_atomic(path, b"", mode=0o600)
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def record(self, name: str, identity: Identity, mark: str) -> None:
        """Remember one spawn. One ``write``; a full disk costs the record, never the service."""
        entry = Entry(name, identity.pid, identity.start_time, identity.boot_id, mark)
        self._living[name] = entry
        try:
            self._size += os.write(self._fd, msgspec.json.encode(entry) + b"\n")
            if self._size > COMPACT_AT:
                self._compact()
        except OSError:
            return

    def _compact(self) -> None:
        lines = b"".join(msgspec.json.encode(entry) + b"\n" for entry in self._living.values())
        write_atomic(self._path, lines, mode=0o600)
        os.close(self._fd)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._size = len(lines)

    def close(self) -> None:
        """After a clean stop there is nobody to end: the record goes."""
        os.close(self._fd)
        self._path.unlink(missing_ok=True)


def read_entries(path: Path) -> list[Entry]:
    """The spawns on record, oldest first. A missing file is an empty record; a torn last line is skipped."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    entries = []
    for line in lines:
        try:
            entries.append(msgspec.json.decode(line, type=Entry))
        except msgspec.DecodeError:
            continue
    return entries


def end_predecessors(paths: Paths, tree: CgroupTree | None) -> list[str]:
    """SIGKILL what an earlier agent on this prefix left running, and wait until it is gone.

    What it had laid below ``run`` and ``tmp`` for them goes too. Call with the prefix's lock held, before the loop
    runs. Returns the names of the services that had something left.
    """
    recorded = read_entries(paths.generation)
    entries = [entry for entry in recorded if entry.boot_id == boot_id()]
    found = set(_end_cgroups(tree)) if tree is not None else set()
    deadline = time.monotonic() + PATIENCE
    while left := _left(entries):
        found.update(left)
        identities = [identity for group in left.values() for identity in group]
        signal_all(identities, signal.SIGKILL)
        if time.monotonic() > deadline:
            break
        _await_one(identities, deadline)
    for entry in recorded:
        _tidy(entry, paths)
    return sorted(found)


def _tidy(entry: Entry, paths: Paths) -> None:
    """Nobody may believe the PID file or the heartbeat of a worker that is gone, or find its secrets."""
    tidy(entry.name, paths)
    with suppress(OSError):
        paths.notify(entry.name).unlink()
    with suppress(OSError):
        if read_pid(paths.pid(entry.name)) == entry.pid:
            paths.pid(entry.name).unlink()


def _end_cgroups(tree: CgroupTree) -> list[str]:
    """The cgroups below our own are ours by the lock, whoever made them."""
    names = []
    for name in tree.leftovers():
        cgroup = tree.service(name)
        if cgroup.pids():
            names.append(name)
            cgroup.kill()
        cgroup.close()
    return names


def _left(entries: list[Entry]) -> dict[str, list[Identity]]:
    """Verified survivors by service: recorded workers with their descendants, and whoever carries a mark."""
    left: dict[str, list[Identity]] = {}
    for entry in entries:
        identity = entry.identity
        if _alive(identity):
            kin = (identify(pid) for pid in descendants(identity.pid))
            left[entry.name] = [identity, *(one for one in kin if one is not None)]
    seen = {identity for group in left.values() for identity in group}
    escaped = [identity for identity in survivors({entry.mark for entry in entries}) if identity not in seen]
    if escaped:
        left.setdefault(ESCAPED, []).extend(escaped)
    return left


def _alive(identity: Identity) -> bool:
    held = Pidfd.open_verified(identity)
    if held is None:
        return False
    with held:
        return not held.exited()


def _await_one(identities: list[Identity], deadline: float) -> None:
    """Block until one of them is gone: this runs before the loop does, and nothing else may happen meanwhile."""
    for identity in identities:
        held = Pidfd.open_verified(identity)
        if held is not None:
            with held:
                poll = select.poll()
                poll.register(held.fd, select.POLLIN)
                poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            return
