"""What a store holds while it is written: segments are closed, renamed and removed under the eyes of who looks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.errors import StorageFailure
from agent.workers.capture.naming import CLOSED, OPEN, segment_name
from agent.workers.capture.savefile import FILE_HEADER
from agent.workers.retrieval.answer import Answer
from agent.workers.retrieval.offline import Packet, packets
from agent.workers.retrieval.snapshot import Source, snapshot
from tests.workers.retrieval import traffic
from tests.workers.retrieval.stores import BEGIN, segment
from tests.workers.retrieval.test_offline import datagram

ROOT = Path(__file__).parents[3]
MILLISECOND = 1_000_000


def sent(number: int) -> Packet:
    return Packet(BEGIN + number * MILLISECOND, 60, datagram(53))


_CHURN = """
import mmap, sys
from pathlib import Path
from agent.workers.capture.naming import CLOSED, OPEN, segment_name
from tests.workers.retrieval import traffic
from tests.workers.retrieval.stores import BEGIN
from tests.workers.retrieval.test_snapshot import MILLISECOND, sent

place = Path(sys.argv[1])
published = Path(sys.argv[2]).open("r+b")
counter = mmap.mmap(published.fileno(), 8)
number = 0
while True:
    first = number
    part = place / segment_name(BEGIN + first * MILLISECOND - 1000, OPEN)
    with part.open("wb", buffering=0) as file:
        file.write(traffic.file_header())
        for _ in range(30):
            file.write(traffic.record(sent(number)))
            number += 1
            counter[:] = number.to_bytes(8, "little")
    part.rename(place / segment_name(BEGIN + first * MILLISECOND, CLOSED))
    for old in sorted(place.glob("*.pcap"))[:-300]:
        old.unlink()
"""
"""Writes one packet after the other, and closes a segment after every 30th, as fast as it can; the last 300 stay."""


def test_a_store_that_changes_all_the_time_is_seen_without_gap_or_double(tmp_path: Path) -> None:
    place = tmp_path / "edge" / "eth0"
    place.mkdir(parents=True)
    written = tmp_path / "written"
    written.write_bytes(bytes(8))
    with subprocess.Popen([sys.executable, "-c", _CHURN, str(place), str(written)], cwd=ROOT) as churn:
        try:
            looks, seen, until = 0, 0, time.monotonic() + 20
            while looks < 25 and time.monotonic() < until:
                before = int.from_bytes(written.read_bytes(), "little")
                sources = snapshot(tmp_path / "edge")
                found: list[int] = []
                for source in sources:
                    got = numbers(source)
                    found = [] if got is None else found + got  # the oldest may go while they are read
                assert found == sorted(set(found)), "a packet twice, or segments in disorder"
                known = [number for number in found if number < before]
                assert known == list(range(known[0], before)) if known else before < 3, "a gap"
                looks += before > seen
                seen = before
            assert looks == 25
            assert churn.poll() is None
        finally:
            churn.kill()


def numbers(source: Source) -> list[int] | None:
    """The packets of a segment; ``None`` when it was removed meanwhile."""
    try:
        data = os.pread(source.fd(), source.size, 0)
    except FileNotFoundError:
        return None
    finally:
        source.close()
    whole = (len(data) - FILE_HEADER) // len(traffic.record(sent(0))) * len(traffic.record(sent(0)))
    return [(each.time - BEGIN) // MILLISECOND for each in packets(data[FILE_HEADER : FILE_HEADER + whole])]


def test_what_is_written_later_is_not_part_of_it(tmp_path: Path) -> None:
    path = segment(tmp_path / "edge", "eth0", [sent(0), sent(1)], closed=False)
    answer = Answer([tmp_path / "edge"], "")
    with path.open("ab") as file:
        file.write(traffic.record(sent(2)))
    path.rename(path.with_suffix(CLOSED))
    (run,) = answer.runs()
    assert run.end == 2
    answer.close()


def test_a_segment_is_opened_when_it_is_needed_and_again_after_it_was_shut(tmp_path: Path) -> None:
    segment(tmp_path / "edge", "eth0", [sent(0)])
    (source,) = snapshot(tmp_path / "edge")
    assert (source.size, source.interface, source.service) == (0, "eth0", "edge")
    for _ in range(2):
        source.fd()
        assert source.size == FILE_HEADER + len(traffic.record(sent(0)))
        source.shut()
    assert source.index() is None


def test_a_directory_that_is_none_and_a_link_are_no_store(tmp_path: Path) -> None:
    assert snapshot(tmp_path / "nothing") == []
    place = tmp_path / "edge" / "eth0"
    place.mkdir(parents=True)
    (place / segment_name(BEGIN, CLOSED)).symlink_to("/etc/passwd")
    (place / segment_name(BEGIN, OPEN)).mkdir()
    assert snapshot(tmp_path / "edge") == []
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailure, match="cannot be read"):
        snapshot(tmp_path / "file")
