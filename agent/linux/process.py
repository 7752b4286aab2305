"""Who a process is, whether it still lives, and how it ended.

A PID alone names nobody: the kernel gives it to somebody else later. A process is named here by PID, kernel start time
and boot id (``Identity``), held by a pidfd (``Pidfd``), and signalled through that only.
"""

from __future__ import annotations

import functools
import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from agent.errors import RuntimeFailure
from agent.linux import libc

_PROC = "/proc"
_PF_KTHREAD = 0x00200000  # linux/sched.h
_ENVIRON_LIMIT = 8 * 1024 * 1024  # execve(2) allows a quarter of the stack limit: 2 MiB by default, never above 6 MiB


@functools.cache
def boot_id() -> str:
    """The random id of this boot, random(4). Raises ``RuntimeFailure`` where /proc/sys is hidden."""
    data = _read("/proc/sys/kernel/random/boot_id", 64)
    if not data:
        raise RuntimeFailure(
            "cannot read /proc/sys/kernel/random/boot_id, which tells processes of this boot apart; "
            "a unit needs ProcSubset=all"
        )
    return data.decode("ascii").strip()


class Identity(NamedTuple):
    """One process, for good: ``start_time`` is in clock ticks since boot (proc(5), stat field 22)."""

    pid: int
    start_time: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """The fields of /proc/PID/stat that matter here, by the names of proc(5)."""

    pid: int
    comm: str
    state: str
    ppid: int
    pgid: int
    sid: int
    flags: int
    threads: int
    start_time: int

    @property
    def alive(self) -> bool:
        """False for a zombie. A leader whose other threads run on shows state Z and is alive all the same."""
        return self.state not in "ZX" or self.threads > 1

    @property
    def kernel_thread(self) -> bool:
        """Whether it is the kernel's own, without a program or an environment."""
        return bool(self.flags & _PF_KTHREAD)


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: an exit code, or a signal. Neither: it ended and nobody can say how."""

    code: int | None
    signal: int | None = None
    core: bool = False

    @property
    def success(self) -> bool:
        """Whether it exited 0."""
        return self.code == 0

    def __str__(self) -> str:
        if self.code is not None:
            return f"exited {self.code}"
        if self.signal is None:
            return "ended, its exit status is not known"
        return f"killed by {signal_name(self.signal)}" + (" (core dumped)" if self.core else "")


def signal_name(number: int) -> str:
    """``SIGTERM`` for 15; real-time signals as ``SIGRTMIN+n``, signal(7)."""
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"SIGRTMIN+{number - signal.SIGRTMIN}" if signal.SIGRTMIN < number < signal.SIGRTMAX else f"signal {number}"


def parse_stat(data: bytes) -> ProcessStat | None:
    """Parse /proc/PID/stat. The command name may itself hold spaces and parentheses: the last one ends it."""
    head, _, tail = data.rpartition(b")")
    number, _, comm = head.partition(b" (")
    fields = tail.split()
    try:
        return ProcessStat(
            pid=int(number),
            comm=comm.decode("utf-8", "replace"),
            state=fields[0].decode("ascii"),
            ppid=int(fields[1]),
            pgid=int(fields[2]),
            sid=int(fields[3]),
            flags=int(fields[6]),
            threads=int(fields[17]),
            start_time=int(fields[19]),
        )
    except (IndexError, ValueError):
        return None


def stat(pid: int) -> ProcessStat | None:
    """What the kernel says about ``pid`` right now, a zombie included; ``None`` when there is no such process."""
    data = _read(f"{_PROC}/{pid}/stat", 4096)
    return parse_stat(data) if data else None


def identify(pid: int) -> Identity | None:
    """The identity of ``pid``; ``None`` when there is no such process.

    A zombie still has one: its PID cannot be given away before it is reaped.
    """
    found = stat(pid)
    return Identity(pid, found.start_time, boot_id()) if found else None


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler of its own for a signal, so that it does not end by it: SigCgt, proc(5)."""
    for line in (_read(f"/proc/{pid}/status") or b"").splitlines():
        if line.startswith(b"SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def environ(pid: int) -> bytes | None:
    """The environment ``pid`` was executed with, entries ended by NUL; ``None`` when it is gone or not ours to read.

    A program that overwrites its own argument area (to set its title) may have garbled it. It is empty while the
    process is in the middle of execve(2), and for a kernel thread or a zombie.
    """
    return _read(f"{_PROC}/{pid}/environ", _ENVIRON_LIMIT)


def command_line(pid: int) -> bytes | None:
    """The arguments ``pid`` was executed with, each ended by NUL; empty and ``None`` as for ``environ``."""
    return _read(f"{_PROC}/{pid}/cmdline", _ENVIRON_LIMIT)


def all_pids() -> list[int]:
    """Every process of this PID namespace that /proc shows us."""
    return [int(name) for name in _names(_PROC) if name.isdigit()]


Relation = Callable[[int], list[int]]
"""The direct children of a process."""

ROUNDS = 8
"""How often a subreaper's own children are listed in one look at all that is below it."""


def family() -> Relation:
    """Who is whose child, zombies included.

    Asked as needed, from /proc/PID/task/TID/children, where the kernel has it (CONFIG_PROC_CHILDREN, as distributions
    do). Else a snapshot of every process of the machine, at 10 microseconds each: worth sharing between calls.
    """
    if has_children_files():
        return _listed_children
    by_parent: dict[int, list[int]] = {}
    for pid in all_pids():
        if found := stat(pid):
            by_parent.setdefault(found.ppid, []).append(pid)
    return lambda pid: by_parent.get(pid, [])


def children_of(pid: int) -> list[int]:
    """The direct children of ``pid``, zombies included."""
    return family()(pid)


def descendants(pid: int) -> list[int]:
    """Children of ``pid``, their children, and so on, zombies included. Each is visited once, whatever /proc pretends.

    When all below is known ``pid`` is asked again: if it is a subreaper, then the children of whoever ended meanwhile
    are now its own. That is done ``ROUNDS`` times at most, lest a chain of forks holds us here.
    """
    found: dict[int, None] = {}
    for _ in range(ROUNDS):
        children = family()
        pending = [child for child in children(pid) if child not in found and child != pid]
        if not pending:
            break
        found |= dict.fromkeys(pending)
        for parent in pending:
            for child in children(parent):
                if child not in found and child != pid:
                    found[child] = None
                    pending.append(child)
    return list(found)


@functools.cache
def has_children_files() -> bool:
    """Whether this kernel has /proc/PID/task/TID/children."""
    pid = os.getpid()
    return Path(f"{_PROC}/{pid}/task/{pid}/children").exists()


def _listed_children(pid: int) -> list[int]:
    children: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in _names(f"{_PROC}/{pid}/task"):
            children += map(int, (_read(f"{_PROC}/{pid}/task/{thread}/children") or b"").split())
    return children


def _names(directory: str) -> list[str]:
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries]


def _read(path: str, limit: int = 1024 * 1024) -> bytes | None:
    """At most ``limit`` bytes of a file of /proc; ``None`` when it cannot be opened or its process vanished."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    try:
        chunks = []
        while limit > 0 and (chunk := os.read(fd, min(limit, 65536))):
            chunks.append(chunk)
            limit -= len(chunk)
        return b"".join(chunks)
    except (ProcessLookupError, PermissionError):
        return None
    finally:
        os.close(fd)


class Pidfd:
    """A process held by its pidfd, pidfd_open(2): nobody else can ever be meant. ``fd`` polls readable at its end."""

    __slots__ = ("_status", "fd", "pid")

    def __init__(self, fd: int, pid: int) -> None:
        self.fd = fd
        self.pid = pid
        self._status: ExitStatus | None = None

    @classmethod
    def open(cls, pid: int) -> Pidfd | None:
        """Hold whoever has ``pid`` now; ``None`` when nobody has. Raises ``OSError`` when descriptors run out."""
        if pid <= 0:
            return None
        try:
            return cls(os.pidfd_open(pid), pid)
        except ProcessLookupError:
            return None

    @classmethod
    def open_verified(cls, identity: Identity) -> Pidfd | None:
        """Hold the process of that identity, and nobody else; ``None`` when it is gone.

        The pidfd is opened first and pins the PID's owner; only then are start time and boot id compared. The other
        order could compare one process and hold the next.
        """
        held = cls.open(identity.pid)
        if held is None:
            return None
        if identify(identity.pid) == identity:
            return held
        held.close()
        return None

    def signal(self, number: int) -> bool:
        """Send a signal; ``False`` when it could not be delivered: the process is gone, or not ours to signal."""
        try:
            signal.pidfd_send_signal(self.fd, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def exited(self) -> bool:
        """Whether it has ended. Does not reap it."""
        if self._status is not None:
            return True
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(0))

    def wait(self) -> ExitStatus | None:
        """Reap it and tell how it ended; ``None`` while it lives. Never blocks; the answer is kept.

        Of a process that is not our child, only the end itself can be seen: the status then has neither code nor
        signal.
        """
        if self._status is None:
            try:
                self._status = _status(os.waitid(os.P_PIDFD, self.fd, os.WEXITED | os.WNOHANG))
            except ChildProcessError:
                if self.exited():
                    self._status = ExitStatus(None)
        return self._status

    def close(self) -> None:
        """Let go of the descriptor. Twice does no harm."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    def __enter__(self) -> Pidfd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _status(result: os.waitid_result | None) -> ExitStatus | None:
    """The status in what waitid(2) filled in; ``None`` when nothing had ended."""
    if result is None:
        return None
    if result.si_code == os.CLD_EXITED:
        return ExitStatus(result.si_status)
    return ExitStatus(None, result.si_status, result.si_code == os.CLD_DUMPED)


def become_subreaper() -> None:
    """Make orphans below us our children, PR_SET_CHILD_SUBREAPER of prctl(2). Raises ``RuntimeFailure``."""
    try:
        libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
    except OSError as error:
        raise RuntimeFailure(f"cannot become the reaper of orphaned processes: {error.strerror}") from error


def reap_strangers(is_ours: Callable[[int], bool]) -> list[tuple[int, ExitStatus]]:
    """Reap every zombie child that ``is_ours`` denies, and tell how each ended. Never blocks.

    The children that are ours keep their status until their own pidfd asks for it. While one of them waits to be
    reaped it may hide the others from ``waitid(P_ALL)``; then each child is asked by itself.
    """
    reaped: list[tuple[int, ExitStatus]] = []
    while True:
        try:
            first = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return reaped
        if first is None:
            return reaped
        if is_ours(first.si_pid):
            break
        _reap(first.si_pid, reaped)
    for pid in children_of(os.getpid()):
        if not is_ours(pid):
            _reap(pid, reaped)
    return reaped


def _reap(pid: int, into: list[tuple[int, ExitStatus]]) -> None:
    with suppress(ChildProcessError):
        status = _status(os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG))
        if status is not None:
            into.append((pid, status))
