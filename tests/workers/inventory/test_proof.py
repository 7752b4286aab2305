"""The proof of the inventory holds here, and fails where packets are not understood."""

from __future__ import annotations

import pytest

from agent.errors import CaptureFailure
from agent.workers.inventory import dissect, proof
from agent.workers.inventory.sighting import ARP, MDNS, Sighting


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
