from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import AlreadyRunning, StorageFailure
from agent.linux.files import (
    PrefixLock,
    age,
    edition,
    make_directory,
    open_regular,
    read_pid,
    touch,
    write_atomic,
    write_pid,
)
from agent.linux.spawn import SpawnRequest, spawn
from tests.linux.processes import BECOME_NOBODY, ROOT, Started, open_fds, readable

Start = Callable[..., Started]


@pytest.fixture
def lock_path(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run" / "agent.lock"


def test_a_file_is_written_whole_with_its_mode_and_owner(tmp_path: Path) -> None:
    path = tmp_path / "file"
    before = os.umask(0o077)
    try:
        write_atomic(path, "ä", mode=0o664, owner=(65534, 65533))
    finally:
        os.umask(before)
    status = path.stat()
    assert path.read_bytes() == "ä".encode()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o664, 65534, 65533)
    write_atomic(path, b"\0", mode=0o600)
    assert path.read_bytes() == b"\0"
    assert path.stat().st_mode & 0o7777 == 0o600
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208  # hidden files count


def test_a_planted_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "file").symlink_to("target")
    write_atomic(tmp_path / "file", "new")
    assert (tmp_path / "target").read_text() == "precious"
    assert not (tmp_path / "file").is_symlink()


def test_a_write_that_fails_leaves_the_old_file_and_no_scratch(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.mkdir()
    before = open_fds()
    with pytest.raises(StorageFailure, match="file: cannot be written: Is a directory"):
        write_atomic(path, "x")
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208  # hidden files count
    assert open_fds() == before
    with pytest.raises(StorageFailure, match="cannot be written: No such file or directory"):
        write_atomic(tmp_path / "absent" / "file", "x")


def test_a_full_disk_is_told_and_leaves_the_old_file(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(small)], check=True)
    try:
        write_atomic(small / "file", "old")
        with pytest.raises(StorageFailure, match="file: cannot be written: No space left on device"):
            write_atomic(small / "file", b"x" * 100_000)
        assert (small / "file").read_text() == "old"
        assert os.listdir(small) == ["file"]  # noqa: PTH208  # hidden files count
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_pid_file_holds_one_number_and_a_newline(tmp_path: Path) -> None:
    write_pid(tmp_path / "pid", 4321)
    assert (tmp_path / "pid").read_bytes() == b"4321\n"
    assert read_pid(tmp_path / "pid") == 4321


@pytest.mark.parametrize("content", ["", "12", "0\n", "-1\n", "12\n34\n", "1e3\n", " 1\n", "9" * 4000 + "\n", "٣\n"])
def test_anything_else_is_no_pid_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "pid").write_text(content)
    assert read_pid(tmp_path / "pid") is None
    assert read_pid(tmp_path / "absent") is None


@settings(deadline=None)
@given(st.integers(1, 2**22))
def test_every_pid_survives(tmp_path_factory: pytest.TempPathFactory, pid: int) -> None:
    path = tmp_path_factory.getbasetemp() / "pid"
    write_pid(path, pid)
    assert read_pid(path) == pid


def test_touching_creates_and_renews(tmp_path: Path) -> None:
    path = tmp_path / "heartbeat"
    touch(path)
    os.utime(path, (1, 1))
    touch(path)
    assert time.time() - path.stat().st_mtime < 60
    assert path.read_bytes() == b""
    with pytest.raises(StorageFailure, match="cannot be touched: No such file or directory"):
        touch(tmp_path / "absent" / "heartbeat")


def test_touching_follows_no_planted_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "heartbeat"
    link.symlink_to(target)
    touch(link)
    assert not target.exists()
    target.write_text("")
    os.utime(target, (1, 1))
    touch(link)
    assert target.stat().st_mtime == 1


def test_age_is_counted_from_the_last_touch_and_never_negative(tmp_path: Path) -> None:
    path = tmp_path / "heartbeat"
    assert age(path, 100.0) is None
    path.write_text("")
    os.utime(path, (1000, 1000))
    assert age(path, 1012.5) == 12.5
    assert age(path, 900.0) == 0.0


def test_a_file_that_is_written_anew_is_another_edition(tmp_path: Path) -> None:
    path = tmp_path / "given"
    assert edition(path) is None
    path.write_text("one")
    first = edition(path)
    assert first == edition(path) is not None
    path.read_text()
    assert edition(path) == first
    write_atomic(path, "one")
    assert edition(path) != first


def test_a_directory_is_made_with_its_mode_and_an_existing_one_keeps_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    make_directory(path, 0o2770)
    assert path.stat().st_mode & 0o7777 == 0o2770
    make_directory(path, 0o700)
    assert path.stat().st_mode & 0o7777 == 0o2770
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailure, match="file: cannot be made a directory: File exists"):
        make_directory(tmp_path / "file")
    with pytest.raises(StorageFailure, match="cannot be made a directory: Not a directory"):
        make_directory(tmp_path / "file" / "below")


FORBIDDEN = f"""
import sys
from pathlib import Path
from agent.errors import StorageFailure
from agent.linux.files import PrefixLock, make_directory
{BECOME_NOBODY}
for work in (lambda: make_directory(Path(sys.argv[1], "spool")), PrefixLock(Path(sys.argv[1], "agent.lock")).acquire):
    try:
        work()
    except StorageFailure as error:
        print(error)
"""


def test_what_a_user_may_not_do_is_told_with_who_may(open_directory: Path) -> None:
    script = [sys.executable, "-c", FORBIDDEN, str(open_directory)]
    told = subprocess.run(script, capture_output=True, text=True, timeout=30, check=True, cwd=ROOT).stdout
    who = "Permission denied for user nobody (65534); do it as root (sudo), or give it to that user"
    assert told.splitlines() == [
        f"{open_directory}/spool: cannot be made a directory: {who}",
        f"{open_directory}/agent.lock: cannot be opened for locking: {who}",
    ]


HOLD = """
from pathlib import Path
from agent.linux.files import PrefixLock
PrefixLock(Path({path!r})).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_holder_is_told_who_holds_the_lock(lock_path: Path, start: Start) -> None:
    holder = start(HOLD.format(path=str(lock_path)), python=True)
    assert holder.line() == "held"
    before = open_fds()
    with pytest.raises(AlreadyRunning) as refused:
        PrefixLock(lock_path).acquire()
    assert refused.value.pid == holder.pid
    assert str(refused.value) == (f"an agent already runs on {lock_path.parent.parent}: process {holder.pid} holds it")
    assert open_fds() == before


def test_the_lock_of_a_killed_holder_is_free(lock_path: Path, start: Start) -> None:
    holder = start(HOLD.format(path=str(lock_path)), python=True)
    holder.line()
    holder.reap()
    lock = PrefixLock(lock_path)
    lock.acquire()
    assert lock_path.read_text() == f"{os.getpid()}\n"
    lock.release()
    lock.release()


def test_the_kernel_is_believed_before_the_file(lock_path: Path) -> None:
    lock = PrefixLock(lock_path)
    lock.acquire()
    lock_path.write_text("1\n")
    with pytest.raises(AlreadyRunning) as refused:
        PrefixLock(lock_path).acquire()
    assert refused.value.pid == os.getpid()
    lock.release()


def test_no_child_keeps_the_lock(lock_path: Path) -> None:
    lock = PrefixLock(lock_path)
    lock.acquire()
    child = spawn(SpawnRequest(argv=["/bin/sleep", "60"], environment={}))
    lock.release()
    again = PrefixLock(lock_path)
    again.acquire()
    again.release()
    child.pidfd.signal(signal.SIGKILL)
    assert readable(child.pidfd.fd)
    child.pidfd.wait()
    child.pidfd.close()


def test_a_lock_that_cannot_be_is_a_storage_failure(tmp_path: Path) -> None:
    with pytest.raises(StorageFailure, match="cannot be opened for locking: No such file or directory"):
        PrefixLock(tmp_path / "absent" / "agent.lock").acquire()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(StorageFailure, match="cannot be opened for locking: Too many levels of symbolic links"):
        PrefixLock(tmp_path / "link").acquire()


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_CREAT | os.O_APPEND])
def test_what_is_no_regular_file_is_not_opened_nor_waited_for(tmp_path: Path, flags: int) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    before = len([*Path("/proc/self/fd").iterdir()])
    for name in ("link", "directory", "pipe"):
        with pytest.raises(OSError):
            open_regular(tmp_path / name, flags)
    assert len([*Path("/proc/self/fd").iterdir()]) == before
    os.close(reader)
    with pytest.raises(OSError):
        open_regular(tmp_path / "pipe", flags)
    descriptor = open_regular(tmp_path / "file", flags)
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)
    assert (tmp_path / "file").read_text() == "kept"


def test_a_pid_is_read_from_no_pipe_and_through_no_link(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert read_pid(tmp_path / "pipe") is None
    write_pid(tmp_path / "pid", 4321)
    (tmp_path / "link").symlink_to("pid")
    assert read_pid(tmp_path / "link") is None


def test_a_lock_writes_to_no_file_that_has_another_name_too(tmp_path: Path) -> None:
    """Root takes it in a directory of the agent's, who may have linked anything there."""
    (tmp_path / "precious").write_text("root:x:0:0:root:/root:/bin/sh\n")
    os.link(tmp_path / "precious", tmp_path / "agent.lock")
    lock = PrefixLock(tmp_path / "agent.lock")
    lock.acquire()
    with pytest.raises(AlreadyRunning):
        PrefixLock(tmp_path / "agent.lock").acquire()
    lock.release()
    assert (tmp_path / "precious").read_text() == "root:x:0:0:root:/root:/bin/sh\n"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageFailure, match="cannot be opened for locking"):
        PrefixLock(tmp_path / "pipe").acquire()
