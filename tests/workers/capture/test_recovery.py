"""Segments left open by a worker that was killed."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agent.workers.capture.recovery import Recovered, recover

HEADER = struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)


def record(number: int, size: int) -> bytes:
    return struct.pack("=IIII", 1_700_000_000, number, size, size) + bytes(size)


def written(directory: Path, content: bytes) -> Path:
    path = directory / "segment.part"
    path.write_bytes(content)
    return path


@given(st.lists(st.integers(1, 2000), max_size=8), st.data())
def test_every_whole_packet_stays_and_nothing_else(sizes: list[int], data: st.DataObject) -> None:
    parts = [record(number, size) for number, size in enumerate(sizes)]
    content = HEADER + b"".join(parts)
    cut = data.draw(st.integers(len(HEADER), len(content)))
    whole, count = len(HEADER), 0
    for part in parts:
        if whole + len(part) > cut:
            break
        whole, count = whole + len(part), count + 1
    with tempfile.TemporaryDirectory() as directory:
        path = written(Path(directory), content[:cut])
        begin = 1_700_000_000 * 10**9 if count else None
        assert recover(path) == Recovered(begin, count, whole, cut - whole)
        assert path.read_bytes() == content[:whole]


def test_a_file_larger_than_what_is_read_at_a_time(tmp_path: Path) -> None:
    content = HEADER + b"".join(record(number, 250_000) for number in range(20))
    path = written(tmp_path, content + record(20, 250_000)[:-1])
    assert recover(path) == Recovered(1_700_000_000 * 10**9, 20, len(content), 250_015)
    assert path.stat().st_size == len(content)


def test_a_file_too_short_for_a_header_holds_nothing(tmp_path: Path) -> None:
    assert recover(written(tmp_path, HEADER[:10])) == Recovered(None, 0, 0, 10)


def test_what_is_no_pcap_file_is_not_touched(tmp_path: Path) -> None:
    path = written(tmp_path, b"#!/bin/sh\n" * 10)
    assert recover(path) is None
    assert path.read_bytes() == b"#!/bin/sh\n" * 10
