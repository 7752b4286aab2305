"""Keeping packets, from the command line."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.cli.main import main
from agent.workers.capture import pins, version
from agent.workers.capture.naming import CLOSED, segment_name

SECOND = 10**9


@pytest.fixture(autouse=True)
def _not_by_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)


def store(prefix: Path, name: str = "edge") -> Path:
    """A store with one segment that is being talked of: it began a minute ago."""
    directory = prefix / "spool" / name
    (directory / "eth0").mkdir(parents=True)
    version.mark(directory)
    (directory / "eth0" / segment_name(time.time_ns() - 60 * SECOND, CLOSED)).write_bytes(bytes(500))
    return directory


def agentctl(prefix: Path, *words: str) -> int:
    return main(["--prefix", str(prefix), "capture", *words])


def documented(prefix: Path, capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert agentctl(prefix, *words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_a_pin_is_set_shown_and_taken_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = store(tmp_path)
    made = documented(tmp_path, capsys, "pin", "edge", "--last", "10m", "--reason", "the outage")["pins"][0]
    assert made | {"id": "", "from": 0, "to": 0, "created": 0} == {
        "service": "edge",
        "id": "",
        "from": 0,
        "to": 0,
        "reason": "the outage",
        "by": "root",
        "created": 0,
        "segments": 1,
        "bytes": 500,
    }
    assert made["to"] - made["from"] == pytest.approx(600)
    assert made["to"] == made["created"] == pytest.approx(time.time(), abs=20)
    (pin,) = pins.read_all(directory)
    assert (pin.id, pin.end - pin.begin) == (made["id"], 600 * SECOND)
    assert documented(tmp_path, capsys, "pins") == {"pins": [made], "unreadable": []}
    assert agentctl(tmp_path, "pins", "--service", "edge") == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["SERVICE", "PIN", "FROM", "TO", "SEGMENTS", "SIZE", "BY", "REASON"]
    assert row.split()[-4:] == ["B", "root", "the", "outage"]
    assert agentctl(tmp_path, "unpin", "edge", made["id"]) == 0
    assert capsys.readouterr().out == "edge: 1 pin taken back\n"
    assert agentctl(tmp_path, "pins") == 0
    assert capsys.readouterr().out == "nothing is pinned\n"


def test_a_pin_may_reach_into_the_future(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = store(tmp_path)
    assert agentctl(tmp_path, "pin", "edge", "--for", "5m") == 0
    (pin,) = pins.read_all(directory)
    assert (pin.begin, pin.end) == (pin.created, pin.created + 300 * SECOND)
    assert capsys.readouterr().out.startswith(f"edge: pin {pin.id}: ")


def test_what_is_not_stored_is_pinned_and_said_not_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(tmp_path)
    assert agentctl(tmp_path, "pin", "edge", "--from", "2001-01-01", "--to", "2001-01-02") == 0
    assert capsys.readouterr().out.endswith("2001-01-01 00:00:00 to 2001-01-02 00:00:00, nothing stored yet\n")


def test_without_a_name_every_capture_keeps_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("edge", "core"):
        (tmp_path / "spool" / name).mkdir(parents=True, exist_ok=True)
        version.mark(tmp_path / "spool" / name)
    told = documented(tmp_path, capsys, "pin", "--last", "10m", "--reason", "the outage")["pins"]
    assert [(one["service"], one["reason"]) for one in told] == [("core", "the outage"), ("edge", "the outage")]
    assert len(documented(tmp_path, capsys, "pins")["pins"]) == 2


def test_where_nothing_is_stored_nothing_can_be_pinned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert agentctl(tmp_path, "pin", "--last", "10m") == 2
    assert "no packets are stored below" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["pin", "edge"], 1, "say which time: --last 10m"),
        (["pin", "edge", "--last", "soon"], 1, '"soon" is not a duration'),
        (["pin", "edge", "--from", "now", "--to", "-1h"], 1, "before it begins"),
        (["pin", "edge", "--last", "1m", "--reason", "x" * 501], 1, "a reason has at most 500 characters"),
        (["pin", "egde", "--last", "1m"], 1, "no capture is named 'egde'; did you mean edge?"),
        (["pins", "--service", "egde"], 1, "no capture is named 'egde'"),
        (["pin", "../etc", "--last", "1m"], 1, "cannot be a service"),
        (["unpin", "edge", "000000000", "../x"], 1, "edge has no pin 000000000, ../x"),
        (["unpin", "edge"], 1, "Missing argument 'ID...'"),
        (["pin", "new", "--last", "1m"], 1, "the store is of version 9"),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_the_contracts_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], status: int, told: str
) -> None:
    store(tmp_path)
    (store(tmp_path, "new") / version.FILE).write_text('{"version": 9}') if words[1] == "new" else None
    (tmp_path / "spool" / "lan_scan").mkdir()
    assert agentctl(tmp_path, *words) == status
    complaint = capsys.readouterr().err.splitlines()
    assert told in complaint[0]
    assert len(complaint) <= 2


def test_a_reason_is_shown_and_not_obeyed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(tmp_path)
    agentctl(tmp_path, "pin", "edge", "--last", "1m", "--reason", "\x1b[2J\n\udcff")
    capsys.readouterr()
    assert agentctl(tmp_path, "pins") == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\\x1b[2J\\x0a" in shown


def given_away(directory: Path, uid: int) -> None:
    for path in [directory, *directory.rglob("*")]:
        os.chown(path, uid, uid)


def test_what_root_sets_is_the_agents(theirs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = store(theirs)
    given_away(directory, 65534)
    assert agentctl(theirs, "pin", "edge", "--last", "1m") == 0
    (file,) = directory.glob("pin-*")
    assert (file.stat().st_uid, file.stat().st_mode & 0o777) == (65534, 0o640)
    assert pins.read_all(directory)[0].by == "root"


def test_who_turned_to_sudo_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    store(tmp_path)
    assert documented(tmp_path, capsys, "pin", "edge", "--last", "1m")["pins"][0]["by"] == "alice"


def test_the_store_of_a_service_with_its_own_user_is_that_users(
    theirs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = store(theirs)
    given_away(directory, 4711)
    directory.chmod(0o750)
    assert agentctl(theirs, "pin", "edge", "--last", "1m") == 0
    (file,) = directory.glob("pin-*")
    assert file.stat().st_uid == 4711


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A directory of root's that anybody may look into."""
    place = Path("/tmp") / f"elsewhere-{os.getpid()}"  # others must get there
    place.mkdir()
    yield place
    shutil.rmtree(place)


def test_a_planted_link_leads_root_nowhere(theirs: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (elsewhere / "eth0").mkdir()
    (theirs / "spool" / "edge").symlink_to(elsewhere)
    assert agentctl(theirs, "pin", "edge", "--last", "1m") == 2
    assert "no pin can be set: Permission denied for user nobody" in capsys.readouterr().err
    assert [path.name for path in elsewhere.iterdir()] == ["eth0"]


@pytest.mark.parametrize(
    "words", [["pin", "edge", "--last", "1m"], ["pins"], ["pins", "--service", "edge"], ["unpin", "edge", "0"]]
)
def test_somebody_else_is_told_to_turn_to_root(
    theirs: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    given_away(store(theirs), 65534)
    (theirs / "spool").chmod(0o751)
    (theirs / "spool" / "edge").chmod(0o750)
    os.seteuid(4711)
    try:
        assert agentctl(theirs, *words) == 2
    finally:
        os.seteuid(0)
    (complaint,) = capsys.readouterr().err.splitlines()
    assert "Permission denied for user 4711; do it as root (sudo)" in complaint
