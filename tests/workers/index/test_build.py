"""Real files, chunk by chunk: whole, growing, cut short while they are read, damaged, and no pcap files at all."""

from __future__ import annotations

import os
import random
import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.workers.capture.savefile import FILE_HEADER, LONGEST_CAPTURE, whole_records
from agent.workers.index import build, form
from agent.workers.index.build import Reader
from agent.workers.index.group import merge
from agent.workers.index.model import Chunk
from tests.workers.index import lab
from tests.workers.index.lab import Packet
from tests.workers.index.tables import flows, kind_of, packets, same, whole

SHORT = 8192
"""Bytes of a chunk here: some fifty packets, and none is as long."""


@contextmanager
def reading(path: Path, data: bytes) -> Iterator[tuple[int, Reader]]:
    """A file of these bytes, open for writing too, and what reads it."""
    path.write_bytes(data)
    fd = os.open(path, os.O_RDWR)
    try:
        yield fd, Reader(fd, kind_of(data))
    finally:
        os.close(fd)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "LONGEST", SHORT)


def follow_each_other(chunks: list[Chunk], begin: int = FILE_HEADER) -> bool:
    return chunks[0].begin == begin and all(one.end == other.begin for one, other in pairwise(chunks))


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("unit", [1, 1000])
@pytest.mark.parametrize("link_type", [lab.ETHERNET, lab.SLL2, lab.RAW])
def test_chunks_of_a_file_are_all_of_it(tmp_path: Path, order: str, unit: int, link_type: int) -> None:
    data = lab.savefile(link_type, packets(range(600)), order, unit)
    with reading(tmp_path / "file", data) as (_, reader):
        chunks = list(reader.chunks(len(data)))
        assert len(chunks) > 5
        assert follow_each_other(chunks)
        assert (chunks[-1].end, reader.place) == (len(data), len(data))
        (merged,) = merge(chunks)
    assert same(merged, whole(data))
    assert merged.packets == 600
    assert merged.link_type == link_type


def test_times_are_nanoseconds_whatever_the_file_counts() -> None:
    for order in ("<", ">"):
        for unit in (1, 1000):
            sent = [Packet(lab.BEGIN + at * 1_234_567_000, b"x" * 60, 60) for at in range(9)]
            made = whole(lab.savefile(lab.ETHERNET, sent, order, unit))
            assert (made.first, made.last) == (sent[0].time, sent[-1].time)
            assert (made.packets, made.octets, made.cut) == (9, 540, 0)


@pytest.mark.usefixtures("short")
@given(st.lists(st.integers(1, 20_000), max_size=12))
@settings(max_examples=30, deadline=None)
def test_a_file_that_grows_is_told_about_as_far_as_it_is_whole(steps: list[int]) -> None:
    data = lab.savefile(lab.ETHERNET, packets(range(300)))
    fd = os.memfd_create("growing")
    try:
        os.write(fd, data[:FILE_HEADER])
        reader, size = Reader(fd, kind_of(data)), FILE_HEADER
        chunks: list[Chunk] = []
        for step in [*steps, len(data)]:
            os.pwrite(fd, data[size : size + step], size)
            size = min(size + step, len(data))
            chunks += reader.chunks(size)
            assert reader.place == FILE_HEADER + whole_records(data[FILE_HEADER:size], kind_of(data).form).length
    finally:
        os.close(fd)
    assert follow_each_other(chunks)
    assert same(merge(chunks)[0], whole(data))


@pytest.mark.usefixtures("short")
def test_reading_begins_where_it_is_told_to(tmp_path: Path) -> None:
    data = lab.savefile(lab.ETHERNET, packets(range(300)))
    with reading(tmp_path / "file", data) as (fd, reader):
        first = reader.chunk(len(data))
        assert first
        rest = list(Reader(fd, kind_of(data), first.end).chunks(len(data)))
        assert same(merge([first, *rest])[0], whole(data))
        assert reader.chunk(first.end - 1) is None  # before where it is
        assert reader.place == first.end


@pytest.mark.usefixtures("short")
def test_a_file_that_is_cut_short_while_it_is_read_ends_there(tmp_path: Path) -> None:
    data = lab.savefile(lab.ETHERNET, packets(range(600)))
    with reading(tmp_path / "file", data) as (fd, reader):
        chunks = []
        for chunk in reader.chunks(len(data)):
            chunks.append(chunk)
            if len(chunks) == 2:
                os.ftruncate(fd, chunk.end + 1000)
        walk = whole_records(data[FILE_HEADER : chunks[1].end + 1000], kind_of(data).form)
        assert reader.place == chunks[-1].end == FILE_HEADER + walk.length
        assert sum(chunk.packets for chunk in chunks) == walk.records
        os.ftruncate(fd, 10)
        assert list(reader.chunks(len(data))) == []


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    "lengths", [(0, 0), (5, 4), (LONGEST_CAPTURE + 1, LONGEST_CAPTURE + 1), (0xFFFF_FFFF, 0xFFFF_FFFF)]
)
def test_what_follows_damage_is_not_told_about(tmp_path: Path, lengths: tuple[int, int]) -> None:
    before = lab.savefile(lab.ETHERNET, packets(range(300)))
    damage = struct.pack("<IIII", lab.BEGIN // lab.SECOND, 0, *lengths)
    data = before + damage + lab.savefile(lab.ETHERNET, packets(range(300)))[FILE_HEADER:]
    with reading(tmp_path / "file", data) as (_, reader):
        chunks = list(reader.chunks(len(data)))
        assert reader.place == chunks[-1].end == len(before)
        assert same(merge(chunks)[0], whole(before))
        assert list(reader.chunks(len(data))) == []
        assert reader.chunk(len(data)) is None
        assert reader.place == len(before)


def test_the_longest_packets_fit_into_a_chunk(tmp_path: Path) -> None:
    assert build.LONGEST > LONGEST_CAPTURE + 16
    frame = packets([0])[0].data.ljust(LONGEST_CAPTURE, b"\0")
    data = lab.savefile(lab.ETHERNET, [Packet(lab.BEGIN, frame, LONGEST_CAPTURE)] * 3)
    with reading(tmp_path / "file", data) as (_, reader), pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "LONGEST", LONGEST_CAPTURE + 16)
        assert [chunk.packets for chunk in reader.chunks(len(data))] == [1, 1, 1]
        assert reader.place == len(data)


def test_no_more_packets_make_a_chunk_than_can_be_grouped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "PACKETS", 7)
    data = lab.savefile(lab.ETHERNET, packets(range(40)))
    with reading(tmp_path / "file", data) as (_, reader):
        chunks = list(reader.chunks(len(data)))
    assert [chunk.packets for chunk in chunks] == [7, 7, 7, 7, 7, 5]
    assert follow_each_other(chunks)


@pytest.mark.parametrize("piece", [LONGEST_CAPTURE // 100, 8192, 100_000])
def test_a_chunk_that_is_read_in_pieces_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    data = lab.savefile(lab.ETHERNET, packets([*range(20), *range(1000)]))
    with reading(tmp_path / "file", data) as (_, reader):
        monkeypatch.setattr(build, "_PIECE", piece)
        (chunk,) = reader.chunks(len(data))
    assert same(chunk, whole(data))


def test_what_an_earlier_chunk_left_in_the_workspace_is_not_seen(tmp_path: Path) -> None:
    """A workspace is shared by files of all kinds."""
    shared = build.Workspace()
    kinds = [lab.ETHERNET, lab.RAW, lab.NULL, lab.SLL2, lab.ETHERNET]
    for number, link_type in enumerate(kinds):
        data = lab.savefile(link_type, packets(range(number, 300, number + 1)))
        with reading(tmp_path / f"{number}", data) as (fd, _):
            (chunk,) = Reader(fd, kind_of(data), workspace=shared).chunks(len(data))
            assert same(chunk, whole(data))


def test_packets_decoded_in_many_batches_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches with and without IPv6 among them."""
    data = lab.savefile(lab.ETHERNET, packets([*range(20), *range(1000)]))
    one = whole(data)
    monkeypatch.setattr(build, "_BATCH", 10)
    assert same(whole(data), one)
    four = lab.ethernet(0x0800, lab.ipv4(6, lab.tcp())).data
    assert same(whole(lab.savefile(1, [Packet(lab.BEGIN, four, 60)] * 35)), _one_batch([four] * 35))


def _one_batch(frames: list[bytes]) -> Chunk:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_BATCH", 1000)
        return whole(lab.savefile(1, [Packet(lab.BEGIN, frame, 60) for frame in frames]))


def test_marks_tell_the_times_of_the_packets_from_one_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_MARK", 7)
    rng = random.Random(3)
    sent = [packet._replace(time=lab.BEGIN + rng.randrange(10**12)) for packet in packets(range(50))]
    made = whole(lab.savefile(lab.ETHERNET, sent))
    places = sorted(made.offsets.tolist())
    assert made.marks.tolist() == places[::7]
    for at in range(len(made.marks)):
        times = [packet.time for packet in sent[at * 7 : at * 7 + 7]]
        assert (int(made.mark_first[at]), int(made.mark_last[at])) == (min(times), max(times))


def test_a_file_without_packets_has_no_chunks(tmp_path: Path) -> None:
    data = lab.savefile(lab.ETHERNET, [])
    with reading(tmp_path / "file", data) as (_, reader):
        assert list(reader.chunks(len(data))) == []
        assert list(reader.chunks(10_000)) == []
        assert reader.place == FILE_HEADER


@pytest.mark.parametrize("data", [b"", b"\0" * 24, b"\x0a\x0d\x0d\x0a" + bytes(40), b"\xd4\xc3\xb2\xa1" + bytes(19)])
def test_what_is_no_pcap_file_has_no_kind(data: bytes) -> None:
    assert build.kind_of(data) is None


def test_the_link_type_is_read_in_the_byte_order_of_the_file() -> None:
    for order in ("<", ">"):
        kind = build.kind_of(lab.savefile(lab.SLL2, [], order, 1000))
        assert kind is not None
        assert (kind.form.order, kind.form.unit, kind.link_type) == (order, 1000, lab.SLL2)


def test_hostile_files_are_read_up_to_where_they_make_sense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes changed, gone, from elsewhere, twice: always the records of a walk one by one, and readable chunks."""
    monkeypatch.setattr(build, "LONGEST", 4 * SHORT)
    rng = random.Random(77)
    good = [
        lab.savefile(link_type, packets([rng.randrange(10_000) for _ in range(150)]), order, unit)
        for link_type in (lab.ETHERNET, lab.SLL, lab.SLL2, lab.RAW, lab.NULL, lab.LOOP, 228, 147)
        for order, unit in (("<", 1), (">", 1000))
    ]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    whole_ones = 0
    for _ in range(400):
        data = bytearray(rng.choice(good))
        for _ in range(rng.choice([1, 2, 5, 40])):
            place = rng.randrange(FILE_HEADER, len(data) - 8)
            match rng.randrange(5):
                case 0:
                    data[place] ^= 1 << rng.randrange(8)
                case 1:
                    data[place : place + 4] = rng.choice([bytes(4), b"\xff" * 4, rng.randbytes(4), b"\0\0\1\0"])
                case 2:
                    del data[place : place + rng.randrange(20)]
                case 3:
                    other = rng.choice(good)
                    data[place:place] = other[(at := rng.randrange(len(other))) : at + rng.randrange(300)]
                case _:
                    data[place : place + 1] = data[place : place + rng.randrange(200)]
        places, walk = lab.walked(bytes(data[FILE_HEADER:]), kind_of(bytes(data)).form.order)
        with reading(tmp_path / "file", bytes(data)) as (_, reader):
            chunks = list(reader.chunks(len(data)))
        assert reader.place == FILE_HEADER + walk.length
        back = list(form.decode(b"".join(map(form.encode, merge(chunks)))))
        assert sorted(place for chunk in back for flow in flows(chunk) for place in flow[-1]) == [
            FILE_HEADER + place for place in places
        ]
        whole_ones += walk.length == len(data) - FILE_HEADER
    assert 0 < whole_ones < 200
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024
