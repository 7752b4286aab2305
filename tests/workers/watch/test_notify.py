"""From the agent's events to whoever is to be told: a real store of events, a real queue, real receivers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.declaration.model import Notify, Watch
from agent.telemetry.events import EventStore
from agent.workers.watch import notify, notify_queue
from agent.workers.watch.notify import NotifyDuty
from agent.workers.watch.notify_queue import FIRST_RETRY
from tests.workers.watch.sinks import Hook, free_port, hook, mail_system


class Told:
    """What the duty tells: the kinds and the texts of its events, and its log."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        self.lines: list[str] = []

    def event(self, kind: str, message: str, /, **data: Any) -> None:
        self.events.append((kind, message, data))

    def log(self, message: str) -> None:
        self.lines.append(message)

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _message, _data in self.events]


class Heard(Told):
    """The agent hears of it: what is told is an event itself."""

    def __init__(self, store: EventStore) -> None:
        super().__init__()
        self._store = store

    def event(self, kind: str, message: str, /, **data: Any) -> None:
        super().event(kind, message, **data)
        self._store.append(kind, message, "watch", **data)
        self._store.flush()


class Bench:
    """An agent's spool, with its events, and a watch beside it."""

    def __init__(self, spool: Path) -> None:
        self.ago = 0.0
        self.events = spool / "agent" / "events.db"
        self.store = EventStore(
            self.events,
            schedule=lambda _seconds, _callback: None,
            clock=lambda: time.time() - self.ago,
        )
        self.data = spool / "watch"
        self.data.mkdir()
        self.told = Told()
        self.environ = {**os.environ, "SERVICE_SERVER": "hel1"}
        self.looks = 0

    def tell(self, *kinds: str, service: str | None = "lan", **data: Any) -> None:
        for kind in kinds:
            self.store.append(kind, f"it {kind}", service, **data)
        self.store.flush()

    def run(self, *notifies: Notify, until: Callable[[NotifyDuty], bool], port: int | None = None) -> NotifyDuty:
        """Run the duty until something is so; 30 s at most."""

        async def work() -> NotifyDuty:
            duty = NotifyDuty(
                self.told, Watch(name="watch", notifies=notifies), self.data, self.environ, port=port or free_port()
            )
            await duty.start()
            running = asyncio.create_task(duty.run(self._looked))
            try:
                async with asyncio.timeout(30):
                    while not until(duty):
                        assert not running.done(), running.exception()
                        await asyncio.sleep(0.005)
            finally:
                running.cancel()
                await asyncio.wait({running})
                await duty.stop()
            return duty

        return asyncio.run(work())

    def _looked(self) -> None:
        self.looks += 1

    def begin(self, *notifies: Notify) -> None:
        """The first run of all."""
        self.run(*notifies, until=lambda duty: duty._begun)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(notify, "LOOK", 0.01)
    monkeypatch.setattr(notify_queue, "FIRST_RETRY", 0.02)
    bench = Bench(tmp_path / "spool")
    yield bench
    bench.store.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, with room for a write-ahead log."""
    disk = tmp_path / "small" / "watch"
    disk.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


def delivered(number: int) -> Callable[[NotifyDuty], bool]:
    return lambda duty: duty.figures()["notifications_delivered"] == number


def bodies(server: Hook) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in server.requests]


def kinds(message: dict[str, Any]) -> list[str]:
    return [event["kind"] for event in message["events"]]


def test_what_happens_is_told_and_what_happened_long_before_the_watch_is_not(bench: Bench) -> None:
    with hook() as server:
        ops = Notify("ops", webhook=server.url, severity="info", group=0.05)
        bench.ago = 90
        bench.tell("failed")
        bench.ago = 30
        bench.tell("host_gone")
        bench.ago = 0
        bench.tell("scan_failed")
        bench.run(ops, until=delivered(2))
        earlier, later = bodies(server)
    assert (kinds(earlier), kinds(later)) == (["host_gone"], ["scan_failed"])
    assert (later["server"], later["notify"], later["severity"]) == ("hel1", "ops", "err")
    assert bench.told.events == []


def test_what_happens_later_is_told_as_well(bench: Bench) -> None:
    with hook() as server:
        ops = Notify("ops", webhook=server.url, group=0)
        told: list[str] = []

        def until(duty: NotifyDuty) -> bool:
            if delivered(len(told))(duty):
                if len(told) == 4:
                    return True
                told.append("failed")
                bench.tell("failed")
            return False

        bench.run(ops, until=until)
    assert len({request.headers["webhook-id"] for request in server.requests}) == 4


def test_a_switch_that_falls_is_one_message(bench: Bench) -> None:
    with hook() as server:
        ops = Notify("ops", webhook=server.url, severity="notice", group=0.3)
        bench.begin(ops)
        bench.tell(*["host_gone"] * 1000)
        bench.run(ops, until=delivered(1))
        assert [message["count"] for message in bodies(server)] == [1000]


def test_each_is_told_what_concerns_it_by_its_own_way(bench: Bench, tmp_path: Path) -> None:
    with hook() as server, mail_system(tmp_path) as port:
        taken = tmp_path / "taken"
        notifies = (
            Notify("hooked", webhook=server.url, kinds=("host_*",), severity="notice", group=0),
            Notify("mailed", email="root", severity="err", group=0),
            Notify("paged", command=("/bin/sh", "-c", 'cat > "$0"', str(taken)), services=("api",), group=0),
        )
        bench.begin(*notifies)
        bench.tell("host_gone", "scan_failed")
        bench.tell("hung", service="api")
        bench.run(*notifies, until=delivered(3), port=port)
        assert [kinds(message) for message in bodies(server)] == [["host_gone"]]
        assert (tmp_path / "mail").read_text().count("Subject: [err] hel1: lan scan_failed: it scan_failed") == 1
    assert kinds(json.loads(taken.read_text())) == ["hung"]


def test_what_is_not_taken_is_tried_again_with_the_same_id_and_in_order(bench: Bench) -> None:
    with hook([500, 503, 204]) as server:
        ops = Notify("ops", webhook=server.url, group=0)
        bench.begin(ops)
        bench.tell("failed", "hung")
        bench.run(ops, until=delivered(2))
        ids = [request.headers["webhook-id"] for request in server.requests]
        assert [kinds(message) for message in bodies(server)] == [["failed"]] * 3 + [["hung"]]
    assert len(ids) == 4
    assert len(set(ids)) == 2
    assert bench.told.kinds == ["notify_failed", "notify_resumed"]
    assert bench.told.events[0][1:] == (
        "ops cannot be told: answered HTTP 500; tried again in 0 s, then ever less often",
        {"notify": "ops"},
    )


def test_who_does_not_answer_is_asked_after_5_10_20_and_40_seconds(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify_queue, "FIRST_RETRY", FIRST_RETRY)
    tried, passed, turns = tmp_path / "tried", [0.0], [0]
    ops = Notify("ops", command=("/bin/sh", "-c", f"echo x >> {tried}; exit 1"), group=0)
    bench.begin(ops)
    bench.tell("failed")
    began = time.time()

    async def turned(number: int = 5) -> None:
        until = turns[0] + number
        while turns[0] < until:
            await asyncio.sleep(0.005)

    async def work() -> list[int]:
        clock, steady = (lambda: began + passed[0]), (lambda: passed[0])
        watch = Watch(name="watch", notifies=(ops,))
        duty = NotifyDuty(bench.told, watch, bench.data, bench.environ, port=1, clock=clock, steady=steady)
        await duty.start()
        running = asyncio.create_task(duty.run(lambda: turns.__setitem__(0, turns[0] + 1)))
        counts = []
        async with asyncio.timeout(30):
            for delay in (0.0, 5.0, 10.0, 20.0, 40.0):
                passed[0] += delay - 0.1
                await turned()
                counts.append(len(tried.read_text()) if delay else 0)
                passed[0] += 0.1
                while not tried.exists() or len(tried.read_text()) < counts[-1] + 2:
                    await turned()
                while not duty._under_way["ops"].done():
                    await turned()
        running.cancel()
        await asyncio.wait({running})
        await duty.stop()
        return counts

    assert asyncio.run(work()) == [0, 2, 4, 6, 8], "and not a tenth of a second before"
    assert "tried again in 5 s, then ever less often" in bench.told.events[0][1]
    assert len(bench.told.events) == 1


def test_one_that_does_not_work_holds_up_no_other(bench: Bench) -> None:
    with hook() as server:
        dead = Notify("dead", webhook=f"http://127.0.0.1:{free_port()}/", group=0)
        ops = Notify("ops", webhook=server.url, group=0)
        bench.begin(dead, ops)
        bench.tell("failed")
        duty = bench.run(dead, ops, until=lambda duty: delivered(1)(duty) and "cannot be told" in duty.status())
    assert duty.status().startswith("dead cannot be told: curl exited 7")
    assert duty.figures()["notifications_failing"] == 1


def test_what_is_refused_for_what_it_is_is_given_up(bench: Bench) -> None:
    with hook([400, 400, 400]) as server:
        ops = Notify("ops", webhook=server.url, group=0)
        bench.begin(ops)
        bench.tell("failed", "hung")
        bench.run(ops, until=delivered(1))
        assert [kinds(message)[0] for message in bodies(server)] == ["failed"] * 3 + ["hung"]
    assert bench.told.kinds == ["notify_failed", "notify_dropped", "notify_resumed"]


def test_what_nobody_takes_for_days_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ops = Notify("ops", command=("/bin/false",), group=0)
    bench.begin(ops)
    bench.tell("failed")
    bench.run(ops, until=lambda _duty: "notify_failed" in bench.told.kinds)
    monkeypatch.setattr(notify, "LONGEST", -1.0)
    bench.run(ops, until=lambda _duty: "notify_dropped" in bench.told.kinds)
    assert bench.told.events[-1][1].endswith("is given up: /bin/false exited 1")


def test_a_flood_that_nobody_takes_is_bounded_and_told_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify_queue, "MOST_MESSAGES", 20)
    ops = Notify("ops", command=("/bin/false",), group=0)
    bench.begin(ops)
    bench.tell(*["failed"] * 450)
    bench.run(ops, until=lambda duty: duty._queue is not None and duty._begun and _left(duty._queue) == (0, 20))
    assert bench.told.kinds == ["notify_failed", "notify_dropped"]
    assert bench.told.events[1][1] == "ops: the oldest messages have to make room: /bin/false exited 1"
    bench.run(Notify("ops", command=("/bin/true",), group=0), until=delivered(20))
    assert bench.told.events[2][:2] == (
        "notify_resumed",
        "ops can be told again; 430 messages given up meanwhile",
    )


def test_nothing_has_to_make_room_where_it_is_taken(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify_queue, "MOST_MESSAGES", 5)
    ops = Notify("ops", command=("/bin/true",), group=0)
    bench.begin(ops)
    bench.tell(*["failed"] * 60)
    bench.run(ops, until=delivered(60))
    assert bench.told.events == []


def test_the_next_message_goes_out_as_soon_as_one_is_taken(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "LOOK", 0.5)
    with hook() as server:
        ops = Notify("ops", webhook=server.url, group=0)
        bench.begin(ops)
        bench.looks = 0
        bench.tell(*["failed"] * 40)
        bench.run(ops, until=delivered(40))
        order = [message["from"] for message in bodies(server)]
    assert bench.looks < 20
    assert order == sorted(order), "one after the other"


def test_two_that_refuse_everything_tell_of_each_other_once(bench: Bench) -> None:
    bench.told = Heard(bench.store)
    with hook([400] * 1000) as server:
        notifies = tuple(Notify(name, webhook=server.url, group=0) for name in ("a", "b"))
        bench.begin(*notifies)
        bench.tell("failed")

        def silent(duty: NotifyDuty) -> bool:
            """Nothing is to be read, held, or waits."""
            queue = duty._queue
            return queue is not None and (queue.cursor, queue.waiting(), queue.arrivals("a"), queue.arrivals("b")) == (
                bench.store.newest, 0, [], [],
            )  # fmt: skip

        bench.run(*notifies, until=silent)
        assert len(server.requests) == 18, "three times each: what failed, and two events of the other"
    assert sorted(bench.told.kinds) == ["notify_dropped"] * 2 + ["notify_failed"] * 2


def test_what_fails_and_what_works_again_is_told_once_by_all_watches_together(bench: Bench) -> None:
    broken, mended = (Notify("ops", command=(f"/bin/{word}",), group=0) for word in ("false", "true"))
    bench.begin(broken)
    bench.tell("failed")
    bench.run(broken, until=lambda _duty: "notify_failed" in bench.told.kinds)
    duty = bench.run(broken, until=lambda duty: duty._begun)
    assert duty.status() == "ops cannot be told: /bin/false exited 1"
    assert duty.figures()["notifications_failing"] == 1
    bench.run(broken, until=lambda duty: bool(duty._pauses))
    assert bench.told.kinds == ["notify_failed"]
    bench.run(mended, until=lambda duty: delivered(1)(duty) and not duty.status())
    assert bench.told.kinds == ["notify_failed", "notify_resumed"]
    assert bench.told.events[1][1] == "ops can be told again"
    assert bench.run(mended, until=lambda duty: duty._begun).figures()["notifications_failing"] == 0


def test_that_messages_are_given_up_is_told_once_by_all_watches_together(bench: Bench) -> None:
    with hook([400] * 9) as server:
        ops = Notify("ops", webhook=server.url, group=0)
        bench.begin(ops)
        for number in range(3):
            bench.tell("failed")
            bench.run(ops, until=lambda duty: duty.figures()["notifications_dropped"] == 1)
            assert bench.told.kinds == ["notify_failed", "notify_dropped"], number
        bench.tell("hung")
        bench.run(ops, until=delivered(1))
    assert bench.told.events[2][1] == "ops can be told again; 3 messages given up meanwhile"


def _left(queue: notify_queue.Queue) -> tuple[int, int]:
    """How many events are held for ``ops``, and how many messages wait."""
    return (len(queue.arrivals("ops")) if queue.cursor and queue.waiting() else -1), queue.waiting()


def test_it_goes_on_where_it_was(bench: Bench) -> None:
    ops = Notify("ops", command=("/bin/false",), group=0)
    bench.begin(ops)
    bench.tell("failed")
    bench.run(ops, until=lambda _duty: "notify_failed" in bench.told.kinds)
    bench.tell("hung")  # while there is no watch
    with hook() as server:
        bench.run(Notify("ops", webhook=server.url, group=0), until=delivered(2))
        assert [kinds(message) for message in bodies(server)] == [["failed"], ["hung"]]


def test_the_secret_is_read_when_it_is_needed(bench: Bench, tmp_path: Path) -> None:
    bench.environ["HOOK_FILE"] = str(tmp_path / "hook")
    with hook() as server:
        ops = Notify("ops", webhook=server.url, secret="hook", group=0)  # its name
        bench.begin(ops)
        bench.tell("failed")
        bench.run(ops, until=lambda _duty: "notify_failed" in bench.told.kinds)
        assert bench.told.events[0][1].startswith("ops cannot be told: secret hook cannot be read: No such file")
        (tmp_path / "hook").write_text("s3cret")
        bench.run(ops, until=delivered(1))
        assert server.requests[0].headers["webhook-signature"].startswith("v1,")


@pytest.mark.parametrize(
    ("content", "reason"),
    [("\n", "secret hook is empty"), ("whsec_s3cret!", "secret hook is no base64 after whsec_")],
)
def test_what_is_to_be_signed_is_not_sent_without_a_key(
    bench: Bench, tmp_path: Path, content: str, reason: str
) -> None:
    (tmp_path / "hook").write_text(content)
    bench.environ["HOOK_FILE"] = str(tmp_path / "hook")
    with hook() as server:
        ops = Notify("ops", webhook=server.url, secret="hook", group=0)  # its name
        bench.begin(ops)
        bench.tell("failed")
        duty = bench.run(ops, until=lambda _duty: "notify_failed" in bench.told.kinds)
        assert server.requests == []
    assert bench.told.events[0][1].startswith(f"ops cannot be told: {reason}; tried again")
    assert duty.status() == f"ops cannot be told: {reason}"


def test_a_disk_that_takes_nothing_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with hook() as server:
        ops = Notify("ops", webhook=server.url, group=0)
        bench.begin(ops)
        bench.tell("failed")
        other = sqlite3.connect(bench.data / "notify.db", isolation_level=None)
        steps = ["ROLLBACK", "BEGIN IMMEDIATE"]  # held by another program, it is refused as it is by a full disk

        def until(duty: NotifyDuty) -> bool:
            if len(steps) == 2 or (steps and "locked by another program" in duty.status()):
                other.execute(steps.pop())
            return delivered(1)(duty)

        bench.run(ops, until=until)
        other.close()
        assert len(server.requests) == 1
    assert not steps
    assert [line.endswith("the database is locked by another program") for line in bench.told.lines] == [True]


def test_a_full_disk_costs_nothing_that_was_to_be_told(bench: Bench, disk: Path) -> None:
    bench.data = disk
    with hook() as server:
        ops = Notify("ops", webhook=server.url, severity="info", group=0)
        bench.begin(ops)
        (disk.parent / "agent").symlink_to(bench.events.parent)
        filler = disk / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        bench.tell(*["started"] * 40, size="x" * 4000)
        refused: list[str] = []

        def until(duty: NotifyDuty) -> bool:
            if not refused and duty.status().startswith(f"{disk}/notify.db: "):
                refused.append(duty.status())
                filler.unlink()
            return delivered(40)(duty)

        bench.run(ops, until=until)
    cursors = [event["cursor"] for message in bodies(server) for event in message["events"]]
    assert refused
    assert cursors == sorted(set(cursors))
    assert len(cursors) == 40


def test_what_is_queued_goes_out_while_the_disk_is_full(bench: Bench, disk: Path, tmp_path: Path) -> None:
    bench.data = disk
    (disk.parent / "agent").symlink_to(bench.events.parent)
    works, filler = tmp_path / "works", disk / "filler"
    ops = Notify("ops", command=("/bin/sh", "-c", f"test -e {works}"), severity="info", group=0)
    bench.begin(ops)
    bench.tell(*["failed"] * 3)
    stages = ["queued", "full", "delivered"]

    def until(duty: NotifyDuty) -> bool:
        if stages[0] == "queued" and duty._waiting == 3 and duty._pauses:
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 4096)
            bench.tell(*["started"] * 40, size="x" * 4000)
            stages.pop(0)
        if stages[0] == "full" and duty.status().startswith(f"{disk}/notify.db: "):
            works.touch()
            stages.pop(0)
        if stages[0] == "delivered" and delivered(3)(duty):
            filler.unlink(missing_ok=True)
        return delivered(43)(duty)

    bench.run(ops, until=until)
    assert bench.told.kinds == ["notify_failed", "notify_resumed"]


CHILD = """
import asyncio, msgspec, sys
from pathlib import Path
from agent.declaration.model import Watch
from agent.workers.watch import notify
notify.LOOK = 0.005
class Told:
    def event(self, kind, message, **data): pass
    def log(self, message): pass
async def work():
    duty = notify.NotifyDuty(Told(), msgspec.json.decode(sys.argv[2], type=Watch), Path(sys.argv[1]))
    await duty.start()
    await duty.run(lambda: None)
asyncio.run(work())
"""


def test_killed_at_any_time_it_tells_everything_and_everything_with_one_id(bench: Bench) -> None:
    with hook() as server:
        ops = Notify("ops", webhook=server.url, group=0)
        bench.begin(ops)
        settings = msgspec.json.encode(Watch(name="watch", notifies=(ops,)))
        command = [sys.executable, "-c", CHILD, str(bench.data), settings.decode()]
        for number in range(5):
            bench.tell("failed", "hung", "exited")
            child = subprocess.Popen(command)
            for _ in range(number % 3 + 1):
                assert server.came.acquire(timeout=30)
            child.send_signal(signal.SIGKILL)  # as the answer goes out, before it can have taken note of it
            child.wait()
        bench.run(ops, until=lambda duty: duty._queue is not None and not duty._waiting and bool(duty._delivered))
        told: dict[str, str] = {}
        for request, message in zip(server.requests, bodies(server), strict=True):
            (event,) = message["events"]
            assert told.setdefault(str(event["cursor"]), request.headers["webhook-id"]) == request.headers["webhook-id"]
        order = [event["cursor"] for message in bodies(server) for event in message["events"]]
    assert len(told) == 15
    assert order == sorted(order)


def test_a_queue_that_cannot_be_read_is_replaced_and_told(bench: Bench) -> None:
    (bench.data / "notify.db").write_bytes(b"nonsense" * 1000)
    bench.begin(Notify("ops", command=("/bin/true",)))
    assert bench.told.kinds == ["database_replaced"]
