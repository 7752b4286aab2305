"""The few system calls that Python 3.11 does not offer, by ctypes, with ``errno`` turned into ``OSError``.

The C library is loaded here and nowhere else. Constants are those of the kernel's UAPI headers, which are the same on
every architecture that this program supports.
"""

from __future__ import annotations

import ctypes
import os

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
TFD_TIMER_ABSTIME = 1 << 0  # linux/timerfd.h
TFD_TIMER_CANCEL_ON_SET = 1 << 1
IN_MODIFY = 0x00000002  # linux/inotify.h

_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


_libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_libc.timerfd_create.argtypes = (ctypes.c_int, ctypes.c_int)
_libc.timerfd_settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.POINTER(_TimerSpec), ctypes.c_void_p)
_libc.inotify_init1.argtypes = (ctypes.c_int,)
_libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
_libc.syncfs.argtypes = (ctypes.c_int,)


def _checked(result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def prctl(option: int, argument: int) -> int:
    """prctl(2) with one argument."""
    return _checked(_libc.prctl(option, argument, 0, 0, 0))


def timerfd_create(clock: int) -> int:
    """timerfd_create(2), non-blocking and close-on-exec."""
    return _checked(_libc.timerfd_create(clock, os.O_NONBLOCK | os.O_CLOEXEC))


def timerfd_settime(fd: int, flags: int, seconds: int) -> None:
    """timerfd_settime(2) for one expiry at (or after, by ``flags``) that many seconds."""
    specification = _TimerSpec(_Timespec(0, 0), _Timespec(seconds, 0))
    _checked(_libc.timerfd_settime(fd, flags, ctypes.byref(specification), None))


def inotify(path: str | os.PathLike[str], mask: int) -> int:
    """A non-blocking, close-on-exec inotify(7) descriptor that watches one path."""
    fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    try:
        _checked(_libc.inotify_add_watch(fd, os.fsencode(path), mask))
    except OSError:
        os.close(fd)
        raise
    return fd


def syncfs(fd: int) -> None:
    """syncfs(2): return when all that was written to the file system of ``fd`` is on the disk."""
    _checked(_libc.syncfs(fd))
