"""The output of one run: in the file as ever, and line by line in the journal where there is one."""

from __future__ import annotations

import os
from pathlib import Path

from agent.declaration.model import Command, LogPolicy
from agent.paths import Paths
from agent.telemetry.journal import Logbook
from agent.telemetry.service_log import ServiceLog
from tests.linux.journald import Journald

SERVICE = Command(name="api", command=("/bin/api",), log=LogPolicy(size=4096, keep=1))


def never(seconds: float, callback: object) -> None:
    """No time passes in here."""


def said(log: ServiceLog, *pieces: bytes) -> None:
    """Pass that through the log's pump, to the end of a run."""
    ours, theirs = os.pipe()
    pump = log.pump(ours)
    for piece in pieces:
        os.write(theirs, piece)
        assert pump.read_ready()
    os.close(theirs)
    assert not pump.read_ready()
    pump.close()
    log.close()


def lines(paths: Paths) -> list[str]:
    """What stands in the file, without the stamps."""
    return [line.split(" ", 1)[1] for line in paths.log("api").read_text().splitlines()]


def test_without_a_journal_it_is_the_file_alone(tmp_path: Path) -> None:
    paths = Paths.of(tmp_path)
    said(ServiceLog(paths, SERVICE, never, None), b"one\ntw", b"o\n")
    assert lines(paths) == ["one", "two"]


def test_the_journal_gets_each_line_under_the_name_of_the_service(
    tmp_path: Path, journald: Journald, logbook: Logbook
) -> None:
    paths = Paths.of(tmp_path)
    said(ServiceLog(paths, SERVICE, never, logbook), b"one\ntw", b"o\n")
    assert lines(paths) == ["one", "two"]
    entries = [dict(entry) for entry in journald.entries()]
    assert [entry["MESSAGE"] for entry in entries] == [b"one", b"two"]
    assert {entry["AGENT_SERVICE"] for entry in entries} == {b"api"}


def test_another_program_goes_on_in_the_middle_of_a_line_in_both(
    tmp_path: Path, journald: Journald, logbook: Logbook
) -> None:
    paths = Paths.of(tmp_path)
    before = ServiceLog(paths, SERVICE, never, logbook)
    ours, theirs = os.pipe()
    pump = before.pump(ours)
    os.write(theirs, b"one\nand a ha")
    assert pump.read_ready()
    pumped, state = pump.freeze(), before.freeze()
    after = ServiceLog(paths, SERVICE, never, logbook)
    after.thaw(state)
    pump = after.pump(ours)
    pump.thaw(pumped)
    os.write(theirs, b"lf\n")
    os.close(theirs)
    while pump.read_ready():
        pass
    pump.close()
    after.close()
    assert lines(paths) == ["one", "and a half"]
    assert journald.messages() == ["one", "and a half"]


def test_another_size_holds_from_the_next_line_on(tmp_path: Path) -> None:
    paths = Paths.of(tmp_path)
    log = ServiceLog(paths, SERVICE, never, None)
    log.adjust(LogPolicy(size=1 << 20, keep=0))
    said(log, *[b"x" * 99 + b"\n"] * 100)
    assert len(lines(paths)) == 100
    assert not paths.log("api").with_name("api.log.1").exists()
