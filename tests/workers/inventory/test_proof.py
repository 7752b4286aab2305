"""The proof of the inventory holds here, and fails where packets are not understood."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agent.errors import CaptureFailure
from agent.workers.inventory import dissect, proof
from agent.workers.inventory.sighting import ARP, MDNS, Sighting

ROOT = Path(__file__).resolve().parents[3]


def test_packets_that_tell_of_hosts_are_understood() -> None:
    assert proof.understood() == "hosts read from packets of arp, mdns, lldp"


def test_a_packet_that_is_read_otherwise_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(proof._EXPECTED, MDNS, ("", "", "scanner.local"))
    with pytest.raises(CaptureFailure, match=r"scanner\.local was not read from a packet of mdns"):
        proof.understood()


def test_a_dissector_that_is_broken_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(link_type: int, data: bytes, time: int) -> list[Sighting]:
        try:
            raise ModuleNotFoundError("No module named 'scapy.layers'")
        except ModuleNotFoundError as error:
            raise dissect.Crashed(f"{ARP}: ModuleNotFoundError") from error

    monkeypatch.setattr(proof, "sightings", broken)
    with pytest.raises(CaptureFailure, match=r"arp: ModuleNotFoundError: No module named 'scapy\.layers'"):
        proof.understood()


def test_the_makers_of_network_cards_are_not_loaded() -> None:
    """Where no Wireshark is installed: they would be most of what the process that indexes takes."""
    program = (
        "import sys; from agent.workers.inventory import layers; from scapy.data import MANUFDB\n"
        "print(len(sys.modules['scapy.libs.manuf'].DATA), len(MANUFDB.d))"
    )
    hidden = (
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        'mount -t tmpfs none /usr/share && exec "$@"',
    )
    done = subprocess.run([*hidden, "sh", sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("0 0\n", "")
