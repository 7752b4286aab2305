"""Proof that control packets are understood on this machine, by scapy's layers as they were bundled: for ``agentctl
selftest``. Three stand here; reading them writes nothing, and asks nobody.
"""

from __future__ import annotations

import struct

from agent.errors import CaptureFailure
from agent.workers.inventory import inventory
from agent.workers.inventory.dissect import Crashed, sightings
from agent.workers.inventory.sighting import ARP, LLDP, MDNS

INVENTORY = inventory.Inventory
"""What keeps it, and so everything that the index process loads for it."""

MAC, ADDRESS, NAME, SYSTEM = "02:00:00:00:00:07", "192.0.2.7", "printer.local", "switch"  # RFC 5737: nobody's

_ETHERNET = 1  # pcap-linktype(7): LINKTYPE_ETHERNET
_MAC = bytes.fromhex(MAC.replace(":", ""))
_ADDRESS = bytes(map(int, ADDRESS.split(".")))


def _ethernet(to: str, kind: int, payload: bytes) -> bytes:
    return bytes.fromhex(to) + _MAC + struct.pack("!H", kind) + payload


def _udp(port: int, payload: bytes) -> bytes:
    """An IPv4 datagram to mDNS' group, from and to one port: RFC 791, 768."""
    group = bytes((224, 0, 0, 251))
    udp = struct.pack("!4H", port, port, 8 + len(payload), 0) + payload
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 255, 17, 0, _ADDRESS, group) + udp


def _tlv(kind: int, value: bytes) -> bytes:
    """A part of an LLDP message: IEEE 802.1AB."""
    return struct.pack("!H", kind << 9 | len(value)) + value


# RFC 826: a request; RFC 6762, 1035: one answer, an address; IEEE 802.1AB: chassis, port, time to live, name, end
_FRAMES = {
    ARP: _ethernet(
        "ff" * 6, 0x0806, struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, _MAC, _ADDRESS, bytes(6), b"\1" * 4)
    ),
    MDNS: _ethernet(
        "01005e0000fb",
        0x0800,
        _udp(
            5353,
            struct.pack("!6H", 0, 0x8400, 0, 1, 0, 0)
            + b"".join(bytes((len(label),)) + label.encode() for label in NAME.split("."))
            + b"\0"
            + struct.pack("!HHIH", 1, 0x8001, 120, 4)
            + _ADDRESS,
        ),
    ),
    LLDP: _ethernet(
        "0180c200000e",
        0x88CC,
        _tlv(1, b"\4" + _MAC) + _tlv(2, b"\7port") + _tlv(3, b"\0\x78") + _tlv(5, SYSTEM.encode()) + _tlv(0, b""),
    ),
}

_EXPECTED = {ARP: (MAC, ADDRESS, ""), MDNS: ("", ADDRESS, NAME), LLDP: (MAC, "", SYSTEM)}
"""MAC, address and name that each tells, among other things."""


def understood() -> str:
    """Take each packet apart; returns what they were. Raises ``CaptureFailure``."""
    for kind, data in _FRAMES.items():
        try:
            told = sightings(_ETHERNET, data, 1)
        except Crashed as error:
            raise CaptureFailure(f"a packet cannot be taken apart: {error}: {error.__cause__}") from error
        for wanted in zip(("mac", "address", "value"), _EXPECTED[kind], strict=True):
            if wanted[1] and wanted[1] not in [getattr(one, wanted[0]) for one in told]:
                raise CaptureFailure(f"{wanted[1]} was not read from a packet of {kind}")
    return f"hosts read from packets of {', '.join(_FRAMES)}"
