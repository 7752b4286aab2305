"""Silence counts against a host only where it was asked in a way in which it is known to answer."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from agent.workers.scan.diff import Difference, compare
from agent.workers.scan.found import Host, Port, Rest
from agent.workers.scan.memory.coverage import asked
from agent.workers.scan.memory.passive import Sighting
from agent.workers.scan.memory.picture import PortSet
from agent.workers.scan.memory.reading import Memory
from agent.workers.scan.memory.ways import Discovery, Ways, answers, reached
from agent.workers.scan.spans import Ranges, of
from agent.workers.scan.store import ScanStore, Task
from agent.workers.scan.stored import side
from tests.workers.scan.memory.history import NOW, told

SSH, WEB = ((22, 22),), ((443, 443),)
ADDRESS = "10.8.8.5"


def tcp(ports: Ranges) -> PortSet:
    return (("tcp", ports),) if ports else ()


@pytest.mark.parametrize(
    ("known", "asks", "is_reached"),
    [
        (Ways("raw"), Ways("raw"), True),
        (Ways("raw"), Ways("connect"), False),
        (Ways("raw"), Ways("any"), True),
        (Ways("any"), Ways("connect"), True),
        (Ways("raw", tcp(SSH)), Ways("connect", tcp(SSH)), True),
        (Ways("raw", tcp(SSH)), Ways("connect", tcp(WEB)), False),
        (Ways("", tcp(SSH)), Ways("raw", tcp(WEB)), False),
        (Ways("", tcp(SSH)), Ways("raw", tcp(((1, 100),))), True),
        (Ways("", tcp(SSH)), Ways("raw", (("udp", SSH),)), False),
        (Ways(""), Ways("", tcp(SSH)), False),
    ],
)
def test_who_is_asked_as_it_answers_is_reached(known: Ways, asks: Ways, is_reached: bool) -> None:
    assert reached(known, asks) is is_reached


def test_a_port_has_answered_if_anybody_there_has_said_anything_of_it() -> None:
    host = Host(
        ADDRESS,
        "up",
        "syn-ack",
        ports=(Port("tcp", 22, "open", "syn-ack"), Port("tcp", 25, "filtered", "no-response")),
        rest=(
            Rest("tcp", "closed", "reset", ((1, 9),)),
            Rest("tcp", "filtered", "admin-prohibited", ((10, 19),)),
            Rest("tcp", "filtered", "host-unreach", ((30, 39),)),
            Rest("udp", "open|filtered", "no-response", ((53, 53),)),
        ),
    )
    assert answers(host, "raw") == Ways("", (("tcp", ((1, 19), (22, 22))),))
    assert answers(host, "any").discovery == "any"


class Scans:
    """A scan of one address, every hour, of which it is known how it asks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = NOW

    def run(self, *hosts: Host, discovery: Discovery = "raw", ports: Ranges = ()) -> list[str]:
        """What a run tells that found these hosts, or asked there for ``ports`` in vain."""
        self.now += 3600
        task = Task(f"{discovery} {ports}", 1, 1, f'{{"discovery":"{discovery}"}}')
        with closing(ScanStore(self.path, site="here")) as store:
            run = store.begin(task, self.now)
            silent = () if hosts else asked([ADDRESS], tcp(ports))
            store.store(run, hosts, self.now + 1, chunk=0, addresses=1, asked=silent)
            doubts = [one for step in store.doubts(run) for one in step]
            store.end(run, "finished", self.now + 10)
            return [*told(store), *("doubt" for _ in doubts)]

    def sighted(self, number: int) -> list[str]:
        with closing(ScanStore(self.path, site="here")) as store:
            store.sighted([Sighting(ADDRESS, "tcp", number, self.now + 20, self.now + 30)], self.now + 40)
            return told(store)

    def diff(self, first: int, second: int) -> Difference:
        with Memory(self.path) as memory:
            one, other = memory.run(first), memory.run(second)
            assert one is not None
            assert other is not None
            return compare(
                list(memory.hosts(first)),
                side(one, memory.coverage(first)),
                list(memory.hosts(second)),
                side(other, memory.coverage(second)),
            )


@pytest.fixture
def scans(tmp_path: Path) -> Scans:
    return Scans(tmp_path / "scan.db")


def host(*is_open: int, closed: Ranges = (), silent: Ranges = (), discovered: bool = False) -> Host:
    ports = tuple(Port("tcp", number, "open", "syn-ack") for number in is_open)
    rest = tuple(
        Rest("tcp", state, reason, found)
        for state, reason, found in (("closed", "reset", closed), ("filtered", "no-response", silent))
        if found
    )
    return Host(ADDRESS, "up", "syn-ack", ports=ports, rest=rest, discovered=discovered)


@pytest.mark.parametrize("known", [host(22, silent=WEB), host(closed=SSH, silent=WEB)], ids=["open", "closed"])
def test_a_host_is_not_gone_when_only_others_than_its_ports_are_asked(scans: Scans, known: Host) -> None:
    for _ in range(2):
        scans.run(known, ports=((22, 22), (443, 443)))
    for _ in range(4):
        assert scans.run(ports=WEB) == []
    found = scans.diff(2, 3)
    assert (found.changes, found.hosts) == ([], 0)
    assert found.notes == [
        "1 host of the first run not compared: the second did not ask for them in any way in which they had answered"
    ]
    back = scans.diff(3, 2)
    assert back.changes == []
    assert back.notes == [
        "1 host of the second run not compared: the first did not ask for them in any way in which they had answered"
    ]
    assert scans.run(ports=((22, 22), (443, 443))) == ["doubt"]
    assert scans.run(ports=SSH) == ["host_gone 10.8.8.5"]
    assert [change.kind for change in scans.diff(2, 8).changes] == ["host_gone"]


def test_a_host_that_answers_raw_packets_alone_is_not_gone_when_it_is_asked_by_connecting(scans: Scans) -> None:
    for _ in range(2):
        scans.run(host(silent=SSH, discovered=True))
    for _ in range(4):
        assert scans.run(discovery="connect", ports=SSH) == []
    assert scans.diff(2, 3).changes == []
    scans.run()
    assert scans.run() == ["host_gone 10.8.8.5"]
    assert [change.kind for change in scans.diff(2, 8).changes] == ["host_gone"]


def test_what_is_known_of_how_a_host_answers_outlives_the_runs_that_learned_it(scans: Scans) -> None:
    for _ in range(2):
        scans.run(host(closed=SSH, silent=WEB))
    scans.run(ports=WEB)
    with closing(ScanStore(scans.path, site="here")) as store:
        store.prune(1.0, 1 << 40, 1.0, scans.now + 86400)
    with Memory(scans.path) as memory:
        assert [run.id for run in memory.runs()] == [3]
    for _ in range(3):
        assert scans.run(ports=WEB) == []
    scans.run(ports=SSH)
    assert scans.run(ports=SSH) == ["host_gone 10.8.8.5"]


def test_a_host_that_only_a_capture_knows_is_asked_for_at_the_port_that_it_saw(scans: Scans) -> None:
    scans.run(ports=WEB)
    assert scans.sighted(22) == ["port_opened 10.8.8.5 22", "host_new 10.8.8.5"]
    for _ in range(3):
        assert scans.run(ports=WEB) == []
    assert scans.run(ports=of([22])) == ["doubt"]
    assert scans.run(ports=of([22])) == ["host_gone 10.8.8.5"]
