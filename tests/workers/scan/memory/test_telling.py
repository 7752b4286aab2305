"""Changes become events: each once, the gravest first, and never so many that nobody reads them."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from agent.telemetry.kinds import KINDS
from agent.workers.scan.found import Certificate, Port
from agent.workers.scan.memory import telling
from agent.workers.scan.memory.telling import GRAVITY, SINGLE, Event
from agent.workers.scan.store import ScanStore
from tests.workers.scan.memory.history import TASK, Service, host

WEB = Port("tcp", 443, "open", "syn-ack", "http", "nginx", "1.22", tunnel="ssl", method="probed")


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path / "scan.db")


def events(store: ScanStore) -> list[Event]:
    found: list[Event] = []
    store.tell(found.append)
    return found


def run(service: Service, *ports: Port, quiet: bool = False) -> list[Event]:
    """One run of a host with these ports; what there is to tell then."""
    service.now += 3600
    with closing(service.open()) as store:
        begun = store.begin(TASK, service.now)
        service.keep(store, begun, [host(1, *ports, high=1000)])
        store.end(begun, "finished", service.now + 1)
        return [] if quiet else events(store)


def test_every_kind_of_change_is_known_to_the_journal() -> None:
    assert {*GRAVITY, "scan_changes"} <= KINDS.keys()


def test_the_first_run_is_one_event(service: Service) -> None:
    [only] = run(service, WEB, replace(WEB, number=444))
    assert (only.kind, only.message) == (
        "scan_changes",
        "the first scan of this network: 2 port_opened, 1 host_new",
    )
    assert only.data == {"run": 1, "first": True, "changes": 3, "port_opened": 2, "host_new": 1}


def test_events_say_in_words_what_changed(service: Service) -> None:
    certificate = Certificate("ab" * 32, "CN=a")
    run(service, replace(WEB, certificate=certificate))
    told = run(
        service,
        replace(WEB, version="1.24", certificate=replace(certificate, sha256="cd" * 32)),
        Port("tcp", 22, "open", "syn-ack", "ssh", "OpenSSH", "9.2", method="probed"),
    )
    assert [event.message for event in told] == [
        "10.0.0.1 tcp/443: abababababababab CN=a -> cdcdcdcdcdcdcdcd CN=a",
        "10.0.0.1 tcp/22 is open: ssh OpenSSH 9.2",
        "10.0.0.1 tcp/443: ssl/http nginx 1.22 -> ssl/http nginx 1.24",
    ]
    assert told[1].data == {
        "change": told[1].data["change"],
        "run": 2,
        "address": "10.0.0.1",
        "protocol": "tcp",
        "port": 22,
        "old": "",
        "new": "open",
    }


def test_of_many_changes_only_the_gravest_are_told_one_by_one(service: Service) -> None:
    run(service, *(replace(WEB, number=number) for number in range(1, 101)))
    upgraded = [replace(WEB, number=number, version="1.24") for number in range(1, 98)]
    opened = [replace(WEB, number=number) for number in range(201, 204)]
    told = run(service, *upgraded, *opened)
    assert len(told) == SINGLE + 1
    assert [event.kind for event in told[:4]] == ["port_opened"] * 3 + ["version_changed"]
    assert told[-1].kind == "scan_changes"
    assert told[-1].message == "50 more changes: 50 version_changed"
    with closing(service.open()) as store:
        assert events(store) == []


def test_many_changes_are_marked_in_steps(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "STEP", 10)
    service.now += 3600
    turns: list[None] = []
    found: list[Event] = []
    with closing(service.open()) as store:
        begun = store.begin(TASK, service.now)
        service.keep(store, begun, [host(1, *(replace(WEB, number=number) for number in range(1, 96)))])
        store.end(begun, "finished", service.now + 1)
        store.tell(found.append, lambda: turns.append(None))
        assert [event.data["changes"] for event in found] == [96]
        assert len(turns) == 1 + 10, "the event, and nine full steps and one that is not"
        assert events(store) == []


def test_a_step_costs_what_it_marks_however_many_were_told_before(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run of a large network has a million changes."""
    monkeypatch.setattr(telling, "STEP", 10)

    def cost(untold: int) -> int:
        """In hundreds of instructions of SQLite's machine."""
        counted = 0

        def count() -> None:
            nonlocal counted
            counted += 1

        with closing(service.open()) as store:
            store._connection.executemany(
                "INSERT INTO changes (run, time, site, address, proto, port, kind, old, new, source)"
                " VALUES (1, 0, 'here', '10.0.0.1', 'tcp', ?, 'port_opened', '', 'open', 'sweep')",
                ((port,) for port in range(untold)),
            )
            store._connection.set_progress_handler(count, 100)
            assert sum(event.data.get("changes", 1) for event in events(store)) == untold
        return counted

    once = cost(1000)
    assert cost(2000) < 3 * once, "with 1,000 that were told before"


def test_what_a_killed_worker_had_not_told_is_told_by_the_next(service: Service) -> None:
    run(service, WEB)
    run(service, replace(WEB, version="1.24"), quiet=True)

    class Killed(BaseException):
        pass

    def dying(event: Event) -> None:
        raise Killed

    with closing(service.open()) as store, pytest.raises(Killed):
        store.tell(dying)
    with closing(service.open()) as store:
        assert [event.kind for event in events(store)] == ["version_changed"]
        assert events(store) == []
