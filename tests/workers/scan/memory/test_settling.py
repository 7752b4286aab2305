"""Runs become what is so now: each once, whatever cut it short, in however many pieces it came."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.workers.scan.found import Certificate, Host, Port, Rest
from agent.workers.scan.memory import settling
from agent.workers.scan.memory.coverage import asked
from agent.workers.scan.memory.reading import Canary, HostNow, Memory
from agent.workers.scan.memory.settling import Doubt, together
from agent.workers.scan.spans import without
from agent.workers.scan.store import Ending, ScanStore, Task
from agent.workers.scan.stored import side
from tests.workers.scan.memory.history import NOW, TASK, Service, host, in_doubt, told
from tests.workers.scan.reports import each

NGINX = Port("tcp", 80, "open", "syn-ack", "http", "nginx", "1.22", method="probed")


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path / "lan" / "scan.db")


def test_what_is_so_now_has_since_when_and_by_whom_it_is_known(service: Service) -> None:
    certificate = Certificate("ab" * 32, "CN=a", not_after=1_800_000_000)
    secure = Port("tcp", 99, "open", "syn-ack", tunnel="ssl", certificate=certificate)
    first = replace(host(1, NGINX, 22, secure), mac="02:00:00:00:00:01", names=("web",))
    service.run([first, host(2, 22)], silent=range(3, 15))
    service.run([first, host(2, 22)], silent=range(3, 15))
    with Memory(service.path) as memory:
        one, two = memory.now()
        assert (one.address, one.site, one.state, one.mac, one.names) == (
            "10.0.0.1",
            "here",
            "up",
            "02:00:00:00:00:01",
            ("web",),
        )
        ssh, web, tls = one.ports
        assert (web.number, web.service.label, web.source, web.confidence) == (80, "http nginx 1.22", "nmap", "certain")
        assert (ssh.state, ssh.source, ssh.confidence) == ("open", "sweep", "certain")
        assert tls.service.certificate == certificate
        assert (ssh.first_seen, ssh.last_seen, ssh.last_looked, ssh.last_changed) == (
            NOW + 3601,
            NOW + 7201,
            NOW + 7201,
            NOW + 7201,
        )
        assert [port.number for port in two.ports] == [22]
        every = [f"10.0.0.{last}" for last in range(16)]
        assert memory.canaries(every, site="here") == [Canary("10.0.0.1", "tcp", 22), Canary("10.0.0.2", "tcp", 22)]
        assert memory.canaries(every[2:], site="here") == [Canary("10.0.0.2", "tcp", 22)]
        assert memory.canaries(every, "udp", site="here") == memory.canaries(every, site="there") == []


def test_a_port_that_one_look_found_is_open_and_likely(service: Service) -> None:
    service.run([host(1, 22)])
    with Memory(service.path) as memory:
        [one] = memory.now()
        assert [(port.number, port.state, port.confidence) for port in one.ports] == [(22, "open", "likely")]
        assert memory.canaries(["10.0.0.1"], site="here") == []


def test_changes_are_stored_with_their_run_and_told_once(service: Service) -> None:
    service.run([host(1, NGINX, 22)], silent=[2])
    assert service.run([host(1, NGINX, 22)], silent=[2]) == ["port_opened 10.0.0.1 22"]
    assert service.run([host(1, replace(NGINX, version="1.24"))], silent=[2]) == ["version_changed 10.0.0.1 80"]
    assert service.run([host(1, NGINX), host(2)]) == [
        "host_new 10.0.0.2",
        "port_closed 10.0.0.1 22",
        "version_changed 10.0.0.1 80",
    ]
    assert service.run([host(1, NGINX)], silent=[2]) == []
    assert service.run([host(1, NGINX)], silent=[2]) == ["host_gone 10.0.0.2"]
    with Memory(service.path) as memory:
        every = memory.changes()
        assert [change.run for change in every] == [1, 1, 2, 3, 4, 4, 4, 6]
        assert (every[3].old, every[3].new, every[3].key) == ("http nginx 1.22", "http nginx 1.24", ("tcp", 80))
        assert memory.changes(limit=2) == every[-2:]
        assert memory.changes(after=every[1].id, limit=2) == every[2:4]
        assert memory.changes(run=4) == every[4:7]
        assert memory.changes(since=every[3].time, until=every[7].time) == every[3:7]


def test_a_second_look_in_the_same_run_settles_what_the_first_left_open(service: Service) -> None:
    service.run([host(1, NGINX), host(2, NGINX), host(3, NGINX)], silent=[4])
    with closing(service.open()) as store:
        run = store.begin(TASK, service.now + 3600)
        service.keep(store, run, [host(1, 22), host(2, NGINX, 22)], [3, 4])
        assert in_doubt(store, run) == [
            Doubt("10.0.0.1", False, (("tcp", 80), ("tcp", 22))),
            Doubt("10.0.0.2", False, (("tcp", 22),)),
            Doubt("10.0.0.3", True, (("tcp", 80),)),
        ]
        assert together(in_doubt(store, run)) == {
            (("tcp", 22), ("tcp", 80)): ["10.0.0.1"],
            (("tcp", 22),): ["10.0.0.2"],
            (("tcp", 80),): ["10.0.0.3"],
        }
        shut = Port("tcp", 80, "closed", "reset")
        silent = Rest("tcp", "filtered", "no-response", ((22, 22),))
        looks = [
            Host("10.0.0.1", "up", "syn-ack", ports=(Port("tcp", 22, "open", "syn-ack"), shut)),
            Host("10.0.0.2", "down", "no-response", rest=(silent,)),
            Host("10.0.0.3", "down", "no-response"),
        ]
        store.recheck(run, looks, service.now + 3601)
        assert in_doubt(store, run) == []
        store.end(run, "finished", service.now + 3602)
        assert sorted(told(store)) == ["host_gone 10.0.0.3", "port_closed 10.0.0.1 80", "port_opened 10.0.0.1 22"]
    assert service.now_open() == ["10.0.0.1 22", "10.0.0.2 80"]


@pytest.mark.parametrize("how", ["degraded", "failed", "stopped", "interrupted"])
def test_a_run_that_cannot_be_trusted_closes_nothing_and_still_opens(
    service: Service, how: Ending | Literal["degraded"]
) -> None:
    service.run([host(1, NGINX), host(2, NGINX)])
    found = [host(1, replace(NGINX, number=81))]
    for _ in range(4):
        if how == "degraded":
            service.run(found, silent=[2], degraded="canaries are missing")
        else:
            service.run(found, silent=[2], status=how)
            with closing(service.open()) as store:  # another plan, so that it is not continued
                store.end(store.begin(Task("other", 0, 0), service.now + 20), "stopped", service.now + 20)
    assert service.now_open() == ["10.0.0.1 80", "10.0.0.1 81", "10.0.0.2 80"]
    with Memory(service.path) as memory:
        assert [change.kind for change in memory.changes()].count("port_opened") == 3
        assert all(port.misses == 0 for one in memory.now() for port in one.ports)


def test_an_interrupted_run_waits_until_it_is_continued(service: Service) -> None:
    service.run([host(1, NGINX), host(2, NGINX)])
    assert service.run([host(1)], status="interrupted") == []
    with closing(service.open()) as store:
        run = store.begin(TASK, service.now + 60)
        assert run.resumed
        service.keep(store, run, [host(2)])
        store.end(run, "finished", service.now + 70)
        assert [doubt.address for doubt in in_doubt(store, run)] == []
        assert told(store) == []
    assert service.run([host(1), host(2)]) == ["port_closed 10.0.0.1 80", "port_closed 10.0.0.2 80"]


def test_folding_that_is_killed_half_way_goes_on_where_it_was(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "STEP", 3)
    service.run([host(last, NGINX) for last in range(1, 13)])

    class Killed(BaseException):
        pass

    steps = 0

    def turn() -> None:
        nonlocal steps
        steps += 1
        if steps == 2:
            raise Killed

    service.now += 3600
    with closing(service.open()) as store:
        run = store.begin(TASK, service.now)
        service.keep(store, run, [host(last, replace(NGINX, version="1.23")) for last in range(1, 13)])
        with pytest.raises(Killed):
            store.end(run, "finished", service.now + 10, turn=turn)
    with closing(service.open()) as store:
        store.settle()
        assert told(store) == [f"version_changed 10.0.0.{last} 80" for last in range(1, 13)]


def test_a_step_that_takes_long_ends_before_all_its_hosts_are_folded(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts with thousands of ports each: it must not last until the worker is taken for hung."""
    service.run([host(last, NGINX) for last in range(1, 10)])
    monkeypatch.setattr(settling, "LONGEST", 0.0)
    service.now += 3600
    turns: list[None] = []
    with closing(service.open()) as store:
        run = store.begin(TASK, service.now)
        service.keep(store, run, [host(last, replace(NGINX, version="1.23"), 22) for last in range(1, 10)])
        steps = list(store.doubts(run))
        assert [doubt.address for step in steps for doubt in step] == [f"10.0.0.{last}" for last in range(1, 10)]
        assert len(steps) == 9
        store.end(run, "finished", service.now + 10, turn=lambda: turns.append(None))
        assert told(store) == [f"version_changed 10.0.0.{last} 80" for last in range(1, 10)]
    assert len(turns) == 9


def test_another_programs_scan_opens_what_was_not_known_and_tells_nobody(service: Service) -> None:
    service.run([host(1, NGINX)])
    for age in (100.0, -100.0):
        with closing(service.open()) as store:
            store.take_in(
                Task("", 1, 0),
                [host(1, 22)],
                started=service.now - age,
                ended=service.now - age,
                now=service.now,
                asked=asked(["10.0.0.2"]),
            )
            assert told(store) == []
    assert service.now_open() == ["10.0.0.1 22", "10.0.0.1 80"]


def take_in(service: Service, age: float, *hosts: Host, nobody: Sequence[int] = ()) -> None:
    """A report that another program made so many seconds ago."""
    at = service.now - age
    with closing(service.open()) as store:
        silent = asked((f"10.0.0.{last}" for last in nobody), (("tcp", ((1, 100),)),))
        store.take_in(Task(f"{at}", 16, 1), hosts, started=at, ended=at + 10, now=service.now, asked=silent)
        assert told(store) == []


@pytest.mark.parametrize("by", ["scan", "report"])
def test_an_old_report_opens_nothing_that_was_looked_at_since_and_is_kept(service: Service, by: str) -> None:
    """Neither a port that was closed later, nor a host that was not there, nor a port that came to it in vain."""
    later, nobody = [host(1, 22)], [2, 3]
    for age in (7200.0, 3600.0):
        if by == "scan":
            service.run(later, silent=nobody)
        else:
            take_in(service, age, *later, nobody=nobody)
    old = [host(1, 22, NGINX), host(2, 22), host(4, 25)]
    take_in(service, 1e8, *old)
    assert service.now_open() == ["10.0.0.1 22", "10.0.0.4 25"]
    with Memory(service.path) as memory:
        assert [one.address for one in memory.now(gone=True)] == ["10.0.0.1", "10.0.0.4"], "nobody has asked the last"
        assert [port.first_seen for one in memory.now() for port in one.ports] == [service.now - 1e8 + 10] * 2
        assert list(memory.hosts(3)) == old
    for _ in range(3):
        assert service.run(later, silent=nobody) == []


def test_an_old_report_opens_what_no_run_has_asked_since_or_only_one_that_is_not_to_be_believed(
    service: Service,
) -> None:
    service.run([host(1, 22, high=50)], silent=[2])
    service.run([host(1, 22, high=50)], silent=[2], degraded="blind", withheld=("blind", [2]))
    service.run([host(1, 22)], status="stopped")
    take_in(service, 1e8, host(1, NGINX), host(3, 22))
    assert service.now_open() == ["10.0.0.1 22", "10.0.0.1 80", "10.0.0.3 22"]


def test_an_address_at_another_site_is_another_host(service: Service) -> None:
    service.run([host(1, NGINX)])
    for moment in (1, 2, 3):
        with closing(ScanStore(service.path, site="there")) as store:
            run = store.begin(TASK, service.now + moment)
            store.store(run, [host(1, 22)], service.now + moment, asked=asked(["10.0.0.2"]))
            store.end(run, "finished", service.now + moment)
    with Memory(service.path) as memory:
        assert [(one.site, [port.number for port in one.ports]) for one in memory.now()] == [
            ("here", [80]),
            ("there", [22]),
        ]
        assert [one.site for one in memory.now(site="there")] == ["there"]


# -- pieces ------------------------------------------------------------------------------------------------------------


def pieces(found: list[Host], random: random.Random) -> Iterator[Host]:
    """The same findings in an order of their own, each host in up to three looks at parts of its ports."""
    parts: list[Host] = []
    for one in found:
        cuts = sorted(random.sample(range(2, 100), random.randrange(3)))
        for low, high in zip([1, *cuts], [*(cut - 1 for cut in cuts), 100], strict=True):
            outside = tuple(span for span in ((1, low - 1), (high + 1, 100)) if span[0] <= span[1])
            rest = (replace(rest, ports=without(rest.ports, outside)) for rest in one.rest)
            parts.append(
                replace(
                    one,
                    ports=tuple(port for port in one.ports if low <= port.number <= high),
                    rest=tuple(part for part in rest if part.ports),
                )
            )
    random.shuffle(parts)
    return iter(parts)


@st.composite
def histories(draw: st.DrawFn) -> list[list[tuple[int, set[int]]]]:
    """For each run the hosts that answered, and their open ports."""
    found = st.dictionaries(st.integers(1, 3), st.sets(st.sampled_from((22, 80, 99)))).map(lambda d: sorted(d.items()))
    return draw(st.lists(found, min_size=1, max_size=5))


@settings(max_examples=12, deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_a_run_in_any_pieces_and_with_a_break_gives_the_same(
    history: list[list[tuple[int, set[int]]]], random: random.Random
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        whole, parts = Service(Path(directory, "a.db")), Service(Path(directory, "b.db"))
        for run in history:
            found = [host(last, *ports) for last, ports in run]
            silent = [last for last in (1, 2, 3) if last not in dict(run)]
            expected = whole.run(found, silent=silent)
            assert sorted(in_pieces(parts, found, silent, random)) == sorted(expected)
        assert believed(parts) == believed(whole)


def in_pieces(service: Service, found: list[Host], silent: list[int], random: random.Random) -> list[str]:
    service.now += 3600
    every = list(pieces(found, random))
    broken = random.randrange(len(every) + 1)
    with closing(service.open()) as store:
        run = store.begin(TASK, service.now)
        for part in every[:broken]:
            service.keep(store, run, [part])
    with closing(service.open()) as store:  # killed, and continued
        run = store.begin(TASK, service.now + 1)
        assert run.resumed
        for part in every[broken:]:
            service.keep(store, run, [part])
        for last in silent:
            service.keep(store, run, (), [last])
        store.end(run, "finished", service.now + 10)
        return told(store)


def believed(service: Service) -> list[HostNow]:
    with Memory(service.path) as memory:
        return list(memory.now(gone=True))


def test_runs_in_which_nobody_answers_around_a_host_are_counted_and_believed_when_that_is_settled(
    service: Service,
) -> None:
    """One of them still answers a ping, and of the others nothing is heard."""
    pinged, every = host(3, state="filtered"), [host(1, 22), host(2, 22), host(3, 22), host(4, 22)]

    def counted() -> list[tuple[str, bool, bool, int]]:
        with closing(service.open()) as store:
            return list(store.signs(store.begin(TASK, service.now + 1), {"tcp": ((1, 100),)}))

    for _ in range(2):
        service.run(every)
    for _ in range(2):
        for _ in range(2):
            assert (
                service.run([pinged, host(4, 22)], silent=[1, 2], withheld=("dark", [1, 2, 3]), degraded="none") == []
            )
        assert [dark for *_, dark in counted()] == [2, 2, 2, 0]
        service.run(every)
        assert [dark for *_, dark in counted()] == [0, 0, 0, 0]
    assert service.run([pinged, host(4)], silent=[1, 2], withheld=("settled", [1, 2, 3])) == [
        "host_gone 10.0.0.1",
        "host_gone 10.0.0.2",
        "port_filtered 10.0.0.3 22",
    ], "and of host 4, to which it does not apply, one look is not enough"
    assert service.run([pinged, host(4)], silent=[1, 2]) == ["port_closed 10.0.0.4 22"]


def test_a_part_of_which_the_scan_itself_saw_nothing_is_never_believed(service: Service) -> None:
    for _ in range(2):
        service.run([host(1, 22), host(2, 22), host(3, 22)])
    blind = partial(service.run, silent=[1], withheld=("blind", [1, 2]), degraded="canaries")
    shut = host(2, state="filtered")
    told = [blind([shut, host(3)]) for _ in range(9)]
    assert told == [[], ["port_closed 10.0.0.3 22"], *[[]] * 7]
    with closing(service.open()) as store:
        run = store.begin(TASK, service.now + 3600)
        service.keep(store, run, [shut], [1])
        store.withhold(run, ["10.0.0.1", "10.0.0.2"], "dark")
        assert in_doubt(store, run) == [], "so nothing is asked again"


def test_what_is_withheld_of_a_run_is_known_to_whoever_compares_it(service: Service) -> None:
    service.run([host(1, 22)], silent=[2, 3], withheld=("dark", [2]), degraded="none of them")
    service.run([host(1, 22)], silent=[2, 3], degraded="all of it")
    with Memory(service.path) as memory:
        second, first = (side(run, memory.coverage(run.id)) for run in memory.runs())
        assert [first.doubtful(f"10.0.0.{last}") for last in (1, 2, 3)] == [False, True, False]
        assert [second.doubtful(f"10.0.0.{last}") for last in (1, 2, 3)] == [True, True, True]
        assert first.looked("10.0.0.2")
        assert [memory.coverage(1).outcome(f"10.0.0.{last}") for last in (1, 2, 3)] == ["answered", "dark", "silent"]
        asked = list(memory.coverage(1).without_picture())
        assert {address for part in asked for address in each(part)} == {"10.0.0.2", "10.0.0.3"}
