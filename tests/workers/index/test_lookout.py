"""Segments without an index are found, and a directory that has not changed is not read again."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.workers.capture import catalogue
from agent.workers.index import lookout
from agent.workers.index.changes import Changes
from agent.workers.index.lookout import Lookout
from tests.workers.index.pcaps import segment


class Later:
    """A clock that is ahead by a minute: what was changed was changed long ago."""

    def __call__(self) -> int:
        return time.time_ns() + 60 * 10**9


class Deaf(Changes):
    """A kernel that tells of nothing."""

    def watch(self, directory: Path) -> int | None:
        return None


@pytest.fixture(params=[Changes, Deaf])
def changes(request: pytest.FixtureRequest) -> type[Changes]:
    kind: type[Changes] = request.param
    return kind


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


def test_only_a_directory_that_changed_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: type[Changes]
) -> None:
    read: list[str] = []

    def counted(directory: Path, interface: str) -> list[catalogue.Segment]:
        read.append(interface)
        return list(catalogue.within(directory, interface))

    monkeypatch.setattr(lookout, "within", counted)
    segment(tmp_path, "eth0", 0, b"")
    segment(tmp_path, "eth1", 0, b"")
    looking = Lookout(tmp_path, Later(), changes)
    looking.unindexed()
    looking.unindexed()
    assert sorted(read) == ["eth0", "eth1"]
    segment(tmp_path, "eth1", 1, b"", ".part")
    assert names(looking.unindexed()) == ["eth0/00.pcap", "eth1/00.pcap", "eth1/01.part"]
    assert read[2:] == (["eth1"] if changes is Deaf else [])


def test_a_directory_that_changed_just_now_is_read_again_whatever_its_time_says(
    tmp_path: Path, changes: type[Changes]
) -> None:
    segment(tmp_path, "eth0", 0, b"")
    looking = Lookout(tmp_path, lambda: (tmp_path / "eth0").stat().st_mtime_ns, changes)
    looking.unindexed()
    segment(tmp_path, "eth0", 1, b"")
    assert names(looking.unindexed()) == ["eth0/00.pcap", "eth0/01.pcap"]


def test_an_interface_whose_directory_went_is_forgotten(tmp_path: Path, changes: type[Changes]) -> None:
    path = segment(tmp_path, "eth0", 0, b"")
    looking = Lookout(tmp_path, changes=changes)
    assert looking.unindexed()
    path.unlink()
    path.parent.rmdir()
    assert looking.unindexed() == []
    segment(tmp_path, "eth0", 1, b"")
    assert names(looking.unindexed()) == ["eth0/01.pcap"]
    looking.close()


STEPS = st.lists(
    st.tuples(st.sampled_from(["open", "close", "index", "unindex", "remove", "link", "look"]), st.integers(0, 3)),
    max_size=25,
)


@given(STEPS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_followed_is_what_a_listing_finds(tmp_path: Path, steps: list[tuple[str, int]]) -> None:
    store = Path(tempfile.mkdtemp(dir=tmp_path))
    looking = Lookout(store)
    for step, second in [*steps, ("look", 0)]:
        part = store / "eth0" / f"20261120T1400{second:02}.000000Z.part"
        closed, index = part.with_suffix(".pcap"), part.with_suffix(".idx")
        if step == "open":
            segment(store, "eth0", second, b"", ".part")
        elif step == "close" and part.exists():
            part.rename(closed)
        elif step == "index" and closed.exists():
            index.touch()
        elif step == "unindex":
            index.unlink(missing_ok=True)
        elif step == "remove":
            closed.unlink(missing_ok=True)
            index.unlink(missing_ok=True)
        elif step == "link" and part.parent.exists() and not os.path.lexists(closed):
            closed.symlink_to("elsewhere")
        else:
            assert looking.unindexed() == Lookout(store, changes=Deaf).unindexed()
            assert looking.opened() == [one for one in looking.unindexed() if not one.closed]
    looking.close()


def test_when_not_all_changes_were_told_all_is_listed_again(tmp_path: Path) -> None:
    segment(tmp_path, "eth0", 0, b"")
    looking = Lookout(tmp_path)
    looking.unindexed()
    for second in range(int(Path("/proc/sys/fs/inotify/max_queued_events").read_text()) // 2 + 1):
        (tmp_path / "eth0" / f"20261120T1400{second % 60:02}.000000Z.part").touch()
        (tmp_path / "eth0" / f"20261120T1400{second % 60:02}.000000Z.part").unlink()
    segment(tmp_path, "eth0", 1, b"")
    assert names(looking.unindexed()) == ["eth0/00.pcap", "eth0/01.pcap"]
    looking.close()
