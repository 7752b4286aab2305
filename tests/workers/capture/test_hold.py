"""An open segment belongs to whoever writes it, at every instant from its first name to its last."""

from __future__ import annotations

import os
import select
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from agent.workers.capture import account, hold
from agent.workers.capture.account import Account
from agent.workers.capture.adoption import adopt
from agent.workers.capture.catalogue import ACCOUNT
from agent.workers.capture.counters import Counters
from agent.workers.capture.handle import Handle, Options
from agent.workers.capture.member import Loan
from agent.workers.capture.naming import CLOSED, OPEN
from agent.workers.capture.retention import Limits
from agent.workers.capture.store import Store
from agent.workers.capture.tap import Tap
from agent.workers.capture.writer import Cut, Writer
from tests.workers.capture.lab import packets

FOREVER = float("inf")
MODULES = ("writer", "dumper", "finish", "hold", "member", "store")
CUT = Cut(limit=2**20, every=2**60, record=300_000, headroom=300_000, most=2**21)


@contextmanager
def between_any_two_lines(interfere: Callable[[], None]) -> Iterator[None]:
    """Do something before each line that this thread runs of the modules that make, write and close a segment."""

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_globals.get("__name__", "")
        if name.rpartition(".")[2] not in MODULES or not name.startswith("agent.workers.capture."):
            return None
        if event == "line":
            interfere()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.fixture
def talk() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind(("127.0.0.1", 0))
        made.connect(made.getsockname())
        yield made


class Both:
    """A member that writes to a store, and the capture whose store it is."""

    def __init__(self, directory: Path, talk: socket.socket) -> None:
        self.events: list[tuple[str, str]] = []
        self.told: list[Path] = []
        self.looks = 0
        self.directory = directory
        self.talk = talk
        self.capture = Store(directory, Limits(2**26), self.report)
        self.capture.adopt()
        self.loan = Loan(directory, Limits(2**24), self.report, self.told.append, lambda number: None)
        port, counters = talk.getsockname()[1], Counters()
        self.tap = Tap(Handle("lo", Options(65_536, False, 2**21, f"udp dst port {port}")), counters)
        self.writer = Writer("lo", CUT, self.loan, self.report, counters)
        self.writer.attach(self.tap)

    def report(self, kind: str, message: str) -> None:
        self.events.append((kind, message))

    def discover(self) -> None:
        self.looks += 1
        assert self.capture.discover(FOREVER, anew=True)

    def adopt(self) -> None:
        """As a capture that starts while this member of an earlier one still ends."""
        self.looks += 1
        adopt(self.directory, self.report)

    def life(self) -> None:
        """One segment, from its first packet to its close."""
        for _ in range(3):
            self.talk.send(bytes(100))
        while self.tap.delivered < 3:
            assert select.select([self.tap.handle.fd], [], [], 10)[0]
            self.writer.take(0.0)
        self.writer.close("stop")
        assert self.told

    def end(self) -> None:
        self.writer.detach("stop")
        self.tap.close()

    def account(self) -> Account | None:
        (path,) = (self.directory / "lo").glob(f"*{CLOSED}")
        assert len(packets(path)) == 3
        assert path.name in {told.name for told in self.told}
        return account.read(path.with_suffix(ACCOUNT))


@pytest.fixture
def both(tmp_path: Path, talk: socket.socket) -> Iterator[Both]:
    made = Both(tmp_path / "data", talk)
    yield made
    made.end()


@pytest.mark.parametrize("look", [Both.discover, Both.adopt])
def test_whenever_the_store_is_looked_at_a_segment_in_the_making_is_let_be(
    both: Both, look: Callable[[Both], None]
) -> None:
    with between_any_two_lines(lambda: look(both)):
        both.life()
    assert both.looks > 150
    told = both.account()
    assert told is not None
    assert (told.written, told.received, told.reason) == (3, 3, "stop")
    assert both.events == []
    assert [path.suffix for path in sorted((both.directory / "lo").iterdir())] == [ACCOUNT, CLOSED]


def test_a_closed_segment_is_counted_once_whoever_finds_it_first(both: Both) -> None:
    with between_any_two_lines(both.discover):
        both.life()
    before = both.capture.bytes
    assert before == sum(path.stat().st_size for path in (both.directory / "lo").iterdir())
    both.capture.welcome(f"lo/{both.told[0].name}")
    both.discover()
    assert both.capture.bytes == before


def test_what_others_may_have_as_well_is_passed_over_and_counted(both: Both) -> None:
    both.tap.doubtful = 2
    both.life()
    (path,) = (both.directory / "lo").glob(f"*{CLOSED}")
    told = account.read(path.with_suffix(ACCOUNT))
    assert told is not None
    assert (len(packets(path)), told.received, told.not_written, told.unaccounted) == (1, 3, 2, 0)


def test_one_that_would_not_be_named_is_still_its_writers_and_keeps_its_account(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def refuse(source: Path, target: Path) -> None:
            raise OSError(30, os.strerror(30))

        patch.setattr("agent.workers.capture.finish.rename", refuse)
        with pytest.raises(AssertionError):
            both.life()
        both.discover()
    assert [kind for kind, _ in both.events] == ["storage_error"]
    both.loan.tend()
    told = both.account()
    assert told is not None
    assert told.received == 3
    assert both.loan.bytes == 0
    both.discover()
    assert [kind for kind, _ in both.events] == ["storage_error"]


def test_what_a_killed_writer_left_is_taken_over_and_what_it_had_not_named_yet_is_removed(
    both: Both, tmp_path: Path
) -> None:
    child = os.fork()
    if child == 0:
        try:
            both.life()
        except BaseException:
            os._exit(1)
        os._exit(0)
    os.waitpid(child, 0)
    place = both.directory / "lo"
    (path,) = place.glob(f"*{CLOSED}")
    path.with_suffix(ACCOUNT).unlink()
    part = path.rename(path.with_suffix(OPEN))
    half = hold.scratch(part)
    half.write_bytes(b"half")
    os.utime(half, (1, 1))
    fd = os.open(part, os.O_RDWR)
    held = hold.Hold(fd)
    os.close(fd)
    both.adopt()
    assert both.events == []
    assert len(list(place.iterdir())) == 2  # somebody writes here: nothing is cleared away
    held.release()
    both.adopt()
    assert [kind for kind, _ in both.events] == ["segment_recovered"]
    assert [found.suffix for found in sorted(place.iterdir())] == [ACCOUNT, CLOSED]
