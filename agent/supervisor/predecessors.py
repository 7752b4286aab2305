"""Ending what an earlier agent on this prefix left running, and never anybody else.

A PID proves nothing: it may have been given away since. Signalled is who is known by PID, kernel start time and boot id
as recorded; who is its descendant; who carries a recorded mark in its environment; and, by the kernel itself, who is in
one of our cgroups. A record from before a reboot and a process without any of this are left alone.
"""

from __future__ import annotations

import select
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from agent.errors import AgentError
from agent.linux.cgroup import CgroupTree
from agent.linux.files import PrefixLock, read_pid
from agent.linux.process import Identity, Pidfd, boot_id, family, identify, stat
from agent.linux.sweep import signal_all, survivors
from agent.paths import Paths
from agent.supervisor.generation import Entry, read_entries
from agent.supervisor.prepare import tidy

PATIENCE = 10.0
"""Seconds given to the old generation to be gone after SIGKILL."""

ESCAPED = "(escaped)"
"""Stands for the service of a survivor that is known by its mark only."""


class Ended(NamedTuple):
    """Names of services: those that had something left, and those of which something is left even now."""

    services: list[str]
    surviving: list[str]


def end_predecessors(paths: Paths, tree: CgroupTree | None) -> Ended:
    """SIGKILL what an earlier agent left, wait until it is gone, and remove what had been laid in place for it.

    Call with the prefix's lock held, before the loop runs.
    """
    recorded = read_entries(paths.generation)
    entries = [entry for entry in recorded if entry.boot_id == boot_id()]
    deadline = time.monotonic() + PATIENCE
    verified: dict[Identity, str] = {}
    found: set[str] = set()
    while True:
        verified = _survivors(entries) | verified
        left = {identity: name for identity, name in verified.items() if _alive(identity)}
        names = {*left.values(), *_kill_cgroups(tree)}
        found |= names
        if not names or time.monotonic() > deadline:
            break
        signal_all(left, signal.SIGKILL)
        _await_one(left, deadline)
    if tree is not None:
        for name in tree.leftovers():
            with suppress(OSError):
                tree.service(name).remove()  # with the limits that were in force there
    for entry in recorded:
        if entry.name not in names:
            _tidy(entry, paths)
    return Ended(sorted(found), sorted(names))


def _kill_cgroups(tree: CgroupTree | None) -> list[str]:
    """Send SIGKILL to everybody below our own cgroup: they are ours by the lock, whoever made them."""
    if tree is None:
        return []
    crowded = []
    for name in tree.leftovers():
        cgroup = tree.service(name)
        if cgroup.pids():
            cgroup.kill()
            crowded.append(name)
    return crowded


def _survivors(entries: list[Entry]) -> dict[Identity, str]:
    """Who is left, verified, and of which service: workers with their descendants, and whoever carries a mark."""
    left = dict.fromkeys(survivors({entry.mark for entry in entries}), ESCAPED)
    for entry in entries:
        if _alive(entry.identity):
            left |= dict.fromkeys(_kin(entry.identity), entry.name)
    return left


def _kin(worker: Identity) -> list[Identity]:
    """A process and its descendants.

    A child is one whose parent was, when we looked, a PID that still belongs to the same verified process afterwards.
    """
    kin = [worker]
    children = family()
    for parent in kin:
        found = [known for pid in children(parent.pid) if (known := stat(pid)) and known.ppid == parent.pid]
        if identify(parent.pid) == parent:
            kin += [Identity(known.pid, known.start_time, worker.boot_id) for known in found if known.alive]
    return kin


def _alive(identity: Identity) -> bool:
    held = Pidfd.open_verified(identity)
    if held is None:
        return False
    with held:
        return not held.exited()


def _await_one(identities: Iterable[Identity], deadline: float) -> None:
    """Block until one of them is gone: this runs before the loop does, and nothing else may happen meanwhile."""
    for identity in identities:
        held = Pidfd.open_verified(identity)
        if held is not None:
            with held:
                poll = select.poll()
                poll.register(held.fd, select.POLLIN)
                poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            return
    time.sleep(0.002)  # all of them are just going


def _tidy(entry: Entry, paths: Paths) -> None:
    """Nobody may believe the PID file or the heartbeat of a worker that is gone, or find its secrets."""
    lock = PrefixLock(paths.service_lock(entry.name))
    with suppress(AgentError):  # `run-once` runs it now, and these are its files
        lock.acquire()
        tidy(entry.name, paths)
        with suppress(OSError):
            paths.notify(entry.name).unlink()
        with suppress(OSError):
            if read_pid(paths.pid(entry.name)) == entry.pid:
                paths.pid(entry.name).unlink()
        lock.release()
