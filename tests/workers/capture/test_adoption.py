"""What a store makes of what an earlier capture left behind."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from agent.workers.capture import account
from agent.workers.capture.account import Account
from agent.workers.capture.adoption import SLACK, adopt, discover
from agent.workers.capture.catalogue import ACCOUNT, INDEX, TAIL
from agent.workers.capture.naming import CLOSED, OPEN, segment_name
from agent.workers.capture.retention import Limits, Stored
from agent.workers.capture.store import Store
from tests.workers.capture import dying
from tests.workers.capture.lab import ROOT

SECOND = 10**9
HEADER = struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)
RECORD = struct.pack("=IIII", 7, 123_456_789, 3, 3) + b"abc"


class Reports:
    def __init__(self) -> None:
        self.all: list[tuple[str, str]] = []

    def __call__(self, kind: str, message: str) -> None:
        assert message.isprintable()
        self.all.append((kind, message))


def put(directory: Path, second: int, suffix: str, content: bytes, interface: str = "eth0") -> Path:
    path = directory / interface / segment_name(second * SECOND, suffix)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*/*"))


def test_a_store_killed_before_any_change_of_the_disk_is_whole_again_once_it_is_adopted(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, dying.__file__, str(tmp_path)],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert found["kills"] > 1.5 * found["instants"] > 90


def test_a_segment_left_open_is_completed_with_an_account_and_the_empty_one_removed(tmp_path: Path) -> None:
    part = put(tmp_path, 5, OPEN, HEADER + RECORD + RECORD[:-1])
    put(tmp_path, 5, TAIL, b"tail")
    modified = part.stat().st_mtime_ns
    put(tmp_path, 6, OPEN, HEADER)
    put(tmp_path, 9, OPEN, b"")
    foreign = put(tmp_path, 8, OPEN, b"#!/bin/sh\n" * 10)
    reports = Reports()
    (found,) = adopt(tmp_path, reports)
    kept = tmp_path / "eth0" / "19700101T000007.123456Z.pcap"
    assert names(tmp_path) == sorted([kept.name, kept.with_suffix(ACCOUNT).name, foreign.name])
    assert kept.read_bytes() == HEADER + RECORD
    told = account.read(kept.with_suffix(ACCOUNT))
    assert told == Account(
        interface="eth0", opened=5 * SECOND, closed=modified, written=1, bytes=43, reason="recovered"
    )
    size = 43 + kept.with_suffix(ACCOUNT).stat().st_size
    assert found == Stored(7 * SECOND + 123_456_000, "eth0", modified + SLACK, size, indexed=False)
    assert sorted(kind for kind, _ in reports.all) == ["segment_recovered"] * 3 + ["segment_unreadable"]


def test_an_account_that_was_made_before_the_kill_is_kept_if_it_is_true(tmp_path: Path) -> None:
    put(tmp_path, 5, OPEN, HEADER + RECORD)
    begin = 7 * SECOND + 123_456_000
    true = Account(interface="eth0", opened=5, closed=9, written=1, bytes=43, reason="size", received=1, ring=7)
    meta = tmp_path / "eth0" / segment_name(begin, ACCOUNT)
    account.write(meta, true)
    adopt(tmp_path, Reports())
    assert account.read(meta) == true


def test_what_belongs_to_no_segment_is_cleared_away(tmp_path: Path) -> None:
    ours = put(tmp_path, 1, CLOSED, HEADER)
    index = put(tmp_path, 1, INDEX, b"index")
    put(tmp_path, 2, INDEX, b"index")
    put(tmp_path, 2, ACCOUNT, b"account")
    put(tmp_path, 1, TAIL, b"tail")
    (tmp_path / "eth0" / f".{index.name}.0a1b2c3d").write_bytes(b"half")
    stays = [f".{index.name}.0a1b2c3", ".notes.meta.0a1b2c3d", "notes.idx"]
    for name in stays:
        (tmp_path / "eth0" / name).write_bytes(b"half")
    (found,) = adopt(tmp_path, Reports())
    assert names(tmp_path) == sorted([ours.name, index.name, *stays])
    assert (found.size, found.indexed) == (29, True)


def test_files_that_are_not_ours_are_neither_counted_nor_touched(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    data = tmp_path / "data"
    (data / "eth0").mkdir(parents=True)
    foreign = [
        data / "eth0" / "20261120T140000.123456Z.pcap.gz",
        data / "eth0" / "20261120T140000.123456Z.pcap~",
        data / "eth0" / "20261399T140000.123456Z.pcap",
        data / "eth0" / "notes.txt",
        data / "20261120T140000.123456Z.pcap",
    ]
    for path in foreign:
        path.write_bytes(HEADER)
    named_like_ours = [put(data, second, CLOSED, b"no capture at all, but text\n") for second in range(2, 7)]
    target = put(elsewhere, 1, CLOSED, HEADER, "x")
    (data / "eth0" / target.name).symlink_to(target)
    (data / "eth1").symlink_to(elsewhere / "x")
    (data / "eth0" / segment_name(SECOND, OPEN)).mkdir()
    reports = Reports()
    assert adopt(data, reports) == []
    assert all(path.is_file() for path in [*foreign, *named_like_ours, target])
    assert (data / "eth0" / target.name).is_symlink()
    assert reports.all == [
        (
            "segment_unreadable",
            "eth0: no pcap files, left alone: 19700101T000002.000000Z.pcap, 19700101T000003.000000Z.pcap, "
            "19700101T000004.000000Z.pcap and 2 more",
        )
    ]


def test_what_others_closed_or_left_is_found_bit_by_bit_and_what_is_known_is_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for second in range(1, 51):
        put(tmp_path, second, CLOSED, HEADER + RECORD)
        put(tmp_path, second, INDEX, b"index")
    reports = Reports()
    store = Store(tmp_path, Limits(10**6), reports)
    store.adopt()
    put(tmp_path, 20, ACCOUNT, b"of no interest, for it is known")
    new = [put(tmp_path, second, CLOSED, HEADER + RECORD) for second in (60, 61)]
    indexed = put(tmp_path, 61, INDEX, b"index")
    left = put(tmp_path, 62, OPEN, HEADER + RECORD + b"half")
    foreign = put(tmp_path, 63, OPEN, b"no packets, but text" * 10)
    put(tmp_path, 64, CLOSED, b"no packets either")
    before = store.bytes
    looks: list[Path] = []
    stat = Path.stat

    def noted(path: Path, **how: bool) -> os.stat_result:
        looks.append(path)
        return stat(path, **how)

    monkeypatch.setattr(Path, "stat", noted)
    entries = len(list((tmp_path / "eth0").iterdir()))
    turns = 1
    while not store.discover(0.0):
        turns += 1
    monkeypatch.undo()
    assert entries <= turns <= entries + 3
    assert len(looks) < 20
    assert not {path.stem for path in looks} & {segment_name(second * SECOND, "") for second in range(1, 51)}
    recovered = tmp_path / "eth0" / "19700101T000007.123456Z.pcap"
    assert not left.exists()
    found = [*new, indexed, recovered, recovered.with_suffix(ACCOUNT)]
    assert store.bytes - before == sum(path.stat().st_size for path in found)
    assert store.unindexed == 2
    for _ in range(3):
        assert store.discover(float("inf"))
    assert sorted(kind for kind, _ in reports.all) == ["segment_recovered", "segment_unreadable"]
    assert foreign.exists()


def test_what_a_power_failure_left_of_a_closed_segment_is_cut_or_goes_and_never_stays_for_ever(tmp_path: Path) -> None:
    modified = 100 * SECOND
    for second, content in enumerate((b"", bytes(5000), HEADER + bytes(5000), HEADER + RECORD + bytes(5000)), 1):
        path = put(tmp_path, second, CLOSED, content)
        put(tmp_path, second, ACCOUNT, b"")
        os.utime(path, ns=(modified, modified))
    damaged = put(tmp_path, 5, CLOSED, bytes(4096) + RECORD)
    put(tmp_path, 5, ACCOUNT, bytes(300))
    put(tmp_path, 6, OPEN, bytes(1 << 21))
    foreign = put(tmp_path, 7, CLOSED, bytes(4096) + b"a picture")
    reports = Reports()
    found = adopt(tmp_path, reports)
    kept = tmp_path / "eth0" / segment_name(4 * SECOND, CLOSED)
    left = [kept, kept.with_suffix(ACCOUNT), damaged, damaged.with_suffix(ACCOUNT), damaged.with_suffix(INDEX), foreign]
    assert names(tmp_path) == sorted(path.name for path in left)
    assert kept.read_bytes() == HEADER + RECORD
    told = account.read(kept.with_suffix(ACCOUNT))
    assert told is not None
    assert (told.written, told.bytes, told.reason) == (1, 43, "recovered")
    cut, lost = found
    assert (cut.end, cut.indexed) == (modified + SLACK, False)
    assert (lost.begin, lost.indexed) == (5 * SECOND, True)  # it may go
    assert lost.size == damaged.stat().st_size + 300
    assert reports.all == [
        (
            "segment_recovered",
            "eth0/19700101T000006.000000Z.part: 0 packets kept, 2097152 bytes of an unfinished one cut",
        ),
        ("segment_recovered", "eth0/19700101T000004.000000Z.pcap: 1 packets kept, 5000 bytes cut"),
        (
            "segment_unreadable",
            "eth0/19700101T000005.000000Z.pcap: damaged, no packet in it can be read; it stays until it is the oldest",
        ),
        (
            "segment_recovered",
            "eth0: removed, no packet was in them: 19700101T000001.000000Z.pcap, 19700101T000002.000000Z.pcap, "
            "19700101T000003.000000Z.pcap",
        ),
        ("segment_unreadable", "eth0: no pcap files, left alone: 19700101T000007.000000Z.pcap"),
    ]
    reports.all.clear()
    assert [(one.begin, one.indexed) for one in adopt(tmp_path, reports)] == [(one.begin, one.indexed) for one in found]
    assert [kind for kind, _ in reports.all] == ["segment_unreadable"]  # the foreign one


def test_how_many_packets_a_power_failure_took_is_told_as_far_as_it_left_accounts(tmp_path: Path) -> None:
    for second, content in enumerate((b"", bytes(5000), HEADER + bytes(5000), b""), 1):
        path = put(tmp_path, second, CLOSED, content)
        if second < 4:
            account.write(
                path.with_suffix(ACCOUNT),
                Account(interface="eth0", opened=1, closed=2, written=10**second, bytes=81, reason="time"),
            )
    reports = Reports()
    assert adopt(tmp_path, reports) == []
    ((kind, message),) = reports.all
    assert kind == "segment_recovered"
    assert message.startswith("eth0: removed, no packet was in them; their accounts tell of 1110: 19700101T000001")


def test_a_packet_that_ends_in_zeros_is_no_damage(tmp_path: Path) -> None:
    path = put(tmp_path, 1, CLOSED, HEADER + RECORD[:-3] + bytes(3))
    os.utime(path, ns=(SECOND, SECOND))
    reports = Reports()
    assert len(adopt(tmp_path, reports)) == 1
    assert path.stat().st_mtime_ns == SECOND
    assert reports.all == []


def test_while_members_write_no_damage_is_looked_for(tmp_path: Path) -> None:
    path = put(tmp_path, 1, CLOSED, bytes(100))
    assert [found for found in discover(tmp_path, lambda *which: False, Reports()) if found] == []
    assert path.exists()


def test_what_a_power_failure_left_shorter_than_its_account_says_is_mended_with_it(tmp_path: Path) -> None:
    whole = Account(interface="eth0", opened=SECOND, closed=9 * SECOND, written=3, bytes=81, reason="time", received=3)
    contents = (HEADER + RECORD * 3, HEADER + RECORD + RECORD[:9], HEADER + RECORD * 2)
    paths = [put(tmp_path, second, CLOSED, content) for second, content in enumerate(contents, 1)]
    for path in paths:
        account.write(path.with_suffix(ACCOUNT), whole)
    reports = Reports()
    assert len(adopt(tmp_path, reports)) == 3
    told = [account.read(path.with_suffix(ACCOUNT)) for path in paths]
    assert [(one.written, one.bytes, one.reason) for one in told if one is not None] == [
        (3, 81, "time"),
        (1, 43, "recovered"),
        (2, 62, "recovered"),  # as after a kill between the cut and its account
    ]
    assert [path.stat().st_size for path in paths] == [81, 43, 62]
    assert [kind for kind, _ in reports.all] == ["segment_recovered"] * 2
    reports.all.clear()
    assert len(adopt(tmp_path, reports)) == 3
    assert reports.all == []
