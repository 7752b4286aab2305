"""What drift takes from the inventory of a capture."""

from __future__ import annotations

from pathlib import Path

from agent.workers.inventory.sighting import SERVICE, Sighting
from agent.workers.inventory.snapshot import NAME, Snapshot, entries, write
from agent.workers.inventory.table import Table
from agent.workers.watch.from_capture import read
from agent.workers.watch.sources import Claim, Sight

NANO = 1_000_000_000
A, B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"


def inventory(directory: Path, *told: Sighting, interface: str = "eth0", written: int = 200) -> None:
    """Have the capture of this directory know what was told."""
    table = Table()
    table.fold(told, interface)
    stations, addresses, heard = (entries(rows) for rows in table.tables())
    directory.mkdir(parents=True, exist_ok=True)
    found = Snapshot(
        written=written * NANO,
        counters={},
        progress={},
        own=[],
        stations=stations,
        addresses=addresses,
        heard=heard,
    )
    write(directory / NAME, found)


def test_who_answered_and_who_has_which_address(tmp_path: Path) -> None:
    inventory(
        tmp_path,
        Sighting(100 * NANO, 150 * NANO, "flow", 7, "", "10.0.0.1", SERVICE, "tcp/22"),
        Sighting(100 * NANO, 110 * NANO, "arp", 7, A, "10.0.0.1"),
        Sighting(120 * NANO, 130 * NANO, "dhcp", 7, A, "10.0.0.1"),
        Sighting(140 * NANO, 140 * NANO, "arp", 7, B, "10.0.0.1"),
        Sighting(100 * NANO, 150 * NANO, "mdns", 7, A, "", SERVICE, "tcp/631"),
    )
    seen = read(tmp_path, "edge")
    assert seen is not None
    assert seen.sights == [Sight("edge", "eth0", 7, "10.0.0.1", "tcp", 22, 100.0, 150.0)]
    assert sorted(seen.claims) == [
        Claim("edge", "eth0", 7, "10.0.0.1", A, 100.0, 130.0),
        Claim("edge", "eth0", 7, "10.0.0.1", B, 140.0, 140.0),
    ]
    assert seen.written == 200.0


def test_a_capture_that_has_not_seen_anybody_says_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, "edge") is None
