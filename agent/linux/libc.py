"""The few system calls that Python 3.11 does not offer, by ctypes, with ``errno`` turned into ``OSError``.

Constants are those of the kernel's UAPI headers, which are the same on every architecture that this program supports.
"""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_GET_PDEATHSIG = 2
PR_SET_KEEPCAPS = 8
PR_GET_SECUREBITS = 27
PR_SET_SECUREBITS = 28
PR_SET_CHILD_SUBREAPER = 36
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4
TFD_TIMER_ABSTIME = 1 << 0  # linux/timerfd.h
TFD_TIMER_CANCEL_ON_SET = 1 << 1
RENAME_NOREPLACE = 1 << 0  # linux/fs.h
IN_MODIFY = 0x00000002  # linux/inotify.h
IN_MOVED_FROM = 0x00000040
IN_MOVED_TO = 0x00000080
IN_CREATE = 0x00000100
IN_DELETE = 0x00000200
IN_Q_OVERFLOW = 0x00004000
IN_IGNORED = 0x00008000
IN_ONLYDIR = 0x01000000

_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h: 64 bits in two halves

_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityHalf(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


_CapabilityHalves = _CapabilityHalf * 2


_libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_libc.timerfd_create.argtypes = (ctypes.c_int, ctypes.c_int)
_libc.timerfd_settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.POINTER(_TimerSpec), ctypes.c_void_p)
_libc.inotify_init1.argtypes = (ctypes.c_int,)
_libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
_libc.syncfs.argtypes = (ctypes.c_int,)
_libc.renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)

_AT_FDCWD = -100  # linux/fcntl.h


def _checked(result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def prctl(option: int, argument: int, second: int = 0) -> int:
    """prctl(2) with one argument or two."""
    return _checked(_libc.prctl(option, argument, second, 0, 0))


def parent_death_signal() -> int:
    """The signal that this process gets when its parent dies; 0 for none: PR_GET_PDEATHSIG of prctl(2)."""
    found = ctypes.c_int()
    prctl(PR_GET_PDEATHSIG, ctypes.addressof(found))
    return found.value


def bind_to(parent: int) -> None:
    """Be killed when the process ``parent``, or rather its thread that has made us, ends: PR_SET_PDEATHSIG of prctl(2).
    If it has ended already, now. The kernel forgets it at a change of user or rights, so those come before."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def capget() -> tuple[int, int, int]:
    """The effective, permitted and inheritable set of this thread, as masks: capget(2)."""
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    halves = _CapabilityHalves()
    _checked(_libc.capget(ctypes.byref(header), halves))
    low, high = halves
    return (
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the three sets of this thread: capset(2)."""
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    sets = (effective, permitted, inheritable)
    low = _CapabilityHalf(*(each & 0xFFFFFFFF for each in sets))
    high = _CapabilityHalf(*(each >> 32 for each in sets))
    _checked(_libc.capset(ctypes.byref(header), _CapabilityHalves(low, high)))


def timerfd_create(clock: int) -> int:
    """timerfd_create(2), non-blocking and close-on-exec."""
    return _checked(_libc.timerfd_create(clock, os.O_NONBLOCK | os.O_CLOEXEC))


def timerfd_settime(fd: int, flags: int, seconds: int) -> None:
    """timerfd_settime(2) for one expiry at (or after, by ``flags``) that many seconds."""
    specification = _TimerSpec(_Timespec(0, 0), _Timespec(seconds, 0))
    _checked(_libc.timerfd_settime(fd, flags, ctypes.byref(specification), None))


def inotify(path: str | os.PathLike[str], mask: int) -> int:
    """A non-blocking, close-on-exec inotify(7) descriptor that watches one path."""
    fd = inotify_init()
    try:
        inotify_add_watch(fd, path, mask)
    except OSError:
        os.close(fd)
        raise
    return fd


def inotify_init() -> int:
    """A non-blocking, close-on-exec inotify(7) descriptor that watches nothing yet."""
    return _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))


def inotify_add_watch(fd: int, path: str | os.PathLike[str], mask: int) -> int:
    """inotify_add_watch(2): the number by which events of this path are told."""
    return _checked(_libc.inotify_add_watch(fd, os.fsencode(path), mask))


def syncfs(fd: int) -> None:
    """syncfs(2): return when all that was written to the file system of ``fd`` is on the disk."""
    _checked(_libc.syncfs(fd))


def rename_noreplace(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """renameat2(2): rename, but never over something: ``FileExistsError`` then. ``EINVAL`` where it cannot be asked."""
    _checked(_libc.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), RENAME_NOREPLACE))
