from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from agent.linux import libc
from tests.linux.processes import open_fds, readable


def test_a_call_that_fails_raises_the_systems_own_error(tmp_path: Path) -> None:
    before = open_fds()
    for call, number in (
        (lambda: libc.prctl(-1, 0), errno.EINVAL),
        (lambda: libc.timerfd_create(12345), errno.EINVAL),
        (lambda: libc.timerfd_settime(-1, 0, 1), errno.EBADF),
        (lambda: libc.inotify(tmp_path / "absent", libc.IN_MODIFY), errno.ENOENT),
        (lambda: libc.syncfs(-1), errno.EBADF),
    ):
        with pytest.raises(OSError, match=os.strerror(number)) as failure:
            call()
        assert failure.value.errno == number
    assert open_fds() == before


def test_a_watched_file_makes_its_descriptor_readable(tmp_path: Path) -> None:
    path = tmp_path / "fil\udcff"
    path.write_text("")
    fd = libc.inotify(path, libc.IN_MODIFY)
    assert not os.get_inheritable(fd)
    assert not readable(fd, 0)
    path.write_text("more")
    assert readable(fd)
    os.close(fd)


def test_a_timer_expires() -> None:
    fd = libc.timerfd_create(time.CLOCK_MONOTONIC)
    with pytest.raises(BlockingIOError):
        os.read(fd, 8)
    libc.timerfd_settime(fd, libc.TFD_TIMER_ABSTIME, 1)  # one second after boot: long ago
    assert readable(fd)
    os.close(fd)
