"""What a scan found is remembered whole or not at all, and what was interrupted is continued."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import ScanFailure, StorageFailure
from agent.workers.scan import store as store_module
from agent.workers.scan.found import Host, Port, Rest
from agent.workers.scan.memory import reading
from agent.workers.scan.memory.coverage import asked
from agent.workers.scan.memory.reading import Memory, Quarantined
from agent.workers.scan.outcome import ON_EVERY_PORT
from agent.workers.scan.plan import Chunk, make_plan
from agent.workers.scan.store import DETECTED, FAILURES, RESUME_WITHIN, SWEPT, Run, ScanStore, Task
from tests.workers.scan.reports import each

NOW = 1_750_000_000.0
SSH = Port(
    "tcp", 22, "open", "syn-ack", "ssh", "OpenSSH", "9.2", "protocol 2.0", "", ("cpe:/a:x", "cpe:/o:y"), "probed"
)
CLOSED = Rest("tcp", "closed", "reset", ((1, 21), (23, 100)))
PLAN = make_plan(["10.0.0.0/24"])
"""Four chunks of 64."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ScanStore]:
    opened = ScanStore(tmp_path / "lan" / "scan.db", site="here")
    yield opened
    opened.close()


def task(plan_hash: str = "plan", seed: int = 0) -> Task:
    return Task(plan_hash, PLAN.hosts, PLAN.chunk_count, '{"targets":["10.0.0.0/24"]}', ("nmap", "-n"), seed)


def host(address: str) -> Host:
    return Host(address, "up", "arp-response", "02:00:00:00:00:01", ("a",), (SSH,), (CLOSED,))


def scan(store: ScanStore, run: Run, *numbers: int) -> None:
    for chunk in PLAN.chunks():
        if chunk.number in numbers:
            keep(store, run, chunk)


def keep(store: ScanStore, run: Run, chunk: Chunk) -> None:
    first, *others = chunk.addresses
    store.store(
        run, [host(first)], NOW + chunk.number, chunk=chunk.number, addresses=64, asked=asked(others), raw=b"<nmaprun/>"
    )


def runs(store: ScanStore) -> list[reading.Run]:
    """As any other program would read them, while the store is open; the oldest first."""
    with Memory(store.path) as memory:
        return memory.runs()[::-1]


def test_a_run_and_its_findings_can_be_read_by_another_program_while_it_is_written(store: ScanStore) -> None:
    run = store.begin(task(), NOW)
    scan(store, run, 0, 1)
    with Memory(store.path) as memory:
        [found] = memory.runs()
        assert (found.status, found.ended, found.chunks_done, found.hosts_up) == ("running", None, 2, 2)
        scan(store, run, 2, 3)
        store.tally(run, sent=300, answered=270, loss=0.05, nmap_version="7.93")
        store.end(run, "finished", NOW + 9)
        [found] = memory.runs()
        assert (found.status, found.started, found.ended, found.site) == ("finished", NOW, NOW + 9, "here")
        assert (found.hosts_total, found.hosts_up, found.ports_open, found.chunks_done) == (256, 4, 4, 4)
        assert (found.sent, found.answered, found.loss, found.nmap_version) == (300, 270, 0.05, "7.93")
        assert (found.declared, found.argv) == ({"targets": ["10.0.0.0/24"]}, ["nmap", "-n"])
        assert found == memory.run(run.id)
        assert list(memory.hosts(run.id)) == [host(f"10.0.0.{number}") for number in (0, 64, 128, 192)]
        assert list(memory.raw(run.id)) == [b"<nmaprun/>"] * 4


def test_a_loss_that_was_measured_stays_when_nothing_more_is_known_of_it(store: ScanStore) -> None:
    run = store.begin(task(), NOW)
    store.tally(run, sent=300, answered=270, loss=0.1, engine="syn")
    store.tally(run, sent=400, answered=270, nmap_version="7.93")
    [found] = runs(store)
    assert (found.sent, found.loss, found.engine, found.nmap_version) == (400, 0.1, "syn", "7.93")


def test_what_was_asked_is_known_for_hosts_that_answered_and_for_those_that_did_not(store: ScanStore) -> None:
    run = store.begin(task(), NOW)
    scan(store, run, 0, 1)
    store.store(run, (), NOW, asked=asked(["10.0.0.130"], outcome="timed_out"))
    store.store(run, (), NOW, asked=asked(["10.0.0.131"], (("udp", ((53, 53),)),)))
    store.store(run, [Host("fe80::1%eth0", "down", "no-response")], NOW)
    store.end(run, "finished", NOW)
    with Memory(store.path) as memory:
        coverage = memory.coverage(run.id)
        assert [coverage.outcome(f"10.0.0.{number}") for number in (0, 1, 127, 128, 130)] == [
            "answered",
            "silent",
            "silent",
            "",
            "timed_out",
        ]
        assert coverage.asked("10.0.0.0", "tcp", 22)
        assert coverage.asked("10.0.0.0", "tcp", 100)
        assert not coverage.asked("10.0.0.0", "tcp", 101)
        assert not coverage.asked("10.0.0.0", "udp", 22)
        assert not coverage.asked("10.0.0.1", "tcp", 22), "only whether it is there"
        assert coverage.asked("10.0.0.131", "udp", 53)
        assert [coverage.looked(f"10.0.0.{number}") for number in (1, 130, 200)] == [True, False, False]
        assert [coverage.looked(address) for address in ("fe80::1%eth0", "fe80::1%eth1", "fe80::1", "garbage")] == [
            True,
            False,
            False,
            False,
        ]
        assert sum(1 for part in coverage.without_picture() if not part.ports and part.outcome == "silent") == 3


def test_ranges_that_chunks_brought_one_by_one_become_one(store: ScanStore) -> None:
    run = store.begin(task(), NOW)
    for chunk in PLAN.chunks():
        store.store(run, (), NOW, chunk=chunk.number, addresses=64, asked=asked(chunk.addresses))
    store.end(run, "finished", NOW)
    with Memory(store.path) as memory:
        [part] = memory.coverage(run.id).without_picture()
        assert list(each(part)) == [address for chunk in PLAN.chunks() for address in chunk.addresses]


def test_a_chunk_that_cannot_be_stored_leaves_nothing(store: ScanStore) -> None:
    run = store.begin(task(), NOW)
    with pytest.raises(StorageFailure, match="is not an address"):
        store.store(run, [host("10.0.0.1"), host("10.0.0.1/24")], NOW, chunk=0, addresses=64)
    with Memory(store.path) as memory:
        assert list(memory.hosts(run.id)) == []
    assert (run.done, run.hosts_done, run.hosts_up) == (set(), 0, 0)
    scan(store, run, 0)
    assert run.done == {0}


def test_a_host_that_is_looked_at_again_in_a_run_gets_what_is_new_added(store: ScanStore) -> None:
    run = store.begin(task(), NOW)
    bare = Port("tcp", 22, "open", "syn-ack", ttl=64)
    store.store(run, [Host("10.0.0.1", "up", "syn-ack", ports=(bare,), rest=(CLOSED,))], NOW)
    store.store(run, [Host("10.0.0.2", "up", "syn-ack", rest=(CLOSED,))], NOW, stage=DETECTED)
    [waiting] = store.waiting(run, DETECTED)
    assert waiting.address == "10.0.0.1"
    web = Port("tcp", 101, "open", "syn-ack")
    store.store(run, [replace(waiting, ports=(SSH, web), rest=())], NOW, stage=DETECTED)
    assert list(store.waiting(run, DETECTED)) == []
    store.store(run, [Host("10.0.0.1", "up", "syn-ack", ports=(bare,), rest=(CLOSED,))], NOW, stage=SWEPT)
    assert list(store.waiting(run, DETECTED)) == [], "nothing goes back"
    assert (run.hosts_up, run.ports_open) == (2, 2)
    with Memory(store.path) as memory:
        found = memory.host(run.id, "10.0.0.1")
        assert found is not None
        assert found.ports == (replace(SSH, ttl=64), web)
        assert found.rest == (CLOSED,)
        assert memory.host(run.id, "10.0.0.3") is None
        [kept] = memory.runs()
        assert (kept.hosts_up, kept.ports_open) == (2, 2)


@pytest.mark.parametrize("told", [True, False], ids=["stopped", "killed"])
def test_an_interrupted_run_of_the_same_plan_is_continued(
    store: ScanStore, told: bool, request: pytest.FixtureRequest
) -> None:
    run = store.begin(task(seed=7), NOW)
    scan(store, run, 0, 1)
    if told:
        store.end(run, "interrupted", NOW + 5)
    store.close()
    request.addfinalizer((store := ScanStore(store.path, site="here")).close)
    again = store.begin(task(seed=8), NOW + 60)
    assert again.resumed
    assert (again.id, again.done, again.seed, again.started) == (run.id, {0, 1}, 7, NOW)
    assert (again.hosts_done, again.hosts_up, again.ports_open) == (128, 2, 2)
    scan(store, again, 1, 2, 3)
    store.end(again, "finished", NOW + 99)
    [found] = runs(store)
    assert (found.status, found.chunks_done, found.hosts_up) == ("finished", 4, 4)


@pytest.mark.parametrize("ending", ["finished", "stopped"])
def test_a_run_that_ended_is_not_continued(store: ScanStore, ending: store_module.Ending) -> None:
    run = store.begin(task(), NOW)
    scan(store, run, 0)
    store.end(run, ending, NOW)
    assert not store.begin(task(), NOW).resumed


def test_a_port_that_only_a_second_look_finds_open_is_still_to_be_identified(store: ScanStore) -> None:
    run = store.begin(task(), NOW)
    store.store(run, [host("10.0.0.1")], NOW, stage=DETECTED)
    again = Host("10.0.0.1", "up", "syn-ack", "", (), (Port("tcp", 22, "open", "syn-ack"),), ())
    store.recheck(run, [again], NOW + 1)
    assert list(store.waiting(run, DETECTED)) == []
    more = replace(again, ports=(Port("tcp", 443, "open", "syn-ack"),))
    store.recheck(run, [more], NOW + 2)
    [waiting] = store.waiting(run, DETECTED)
    assert {port.number for port in waiting.ports if port.state == "open"} == {22, 443}
    everything = Rest("tcp", "open", ON_EVERY_PORT, ((1, 100),))
    store.store(run, [Host("10.0.0.2", "up", "syn-ack", rest=(everything,))], NOW + 3, stage=DETECTED)
    store.recheck(run, [replace(more, address="10.0.0.2")], NOW + 4)
    assert [one.address for one in store.waiting(run, DETECTED)] == ["10.0.0.1"]


def test_one_port_that_opens_while_another_closes_is_still_to_be_identified(store: ScanStore) -> None:
    run = store.begin(task(), NOW)
    store.store(run, [host("10.0.0.1")], NOW, stage=DETECTED)
    assert store.identified(run, "10.0.0.1") == {("tcp", 22)}
    other = (Port("tcp", 443, "open", "syn-ack"), Port("tcp", 22, "filtered", "no-response"))
    store.recheck(run, [Host("10.0.0.1", "up", "syn-ack", ports=other)], NOW + 1)
    assert [one.address for one in store.waiting(run, DETECTED)] == ["10.0.0.1"]
    assert store.identified(run, "10.0.0.1") == store.identified(run, "10.0.0.2") == frozenset()


def test_a_run_that_failed_is_continued_a_few_times_and_always_says_so(store: ScanStore) -> None:
    first = store.begin(task(seed=7), NOW)
    scan(store, first, 0)
    store.end(first, "failed", NOW, "nmap was killed by SIGSEGV")
    assert [(run.status, run.message, run.folded) for run in runs(store)] == [
        ("failed", "nmap was killed by SIGSEGV", False)
    ]
    second = store.begin(task(), NOW + 1)
    assert (second.id, second.done, second.seed, second.resumed) == (first.id, {0}, 7, True)
    told = "has failed once and was continued: nmap was killed by SIGSEGV"
    assert [(run.status, run.message) for run in runs(store)] == [("running", told)]
    store.end(second, "interrupted", NOW + 2, "stopped after 64 of 256 hosts")
    assert [run.message for run in runs(store)] == [f"stopped after 64 of 256 hosts; {told}"]
    third = store.begin(task(), NOW + 3)
    store.end(third, "failed", NOW + 4, "the disk is full")
    fourth = store.begin(task(), NOW + 5)
    scan(store, fourth, 1, 2, 3)
    told = "has failed 2 times and was continued: the disk is full"
    store.end(fourth, "finished", NOW + 6)
    [only] = runs(store)
    assert (only.status, only.message, only.chunks_done, only.folded) == ("finished", told, 4, True)


def test_a_run_that_has_failed_too_often_is_begun_anew_and_what_it_found_is_kept(store: ScanStore) -> None:
    for number in range(FAILURES):
        run = store.begin(task(), NOW + number)
        assert (run.id, run.failures) == (1, number)
        scan(store, run, 0)
        store.end(run, "failed", NOW + number, "nmap wrote nothing")
    assert [run.folded for run in runs(store)] == [True]
    again = store.begin(task(), NOW + 9)
    assert (again.id, again.done, again.failures, again.after()) == (2, set(), 0, "")
    assert [(run.id, run.status) for run in runs(store)] == [(1, "failed"), (2, "running")]


def test_a_run_that_failed_is_not_continued_by_another_plan_and_then_it_is_folded(store: ScanStore) -> None:
    run = store.begin(task(), NOW)
    scan(store, run, 0)
    store.end(run, "failed", NOW, "nmap wrote nothing")
    assert store.begin(task("other"), NOW + 1).id == 2
    assert [run.folded for run in runs(store)] == [True, False]


def test_what_a_discovery_said_is_known_to_whoever_continues(store: ScanStore, request: pytest.FixtureRequest) -> None:
    run = store.begin(task(), NOW)
    store.store(run, [Host("10.0.0.7", "up", "arp-response")], NOW, discovered=[0, 2])
    store.store(run, [Host("10.0.0.99", "up", "arp-response")], NOW)
    store.tally(run, sent=900, answered=800)
    store.close()
    request.addfinalizer((store := ScanStore(store.path, site="here")).close)
    again = store.begin(task(), NOW + 60)
    assert (again.discovered, again.done) == ({0, 2}, set())
    assert (again.sent, again.answered) == (900, 800), "as others counted them"
    addresses = [f"10.0.0.{last}" for last in range(256)]
    assert store.present(again, addresses) == {"10.0.0.7", "10.0.0.99"}


def test_what_goes_wrong_after_a_run_has_ended_makes_no_failure_of_it(store: ScanStore) -> None:
    run = store.begin(task(), NOW)
    scan(store, run, 0, 1, 2, 3)
    store.end(run, "finished", NOW + 1)
    store.end(run, "failed", NOW + 2, "the disk is full")
    [found] = runs(store)
    assert (found.status, found.ended, found.message) == ("finished", NOW + 1, "")


def test_an_interrupted_run_of_another_plan_or_site_is_not_continued(store: ScanStore) -> None:
    run = store.begin(task(), NOW)
    scan(store, run, 0)
    store.end(run, "interrupted", NOW)
    store.site = "there"
    assert store.begin(task(), NOW).id != run.id
    store.site = "here"
    other = store.begin(task("other"), NOW)
    assert (other.id != run.id, other.done) == (True, set())


@pytest.mark.parametrize("later", [RESUME_WITHIN + 1, -RESUME_WITHIN - 1])
def test_an_interrupted_run_is_not_continued_a_day_later(store: ScanStore, later: float) -> None:
    run = store.begin(task(), NOW)
    scan(store, run, 0)
    store.end(run, "interrupted", NOW)
    assert store.begin(task(), NOW + later).id != run.id


WRITING = """
import sys
from pathlib import Path
from agent.workers.scan.store import ScanStore
from tests.workers.scan.reports import each
from tests.workers.scan import test_store as here

store = ScanStore(Path(sys.argv[1]), site="here")
while True:
    run = store.begin(here.task(), here.NOW)
    for chunk in here.PLAN.chunks():
        if chunk.number not in run.done:
            print(run.id, flush=True)
            here.keep(store, run, chunk)
    store.end(run, "finished", here.NOW)
"""


def test_a_kill_at_any_moment_leaves_whole_chunks_and_whole_runs(tmp_path: Path) -> None:
    path = tmp_path / "scan.db"
    chance = random.Random(1)
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", WRITING, path], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(chance.randrange(1, 40)):
            process.stdout.readline()
        process.kill()
        process.communicate()
        with closing(ScanStore(path, site="here")) as store:
            assert store.opened.moved_aside is None
            run = store.begin(task(), NOW)
            store.end(run, "interrupted", NOW)
        with Memory(path) as memory:
            told = [(change.address, change.kind) for change in memory.changes()]
            assert len(told) == len(set(told)), "each once"
            for found in memory.runs():
                hosts = list(memory.hosts(found.id))
                assert (found.chunks_done, found.hosts_up) == (len(hosts), len(hosts))
                if found.id != run.id:
                    assert (found.status, len(hosts), found.folded) == ("finished", 4, True)


def test_another_programs_scan_becomes_a_run_of_its_own_and_stands_in_nobodys_way(store: ScanStore) -> None:
    run = store.begin(task(), NOW)
    scan(store, run, 0)
    store.end(run, "interrupted", NOW)
    number = store.take_in(
        Task("", 2, 0, '{"file":"old.xml"}'),
        [host("10.0.0.9")],
        started=NOW - 60,
        ended=NOW - 50,
        now=NOW,
    )
    with Memory(store.path) as memory:
        found = memory.run(number)
        assert found is not None
        assert (found.status, found.started, found.ended, found.ports_open) == ("imported", NOW - 60, NOW - 50, 1)
        assert list(memory.hosts(number)) == [host("10.0.0.9")]
    assert store.begin(task(), NOW + 1).id == run.id


def test_hosts_that_look_different_in_two_runs_are_found_without_the_others(store: ScanStore) -> None:
    first = store.begin(task(), NOW)
    store.store(first, [host(f"10.0.0.{number}") for number in range(1, 10)], NOW)
    store.end(first, "finished", NOW)
    second = store.begin(task(), NOW + 60)
    changed = replace(host("10.0.0.3"), ports=(replace(SSH, version="9.3"),))
    store.store(second, [host(f"10.0.0.{number}") for number in range(4, 12)] + [changed], NOW + 60)
    store.end(second, "finished", NOW + 60)
    with Memory(store.path) as memory:
        assert [tuple(pair) for pair in memory.differing(first.id, second.id)] == [
            (host("10.0.0.1"), None),
            (host("10.0.0.2"), None),
            (host("10.0.0.3"), changed),
            (None, host("10.0.0.10")),
            (None, host("10.0.0.11")),
        ]


def test_silent_ports_are_remembered_until_they_are_heard(store: ScanStore) -> None:
    first = Quarantined("10.0.0.1", "tcp", 4000, NOW, 1, NOW + 60)
    other = Quarantined("10.0.0.2", "tcp", 4000, NOW, 1, NOW + 60)
    store.silence([first, other])
    again = first._replace(tries=2, next_try=NOW + 600)
    store.silence([again])
    assert store.silent() == [again, other]
    with Memory(store.path) as memory:
        assert memory.quarantine() == [again, other]
    store.silence([], heard=[("10.0.0.1", "tcp", 4000)])
    assert store.silent() == [other]
    store.site = "there"
    assert store.silent() == []


def test_those_that_were_silent_longest_are_asked_first_and_nobody_waits_for_who_is_not_looked_at(
    store: ScanStore,
) -> None:
    for began, last in ((NOW - 200, 5), (NOW - 100, 3)):
        run = store.begin(Task("plan", 5, 1), began)
        store.store(run, [host(f"10.0.0.{number}") for number in range(1, last + 1)], began + 1, chunk=0, addresses=5)
        store.end(run, "finished", began + 2)
    ports = [Quarantined(f"10.0.0.{number}", "tcp", 22, NOW, 1, NOW - number) for number in range(1, 6)]
    store.silence([*ports, Quarantined("10.0.0.3", "tcp", 23, NOW, 1, NOW + 9)])
    assert store.longest_silent(2, NOW) == {"10.0.0.3", "10.0.0.2"}
    assert store.longest_silent(9, NOW - 2) == {"10.0.0.3", "10.0.0.2"}


def test_a_second_scan_of_the_same_service_is_refused_until_the_first_lets_go(store: ScanStore) -> None:
    with pytest.raises(ScanFailure, match="another scan of this service is running"):
        ScanStore(store.path)
    store.close()
    with closing(ScanStore(store.path)) as second:
        assert not second.begin(task(), NOW).resumed


def test_a_damaged_database_is_moved_aside_and_told(tmp_path: Path) -> None:
    (tmp_path / "scan.db").write_bytes(b"garbage" * 1000)
    with closing(ScanStore(tmp_path / "scan.db")) as opened:
        assert opened.opened.moved_aside is not None
        assert opened.opened.moved_aside.read_bytes() == b"garbage" * 1000
        opened.begin(task(), NOW)


def test_a_database_that_cannot_be_opened_leaves_no_lock_behind(tmp_path: Path) -> None:
    (tmp_path / "scan.db").mkdir()
    for _ in range(2):
        with pytest.raises(StorageFailure, match="not a regular file"):
            ScanStore(tmp_path / "scan.db")


def test_a_database_is_looked_through_after_a_kill_and_after_an_error_and_not_at_each_start(tmp_path: Path) -> None:
    path = tmp_path / "scan.db"
    note = path.with_name("scan.db.closed")
    first = ScanStore(path)
    first.close()
    first.close()
    again = ScanStore(path)
    assert again.opened.checked == int(first.opened.checked)
    assert not note.exists()  # a kill from here on leaves none
    with pytest.raises(StorageFailure, match="no such table"):
        again._connection.execute("DROP TABLE quarantine")
        again.silent()
    again.close()
    assert not note.exists()
    third = ScanStore(path)
    assert third.opened.checked > again.opened.checked
    third.close()


@pytest.mark.parametrize("harm", ["DROP TABLE seen", "UPDATE pictures SET data = x'00'"])
def test_damage_that_shows_while_what_is_left_to_do_is_read_is_one_line_and_is_looked_for(
    store: ScanStore, harm: str
) -> None:
    run = store.begin(task(), NOW)
    scan(store, run, 0)
    store._connection.execute("PRAGMA foreign_keys=OFF")
    store._connection.execute(harm)
    with pytest.raises(StorageFailure, match=r"no such table|what the database holds"):
        list(store.waiting(run, DETECTED))
    store.close()
    assert not store.path.with_name("scan.db.closed").exists()
