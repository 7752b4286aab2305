"""Flows of closed segments on their way to a real collector, nfcapd."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.declaration.collector import Collector
from agent.linux.files import open_regular
from agent.workers.capture.catalogue import Segment
from agent.workers.capture.naming import parse_name
from agent.workers.flows import exporter
from agent.workers.flows.exporter import FAILED, PROGRESS, RESUMED, Exporter
from tests.harness import wait_until
from tests.workers.flows import traffic
from tests.workers.flows.peers import Flow, free_port, nfcapd
from tests.workers.flows.test_records import flows
from tests.workers.flows.traffic import NOON, SECOND, Packet


@contextmanager
def running(directory: Path, port: int, events: list[tuple[str, str]] | None = None) -> Iterator[Exporter]:
    told = [] if events is None else events
    made = Exporter(
        directory,
        "edge",
        Collector("127.0.0.1", port),
        lambda kind, text: told.append((kind, text)),
        retry=(0.05, 0.05),
    )
    made.start()
    try:
        yield made
    finally:
        made.stop()


def closed(path: Path) -> Segment:
    parsed = parse_name(path.name)
    assert parsed is not None
    return Segment(parsed[0], path.parent.name, path, True)


def close(directory: Path, packets: Sequence[Packet], into: Exporter | None = None, interface: str = "eth0") -> Path:
    """A segment more, as the index process tells of it."""
    (path,) = traffic.store(directory, interface, [packets])
    if into is not None:
        into.wake(closed(path))
    return path


def parts(count: int) -> list[list[Packet]]:
    """Traffic of so many minutes."""
    return [traffic.mixed(40 + part, 60, NOON + part * 60 * SECOND, 50) for part in range(count)]


def told(found: list[Flow]) -> Counter[tuple[object, ...]]:
    return Counter((flow.ends[0], flow.ends[2], flow.first, flow.last, flow.packets, flow.octets) for flow in found)


def expected(directory: Path) -> Counter[tuple[object, ...]]:
    """What is stored, flow by flow, without what is not of IP; octets without Ethernet's header."""
    return Counter(
        (
            *(line.source, line.destination, line.start_ns // 10**6, line.end_ns // 10**6, line.packets),
            line.bytes - line.packets * (14 + 4 * len(line.vlans)),
        )
        for line in flows(directory, gap=1 << 62)  # by segment
        if line.family in ("ipv4", "ipv6")
    )


def test_each_closed_segment_arrives_once_flow_by_flow(tmp_path: Path) -> None:
    store = tmp_path / "edge"
    old, *new = parts(4)
    before = close(store, old)
    with nfcapd(tmp_path / "nf") as collector:
        with running(store, collector.port) as export:
            for part in new[:2]:
                close(store, part, export)
            wait_until(lambda: export.segments == 2)
            assert export.records and not export.failures
        with running(store, collector.port) as export:  # a restart
            close(store, new[2], export)
            wait_until(lambda: export.segments == 1)
        found = collector.flows()
    before.unlink()  # what was there before the first start is not sent
    assert told(found) == expected(store)
    assert "Sequence Errors: 0, Bad Packets: 0" in collector.said


def test_a_collector_that_is_away_is_told_of_once_and_gets_everything_later(tmp_path: Path) -> None:
    store, port = tmp_path / "edge", free_port()
    store.mkdir()
    events: list[tuple[str, str]] = []
    with running(store, port, events) as export:
        for part in parts(2):
            close(store, part, export)
        wait_until(lambda: export.failures > 3)
        assert [kind for kind, _ in events] == [FAILED]
        assert (
            events[0][1]
            == f"collector 127.0.0.1:{port}: nobody listens on that port; what is not sent yet is sent later"
        )
        with nfcapd(tmp_path / "nf", port) as collector:
            wait_until(lambda: export.segments == 2)
            found = collector.flows()
    assert [kind for kind, _ in events] == [FAILED, RESUMED]
    assert told(found) == expected(store)


def test_a_segment_that_was_not_sent_whole_is_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after all of a segment went out and before that was written down."""
    store = tmp_path / "edge"
    store.mkdir()
    first, second = parts(2)
    with nfcapd(tmp_path / "nf") as collector:
        with running(store, collector.port) as export:
            close(store, first, export)
            wait_until(lambda: export.segments == 1)
            after_first = (store / PROGRESS).read_bytes()
            close(store, second, export)
            wait_until(lambda: export.segments == 2)
        (store / PROGRESS).write_bytes(after_first)
        with running(store, collector.port) as export:
            wait_until(lambda: export.segments == 1)
        found = collector.flows()
    again = told(found) - expected(store)
    assert sum(again.values()) == len([1 for flow in found if flow.first >= NOON // 10**6 + 60_000]) // 2


def test_segments_that_are_removed_before_they_are_sent_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "edge"
    store.mkdir()
    with nfcapd(tmp_path / "nf") as collector, running(store, collector.port) as export:
        path = close(store, parts(1)[0])
        real = open_regular

        def removed(given: Path, flags: int) -> int:
            given.unlink(missing_ok=True)
            return real(given, flags)

        monkeypatch.setattr(exporter, "open_regular", removed)
        export.wake(closed(path))
        wait_until(lambda: export.lost == 1)
        assert not path.exists() and not export.records


def test_progress_that_makes_no_sense_is_begun_anew(tmp_path: Path) -> None:
    store = tmp_path / "edge"
    path = close(store, parts(1)[0])
    (store / PROGRESS).write_text("[1, 2")
    with running(store, free_port()) as export:
        assert export.figures() == {"ipfix_records": 0, "ipfix_segments": 0, "ipfix_failures": 0, "ipfix_lost": 0}
    assert json.loads((store / PROGRESS).read_text())["beyond"] == {"eth0": [closed(path).begin]}


def test_a_segment_that_began_before_what_was_sent_is_sent_too(tmp_path: Path) -> None:
    """Members of a fan-out write side by side, and each closes its own when it is full."""
    store = tmp_path / "edge"
    store.mkdir()
    first, second, third, fourth = parts(4)
    with nfcapd(tmp_path / "nf") as collector:
        with running(store, collector.port) as export:
            close(store, second, export)
            close(store, fourth, export)
            wait_until(lambda: export.segments == 2)
            close(store, first, export)
            wait_until(lambda: export.segments == 3)
        close(store, third)  # and one whose index was made when nobody was there to be told
        with running(store, collector.port) as export:
            wait_until(lambda: export.segments == 1)
        assert not export.lost
        found = collector.flows()
    assert told(found) == expected(store)


def test_what_is_removed_while_the_collector_is_away_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "_MANY", 1)
    store, port = tmp_path / "edge", free_port()
    store.mkdir()
    with running(store, port) as export:
        paths = [close(store, part, export) for part in parts(3)]
        wait_until(lambda: export.failures > 2)
        for path in paths[:2]:
            path.unlink()
        wait_until(lambda: export.lost == 2)
        with nfcapd(tmp_path / "nf", port) as collector:
            wait_until(lambda: export.segments == 1)
            found = collector.flows()
    assert told(found) == expected(store)
