"""The index of a segment while it is written: merged as it grows, bounded, and whole when it is closed."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.workers.index import form, growing
from agent.workers.index.growing import Growing, NotOurs
from agent.workers.index.model import Chunk
from tests.workers.index.pcaps import records, segment


def read(path: Path) -> list[Chunk]:
    return list(form.decode(path.read_bytes()))


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def test_what_is_appended_is_indexed_by_and_by_and_the_index_is_whole_at_the_end(tmp_path: Path) -> None:
    path = segment(tmp_path, "eth0", 0, records(100), ".part")
    index = Growing(path)
    assert sum(chunk.packets for chunk in index.advance()) == 100
    assert not list(index.advance())
    whole = records(50, first=100)
    append(path, whole[:-10])
    assert sum(chunk.packets for chunk in index.advance()) == 49
    append(path, whole[-10:])
    assert sum(chunk.packets for chunk in index.advance()) == 1
    closed = path.rename(path.with_suffix(".pcap"))
    (chunk,) = read(index.finish(closed))
    index.close()
    assert (chunk.begin, chunk.end, chunk.packets) == (24, closed.stat().st_size, 150)
    assert len(chunk.flows) == 10
    assert chunk.flows.packets.tolist() == [15] * 10
    assert [path.name for path in sorted(closed.parent.iterdir())] == [closed.with_suffix(".idx").name, closed.name]


def test_what_has_become_large_goes_to_the_tail_where_readers_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing, "SEALED_BYTES", 10_000)
    path = segment(tmp_path, "eth0", 0, records(100), ".part")
    index = Growing(path)
    list(index.advance())
    (sealed,) = read(path.with_suffix(".tail"))
    assert sealed.packets == 100
    append(path, records(20, first=100))
    list(index.advance())
    assert len(read(path.with_suffix(".tail"))) == 1
    closed = path.rename(path.with_suffix(".pcap"))
    first, last = read(index.finish(closed))
    index.close()
    assert (first.end, last.begin, last.end) == (last.begin, first.end, closed.stat().st_size)
    assert (first.packets, last.packets) == (100, 20)


def test_an_unfinished_index_leaves_nothing_and_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing, "SEALED_BYTES", 1)
    path = segment(tmp_path, "eth0", 0, records(100), ".part")
    path.with_suffix(".tail").write_bytes(b"of an earlier process")
    index = Growing(path)
    list(index.advance())
    assert sum(chunk.packets for chunk in read(path.with_suffix(".tail"))) == 100
    index.close()
    assert not path.with_suffix(".tail").exists()


def test_a_segment_without_packets_gets_an_index_that_says_so(tmp_path: Path) -> None:
    path = segment(tmp_path, "eth0", 0, b"")
    index = Growing(path)
    assert not list(index.advance())
    assert read(index.finish(path)) == []
    index.close()


def test_a_removed_segment_is_noticed(tmp_path: Path) -> None:
    path = segment(tmp_path, "eth0", 0, records(1))
    index = Growing(path)
    assert not index.gone()
    path.unlink()
    assert index.gone()
    index.close()


@pytest.mark.parametrize("content", [b"", b"\n" * 100], ids=["empty", "something else"])
def test_what_is_no_pcap_file_is_not_ours(tmp_path: Path, content: bytes) -> None:
    path = segment(tmp_path, "eth0", 0, b"")
    path.write_bytes(content)
    with pytest.raises(NotOurs):
        Growing(path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    path = segment(tmp_path, "eth0", 0, records(1))
    link = path.with_name("20261120T150000.000000Z.pcap")
    link.symlink_to(path)
    with pytest.raises(OSError, match="symbolic links"):
        Growing(link)
