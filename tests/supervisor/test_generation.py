"""The record of a generation: complete, bounded, and never in the way."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import StorageFailure
from agent.linux.process import Identity, identify
from agent.supervisor import generation
from agent.supervisor.generation import Entry, Generation, read_entries


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "agent.generation.json"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "disk"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)], check=True)
    yield mount
    subprocess.run(["umount", "--lazy", str(mount)], check=True)


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(b"\0" * 4096)
    return ballast


def names(path: Path) -> set[tuple[str, int]]:
    return {(entry.name, entry.pid) for entry in read_entries(path)}


ME = identify(os.getpid()) or Identity(0, 0, "")


def test_a_mark_is_on_record_before_anything_carries_it_and_a_spawn_after_it(record: Path) -> None:
    kept = Generation(record)
    kept.expect("api", "mark:api")
    assert names(record) == {("api", 0)}
    kept.record("api", ME, "mark:api")
    kept.expect("api", "mark:api")
    assert [entry.identity for entry in read_entries(record)][1:] == [ME]
    assert record.stat().st_mode & 0o777 == 0o600
    assert kept.complete
    kept.close()
    assert not record.exists()


def test_a_new_generation_begins_with_an_empty_record(record: Path) -> None:
    Generation(record).record("old", ME, "mark")
    Generation(record).record("new", ME, "mark")
    assert names(record) == {("new", os.getpid())}


def test_a_long_record_is_rewritten_with_the_newest_of_each(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "COMPACT_AT", 1000)
    kept = Generation(record)
    for number in range(100):
        kept.record(f"s{number % 3}", ME._replace(pid=number + 1), "mark")
        assert record.stat().st_size < 1200
    assert {("s0", 100), ("s1", 98), ("s2", 99)} <= names(record)


def test_what_a_full_disk_kept_off_the_record_is_there_once_there_is_room(small_disk: Path) -> None:
    record = small_disk / "record.json"
    kept = Generation(record)
    ballast = fill(small_disk)
    for number in range(100):
        kept.record(f"s{number}", ME, "mark")
    complete = [kept.complete]
    ballast.unlink()
    kept.record("last", ME, "mark")
    assert [*complete, kept.complete] == [False, True]
    assert {name for name, _ in names(record)} == {*(f"s{number}" for number in range(100)), "last"}


def test_a_record_that_cannot_even_be_opened_is_made_up_for_later(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    kept = Generation(directory / "record.json")
    kept.record("one", ME, "mark")
    complete = [kept.complete]
    directory.mkdir()
    kept.record("two", ME, "mark")
    assert [*complete, kept.complete] == [False, True]
    assert {name for name, _ in names(directory / "record.json")} == {"one", "two"}


def test_without_a_descriptor_nothing_is_raised(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "COMPACT_AT", 10)
    kept = Generation(record)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        kept.record("api", ME, "mark")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    kept.record("web", ME, "mark")
    assert {name for name, _ in names(record)} == {"api", "web"}


def test_torn_and_foreign_lines_are_skipped(record: Path) -> None:
    kept = Generation(record)
    kept.record("api", ME, "mark")
    with record.open("ab") as file:
        file.write(b'{"name": "torn", "pid": 1\n\xff\xfe\n{"name": "\xff"}\nnull\n[]\n{"name":"x","pid":"1"}\n{"name"')
    assert names(record) == {("api", os.getpid())}


def test_another_program_keeps_the_record_and_adds_what_is_not_on_it(record: Path) -> None:
    first = Generation(record)
    first.record("api", ME, "mark:api")
    first.record("web", ME, "mark:web")
    before = record.read_bytes()
    second = Generation(record, resume=True)
    for name in ("api", "web"):
        second.record(name, ME, f"mark:{name}")
        second.expect(name, f"mark:{name}")
    assert record.read_bytes() == before
    assert second.complete
    second.record("api", ME._replace(pid=1), "mark:api")
    assert record.read_bytes().startswith(before)
    assert [entry.pid for entry in read_entries(record) if entry.name == "api"] == [os.getpid(), 1]


def test_a_record_stays_bounded_however_many_programs_keep_it(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "COMPACT_AT", 1000)
    for number in range(100):
        kept = Generation(record, resume=number > 0)
        kept.record(f"s{number % 3}", ME._replace(pid=number + 1), "mark")
        os.close(kept._fd)
        assert record.stat().st_size < 1200
    assert {("s0", 100), ("s1", 98), ("s2", 99)} <= names(record)


def test_a_line_that_an_earlier_program_could_not_finish_spoils_none_of_the_next(record: Path) -> None:
    Generation(record).record("api", ME, "mark")
    with record.open("ab") as file:
        file.write(b'{"name":"web","pid":')
    kept = Generation(record, resume=True)
    assert kept.complete
    kept.record("web", ME, "mark")
    assert names(record) == {("api", os.getpid()), ("web", os.getpid())}


def test_what_a_full_disk_kept_off_the_record_another_program_adds(small_disk: Path) -> None:
    record = small_disk / "record.json"
    first = Generation(record)
    ballast = fill(small_disk)
    for number in range(100):
        first.record(f"s{number}", ME, "mark")
    second = Generation(record, resume=True)
    for number in range(100):
        second.record(f"s{number}", ME, "mark")
    complete = [second.complete]
    ballast.unlink()
    second.record("last", ME, "mark")
    assert [*complete, second.complete] == [False, True]
    assert {name for name, _ in names(record)} == {*(f"s{number}" for number in range(100)), "last"}


def test_no_record_is_an_empty_one_and_one_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    assert read_entries(tmp_path / "absent") == []
    with pytest.raises(StorageFailure, match="cannot be read"):
        read_entries(tmp_path)


def test_an_entry_names_its_process() -> None:
    assert Entry("api", 7, 8, "boot", "mark").identity == (7, 8, "boot")
