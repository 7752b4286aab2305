"""A sealed piece of memory says what it was given, to whom it was meant for, and can be changed by nobody."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.linux import memfd
from tests.linux.processes import open_fds


@pytest.fixture(autouse=True)
def _nothing_is_left_open() -> Iterator[None]:
    before = open_fds()
    yield
    assert open_fds() == before


@pytest.fixture
def sealed() -> Iterator[int]:
    fd = memfd.seal("test", b"content")
    yield fd
    os.close(fd)


@settings(deadline=None)
@given(st.binary(max_size=5000))
def test_what_is_sealed_is_read_back(data: bytes) -> None:
    fd = memfd.seal("test", data)
    try:
        assert memfd.read(fd, 5000) == data
    finally:
        os.close(fd)


def test_more_than_one_write_takes_is_sealed_as_well() -> None:
    data = os.urandom(1024) * 20_000
    fd = memfd.seal("test", data)
    try:
        assert memfd.read(fd, len(data)) == data
    finally:
        os.close(fd)


def test_it_can_be_read_again_and_again_wherever_somebody_has_left_its_position(sealed: int) -> None:
    os.lseek(sealed, 5, os.SEEK_SET)
    assert memfd.read(sealed, 7) == memfd.read(sealed, 7) == b"content"


def test_nobody_can_change_it_and_nobody_else_may_read_it(sealed: int) -> None:
    for change in (
        lambda: os.write(sealed, b"x"),
        lambda: os.pwrite(sealed, b"x", 0),
        lambda: os.ftruncate(sealed, 0),
        lambda: os.ftruncate(sealed, 100),
        lambda: fcntl.fcntl(sealed, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL),
    ):
        with pytest.raises(PermissionError):
            change()
    assert stat.S_IMODE(os.fstat(sealed).st_mode) == 0o600
    assert not os.get_inheritable(sealed)
    reopened = os.open(f"/proc/self/fd/{sealed}", os.O_RDWR)
    try:
        with pytest.raises(PermissionError):
            os.write(reopened, b"x")
    finally:
        os.close(reopened)


def test_what_is_too_large_is_not_read(sealed: int) -> None:
    with pytest.raises(OSError, match=f"descriptor {sealed} holds 7 bytes, more than 6"):
        memfd.read(sealed, 6)


@pytest.mark.parametrize("lacking", [fcntl.F_SEAL_SEAL, fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_GROW, fcntl.F_SEAL_WRITE])
def test_what_could_still_be_changed_is_not_believed(lacking: int) -> None:
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, memfd.SEALS & ~lacking)
        with pytest.raises(OSError, match="is not sealed"):
            memfd.read(fd, 100)
    finally:
        os.close(fd)


def test_what_somebody_else_made_is_not_believed(sealed: int) -> None:
    os.fchown(sealed, 65534, -1)
    with pytest.raises(OSError, match=f"descriptor {sealed} is of user 65534"):
        memfd.read(sealed, 100)


def test_what_is_no_such_file_is_not_read(tmp_path: Path) -> None:
    ends = os.pipe()
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        for fd in (*ends, file):
            with pytest.raises(OSError, match=r"Invalid argument|is not sealed"):
                memfd.read(fd, 100)
    finally:
        for fd in (*ends, file):
            os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        memfd.read(file, 100)
