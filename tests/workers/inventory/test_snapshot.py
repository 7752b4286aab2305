"""What was written reads back; what somebody else has written can say what is untrue, and do no more."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.errors import StorageFailure
from agent.workers.inventory.sighting import NAME, SERVICE, Sighting
from agent.workers.inventory.snapshot import Damaged, Snapshot, entries, read, restore, write
from agent.workers.inventory.table import Limits, Table

MAC = "02:00:00:00:00:01"


def filled() -> Table:
    table = Table()
    told = [
        Sighting(1, 2, "arp", 7, MAC, "10.0.0.1"),
        Sighting(3, 4, "dhcp", 7, MAC, "", NAME, "printer\x1b[2J"),
        Sighting(5, 6, "flow", 0, "", "fd00::1", SERVICE, "tcp/22"),
        Sighting(7, 8, "dns", 0, "", "10.0.0.1", NAME, "www", "10.0.0.9"),
    ]
    table.fold(told, "eth0")
    return table


def snapshot(table: Table, **more: Any) -> Snapshot:
    rows = {"stations": table.stations, "addresses": table.addresses, "heard": table.heard}
    usual: dict[str, Any] = {name: entries(found) for name, found in rows.items()}
    usual |= {"written": 9, "counters": {"dissected": 3}, "progress": {"eth0": 8}, "own": [MAC]}
    return Snapshot(**{**usual, **more})


def test_it_reads_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "hosts.json"
    written = snapshot(filled())
    write(path, written)
    assert path.stat().st_mode & 0o777 == 0o640
    found = read(path)
    assert found == written
    assert restore(found).tables() == filled().tables()
    assert restore(found).facts == filled().facts


def test_none_is_none(tmp_path: Path) -> None:
    assert read(tmp_path / "hosts.json") is None


def test_a_newer_version_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "hosts.json"
    path.write_text('{"version": 2, "something": "else"}')
    with pytest.raises(StorageFailure, match=r"hosts.json: of version 2; this program knows up to 1$") as error:
        read(path)
    assert not isinstance(error.value, Damaged)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 1}', "\xff", "[" * 100_000, '{"version": 1, "written": -1}']
)
def test_what_is_no_inventory_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "hosts.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(Damaged, match=r"hosts.json: no inventory") as error:
        read(path)
    assert "\n" not in str(error.value)


def test_a_link_or_a_pipe_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "hosts.json"
    os.mkfifo(path)
    with pytest.raises(StorageFailure):
        read(path)


HOSTILE: list[tuple[str, Any]] = [
    ("identity", "02-00-00-00-00-01"),
    ("identity", "ff:ff:ff:ff:ff:ff"),
    ("identity", ""),
    ("interface", "../../etc"),
    ("interface", ""),
    ("facts", [["name", "x" * 300, "dhcp", 1, 2]]),
    ("facts", [["name", "x", "rumour", 1, 2]]),
    ("facts", [["colour", "x", "dhcp", 1, 2]]),
    ("facts", [["name", "x", "dhcp", 2, 1]]),
    ("facts", [["address", "10.0.0.256", "arp", 1, 2]]),
    ("facts", [["name", "x", "dhcp", 1, 2, "10.0.0.9"]]),
]


@pytest.mark.parametrize(("key", "value"), HOSTILE)
def test_what_cannot_have_been_in_a_table_is_left_out(key: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "hosts.json"
    document = {"version": 1, "written": 1, "counters": {}, "progress": {}, "own": [], "addresses": [], "heard": []}
    entry: dict[str, Any] = {"identity": MAC, "first": 1, "last": 2, "interface": "eth0"}
    path.write_text(json.dumps({**document, "stations": [entry]}))
    found = read(path)
    assert found
    assert len(restore(found).stations) == 1
    path.write_text(json.dumps({**document, "stations": [{**entry, key: value}]}))
    found = read(path)
    assert found
    table = restore(found)
    assert table.facts == 0
    assert len(table.stations) == (key == "facts")


def test_more_than_there_may_be_is_cut_down_to_the_bounds(tmp_path: Path) -> None:
    table = Table()
    table.fold([Sighting(n, n, "arp", 0, f"02:00:00:00:00:{n:02x}", f"10.0.0.{n + 1}") for n in range(200)], "eth0")
    assert len(restore(snapshot(table), Limits(hosts=50)).stations) <= 50
    assert restore(snapshot(table), Limits(facts=50)).facts <= 50


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=4))
def test_damage_anywhere_is_told_or_does_no_harm(tmp_path: Path, place: int, damage: bytes) -> None:
    path = tmp_path / "hosts.json"
    write(path, snapshot(filled()))
    data = bytearray(path.read_bytes())
    place %= len(data)
    data[place : place + len(damage)] = damage
    path.write_bytes(data)
    try:
        found = read(path)
    except StorageFailure:
        return
    assert found is not None
    restore(found)
