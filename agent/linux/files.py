"""Small files other programs read: written whole or not at all, never through a planted symbolic link.

PID files, locks and heartbeats tell about this boot only, and are not synced to the disk.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import time
from contextlib import suppress
from pathlib import Path

from agent.errors import AlreadyRunning, StorageFailure
from agent.linux.capabilities import acting
from agent.linux.capability_sets import mask
from agent.linux.users import named

_CHOWN = mask(["CAP_CHOWN"])
_FOWNER = mask(["CAP_FOWNER"])
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PID = re.compile(rb"[1-9][0-9]{0,9}\n")


def write_atomic(
    path: Path,
    data: bytes | str,
    mode: int = 0o644,
    owner: tuple[int, int] | None = None,
    *,
    durable: bool = False,
) -> None:
    """Replace ``path`` by ``data`` in one step, with exactly that mode and, if given, that ``(uid, gid)``.

    Readers see the old file or the new one, and if ``durable`` also after a power failure. Raises ``StorageFailure``.
    """
    content = data.encode() if isinstance(data, str) else data
    scratch = path.with_name(f".{path.name[:200]}.{os.urandom(4).hex()}")
    try:
        fd = os.open(scratch, _CREATE, 0o600)
        try:
            with os.fdopen(fd, "wb") as stream:
                stream.write(content)
                os.fchmod(stream.fileno(), mode)
                if owner is not None and owner != _owner(stream.fileno()):
                    with acting(_CHOWN):
                        os.fchown(stream.fileno(), *owner)
                if durable:
                    stream.flush()
                    os.fsync(stream.fileno())
            scratch.rename(path)
        except BaseException:
            with suppress(OSError):
                scratch.unlink()
            raise
    except OSError as error:
        raise StorageFailure(f"{path}: cannot be written: {error.strerror}") from error


def why(error: OSError) -> str:
    """What the kernel said, for a person; of something that is forbidden, to whom, and what would help."""
    told = error.strerror or type(error).__name__
    if isinstance(error, PermissionError) and (uid := os.geteuid()) != 0:
        return f"{told} for user {named(uid)}; do it as root (sudo), or give it to that user"
    return told


def _owner(fd: int) -> tuple[int, int]:
    """Whose it is already: a sandbox may forbid fchown(2) even where it changes nothing."""
    status = os.fstat(fd)
    return status.st_uid, status.st_gid


def open_regular(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open a regular file at once, or not at all: no link is followed, no pipe waited for. Raises ``OSError``.

    For whatever lies where somebody else may write: root looks into ``run`` and ``log``, which are the agent's.
    """
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, mode)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return fd


def write_pid(path: Path, pid: int) -> None:
    """Record ``pid`` as the contract has it: one decimal number and a newline."""
    write_atomic(path, f"{pid}\n")


def read_pid(path: Path) -> int | None:
    """The PID in a PID file; ``None`` when there is no such file or it holds anything else.

    What it names may be long gone: compare identities before believing it.
    """
    try:
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as stream:
            content = stream.read(16)
    except OSError:
        return None
    return int(content) if _PID.fullmatch(content) else None


def touch(path: Path) -> None:
    """Set the modification time of ``path`` to now; create it empty if need be. Raises ``StorageFailure``.

    A symbolic link is touched itself, not what it points at: heartbeat files live where workers may write.
    """
    try:
        try:
            os.utime(path, follow_symlinks=False)
        except PermissionError:  # it was given to a service's user
            with acting(_FOWNER):
                os.utime(path, follow_symlinks=False)
        except FileNotFoundError:
            with suppress(FileExistsError):
                os.close(os.open(path, _CREATE, 0o644))
    except OSError as error:
        raise StorageFailure(f"{path}: cannot be touched: {error.strerror}") from error


def age(path: Path, now: float) -> float | None:
    """Seconds from the last modification of ``path`` to ``now`` (unix time); ``None`` when it does not exist.

    Never negative: a file of the future, after the clock was set back, is as young as can be.
    """
    try:
        modified = path.lstat().st_mtime
    except OSError:
        return None
    return max(0.0, now - modified)


def edition(path: Path) -> tuple[int, int, int] | None:
    """What tells a file that was written anew from the one that was there before; ``None`` when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns


def make_directory(path: Path, mode: int = 0o755) -> None:
    """Create ``path`` and its parents. ``mode`` is set exactly, but only on a directory created here.

    Raises ``StorageFailure``.
    """
    try:
        if not path.is_dir():
            path.mkdir(parents=True)
            path.chmod(mode)
    except OSError as error:
        raise StorageFailure(f"{path}: cannot be made a directory: {why(error)}") from error


class PrefixLock:
    """The lock that makes an agent the only one on its prefix: flock(2) on ``run/agent.lock``.

    The kernel lets go of it when we die, however we die. The file is never removed: whoever unlinks a lock file may
    leave two holders. It is close-on-exec, so no child keeps it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock and record our PID in it. Raises ``AlreadyRunning`` or ``StorageFailure``; never waits."""
        try:
            fd = open_regular(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StorageFailure(f"{self.path}: cannot be opened for locking: {why(error)}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # For people, and for ``_holder`` where there is no /proc/locks: a full disk must not keep a service down.
            # A file with a second name may be another's: root takes this lock too, and ``run`` is the agent's.
            with suppress(OSError):
                if os.fstat(fd).st_nlink == 1:
                    size = os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
                    if os.fstat(fd).st_size > size:
                        os.ftruncate(fd, size)
        except BlockingIOError:
            holder = self._holder(fd)
            os.close(fd)
            raise AlreadyRunning(str(self.path.parent.parent), holder) from None
        except OSError as error:
            os.close(fd)
            raise StorageFailure(f"{self.path}: cannot be locked: {error.strerror}") from error
        self._fd = fd

    @property
    def fd(self) -> int:
        """The descriptor that holds the lock. A child that inherits it holds the lock too, as long as it lives."""
        return self._fd

    def adopt(self, fd: int) -> None:
        """Go on holding the lock by the descriptor that an earlier program in this process took it with."""
        self._fd = fd

    def release(self) -> None:
        """Let go. Twice does no harm."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _holder(self, fd: int) -> int | None:
        """The PID that holds the lock: as the kernel has it, else as the holder wrote it down."""
        if pid := flock_holder(fd):
            return pid
        for _ in range(10):  # it may have the lock since an instant ago, and not have written its PID yet
            if pid := read_pid(self.path):
                return pid
            time.sleep(0.01)
        return None


def flock_holder(fd: int) -> int | None:
    """Who holds flock(2) on what ``fd`` is open on, as proc_locks(5) has it; ``None`` when that does not tell."""
    status = os.fstat(fd)
    inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with suppress(OSError, ValueError), Path("/proc/locks").open() as locks:
        for line in locks:
            fields = line.split()
            if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == inode and int(fields[4]) > 0:
                return int(fields[4])
    return None
