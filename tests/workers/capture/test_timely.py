"""What may hold a packet of a span is found by names and times alone, and of all else nothing is opened."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import StorageFailure
from agent.workers.capture.naming import CLOSED, OPEN, segment_name
from agent.workers.capture.timely import ALWAYS, SLACK, Timely, changes, settled, timely
from agent.workers.retrieval.answer import Answer
from agent.workers.retrieval.offline import Packet
from tests.workers.retrieval.stores import BEGIN, segment
from tests.workers.retrieval.test_offline import datagram

MINUTE = 60 * 1_000_000_000


def put(place: Path, begin: int, written: int, suffix: str = CLOSED) -> str:
    place.mkdir(parents=True, exist_ok=True)
    path = place / segment_name(begin, suffix)
    path.touch()
    os.utime(path, ns=(written, written))
    return path.name


def names(found: list[Timely]) -> list[str]:
    return [one.segment.path.name for one in found]


def test_a_span_concerns_what_began_before_its_end_and_was_written_after_its_begin(tmp_path: Path) -> None:
    begun = [BEGIN + number * 10 * MINUTE for number in range(10)]
    made = [put(tmp_path / "eth0", begin, begin + 10 * MINUTE) for begin in begun]
    assert names(timely(tmp_path, (begun[4] + 2 * MINUTE, begun[6] - 2 * MINUTE))) == made[4:6]
    assert names(timely(tmp_path, (begun[4], begun[6]))) == made[3:7], "a minute more on both sides"
    assert names(timely(tmp_path, (begun[9] + 12 * MINUTE, ALWAYS[1]))) == []
    assert names(timely(tmp_path)) == made


def test_what_is_open_always_concerns_and_so_does_what_was_written_before_it_began(tmp_path: Path) -> None:
    far = (BEGIN + 1000 * MINUTE, BEGIN + 1001 * MINUTE)
    open_one = put(tmp_path / "eth0", BEGIN, BEGIN, OPEN)
    put(tmp_path / "eth0", BEGIN + MINUTE, BEGIN + 2 * MINUTE)
    set_back = put(tmp_path / "eth0", BEGIN + 30 * MINUTE, BEGIN)
    ahead = put(tmp_path / "eth0", BEGIN + 3000 * MINUTE, BEGIN)
    assert names(timely(tmp_path, far)) == [open_one, set_back, ahead]


def test_only_segments_of_the_interfaces_that_are_asked_for(tmp_path: Path) -> None:
    for name in ("eth0", "eth1", "wlan0"):
        put(tmp_path / name, BEGIN, BEGIN)
    (tmp_path / "eth0" / "notes.pcap").touch()
    (tmp_path / "eth0" / "20261320T140000.000000Z.pcap").touch()
    (tmp_path / "eth0" / segment_name(BEGIN + 1000, CLOSED)).mkdir()
    assert [one.segment.interface for one in timely(tmp_path, names=("eth1", "eth0"))] == ["eth0", "eth1"]
    assert timely(tmp_path / "nothing") == []
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailure):
        timely(tmp_path / "file")


@given(
    st.lists(st.tuples(st.integers(0, 600), st.integers(0, 600)), max_size=8, unique_by=lambda pair: pair[0]),
    st.integers(0, 600),
    st.integers(0, 600),
)
def test_no_packet_between_begin_and_last_write_is_missed(
    tmp_path_factory: pytest.TempPathFactory, told: list[tuple[int, int]], one: int, other: int
) -> None:
    place = tmp_path_factory.mktemp("store")
    made = {put(place / "eth0", BEGIN + a * MINUTE, BEGIN + b * MINUTE): (a, b) for a, b in told}
    begin, end = sorted((one, other))
    found = timely(place, (BEGIN + begin * MINUTE, BEGIN + end * MINUTE))
    for name, (began, written) in made.items():
        assert (name in names(found)) == (written < began or (began <= end + 1 and written >= begin - 1)), name
    for each in found:
        began, written = made[each.segment.path.name]
        if began <= written:
            assert (each.first, each.last) == (BEGIN + began * MINUTE - SLACK, BEGIN + written * MINUTE + SLACK)
        else:
            assert each.first <= BEGIN + written * MINUTE <= BEGIN + began * MINUTE <= each.last


def test_a_question_opens_nothing_of_another_time(tmp_path: Path) -> None:
    """Who looks into the index of the others says so: it is none."""
    store = tmp_path / "edge"
    for number in range(-50, 51):
        begin = BEGIN + number * 10 * MINUTE
        path = segment(store, "eth0", [Packet(begin, 60, datagram(53))])
        path.with_suffix(".idx").write_bytes(b"no index at all" * 10)
        os.utime(path, ns=(begin, begin + MINUTE))
    answer = Answer([store], "", within=(BEGIN, BEGIN + MINUTE))
    assert sum(run.end - run.begin for run in answer.runs()) == 1
    (note,) = answer.notes
    assert segment_name(BEGIN, ".idx") in note
    answer.close()


def test_a_change_shows_in_the_times_of_directories_once_they_are_settled(tmp_path: Path) -> None:
    put(tmp_path / "eth0", BEGIN, BEGIN)
    assert not settled(changes(tmp_path))
    for ahead in (-MINUTE, MINUTE):  # of a clock that was set back, too
        for place in (tmp_path, tmp_path / "eth0"):
            stamp = time.time_ns() + ahead
            os.utime(place, ns=(stamp, stamp))
        before = changes(tmp_path)
        assert settled(before)
        put(tmp_path / "eth0", BEGIN + 10 * MINUTE + ahead, BEGIN)
        assert changes(tmp_path) != before
