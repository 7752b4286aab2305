"""Open segments as they grow: what is new comes out once, whatever is closed meanwhile, and in bounded time."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.workers.capture.catalogue import TAIL
from agent.workers.capture.naming import CLOSED, OPEN, segment_name
from agent.workers.flows import follow
from agent.workers.flows.follow import Follower, Fresh
from agent.workers.index.build import Reader, kind_of
from agent.workers.index.form import encode
from tests.workers.flows import traffic
from tests.workers.flows.traffic import NOON, SECOND, Packet

HEADER = len(traffic.savefile([]))


def packets(number: int, count: int = 10) -> list[Packet]:
    frame = traffic.udp("10.0.0.1", 5000 + number, "10.0.0.2", 53, 40)
    return [Packet(NOON + number * SECOND + each, frame) for each in range(count)]


class Store:
    """A store whose open segment of ``eth0`` is written by the test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.place = directory / "eth0"
        self.place.mkdir(parents=True)
        self.path = self.open(0)
        self.follower = Follower()

    def open(self, number: int) -> Path:
        self.path = self.place / segment_name(NOON + number * SECOND, OPEN)
        self.path.write_bytes(traffic.savefile([]))
        return self.path

    def write(self, more: list[Packet]) -> None:
        with self.path.open("ab") as file:
            file.write(traffic.savefile(more)[HEADER:])

    def index(self) -> None:
        with self.path.open("rb") as file:
            kind = kind_of(file.read(HEADER))
            assert kind is not None
            made = [encode(chunk) for chunk in Reader(file.fileno(), kind).chunks(self.path.stat().st_size)]
        self.path.with_suffix(TAIL).write_bytes(b"".join(made))

    def look(self) -> Fresh:
        return self.follower.look(self.directory, {})["eth0"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "edge")


def test_what_has_come_since_the_last_look_comes_out_once(store: Store) -> None:
    store.write(packets(1))
    store.look()
    assert store.look().packets == 0
    store.write(packets(2, 7))
    fresh = store.look()
    assert (fresh.packets, fresh.octets, fresh.share) == (7, 7 * len(packets(2)[0].frame), 1.0)
    assert fresh.rows.source_port.tolist() == [5002]
    assert fresh.bytes == fresh.read == 7 * (16 + len(packets(2)[0].frame))


def test_half_a_record_waits_for_its_end(store: Store) -> None:
    store.look()
    whole = traffic.savefile(packets(1, 2))[HEADER:]
    with store.path.open("ab", buffering=0) as file:
        file.write(whole[:-5])
        assert store.look().packets == 1
        file.write(whole[-5:])
    assert store.look().packets == 1


def test_the_end_of_a_segment_that_was_closed_and_the_begin_of_the_next_both_count(store: Store) -> None:
    store.look()
    store.write(packets(1, 3))
    store.path.rename(store.path.with_suffix(CLOSED))
    store.open(2)
    store.write(packets(2, 4))
    assert store.look().packets == 7
    store.write(packets(3, 1))
    assert store.look().packets == 1


def test_an_interface_that_went_away_is_told_of_once_more(store: Store) -> None:
    store.look()
    store.write(packets(1))
    store.path.rename(store.path.with_suffix(CLOSED))
    fresh = store.look()
    assert (fresh.packets, fresh.open) == (10, None)
    assert store.follower.look(store.directory, {}) == {}


def test_more_than_can_be_read_is_passed_over_up_to_where_the_index_ends(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "MOST", 4000)
    store.look()
    store.write(packets(1, 200))
    store.index()
    store.write(packets(2, 20))
    fresh = store.look()
    assert fresh.packets == 20
    assert fresh.share == pytest.approx(20 / 220)


def test_without_an_index_too_much_is_not_read_at_all_and_the_next_segment_is(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "MOST", 4000)
    store.write(packets(1, 200))
    store.look()
    store.write(packets(2, 5))
    fresh = store.look()
    assert (fresh.packets, fresh.read) == (0, 0)
    assert fresh.bytes == 5 * (16 + len(packets(2)[0].frame))
    store.path.rename(store.path.with_suffix(CLOSED))
    store.open(3)
    store.write(packets(3, 6))
    assert store.look().packets == 6


def test_what_is_no_segment_and_what_is_no_pcap_file_hold_nothing_up(store: Store) -> None:
    (store.place / "notes.part").write_text("hello")
    store.path.write_bytes(b"x" * 100)
    store.look()
    with store.path.open("ab") as file:
        file.write(b"y" * 50)
    fresh = store.look()
    assert (len(fresh.rows), fresh.bytes, fresh.read, fresh.open) == (0, 50, 0, 150)


def test_of_several_open_segments_of_an_interface_each_counts(store: Store) -> None:
    store.look()
    store.write(packets(1, 3))
    first = store.path
    store.open(2)
    store.write(packets(2, 4))
    fresh = store.look()
    assert fresh.packets == 7
    assert fresh.open == first.stat().st_size + store.path.stat().st_size
    store.write(packets(3, 5))
    first.rename(first.with_suffix(CLOSED))
    fresh = store.look()
    assert (fresh.packets, fresh.open) == (5, store.path.stat().st_size)
