"""Whoever reads along is told everything he takes, and never waited for."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from agent.control.console import HELD, Console, JournalConsole, JsonConsole, Outlet, Untold
from agent.linux.journal import Journal
from agent.telemetry.events import Event
from agent.telemetry.journal import Logbook
from tests.linux.journald import Journald


class Reader:
    """A pipe and whoever reads it, or not."""

    def __init__(self) -> None:
        self._end, self.fd = os.pipe()
        os.set_blocking(self._end, False)

    def read(self) -> bytes:
        found = b""
        with suppress(BlockingIOError):
            while data := os.read(self._end, 65536):
                found += data
        return found

    def go(self) -> None:
        os.close(self._end)
        self._end = -1

    def close(self) -> None:
        for fd in (self._end, self.fd):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def reader() -> Iterator[Reader]:
    made = Reader()
    yield made
    made.close()


def event(number: int) -> Event:
    return Event(cursor=number, time=1.0, service="api", kind="spawn_failed", message=f"number {number}", data={})


def test_in_the_journal_an_event_has_fields_and_progress_is_nothing(tmp_path: Path) -> None:
    journald = Journald(tmp_path / "socket")
    journal = Journal(journald.path)
    console = JournalConsole(Logbook(journal))
    console.event(event(7))
    console.line("in another terminal: agentctl status")
    told, line = (dict(entry) for entry in journald.entries())
    assert (told["AGENT_SERVICE"], told["AGENT_EVENT"], told["PRIORITY"]) == (b"api", b"spawn_failed", b"3")
    assert told["MESSAGE"] == b"spawn failed: number 7"
    assert (line["SYSLOG_IDENTIFIER"], line["MESSAGE"]) == (b"agent", b"in another terminal: agentctl status")
    journal.close()
    journald.go()


def test_an_event_is_one_line_with_the_time_and_nothing_a_terminal_would_obey(reader: Reader) -> None:
    console = Console(reader.fd)
    console.event(event(7))
    console.line("\x1b[2Jclear\nthis \udcff")
    first, second = reader.read().decode().splitlines()
    assert first.endswith(" api: spawn failed: number 7")
    time.strptime(first[:8], "%H:%M:%S")
    assert second.endswith("?[2Jclear?this ?")


@pytest.mark.parametrize("form", [Console, JsonConsole])
def test_a_reader_that_stalls_is_not_waited_for_and_learns_what_it_missed(
    reader: Reader, form: type[Console] | type[JsonConsole]
) -> None:
    console = form(reader.fd)
    begun = time.monotonic()
    for number in range(1, 20_001):
        console.event(event(number))
    assert time.monotonic() - begun < 10  # blocked, it would have been for ever
    taken = reader.read()
    for number in range(20_001, 20_003):
        console.event(event(number))
        taken += reader.read()
    lines = taken.decode().splitlines()
    assert lines[-1].count("number 20002") == 1
    told = [line for line in lines if "left out" in line]
    assert len(told) == 1
    missing = 20_002 - (len(lines) - 1)
    assert missing > 0
    assert f"{missing} " in told[0]


def test_as_json_each_line_is_an_event_or_says_that_some_are_missing(reader: Reader) -> None:
    console = JsonConsole(reader.fd)
    for number in range(1, 5001):
        console.event(event(number))
    taken = reader.read()
    for number in range(5001, 5003):
        console.event(event(number))
        taken += reader.read()
    found = [json.loads(line) for line in taken.splitlines()]
    cursors = [one["cursor"] for one in found]
    assert cursors == sorted(cursors)
    assert [one.get("gap") for one in found].count(True) == 1
    console.line("prose")
    assert reader.read() == b""


def test_a_reader_that_is_gone_ends_the_printing(reader: Reader) -> None:
    console = Console(reader.fd)
    reader.go()
    for number in range(5000):
        console.event(event(number))


def test_what_is_held_for_a_slow_reader_is_bounded_and_in_order(reader: Reader) -> None:
    outlet = Outlet(reader.fd)
    line = b"x" * 999 + b"\n"
    put = 0
    while outlet.has_room(len(line)):
        outlet.put(line)
        put += 1
    assert HELD <= put * len(line) < HELD + 2 * 65536
    assert outlet.left_out == 1
    taken = reader.read()
    assert outlet.has_room(1)
    outlet.put(b"\n")
    while data := reader.read():
        taken += data
        outlet.put(b"")
    assert taken == line * put + b"\n"


@pytest.mark.parametrize("form", [Console, JsonConsole])
def test_another_program_prints_the_rest_of_a_line_and_what_else_was_held(
    reader: Reader, form: type[Console] | type[JsonConsole]
) -> None:
    console = form(reader.fd)
    for number in range(1, 20_001):
        console.event(event(number))
    taken, untold = reader.read(), console.freeze()
    assert untold.held and untold.left_out
    follows = form(reader.fd)
    follows.thaw(msgspec.json.decode(msgspec.json.encode(untold), type=Untold))
    for number in range(20_001, 20_003):
        follows.event(event(number))
        taken += reader.read()
    lines = taken.decode().splitlines()
    told = [line for line in lines if "left out" in line]
    assert len(told) == 1
    assert f"{20_002 - (len(lines) - 1)} " in told[0]
    assert all("number" in line for line in lines if line not in told)
    if form is JsonConsole:
        assert [json.loads(line)["cursor"] for line in lines[-2:]] == [20_001, 20_002]


def test_another_program_tells_the_journal_what_it_has_missed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "socket")  # nobody listens there yet
    console = JournalConsole(Logbook(journal))
    for number in range(3):
        console.event(event(number))
    follows = JournalConsole(Logbook(journal))
    follows.thaw(console.freeze())
    journald = Journald(tmp_path / "socket")
    follows.event(event(3))
    missed, told = (dict(entry) for entry in journald.entries())
    assert missed["MESSAGE"].startswith(b"journal lost: 3 entries before this one")
    assert told["MESSAGE"] == b"spawn failed: number 3"
    journal.close()
    journald.go()
