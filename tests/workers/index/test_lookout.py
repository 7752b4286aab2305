"""Segments without an index are found, and a directory that has not changed is not read again."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from agent.workers.capture import catalogue
from agent.workers.index import lookout
from agent.workers.index.lookout import Lookout
from tests.workers.index.pcaps import segment


class Later:
    """A clock that is ahead by a minute: what was changed was changed long ago."""

    def __call__(self) -> int:
        return time.time_ns() + 60 * 10**9


def names(found: list[catalogue.Segment]) -> list[str]:
    return [f"{one.interface}/{one.path.name[13:15]}{one.path.suffix}" for one in found]


def test_what_is_open_and_what_has_no_index_is_found_oldest_first(tmp_path: Path) -> None:
    segment(tmp_path, "eth0", 2, b"", ".part")
    segment(tmp_path, "eth1", 1, b"")
    segment(tmp_path, "eth0", 0, b"").with_suffix(".idx").touch()
    (tmp_path / "eth0" / "notes.pcap").touch()
    assert names(Lookout(tmp_path).unindexed()) == ["eth1/01.pcap", "eth0/02.part"]


def test_a_store_that_is_not_there_yet_has_none(tmp_path: Path) -> None:
    assert Lookout(tmp_path / "nowhere").unindexed() == []


def test_only_a_directory_that_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(directory: Path, interface: str) -> list[catalogue.Segment]:
        read.append(interface)
        return list(catalogue.within(directory, interface))

    monkeypatch.setattr(lookout, "within", counted)
    segment(tmp_path, "eth0", 0, b"")
    segment(tmp_path, "eth1", 0, b"")
    looking = Lookout(tmp_path, Later())
    looking.unindexed()
    looking.unindexed()
    assert sorted(read) == ["eth0", "eth1"]
    segment(tmp_path, "eth1", 1, b"", ".part")
    assert names(looking.unindexed()) == ["eth0/00.pcap", "eth1/00.pcap", "eth1/01.part"]
    assert read[2:] == ["eth1"]


def test_a_directory_that_changed_just_now_is_read_again_whatever_its_time_says(tmp_path: Path) -> None:
    segment(tmp_path, "eth0", 0, b"")
    looking = Lookout(tmp_path, lambda: (tmp_path / "eth0").stat().st_mtime_ns)
    looking.unindexed()
    segment(tmp_path, "eth0", 1, b"")
    assert names(looking.unindexed()) == ["eth0/00.pcap", "eth0/01.pcap"]


def test_an_interface_whose_directory_went_is_forgotten(tmp_path: Path) -> None:
    path = segment(tmp_path, "eth0", 0, b"")
    looking = Lookout(tmp_path)
    assert looking.unindexed()
    path.unlink()
    path.parent.rmdir()
    assert looking.unindexed() == []
