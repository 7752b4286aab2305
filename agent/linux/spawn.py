"""The one module that starts processes: children of the agent, and short foreign commands for whoever needs one.

A child gets its own session, default signal dispositions, an empty signal mask, /dev/null to read from unless it is
given a file, and of our environment and capabilities what is in the request and nothing else. It is held by a pidfd
from its first instant: between ``fork`` and ``pidfd_open`` nobody but us could reap it, and we are one thread.
"""

from __future__ import annotations

import errno
import functools
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from agent.errors import SpawnFailed
from agent.linux import capabilities
from agent.linux.cgroup_place import ruling, visiting
from agent.linux.clone import Birth, Unavailable, bear
from agent.linux.environment import base_environment, own_environment, own_program
from agent.linux.libc import bind_to
from agent.linux.outputs import Sink, follow
from agent.linux.process import ExitStatus, Identity, Pidfd, boot_id, identify
from agent.linux.users import Credentials, resolve_user

__all__ = [
    "DEVNULL",
    "Child",
    "Completed",
    "Credentials",
    "SpawnRequest",
    "base_environment",
    "own_environment",
    "own_program",
    "resolve_user",
    "run",
    "spawn",
]

DEVNULL = subprocess.DEVNULL

_PAUSE = 0.03  # seconds between two starts that still count as a row
_MANY = 2

_UNKILLABLE = 5  # seconds from SIGKILL until a process is given up

# Trying again helps against a shortage, not against a mistake.
_PASSING = frozenset(
    {
        errno.EAGAIN,
        errno.ENOMEM,
        errno.EMFILE,
        errno.ENFILE,
        errno.EBUSY,
        errno.ETXTBSY,
        errno.EINTR,
        errno.EIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.ENODEV,
    }
)
_REFUSED = "the kernel, or a filter of system calls, does not let it have its `capabilities`"

_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
"""What ``ProtectHome=`` is about, systemd.exec(5)."""

_PYTHON_IGNORES = frozenset({signal.SIGPIPE, signal.SIGXFSZ})  # subprocess restores these by itself


@dataclass(frozen=True, kw_only=True)
class SpawnRequest:
    """One process to start.

    ``argv[0]`` is looked up in the PATH of ``environment``. ``stdin``, ``stdout`` and ``stderr`` are descriptors or
    ``DEVNULL``.
    ``user`` and ``group`` are names or numbers; HOME, USER, LOGNAME and SHELL then follow the user unless
    ``environment`` says something of its own. ``cgroup`` is an open directory of a cgroup: the child is in it before it
    executes anything. ``own_program`` marks this very program, which needs ``own_environment`` as well.
    ``process_group_only`` keeps it in our session (for a child of a foreground command).

    ``capabilities`` are names out of ``capability_sets.NAMES``, and exactly what the child holds, be it root or not.
    ``None`` is what comes of itself: nothing, or for root everything. To our own program it is given as far as we hold
    it, and what is root stays root.

    ``bound`` is killed by the kernel when the thread that starts it ends, however that ends; but not a program whose
    file gives it rights (setuid, file capabilities), of which the kernel forgets it.
    """

    argv: Sequence[str]
    environment: Mapping[str, str]
    working_directory: str | None = None
    user: str | None = None
    group: str | None = None
    stdin: int = DEVNULL
    stdout: int = DEVNULL
    stderr: int = DEVNULL
    pass_fds: Sequence[int] = ()
    cgroup: int | None = None
    capabilities: Collection[str] | None = None
    umask: int = 0o027
    own_program: bool = False
    process_group_only: bool = False
    bound: bool = False


@dataclass(frozen=True)
class Child:
    """A process that was started and has not been reaped. Whoever holds it must ``pidfd.wait`` and ``pidfd.close``."""

    pid: int
    pidfd: Pidfd
    identity: Identity


def spawn(request: SpawnRequest) -> Child:
    """Start a process, and return once it executes its program. Raises ``SpawnFailed``; nothing is left behind then."""
    credentials = resolve_user(request.user, request.group) if request.user or request.group else None
    if not request.argv:
        raise SpawnFailed("cannot start an empty command: it names no program", permanent=True)
    boot_id()  # raises before there is anything to clean up
    grant = _grant(request, credentials)
    pid, pidfd = -1, None
    try:
        with capabilities.handing_on(grant.handed_on):
            pid, pidfd = _born(request, credentials, grant.taken)
        identity = identify(pid)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        if pid > 0:
            os.kill(pid, signal.SIGKILL)  # safe: it is our child, and not reaped
            os.waitpid(pid, 0)
        if pidfd is not None:
            pidfd.close()
        raise _failure(error, request) from error
    if pidfd is None or identity is None:
        raise SpawnFailed(f"cannot start {request.argv[0]}: somebody else reaped it", permanent=False)
    return Child(pid, pidfd, identity)


def _grant(request: SpawnRequest, credentials: Credentials | None) -> capabilities.Grant:
    if request.capabilities is None:
        return capabilities.Grant()
    uid = os.geteuid() if credentials is None else credentials.uid
    try:
        return capabilities.grant(request.capabilities, uid, wish=request.own_program)
    except capabilities.NotHeld as error:
        raise SpawnFailed(f"cannot start {request.argv[0]}: {error}", permanent=True) from error


class _Burst:
    """Tells when many processes are started in a row.

    For a single one ``clone3`` is the quickest way into a cgroup. To go there ourselves and ``vfork`` takes the
    kernel 10 to 20 ms the first time, and then, as long as it is done without a pause, a third of ``clone3``'s time.
    """

    def __init__(self) -> None:
        self._last = 0.0
        self._length = 0

    def grows(self) -> bool:
        """Count one more start; whether it is one of many."""
        self._length = self._length + 1 if time.monotonic() - self._last < _PAUSE else 0
        return self._length >= _MANY

    def ended(self) -> None:
        """A start is done; from here on the pause counts."""
        self._last = time.monotonic()


_burst = _Burst()


def _born(request: SpawnRequest, credentials: Credentials | None, taken: int | None) -> tuple[int, Pidfd | None]:
    if request.cgroup is None:
        return _start(request, credentials, None, taken)
    try:
        return _born_in(request.cgroup, request, credentials, taken)
    finally:
        _burst.ended()


def _born_in(
    cgroup: int, request: SpawnRequest, credentials: Credentials | None, taken: int | None
) -> tuple[int, Pidfd | None]:
    if _burst.grows():
        with visiting(cgroup) as inside:
            if inside:
                return _start(request, credentials, None, taken)
    with suppress(Unavailable):
        return _clone(request, credentials, cgroup, taken)
    # Opened by us: the child may be another user by the time it goes there.
    with ruling():
        procs = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=cgroup)
    try:
        return _start(request, credentials, procs, taken)
    finally:
        os.close(procs)


def _clone(request: SpawnRequest, credentials: Credentials | None, cgroup: int, taken: int | None) -> tuple[int, Pidfd]:
    environment = _environment(request, credentials)
    program = request.argv[0]
    places = [""] if "/" in program else environment.get("PATH", os.defpath).split(":")
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        birth = Birth(
            programs=[os.path.join(place, program) for place in places],  # noqa: PTH118  # "" must stay ""
            argv=list(request.argv),
            environment=environment,
            working_directory=request.working_directory,
            credentials=credentials if credentials and not credentials.current else None,
            capabilities=taken,
            stdio=(
                null if request.stdin == DEVNULL else request.stdin,
                null if request.stdout == DEVNULL else request.stdout,
                null if request.stderr == DEVNULL else request.stderr,
            ),
            pass_fds=tuple(request.pass_fds),
            umask=request.umask,
            new_session=not request.process_group_only,
            bound_to=os.getpid() if request.bound else None,
        )
        pid, pidfd = bear(birth, cgroup)
    finally:
        os.close(null)
    return pid, Pidfd(pidfd, pid)


def _start(
    request: SpawnRequest, credentials: Credentials | None, procs: int | None, taken: int | None
) -> tuple[int, Pidfd | None]:
    change = credentials is not None and not credentials.current
    with nullcontext() if taken is None else capabilities.keeping_through_setuid():
        process = subprocess.Popen(
            list(request.argv),
            env=_environment(request, credentials),
            cwd=request.working_directory,
            stdin=request.stdin,
            stdout=request.stdout,
            stderr=request.stderr,
            pass_fds=tuple(request.pass_fds),
            user=credentials.uid if credentials and change else None,
            group=credentials.gid if credentials and change else None,
            extra_groups=credentials.groups if credentials and change else None,
            umask=request.umask,
            start_new_session=not request.process_group_only,
            process_group=0 if request.process_group_only else None,
            preexec_fn=_preparation(procs, taken, os.getpid() if request.bound else None),
        )
    process.returncode = 0  # the pidfd owns the child: Popen must neither wait for it nor warn about it
    try:
        return process.pid, Pidfd.open(process.pid)
    except OSError:
        os.kill(process.pid, signal.SIGKILL)  # safe: it is our child, and not reaped
        os.waitpid(process.pid, 0)
        raise


def _environment(request: SpawnRequest, credentials: Credentials | None) -> dict[str, str]:
    environment = dict(request.environment)
    if request.user is not None and credentials is not None:
        for name, value in credentials.environment.items():
            if environment.get(name) in (None, os.environ.get(name)):
                environment[name] = value
    if request.own_program:
        environment.update(own_environment())
    return environment


def _preparation(procs: int | None, taken: int | None, bound_to: int | None) -> Callable[[], None] | None:
    """What the child must do between fork and exec; ``None`` (and so the quicker vfork) in the usual case."""
    ignored = [number for number in _ignorable() if signal.getsignal(number) is signal.SIG_IGN]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    if procs is None and taken is None and bound_to is None and not ignored and not blocked:
        return None

    def prepare() -> None:
        if procs is not None:
            os.write(procs, b"0")
        if taken is not None:
            capabilities.take(taken)
        if bound_to is not None:
            bind_to(bound_to)
        for number in ignored:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    return prepare


@functools.cache
def _ignorable() -> tuple[int, ...]:
    return tuple(sorted(signal.valid_signals() - _PYTHON_IGNORES))


def _failure(error: Exception, request: SpawnRequest) -> SpawnFailed:
    """One line for a person about why ``request`` could not be started."""
    program = request.argv[0]
    if not isinstance(error, OSError):
        if "preexec_fn" in str(error):
            if request.capabilities is not None:
                return SpawnFailed(f"cannot start {program}: {_REFUSED}", permanent=True)
            return SpawnFailed(f"cannot start {program}: its cgroup would not take it", permanent=False)
        return SpawnFailed(f"cannot start {program}: {error}", permanent=True)
    number = error.errno or 0
    reason = os.strerror(number)
    if isinstance(error, capabilities.NotGranted):
        return SpawnFailed(f"cannot start {program}: {_REFUSED}: {reason}", permanent=True)
    directory = request.working_directory
    # subprocess blames the directory for all that fails before exec: EPERM is about becoming the user.
    if directory is not None and error.filename == directory != program and number != errno.EPERM:
        reason += _hidden(directory)
        return SpawnFailed(f"cannot start {program}: working directory {directory}: {reason}", permanent=True)
    match number:
        case errno.ENOENT if _exists(program, request):
            reason = "the interpreter that its first line or ELF header names does not exist"
        case errno.ENOENT:
            reason = "no such program"
        case errno.EACCES:
            reason = "not executable, or a directory on the way may not be entered" + _hidden(program)
        case errno.ENOEXEC:
            reason = "not a program: neither a binary of this machine nor a script with a #! line"
        case errno.E2BIG:
            reason = "its arguments and environment are too long"
        case errno.EPERM if request.user or request.group:
            reason = f"not permitted to run as {request.user or request.group}"
        case errno.EAGAIN:
            reason = "no more processes are allowed (a limit on processes or tasks is reached)"
        case errno.EMFILE | errno.ENFILE:
            reason = "no file descriptor is left"
        case errno.EBUSY | errno.ENODEV if request.cgroup is not None:
            reason = "its cgroup is frozen, was removed, or has cgroups below it that hold controllers"
        case errno.ETXTBSY:
            reason = "the program is being written to"
    return SpawnFailed(f"cannot start {program}: {reason}", permanent=number not in _PASSING)


def _hidden(path: str) -> str:
    """A hint for what lies below a directory that our unit hides from us: systemd covers it with one of mode 0."""
    for home in _HOMES:
        with suppress(OSError):
            if Path(path).is_relative_to(home) and home.stat().st_mode & 0o777 == 0:
                return f": {home} is hidden from the agent by ProtectHome= of its unit; a drop-in may say otherwise"
    return ""


def _exists(program: str, request: SpawnRequest) -> bool:
    if "/" in program:
        return Path(request.working_directory or "", program).exists()
    return any(Path(directory, program).exists() for directory in os.get_exec_path(dict(request.environment)))


@dataclass(frozen=True)
class Completed:
    """How a short command ended, and what it said. ``truncated``: more was said than kept."""

    status: ExitStatus
    stdout: bytes
    stderr: bytes
    truncated: bool
    timed_out: bool


def run(request: SpawnRequest, timeout: float, max_output: int = 1024 * 1024) -> Completed:
    """Run a command to its end, and keep at most ``max_output`` bytes of each of its output streams.

    Blocks for up to ``timeout`` seconds; then, as at the end in any case, its whole process group is killed. A process
    that not even SIGKILL ends (it hangs in the kernel) is given up after five more; its status is then not known. For
    workers and one-off commands, never for the agent's loop. ``stdout`` and ``stderr`` of the request are not used.
    Raises ``SpawnFailed``.
    """
    out_read, out_write = os.pipe2(os.O_CLOEXEC)
    err_read, err_write = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            child = spawn(replace(request, stdout=out_write, stderr=err_write))
        finally:
            os.close(out_write)
            os.close(err_write)
        out, err = Sink(out_read, max_output), Sink(err_read, max_output)
        with child.pidfd:
            try:
                timed_out = not follow(child.pidfd, (out, err), time.monotonic() + timeout)
            finally:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.pid, signal.SIGKILL)  # its leader is not reaped: the group is still this one
                poll = select.poll()
                poll.register(child.pidfd.fd, select.POLLIN)
                poll.poll(_UNKILLABLE * 1000)
                status = child.pidfd.wait() or ExitStatus(None)
            for sink in (out, err):
                sink.drain()
    finally:
        os.close(out_read)
        os.close(err_read)
    return Completed(status, bytes(out.kept), bytes(err.kept), out.truncated or err.truncated, timed_out)
