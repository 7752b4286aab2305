"""What a capture saw answer opens and refreshes ports, and overrules no scan that looked later."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from agent.workers.inventory import snapshot
from agent.workers.inventory.sighting import ARP, FLOW, MDNS, SEEN, SERVICE
from agent.workers.inventory.sighting import Sighting as Statement
from agent.workers.inventory.table import Table
from agent.workers.scan.found import Host
from agent.workers.scan.memory.passive import AHEAD, FRESH, Sighting, sightings
from agent.workers.scan.memory.reading import Memory
from tests.workers.scan.memory.history import Service, host, told

SECOND = 10**9


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A scan that found port 22 of one host open, and nobody at the other address."""
    made = Service(tmp_path / "lan" / "scan.db")
    for _ in range(2):
        made.run([host(1, 22)], silent=[2])
    return made


def sight(service: Service, *seen: Sighting) -> list[str]:
    with closing(service.open()) as store:
        store.sighted(seen, service.now + 600)
        return told(store)


def write(directory: Path, *statements: Statement) -> None:
    """An inventory, as a capture leaves it."""
    table = Table()
    table.fold(statements, "eth0")
    directory.mkdir()
    snapshot.write(
        directory / snapshot.NAME,
        snapshot.Snapshot(
            written=1,
            counters={},
            progress={},
            own=[],
            stations=snapshot.entries(table.stations),
            addresses=snapshot.entries(table.addresses),
            heard=snapshot.entries(table.heard),
        ),
    )


def test_what_captures_saw_answer_is_read_from_their_inventories(tmp_path: Path) -> None:
    one = Statement(10 * SECOND, 20 * SECOND, FLOW, 0, "", "10.0.0.1", SERVICE, "tcp/22")
    write(
        tmp_path / "edge",
        one,
        Statement(5 * SECOND, 6 * SECOND, FLOW, 7, "", "10.0.0.1", SERVICE, "udp/53"),
        Statement(1, 1, ARP, 0, "02:00:00:00:00:01", "10.0.0.1", SEEN),
        Statement(1, 1, MDNS, 0, "02:00:00:00:00:01", "10.0.0.1", SERVICE, "tcp/631"),
        Statement(1, 1, FLOW, 0, "", "10.0.0.1", SERVICE, "tcp/70000"),
        Statement(1, 1, FLOW, 0, "", "10.0.0.1", SERVICE, "sctp/9"),
    )
    write(tmp_path / "core", one._replace(first=15 * SECOND, last=30 * SECOND))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / snapshot.NAME).write_text("[]")
    (tmp_path / "empty").mkdir()
    lines: list[str] = []
    assert sightings(tmp_path, lines.append) == [
        Sighting("10.0.0.1", "tcp", 22, 10.0, 30.0),
        Sighting("10.0.0.1", "udp", 53, 5.0, 6.0),
    ]
    assert len(lines) == 1
    assert f"{tmp_path}/broken/hosts.json: no inventory" in lines[0]
    assert sightings(tmp_path / "nowhere", lines.append) == []


def test_a_port_that_a_capture_saw_is_open_and_likely(service: Service) -> None:
    now = service.now
    seen = Sighting("10.0.0.1", "udp", 53, now - 50, now + 300)
    assert sight(service, seen) == ["port_opened 10.0.0.1 53"]
    assert sight(service, seen) == [], "told once"
    with Memory(service.path) as memory:
        [found] = [port for one in memory.now() for port in one.ports if port.number == 53]
        assert (found.state, found.source, found.confidence, found.last_seen) == (
            "open",
            "passive",
            "likely",
            now + 300,
        )
        [change] = memory.changes(run=None)[-1:]
        assert (change.run, change.source, change.time) == (None, "passive", now + 300)
    service.run([host(1, 22)], silent=[2])
    service.run([host(1, 22)], silent=[2])
    assert "10.0.0.1 53" in service.now_open(), "no scan has asked it"


def test_a_host_that_a_scan_missed_is_there_when_a_capture_saw_it_since(service: Service) -> None:
    seen = Sighting("10.0.0.2", "tcp", 80, service.now, service.now + 300)
    assert sight(service, seen) == ["port_opened 10.0.0.2 80", "host_new 10.0.0.2"]


def test_what_a_scan_asked_later_or_does_not_cover_and_what_is_old_stays_out(service: Service) -> None:
    now = service.now
    assert (
        sight(
            service,
            Sighting("10.0.0.1", "tcp", 80, now - 50, now),
            Sighting("10.0.0.2", "udp", 53, now - 50, now - 5),
            Sighting("10.0.0.3", "tcp", 80, now, now + 300),
            Sighting("10.0.0.1", "tcp", 81, now, now + 600 + AHEAD + 1),
            Sighting("10.0.0.1", "udp", 53, 1.0, now + 600 - FRESH - 1),
        )
        == []
    )


def test_what_a_capture_saw_after_the_scan_looked_there_counts_though_the_scan_went_on(service: Service) -> None:
    assert sight(service, Sighting("10.0.0.1", "tcp", 80, service.now, service.now + 5)) == ["port_opened 10.0.0.1 80"]


def test_a_port_that_only_the_scan_is_shut_out_from_is_told_to_flap_once_and_is_no_canary(service: Service) -> None:
    events: list[str] = []
    for _ in range(8):
        seen = Sighting("10.0.0.1", "tcp", 80, service.now + 20, service.now + 500)
        events += sight(service, seen)
        with Memory(service.path) as memory:
            canaries = memory.canaries(["10.0.0.1"], site="here", within=((80, 80),))
        assert canaries == []
        shut = host(1, 22, state="filtered")
        events += service.run([shut], silent=[2], again=[shut])
    assert events == [
        "port_opened 10.0.0.1 80",
        "port_filtered 10.0.0.1 80",
        "port_opened 10.0.0.1 80",
        "flapping 10.0.0.1 80",
    ]
    for _ in range(4):
        events += service.run([shut], silent=[2], again=[shut])
    assert events[4:] == ["port_filtered 10.0.0.1 80"], "steady, and not what was told last"


def test_a_host_that_only_the_scan_is_shut_out_from_is_told_to_flap_once(service: Service) -> None:
    events: list[str] = []
    for _ in range(8):
        seen = [Sighting("10.0.0.1", "tcp", port, service.now + 20, service.now + 500 + port) for port in (22, 80, 81)]
        events += [one for one in sight(service, *seen) if one.startswith(("host", "flapping"))]
        events += service.run([], silent=[1, 2], again=[Host("10.0.0.1", "down", "no-response")])
    assert events == ["host_gone 10.0.0.1", "host_new 10.0.0.1", "flapping 10.0.0.1"]


def test_before_the_first_scan_there_is_nothing_to_add_to(tmp_path: Path) -> None:
    fresh = Service(tmp_path / "scan.db")
    assert sight(fresh, Sighting("10.0.0.1", "tcp", 80, fresh.now, fresh.now + 300)) == []
