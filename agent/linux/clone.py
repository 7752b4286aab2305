"""A process that is born in its cgroup: clone3(2) with ``CLONE_INTO_CGROUP``, and what a child does before it executes.

Every other way moves a process that exists into the cgroup, and a move waits for the kernel to have every other CPU out
of fork and exit: 5 to 20 ms here, against 3 for this. It also leaves no instant at which the child is outside.

The child runs Python between clone and execve, as ``subprocess`` does for a ``preexec_fn``. That is sound because the
agent has one thread, and where there are more, because none of them asks for the interpreter's lock just then; signals
are blocked and the collector is off until the child is somebody else.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from agent.linux.capabilities import NotGranted, keeping_through_setuid, take
from agent.linux.cgroup_place import ruling
from agent.linux.libc import bind_to
from agent.linux.users import Credentials

_CLONE3 = 435  # asm-generic/unistd.h: one number on every architecture
_CLOSE_RANGE = 436
_CLOEXEC = 4  # linux/close_range.h; close_range(2), Linux 5.11
_CLONE_PIDFD = 0x1000  # linux/sched.h
_CLONE_INTO_CGROUP = 0x200000000
_PATIENCE = 10.0  # seconds until execve: a child in a cgroup that is being frozen never gets there
_NUDGE = 0.05  # seconds without execve after which the child may have been stopped by a signal
_TURN = 1.0  # seconds that other threads wait for the interpreter's lock while a child is born, which is far sooner
_REFUSED = frozenset({errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP})


class _CloneArguments(ctypes.Structure):
    """``struct clone_args`` of linux/sched.h, as of Linux 5.7."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            *("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls"),
            *("set_tid", "set_tid_size", "cgroup"),
        )
    )


# PyDLL keeps the interpreter's lock: the child must find it held by its only thread.
_syscall = ctypes.PyDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


class Unavailable(Exception):
    """The kernel, or a filter of system calls in front of it, does not offer this; there are other ways."""


@dataclass(frozen=True, kw_only=True)
class Birth:
    """What the child becomes. ``stdio`` are the descriptors for 0, 1 and 2, ``programs`` the paths to try in turn.

    ``capabilities`` are what the child has to take for itself (``capabilities.take``), ``None`` what comes of itself.
    ``bound_to`` is the process whose end is its own (``libc.bind_to``), which must be ours.
    """

    programs: Sequence[str]
    argv: list[str]
    environment: dict[str, str]
    working_directory: str | None
    credentials: Credentials | None
    capabilities: int | None
    stdio: tuple[int, int, int]
    pass_fds: Sequence[int]
    umask: int
    new_session: bool
    bound_to: int | None = None


def bear(birth: Birth, cgroup: int) -> tuple[int, int]:
    """Start a program in the cgroup whose directory ``cgroup`` is open; returns its PID and its pidfd.

    Raises ``Unavailable``; ``ValueError`` for text that execve(2) cannot take; ``NotGranted``; and ``OSError`` as
    ``subprocess`` does: with the working directory as its file name when that is to blame, without one for what
    concerns the user, else with the program.
    """
    _check(birth)
    _refuse_frozen(cgroup)
    report, told = os.pipe2(os.O_CLOEXEC)
    collecting = gc.isenabled()
    gc.disable()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        with ruling(), _alone():
            pid, pidfd = _clone(cgroup)
        if pid == 0:
            _become(birth, told)
    except OSError as error:
        os.close(report)
        if error.errno in _REFUSED:
            raise Unavailable(str(error)) from error
        if error.errno == errno.ENOENT:
            raise OSError(errno.ENODEV, "its cgroup was removed") from error
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if collecting:
            gc.enable()
        os.close(told)
    try:
        _await_exec(report, pidfd, birth)
    except OSError:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
        raise
    finally:
        os.close(report)
    return pid, pidfd


def _check(birth: Birth) -> None:
    texts = [*birth.argv, *birth.environment, *birth.environment.values(), birth.working_directory or ""]
    if any("\0" in text for text in texts):
        raise ValueError("embedded null byte")
    if any("=" in name for name in birth.environment):
        raise ValueError("illegal environment variable name")


def _refuse_frozen(cgroup: int) -> None:
    """Whoever is born in a frozen cgroup never runs (cgroup.freeze). The root has no such file, and never freezes."""
    try:
        state = os.open("cgroup.freeze", os.O_RDONLY | os.O_CLOEXEC, dir_fd=cgroup)
    except FileNotFoundError:
        return
    try:
        if os.read(state, 1) == b"1":
            raise OSError(errno.EBUSY, "its cgroup is frozen")
    finally:
        os.close(state)


@contextmanager
def _alone() -> Iterator[None]:
    """While the block runs, no other thread asks this one for the interpreter's lock.

    A child that is born with such a request lets go of the lock at its next step, and waits until somebody has taken
    it: for ever, for it has one thread (``sys.setswitchinterval``).
    """
    if Path("/proc/self/task").stat().st_nlink == 3:  # a link for each thread, and two of the directory: proc(5)
        yield
        return
    before = sys.getswitchinterval()
    sys.setswitchinterval(_TURN)
    try:
        time.sleep(2 * before)  # who waits for the lock already, does so for as long as it was before
        yield
    finally:
        sys.setswitchinterval(before)


def _clone(cgroup: int) -> tuple[int, int]:
    """fork(2), but into that cgroup, and with a pidfd (close-on-exec). The child gets PID 0 and no pidfd."""
    pidfd = ctypes.c_int(-1)
    arguments = _CloneArguments(
        flags=_CLONE_INTO_CGROUP | _CLONE_PIDFD,
        pidfd=ctypes.addressof(pidfd),
        exit_signal=signal.SIGCHLD,
        cgroup=cgroup,
    )
    pid = _syscall(ctypes.c_long(_CLONE3), ctypes.byref(arguments), ctypes.c_size_t(ctypes.sizeof(arguments)))
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return pid, pidfd.value


def _become(birth: Birth, told: int) -> NoReturn:
    """The child: turn into the program, or report which step failed with which errno, and vanish."""
    step = "program"
    number = errno.EIO
    try:
        for known in signal.valid_signals():
            if signal.getsignal(known) not in (signal.SIG_DFL, None):
                signal.signal(known, signal.SIG_DFL)
        if birth.new_session:
            os.setsid()
        else:
            os.setpgid(0, 0)
        os.umask(birth.umask)
        # Away from 0, 1 and 2 first: one of them may be what another is to become.
        for target, source in enumerate([os.dup(fd) if fd < 3 else fd for fd in birth.stdio]):
            os.dup2(source, target)
        _close_on_exec(3)
        for fd in birth.pass_fds:
            os.set_inheritable(fd, True)
        step = "user"
        if birth.credentials is not None:
            with nullcontext() if birth.capabilities is None else keeping_through_setuid():
                os.setgroups(birth.credentials.groups)
                os.setresgid(*[birth.credentials.gid] * 3)
                os.setresuid(*[birth.credentials.uid] * 3)
        step = "directory"
        if birth.working_directory is not None:
            os.chdir(birth.working_directory)
        step = "capabilities"
        if birth.capabilities is not None:
            take(birth.capabilities)
        step = "program"
        if birth.bound_to is not None:
            bind_to(birth.bound_to)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        number = _execute(birth)
    except OSError as error:
        number = error.errno or errno.EIO
    finally:
        os.write(told, f"{step} {number}".encode())
        os._exit(127)


def _close_on_exec(first: int) -> None:
    """Mark every descriptor from ``first`` on: whoever made one inheritable did not mean this child."""
    _syscall(ctypes.c_long(_CLOSE_RANGE), ctypes.c_uint(first), ctypes.c_uint(0xFFFFFFFF), ctypes.c_uint(_CLOEXEC))


def _execute(birth: Birth) -> int:
    """execve(2) for each candidate, as execvp(3) does; returns the errno that tells most."""
    worst = errno.ENOENT
    for program in birth.programs:
        try:
            os.execve(program, birth.argv, birth.environment)  # noqa: S606  # no shell is the point
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                worst = error.errno or errno.EIO
    return worst


def _await_exec(report: int, pidfd: int, birth: Birth) -> None:
    """Wait until the child's end of the pipe closes, which execve does, and raise what it reported before.

    Whoever starts it waits with us, so a child that somebody's SIGSTOP has caught on its way is continued.
    """
    poll = select.poll()
    poll.register(report, select.POLLIN)
    deadline = time.monotonic() + _PATIENCE
    while not poll.poll(_NUDGE * 1000):
        if time.monotonic() > deadline:
            raise OSError(errno.EBUSY, "its cgroup is frozen")
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGCONT)
    step, _, number = os.read(report, 100).decode().partition(" ")
    if step == "capabilities":
        raise NotGranted(int(number), os.strerror(int(number)))
    if step:
        blamed = {"directory": birth.working_directory, "user": None}.get(step, birth.argv[0])
        raise OSError(int(number), os.strerror(int(number)), blamed)
