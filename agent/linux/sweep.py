"""Containment without a cgroup: finding every process of one service, however it tried to get away.

The agent is a subreaper, so an orphan of a service becomes the agent's own child and cannot leave its tree. Whose it
was is told by what it inherited: its session, the mark in its environment, or the service's output pipe that it still
holds. One that shed all three is nobody's: it is never signalled for a service, and found only by ``everything``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable
from itertools import islice

from agent.linux.process import (
    ROUNDS,
    Identity,
    Pidfd,
    ProcessStat,
    Relation,
    all_pids,
    boot_id,
    command_line,
    descendants,
    environ,
    family,
    identify,
    stat,
)

MARK = "AGENT_MARK"
_EXEC_LOOKS = 80
_EXEC_WAIT = 0.001  # seconds: execve(2) takes about one, but not where the processors are busy or the disk is slow
_BARE_LOOKS = 3
_FD_LIMIT = 4096  # descriptors looked at in one process: a hostile one may hold a million


def new_mark() -> str:
    """A value for ``MARK`` that nobody can guess: 128 random bits."""
    return os.urandom(16).hex()


def members(
    main: Identity | None,
    sid: int,
    mark: str,
    pipe_inodes: Collection[int] = frozenset(),
    *,
    seen: Collection[Identity] = frozenset(),
    others: Collection[int] = frozenset(),
    relatives: Relation | None = None,
) -> list[Identity]:
    """Every live process of one service: what descends from ``main``, and orphans that carry one of its signs.

    The signs are ``mark`` in the environment, session ``sid`` (0: none) without another mark, and a pipe of
    ``pipe_inodes`` held open; an orphan's descendants belong to the service with it. ``seen`` is what earlier calls
    returned: whoever was found below ``main`` while it lived stays the service's, with or without a sign. ``others``
    are PIDs known to be another's (the mains of the other services), which are not looked into. ``relatives`` is what
    ``family`` returned, to share one snapshot: who is forked by one that ends meanwhile may then be missed.
    """
    found: dict[int, Identity] = {}
    looked_at: set[int] = set()
    for _ in range(ROUNDS):  # as in ``descendants``: whose parent ended while we looked has become our child
        children = relatives or family()
        pending = [(child, False) for child in children(os.getpid()) if child not in looked_at]
        if not pending:
            break
        while pending:
            pid, belongs = pending.pop()
            looked_at.add(pid)
            if pid in found or pid in others:
                continue
            known = stat(pid)
            if known is None:
                continue
            identity = Identity(pid, known.start_time, boot_id())
            belongs = belongs or identity == main or identity in seen or _signed(known, sid, mark, pipe_inodes)
            if belongs and known.alive:
                found[pid] = identity
            pending += [(child, belongs) for child in children(pid)]
    return list(found.values())


def everything() -> list[Identity]:
    """Every live process below us. When the agent ends, they all go back to a service, signs or not."""
    return [identity for pid in descendants(os.getpid()) if (identity := _living(pid))]


def survivors(marks: Collection[str]) -> list[Identity]:
    """Every live process of the machine, but for ourselves, that carries one of ``marks``.

    For what a killed agent left behind. Costs about 20 microseconds for each process of the machine.
    """
    if not marks:
        return []
    found = []
    for pid in all_pids():
        if pid == os.getpid():
            continue
        known = stat(pid)
        if known and known.alive and _mark_of(known) in marks:
            before = Identity(pid, known.start_time, boot_id())
            if identify(pid) == before:
                found.append(before)
    return found


def signal_all(identities: Iterable[Identity], number: int) -> int:
    """Send a signal to each of these processes that still exists, and tell to how many it went.

    Only through a pidfd whose identity has been verified. Raises ``OSError`` when descriptors run out.
    """
    sent = 0
    for identity in identities:
        held = Pidfd.open_verified(identity)
        if held is not None:
            with held:
                sent += held.signal(number)
    return sent


def _living(pid: int) -> Identity | None:
    known = stat(pid)
    return Identity(pid, known.start_time, boot_id()) if known and known.alive else None


def _signed(known: ProcessStat, sid: int, mark: str, pipe_inodes: Collection[int]) -> bool:
    """Whether a process of our tree carries a sign of the service.

    A session is named by a PID, and that PID may by now be the main process of another service: in a session of that
    number, somebody else's mark says so.
    """
    found = _mark_of(known)
    if found is not None and found == mark:
        return True
    if sid and known.sid == sid and found is None:
        return True
    return bool(pipe_inodes) and _holds_pipe(known.pid, pipe_inodes)


def _mark_of(known: ProcessStat) -> str | None:
    prefix = f"{MARK}=".encode()
    for entry in _settled_environ(known).split(b"\0"):
        if entry.startswith(prefix):
            return entry[len(prefix) :].decode("ascii", "replace")
    return None


def _settled_environ(known: ProcessStat) -> bytes:
    """The environment, waited for while the process is between two programs (80 ms at most).

    In the middle of execve(2) a process shows neither environment nor arguments; one that was given no environment
    shows arguments. Only the former is worth a wait.
    """
    found = environ(known.pid)
    if known.kernel_thread or not known.alive:
        return found or b""
    bare = 0
    for _ in range(_EXEC_LOOKS):
        if found or found is None or bare == _BARE_LOOKS:
            break
        # Seen with arguments and then without an environment it is bare, or it has begun the next execve meanwhile.
        bare += command_line(known.pid) != b""
        found = environ(known.pid)
        if not found:
            time.sleep(_EXEC_WAIT)
    return found or b""


def _holds_pipe(pid: int, inodes: Collection[int]) -> bool:
    wanted = {f"pipe:[{inode}]" for inode in inodes}
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in islice(entries, _FD_LIMIT):
                try:
                    if os.readlink(entry.path) in wanted:  # noqa: PTH115  # thousands of them
                        return True
                except OSError:
                    continue
    except OSError:
        return False
    return False
