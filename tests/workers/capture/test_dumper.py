"""A segment file whose writes fail."""

from __future__ import annotations

import errno
import resource
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.workers.capture.dumper import BUFFER, Dumper
from agent.workers.capture.handle import Handle, Options
from tests.workers.capture.lab import packets


@pytest.fixture
def traffic() -> Iterator[tuple[Handle, socket.socket]]:
    """A handle on loopback for what a UDP socket sends to itself."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as talk:
        talk.bind(("127.0.0.1", 0))
        talk.connect(talk.getsockname())
        handle = Handle("lo", Options(262_144, False, 2**21, f"udp dst port {talk.getsockname()[1]}"))
        yield handle, talk
        handle.close()


def dump(traffic: tuple[Handle, socket.socket], target: Dumper, count: int, size: int = 100) -> None:
    handle, talk = traffic
    for _ in range(count):
        talk.send(bytes(size))
    while count > 0:
        assert select.select([handle.fd], [], [], 10)[0]
        done = handle.dispatch(target.user, 1000)
        target.note(done)
        count -= done


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """Let writes beyond ``size`` fail (RLIMIT_FSIZE)."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


def test_what_was_flushed_is_certain_and_counted_once(traffic: tuple[Handle, socket.socket], tmp_path: Path) -> None:
    target = Dumper(traffic[0], tmp_path / "a.part", 0)
    assert target.first_instant() is None
    dump(traffic, target, 3)
    assert (target.packets, target.uncertain) == (0, 3)
    assert (target.flush(), target.flush()) == (3, 0)
    assert (target.packets, target.uncertain) == (3, 0)
    assert target.size == target.position() == target.path.stat().st_size
    assert target.first_instant() == packets(target.path)[0].time
    target.close()
    assert len(packets(target.path)) == 3


@pytest.mark.parametrize("batch", [10, 4 * BUFFER // 1000], ids=["in the buffer", "beyond the buffer"])
def test_a_failed_write_is_seen_and_the_file_stays_whole(
    traffic: tuple[Handle, socket.socket], tmp_path: Path, batch: int
) -> None:
    target = Dumper(traffic[0], tmp_path / "a.part", 0)
    dump(traffic, target, 5, size=1000)
    target.flush()
    certain = target.size
    with no_file_larger_than(certain + 1500):
        dump(traffic, target, batch, size=1000)
        with pytest.raises(OSError, match="File too large") as raised:
            target.flush()
        assert raised.value.errno == errno.EFBIG
        with pytest.raises(OSError, match="File too large"):
            target.flush()  # said again, for as long as the segment is open
        assert target.uncertain == batch
        target.close()
    assert target.path.stat().st_size == certain
    assert len(packets(target.path)) == 5


def test_a_write_that_failed_only_for_a_while_still_costs_the_segment(
    traffic: tuple[Handle, socket.socket], tmp_path: Path
) -> None:
    target = Dumper(traffic[0], tmp_path / "a.part", 0)
    dump(traffic, target, 5, size=1000)
    target.flush()
    batch = 4 * BUFFER // 1000
    with no_file_larger_than(target.size + 1500):
        dump(traffic, target, batch, size=1000)
    with pytest.raises(OSError, match="a write failed"):
        target.flush()
    assert target.uncertain == batch
    target.close()
    assert len(packets(target.path)) == 5


def test_a_segment_never_overwrites_or_follows_what_is_there(
    traffic: tuple[Handle, socket.socket], tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("keep")
    (tmp_path / "link.part").symlink_to(precious)
    for name in ("precious", "link.part"):
        with pytest.raises(FileExistsError):
            Dumper(traffic[0], tmp_path / name, 0)
    assert precious.read_text() == "keep"


def test_a_segment_that_cannot_be_begun_leaves_nothing(traffic: tuple[Handle, socket.socket], tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with no_file_larger_than(10), pytest.raises(OSError, match="File too large"):
        Dumper(traffic[0], tmp_path / "a.part", 0)
    assert list(tmp_path.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_others_may_not_read_a_segment(traffic: tuple[Handle, socket.socket], tmp_path: Path) -> None:
    target = Dumper(traffic[0], tmp_path / "a.part", 0)
    target.close()
    assert target.path.stat().st_mode & 0o007 == 0
