"""The watch's duty: what it finds in real stores it tells once, also after a restart, and only while it can see."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from agent.declaration.model import Declared, Expect, ExpectedPorts, Watch
from agent.errors import StorageFailure
from agent.workers.watch import drift_duty
from agent.workers.watch.drift_duty import DriftDuty
from agent.workers.watch.standing import NAME
from tests.workers.watch.memories import imported, remember, up
from tests.workers.watch.scenes import port

WEB = "10.20.0.10"
SETTINGS = Watch(
    name="watch",
    expects=(Expect("web", (WEB,), (ExpectedPorts("tcp", 22, 22),), others=False),),
    declared=(Declared("lan_scan", "scan"), Declared("edge", "capture")),
)


class Teller:
    """Takes down what is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.data: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self._told = threading.Condition()

    def event(self, kind: str, message: str, /, **data: Any) -> None:
        with self._told:
            self.events.append((kind, message))
            self.data.append(data)
            self._told.notify_all()

    def log(self, message: str) -> None:
        with self._told:
            self.lines.append(message)
            self._told.notify_all()

    async def heard(self, *, lines: int = 0, events: int = 0) -> None:
        """Wait until it was told so much."""

        def wait() -> bool:
            with self._told:
                return self._told.wait_for(lambda: len(self.lines) >= lines and len(self.events) >= events, 15)

        assert await asyncio.to_thread(wait)


def duty(spool: Path, teller: Teller) -> DriftDuty:
    (spool / "watch").mkdir(exist_ok=True)
    return DriftDuty(teller, SETTINGS, spool / "watch", "here")


async def judged(one: DriftDuty) -> None:
    await one.start()
    await one.judge()
    await one.stop()


def scanned(spool: Path, *ports: str, ago: float, site: str = "here") -> None:
    (spool / "lan_scan").mkdir(exist_ok=True)
    remember(spool / "lan_scan", [up(WEB, *map(port, ports))], time.time() - ago, site=site)


def test_each_difference_is_told_once_also_by_a_successor_and_what_cannot_be_seen_is_let_stand(tmp_path: Path) -> None:
    teller = Teller()

    async def story() -> None:
        one = duty(tmp_path, teller)
        await judged(one)
        assert teller.events == []
        assert one.status() == "0 differences stand"
        for ago in (300, 200):
            scanned(tmp_path, "tcp/22", "tcp/80", ago=ago)
        await one.judge()
        found = ("drift_found", f"high: {WEB} tcp/80 is open and is not declared")
        assert teller.events == [found]
        assert one.figures() == {
            "drift": 1,
            "drift_info": 0,
            "drift_low": 0,
            "drift_medium": 0,
            "drift_high": 1,
            "drift_critical": 0,
        }
        assert one.status() == "1 difference stands"
        await judged(duty(tmp_path, teller))
        assert teller.events == [found]
        (tmp_path / "lan_scan" / "scan.db").rename(tmp_path / "aside")
        await judged(duty(tmp_path, teller))
        assert teller.events == [found]
        (tmp_path / "aside").rename(tmp_path / "lan_scan" / "scan.db")
        for ago in (100, 50):
            scanned(tmp_path, "tcp/22", ago=ago)
        await judged(duty(tmp_path, teller))
        assert teller.events == [found, ("drift_gone", f"no more: {WEB} tcp/80 is open and is not declared")]

    asyncio.run(story())


def test_why_something_cannot_be_seen_is_logged_once_for_as_long_as_it_holds(tmp_path: Path) -> None:
    teller = Teller()

    async def story() -> None:
        one = duty(tmp_path, teller)
        await judged(one)
        await one.judge()
        assert teller.lines == [
            "capture edge: it knows of no hosts yet",
            f"{tmp_path}/lan_scan/scan.db: there is none: nothing was scanned yet",
            f"expect.web: no scan has asked for 1 of its 1 ports: {WEB} tcp/22",
        ]
        scanned(tmp_path, "tcp/22", ago=9)
        await one.judge()
        (tmp_path / "lan_scan" / "scan.db").unlink()
        await one.judge()
        assert len(teller.lines) == 5

    asyncio.run(story())


def test_a_scan_of_another_site_is_about_other_hosts(tmp_path: Path) -> None:
    teller = Teller()
    elsewhere = Watch(name="watch", expects=SETTINGS.expects, declared=(Declared("lan_scan", "scan", site="branch"),))
    for ago in (300, 200):
        scanned(tmp_path, "tcp/22", "tcp/80", ago=ago, site="branch")
    (tmp_path / "watch").mkdir()
    asyncio.run(judged(DriftDuty(teller, elsewhere, tmp_path / "watch", "here")))
    (data,) = teller.data
    assert (data["site"], data["key"]) == ("branch", f"open_undeclared {WEB}@branch tcp/80")


def test_what_was_imported_under_a_name_of_its_own_is_told_of_too(tmp_path: Path) -> None:
    teller = Teller()
    (tmp_path / "elsewhere").mkdir()
    imported(tmp_path / "elsewhere", [up(WEB, port("tcp/22"), port("tcp/80"))], time.time() - 60)
    asyncio.run(judged(duty(tmp_path, teller)))
    assert teller.events == [("drift_found", f"high: {WEB} tcp/80 is open and is not declared")]


def test_what_stood_and_is_damaged_is_begun_anew_and_that_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    teller = Teller()
    one = duty(tmp_path, teller)
    (tmp_path / "watch" / NAME).write_text("{")
    asyncio.run(judged(one))
    assert "a new one is begun" in teller.lines[0]
    (tmp_path / "watch" / NAME).write_text('{"version": 99}')
    with pytest.raises(StorageFailure, match="of version 99"):
        asyncio.run(judged(duty(tmp_path, teller)))


def test_a_directory_that_takes_nothing_is_told_and_stops_nobody(tmp_path: Path) -> None:
    teller = Teller()
    one = duty(tmp_path, teller)
    for ago in (300, 200):
        scanned(tmp_path, "tcp/22", "tcp/80", ago=ago)
    (tmp_path / "watch").rmdir()
    (tmp_path / "watch").touch()
    asyncio.run(one.judge())
    asyncio.run(one.judge())
    assert len(teller.events) == 1
    assert [line for line in teller.lines if "drift.json" in line] == [
        f"{tmp_path}/watch/drift.json: cannot be written: Not a directory"
    ]


def test_it_judges_at_once_and_as_soon_as_a_scan_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift_duty, "LOOK", 0.01)
    teller = Teller()
    turns: list[None] = []

    async def story() -> None:
        one = duty(tmp_path, teller)
        await one.start()
        running = asyncio.create_task(one.run(lambda: turns.append(None)))
        await teller.heard(lines=1)
        for ago in (300, 200):
            scanned(tmp_path, "tcp/80", ago=ago)
        await teller.heard(events=2)
        running.cancel()
        await asyncio.wait({running})

    asyncio.run(asyncio.wait_for(story(), 20))
    assert turns
    assert sorted(message for _, message in teller.events) == [
        f"high: {WEB} tcp/22 is declared, and closed",
        f"high: {WEB} tcp/80 is open and is not declared",
    ]


def test_a_name_server_that_says_nothing_holds_up_nobodys_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answer = threading.Event(), threading.Event()

    def silent(*_: object, **__: object) -> list[object]:
        asked.set()
        answer.wait(20)
        raise OSError(-3, "Temporary failure in name resolution")

    monkeypatch.setattr("socket.getaddrinfo", silent)
    named = Watch(name="watch", expects=(Expect("web", ("web.example",), others=False),))
    (tmp_path / "watch").mkdir()
    turns: list[None] = []

    async def story() -> None:
        one = DriftDuty(Teller(), named, tmp_path / "watch")
        running = asyncio.create_task(one.run(lambda: turns.append(None)))
        assert await asyncio.to_thread(asked.wait, 15)
        running.cancel()
        await asyncio.wait({running})

    try:
        asyncio.run(story())
        assert not answer.is_set()
    finally:
        answer.set()


HOSTILE = r"""
import asyncio, ctypes, json, socket, subprocess, sys
from pathlib import Path
from agent.declaration.model import Expect, Watch
from agent.workers.watch.drift_duty import DriftDuty
for command in ("link set lo up", "address add 198.51.100.7/24 dev lo"):
    subprocess.run(["ip", *command.split()], check=True)
ctypes.CDLL(None).prctl(15, b"\xff\xfe\x1bbad", 0, 0, 0)
kept = socket.create_server(("0.0.0.0", 4444))
told = []
class Teller:
    def event(self, kind, message, /, **data): told.append([kind, message, data["listening"]])
    def log(self, message): told.append(message)
settings = Watch(name="watch", expects=(Expect("host", ("198.51.100.7",), others=False),))
async def story():
    for _ in range(2):
        one = DriftDuty(Teller(), settings, Path(sys.argv[1]))
        await one.start()
        await one.judge()
asyncio.run(story())
print(json.dumps(told))
"""


def test_who_opens_a_port_cannot_silence_the_alarm_by_the_name_of_his_process(tmp_path: Path) -> None:
    (tmp_path / "watch").mkdir()  # beside it lies whatever was scanned here
    words = ["unshare", "--net", sys.executable, "-c", HOSTILE, str(tmp_path / "watch")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    notes = [one for one in json.loads(done.stdout) if isinstance(one, list)]
    ((kind, message, listening),) = notes
    assert (kind, message.partition(":")[0]) == ("drift_found", "medium")
    assert r"\xff\xfe\x1bbad (PID " in listening
    assert notes[0] == json.loads(done.stdout)[0]  # and nothing else was said


def test_what_judging_fails_of_is_told_in_one_line_and_the_next_judgement_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what it might fail nobody knows: a source that raises what it must not stands for it."""
    teller = Teller()
    for ago in (300, 200):
        scanned(tmp_path, "tcp/22", "tcp/80", ago=ago)

    def broken(*_: object) -> object:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    async def story() -> None:
        one = duty(tmp_path, teller)
        await one.start()
        with monkeypatch.context() as patch:
            patch.setattr("agent.workers.watch.gather.from_scan.read", broken)
            await one.judge()
            await one.judge()
        (line,) = teller.lines
        assert line.startswith("drift cannot be judged: UnicodeDecodeError: 'utf-8' codec")
        assert one.status() == "drift cannot be judged"
        assert teller.events == []
        await one.judge()
        assert len(teller.events) == 1
        assert one.status() == "1 difference stands"

    asyncio.run(story())


def test_a_judgement_that_hangs_is_told_and_the_watch_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that says nothing stands for whatever may hang."""
    asked, answer = threading.Event(), threading.Event()

    def silent(*_: object, **__: object) -> list[object]:
        asked.set()
        answer.wait(20)
        raise OSError(-3, "Temporary failure in name resolution")

    monkeypatch.setattr("socket.getaddrinfo", silent)
    monkeypatch.setattr(drift_duty, "LOOK", 0.01)
    monkeypatch.setattr(drift_duty, "SLOW", 0.1)
    named = Watch(name="watch", expects=(Expect("web", ("web.example",), others=False),))
    (tmp_path / "watch").mkdir()
    turns: list[None] = []
    teller = Teller()

    async def story() -> None:
        one = DriftDuty(teller, named, tmp_path / "watch")
        running = asyncio.create_task(one.run(lambda: turns.append(None)))
        while not asked.is_set():
            await asyncio.sleep(0.01)
        before = len(turns)
        while not teller.lines or len(turns) < before + 3:
            await asyncio.sleep(0.01)
        assert teller.lines == ["drift cannot be judged: it takes longer than 0 s"]
        assert one.status() == "drift cannot be judged"
        answer.set()
        while one.status() != "0 differences stand":
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait({running})

    try:
        asyncio.run(asyncio.wait_for(story(), 20))
    finally:
        answer.set()


def test_a_database_that_nobody_can_make_sense_of_is_told_in_one_line(tmp_path: Path) -> None:
    teller = Teller()
    (tmp_path / "lan_scan").mkdir()
    (tmp_path / "lan_scan" / "scan.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)

    async def story() -> None:
        one = duty(tmp_path, teller)
        await one.start()
        running = asyncio.create_task(one.run(lambda: None))
        await teller.heard(lines=1)
        assert not running.done()
        running.cancel()
        await asyncio.wait({running})

    asyncio.run(asyncio.wait_for(story(), 20))
    assert len([line for line in teller.lines if "scan.db" in line]) == 1


def test_what_was_told_and_not_kept_as_told_is_told_again_under_its_number(tmp_path: Path) -> None:
    for ago in (300, 200):
        scanned(tmp_path, "tcp/22", "tcp/80", ago=ago)

    class Killed(BaseException):
        pass

    class Dying(Teller):
        def event(self, kind: str, message: str, /, **data: Any) -> None:
            super().event(kind, message, **data)
            raise Killed

    first, second, third = Dying(), Teller(), Teller()
    with pytest.raises(Killed):
        asyncio.run(judged(duty(tmp_path, first)))
    asyncio.run(judged(duty(tmp_path, second)))
    assert second.events == first.events
    assert second.data == first.data
    for ago in (100, 50):
        scanned(tmp_path, "tcp/22", ago=ago)
    asyncio.run(judged(duty(tmp_path, third)))
    assert [kind for kind, _ in third.events] == ["drift_gone"]
    assert third.data[0]["change"] > second.data[0]["change"]
