"""A memory is bounded by age and by size, and forgets neither the last good run nor what is so now."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import StorageFailure
from agent.workers.scan.found import Host, Rest
from agent.workers.scan.memory.reading import Memory, Quarantined
from agent.workers.scan.store import ScanStore, Task
from tests.workers.scan.memory.history import TASK, Service, fill, host

HOUR = 3600.0
YEARS = 10 * 365 * 86400.0
GIB = 1 << 30


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path / "scan.db")


def prune(service: Service, *, max_age: float = YEARS, size: int = GIB, raw: float = YEARS) -> int:
    """How many steps it took."""
    steps = 0

    def turn() -> None:
        nonlocal steps
        steps += 1

    with closing(service.open()) as store:
        store.prune(max_age, size, raw, service.now + 20, turn)
    return steps


def kept(service: Service) -> list[int]:
    with Memory(service.path) as memory:
        return [run.id for run in memory.runs()][::-1]


def hosts(service: Service, run: int) -> list[Host]:
    with Memory(service.path) as memory:
        return list(memory.hosts(run))


def count(service: Service, table: str) -> int:
    with closing(service.open()) as store:
        [number] = store._connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(number)


def test_old_runs_and_changes_go_with_the_pictures_that_no_other_run_has(service: Service) -> None:
    for number in range(6):
        service.run([host(1, 22), host(2, 22, 40 + number)], silent=[3])
    assert count(service, "pictures") == 7
    before = service.now_open()
    prune(service, max_age=2.5 * HOUR)
    assert kept(service) == [4, 5, 6]
    assert count(service, "pictures") == 4
    assert [one.ports[-1].number for run in (4, 5, 6) for one in hosts(service, run)] == [22, 43, 22, 44, 22, 45]
    for table in ("chunks", "coverage", "seen"):
        assert count(service, f"{table} WHERE run NOT IN (SELECT id FROM runs)") == 0
    assert service.now_open() == before
    with Memory(service.path) as memory:
        assert {change.run for change in memory.changes()} <= {4, 5, 6}
    assert prune(service, max_age=2.5 * HOUR) == 0, "nothing is left to do"


def test_the_last_run_that_finished_stays_with_its_pictures_however_old(service: Service) -> None:
    service.run([host(1, 22), host(2, 80)])
    good = hosts(service, 1)
    for _ in range(3):
        service.run([host(1, 22)], status="failed")
    prune(service, max_age=0)
    assert kept(service) == [1]
    assert hosts(service, 1) == good
    assert service.now_open() == ["10.0.0.1 22", "10.0.0.2 80"]


def test_a_host_that_has_gone_is_forgotten_when_no_run_that_is_kept_saw_it(service: Service) -> None:
    service.run([host(1, 22), host(2, 22)])
    with closing(service.open()) as store:
        store.silence([Quarantined(f"10.0.0.{last}", "tcp", 22, service.now, 1, service.now) for last in (1, 2)])
    for _ in range(2):
        service.run([host(1, 22)], silent=[2])  # the second time it counts as gone
    prune(service, max_age=1.5 * HOUR)
    assert count(service, "hosts") == 2, "a run that is kept has told that it went"
    for _ in range(2):
        service.run([host(1, 22)], silent=[2])
    prune(service, max_age=1.5 * HOUR)
    for table in ("hosts", "ports", "quarantine"):
        assert count(service, table) == 1
    assert service.now_open() == ["10.0.0.1 22"]
    back = service.run([host(1, 22), host(2, 22)], again=[host(2, 22)])
    assert sorted(back) == ["host_new 10.0.0.2", "port_opened 10.0.0.2 22"]


def test_hosts_that_have_gone_make_room_when_there_is_too_much(service: Service) -> None:
    service.run([host(1, 22), host(2, 22)])
    for _ in range(3):
        service.run([host(1, 22)], silent=[2])
    prune(service, size=0)
    assert (kept(service), count(service, "hosts")) == ([4], 1)


def test_what_nobody_was_asked_for_any_more_is_no_set_of_ports(service: Service) -> None:
    for number in range(3):
        asked = Rest("tcp", "closed", "reset", ((100 + number, 200),))
        service.run([replace(host(1, 22), rest=(asked,))], silent=[2])
    made = count(service, "port_sets")
    prune(service, max_age=0.5 * HOUR)
    assert kept(service) == [3]
    assert count(service, "port_sets") == 2 < made
    assert hosts(service, 3)[0].rest == (asked,)


def test_a_run_that_is_to_be_continued_is_kept(service: Service) -> None:
    service.run([host(1, 22)], status="interrupted")
    prune(service, max_age=0)
    assert kept(service) == [1]


def test_an_imported_run_is_as_old_as_its_import(service: Service) -> None:
    service.run([host(1, 22)])
    with closing(service.open()) as store:
        store.take_in(Task("", 1, 0), [host(1, 22)], started=1.0, ended=2.0, now=service.now)
    prune(service, max_age=HOUR)
    assert kept(service) == [1, 2]


def test_what_is_too_much_goes_the_oldest_first_until_it_is_not(service: Service) -> None:
    noise = os.urandom(40_000)
    with closing(service.open()) as store:
        for number in range(8):
            run = store.begin(TASK, service.now + number)
            store.store(run, [replace(host(1, 22), names=(f"n{number}",))], service.now, raw=noise)
            store.end(run, "finished", service.now + number)
            store.tell(lambda _: None)
    prune(service, size=300_000)
    assert len(kept(service)) == 8, "nmap's own words go first"
    with Memory(service.path) as memory:
        assert [len(list(memory.raw(run))) for run in (1, 8)] == [0, 0]
    prune(service, size=0)
    assert kept(service) == [8]
    assert count(service, "changes") == 0
    assert service.now_open() == ["10.0.0.1 22"]


def test_nmaps_own_words_are_kept_for_a_time_of_their_own(service: Service) -> None:
    with closing(service.open()) as store:
        for hours in (3, 1):
            run = store.begin(TASK, service.now - hours * HOUR)
            store.store(run, [host(1, 22)], service.now - hours * HOUR, raw=b"<nmaprun/>")
            store.end(run, "finished", service.now - hours * HOUR)
    prune(service, raw=2 * HOUR)
    with Memory(service.path) as memory:
        assert [list(memory.raw(run)) for run in (1, 2)] == [[], [b"<nmaprun/>"]]
        assert len(memory.runs()) == 2


def test_a_disk_that_is_full_costs_nothing_that_was_there(small_disk: Path) -> None:
    service = Service(small_disk / "scan.db")
    service.run([host(1, 22)])
    good = hosts(service, 1)
    with closing(ScanStore(service.path, site="here")) as store:
        run = store.begin(TASK, service.now + 3600)
        fill(small_disk)
        with pytest.raises(StorageFailure, match="the disk is full") as full:
            for last in range(1, 200):
                store.store(run, [replace(host(last % 14 + 1), names=(os.urandom(2000).hex(),))], service.now + 3601)
        assert "\n" not in str(full.value)
        with pytest.raises(StorageFailure, match="the disk is full"):
            store.end(run, "failed", service.now + 3602, "x" * 100_000)
    assert hosts(service, 1) == good
    (small_disk / "filler").unlink()
    service.now += 7200
    assert service.run([host(1, 22)]) == ["port_opened 10.0.0.1 22"]
