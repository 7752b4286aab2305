"""What is stored, and how far back."""

from __future__ import annotations

import json
import os
import re
import struct
from pathlib import Path

import msgspec
import pytest

from agent.cli.main import main
from agent.workers.capture import account, pins
from agent.workers.capture.account import Account
from agent.workers.capture.catalogue import ACCOUNT, INDEX
from agent.workers.capture.memory import Memory
from agent.workers.capture.naming import CLOSED, OPEN, segment_name
from agent.workers.capture.retention import Limits
from agent.workers.capture.store import Store
from tests.workers.flows import traffic
from tests.workers.flows.traffic import NOON

HEADER = struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)


def test_each_interface_is_shown_with_its_segments_and_how_far_back_it_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "spool" / "edge" / "eth0"
    place.mkdir(parents=True)
    (place / "20261120T140000.000000Z.pcap").write_bytes(bytes(100))
    (place / "20261120T140000.000000Z.idx").write_bytes(bytes(10))
    (place / "20261120T140100.000000Z.part").write_bytes(bytes(50))
    (place / "notes.txt").write_bytes(bytes(1000))
    assert main(["--prefix", str(tmp_path), "--json", "capture", "list"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert main(["--prefix", str(tmp_path), "capture", "list"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert re.split(" {2,}", shown[1])[5] == "2026-11-20 14:00:00"
    assert told["services"] == [
        {
            "service": "edge",
            "segments": 2,
            "bytes": 160,
            "oldest": 1795183200.0,
            "unindexed": 1,
            "pins": 0,
            "pinned_bytes": 0,
            "budget": None,
            "max_age": None,
            "interfaces": [{"interface": "eth0", "segments": 2, "bytes": 160, "oldest": 1795183200.0, "cut": 0}],
            "memory": None,
        }
    ]
    assert shown[2].startswith("edge: 160 B, goes back ")
    assert shown[2].endswith("; 1 segment without an index yet")


def test_what_is_stored_is_held_against_what_is_declared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key").mkdir()
    (tmp_path / "key" / "env.toml").write_text(
        '[service.edge]\nkind = "capture"\ninterfaces = ["lo"]\nbudget = "2MiB"\nmax_age = "30d"\nrotate.size = "64KiB"'
    )
    directory = tmp_path / "spool" / "edge"
    for second, interface in [(100, "eth0"), (200, "gone0")]:
        (directory / interface).mkdir(parents=True)
        path = directory / interface / segment_name(second * 10**9, CLOSED)
        path.write_bytes(bytes(2**19 - 10))
        path.with_suffix(INDEX).write_bytes(bytes(10))
        os.utime(path, (second, second))
    (tmp_path / "spool" / "lan_scan").mkdir()
    (tmp_path / "spool" / "agent").mkdir()
    pins.add(directory, 0, 150 * 10**9, created=300 * 10**9)
    assert main(["--prefix", str(tmp_path), "--json", "capture", "list"]) == 0
    told = json.loads(capsys.readouterr().out)
    (service,) = told["services"]
    assert [one["interface"] for one in service.pop("interfaces")] == ["eth0", "gone0"]
    assert service == {
        "service": "edge",
        "segments": 2,
        "bytes": 2**20,
        "oldest": 100.0,
        "unindexed": 0,
        "pins": 1,
        "pinned_bytes": 2**19,
        "budget": 2**21,
        "max_age": 30 * 86400.0,
        "memory": None,
    }
    assert main(["--prefix", str(tmp_path), "capture", "list"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("edge: 1.00 MiB of 2.00 MiB (50%), goes back ")
    assert line.endswith("; 1 pin holds 512 KiB")


def test_each_segment_is_shown_with_what_became_of_its_packets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One whose packets are accounted for, one recovered after a crash, one without an index, and one that is open."""
    mixed = traffic.mixed(1, 40, NOON)
    parts = [[*mixed[:10]], [*mixed[10:20]], [*mixed[20:30]], [*mixed[30:]]]
    paths = traffic.store(tmp_path / "spool" / "edge", "eth0", parts, snaplen=60)
    longer = [sum(len(packet.frame) > 60 for packet in part) for part in parts]
    assert min(longer) > 0
    lost = {"dropped_kernel": 3, "dropped_interface": 9, "not_written": 4}
    for path, more in (
        (paths[0], {"received": 17, **lost, "lag": 1_500_000_000}),
        (paths[1], {"reason": "recovered"}),
        (paths[2], {"received": 12, "unaccounted": 2}),
    ):
        told = {"interface": "eth0", "opened": 10**9, "closed": 2 * 10**9, "written": 10, "bytes": 1, "reason": "time"}
        account.write(path.with_suffix(ACCOUNT), msgspec.convert(told | more, Account))
    paths[2].with_suffix(INDEX).unlink()
    paths[3].rename(paths[3].with_suffix(OPEN))
    assert main(["--prefix", str(tmp_path), "--json", "capture", "list", "--segments"]) == 0
    document = json.loads(capsys.readouterr().out)
    first, second, third, last = document["segments"]
    assert {key: first[key] for key in lost} == lost
    assert (first["received"], first["written"], first["unaccounted"]) == (17, 10, 0)
    assert (first["cut"], first["holds"], first["lag_max"], first["reason"]) == (longer[0], True, 1.5, "time")
    assert (second["written"], second["received"], second["cut"], second["holds"]) == (10, None, longer[1], None)
    assert (third["cut"], third["holds"], third["unaccounted"]) == (None, False, 2)
    assert (last["open"], last["received"], last["cut"], last["holds"]) == (True, None, None, None)
    assert document["services"][0]["interfaces"][0]["cut"] == longer[0] + longer[1]
    assert main(["--prefix", str(tmp_path), "capture", "list", "--segments"]) == 0
    shown = [re.split(" {2,}", line) for line in capsys.readouterr().out.splitlines()]
    assert shown[1][4:] == ["17", "3", "9", "4", "10", str(longer[0]), "holds", "1.5s", "time"]
    assert shown[3][8:11] == ["10", "-", "off by 2"]
    assert shown[4][-1] == "open"


def test_a_store_from_a_newer_version_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "spool" / "edge").mkdir(parents=True)
    (tmp_path / "spool" / "edge" / "store.json").write_text('{"version": 2}')
    assert main(["--prefix", str(tmp_path), "capture", "list"]) == 1
    (complaint,) = capsys.readouterr().err.splitlines()
    assert "the store is of version 2, and this program knows 1" in complaint


def test_an_empty_store_is_said_to_be_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--prefix", str(tmp_path), "capture", "list"]) == 0
    assert capsys.readouterr().out == f"no packets are stored below {tmp_path / 'spool'}\n"


def test_what_waits_in_memory_is_told_and_so_is_a_question_that_cannot_see_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], awake: None
) -> None:
    data = tmp_path / "spool" / "edge"
    disk = Store(data, Limits(10**6), lambda kind, message: None)
    disk.adopt()
    waiting = Memory(disk, data, 10 * 10**9, 10**6, lambda kind, message: None)
    waiting.adopt()
    try:
        assert main(["--prefix", str(tmp_path), "capture", "list"]) == 0
        told = capsys.readouterr().out.splitlines()
        assert told == ["edge: nothing on disk; 0 B in memory until something triggers it"]
        part = waiting.part("eth0", 1795183200 * 10**9)
        part.write_bytes(HEADER.ljust(2048, b"."))
        waiting.keep(part, 1795183200 * 10**9, 2048)
        assert main(["--prefix", str(tmp_path), "--json", "capture", "list"]) == 0
        (service,) = json.loads(capsys.readouterr().out)["services"]
        assert service["memory"] == {"segments": 1, "bytes": 2048, "oldest": 1795183200.0}
        assert main(["--prefix", str(tmp_path), "capture", "list"]) == 0
        assert "edge: nothing on disk; 2.00 KiB in memory until something triggers it, back " in capsys.readouterr().out
        (data / "eth0").mkdir()
        (data / "eth0" / "20261120T140000.000000Z.pcap").write_bytes(HEADER)
        assert main(["--prefix", str(tmp_path), "capture", "query", "ip"]) == 0
        note = "agentctl: edge keeps its packets in memory, unseen, until something triggers it"
        assert note in capsys.readouterr().err.splitlines()
    finally:
        waiting.close()
