"""Our own questions are what their protocols say: somebody else's dissectors take them apart without a complaint."""

from __future__ import annotations

import socket
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.workers.scan.requests import NEVER_ASKED, client_hello, requests_for

RANDOM = bytes(range(32))
PROTOCOLS = {
    53: "dns",
    111: "rpc",
    139: "nbss",
    389: "ldap",
    445: "smb2",
    554: "rtsp",
    1433: "tds",
    1883: "mqtt",
    3389: "rdp",
    5060: "sip",
    5432: "pgsql",
    9042: "cql",
    11211: "memcache",
    27017: "mongo",
}
"""What tshark calls them."""


def packet(port: int, payload: bytes, number: int) -> bytes:
    """A TCP segment in an IPv4 packet, RFC 791 and 9293; the checksums are left out, which tshark does not mind."""
    tcp = struct.pack("!HHIIBBHHH", 40000 + number, port, 1, 1, 0x50, 0x18, 8192, 0, 0) + payload
    addresses = socket.inet_aton("192.0.2.1") + socket.inet_aton("192.0.2.2")
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), number, 0, 64, 6, 0) + addresses + tcp


def test_dissectors_know_each_of_them(tmp_path: Path) -> None:
    sent = [(port, requests_for(port, RANDOM)["protocol"], name) for port, name in PROTOCOLS.items()]
    sent += [(443, requests_for(443, RANDOM)["tls"], "tls"), (80, requests_for(80, RANDOM)["http"], "http")]
    packets = [packet(port, payload, number) for number, (port, payload, _) in enumerate(sent)]
    file = tmp_path / "sent.pcap"
    raw_ip = 101  # pcap-linktype(7)
    file.write_bytes(
        struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, raw_ip)
        + b"".join(struct.pack("<IIII", 1, 0, len(each), len(each)) + each for each in packets)
    )
    said = subprocess.run(
        [
            *("tshark", "-r", str(file), "-o", "tcp.desegment_tcp_streams:FALSE", "-T", "fields"),
            *("-d", "tcp.port==27017,mongo"),  # another dissector claims this port too
            *("-e", "frame.protocols"),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert len(said) == len(sent)
    for (port, _, name), protocols in zip(sent, said, strict=True):
        assert name in protocols.split(":"), (port, name, protocols)
        assert "malformed" not in protocols, (port, protocols)


@given(st.integers(1, 65535))
def test_a_port_is_asked_little_and_a_printer_nothing(port: int) -> None:
    asked = requests_for(port, RANDOM)
    if port in NEVER_ASKED:
        assert asked == {}
        return
    assert {"http", "tls"} <= set(asked) <= {"http", "tls", "protocol"}
    assert all(0 < len(request) <= 512 for request in asked.values())


def test_no_printer_is_asked_anything() -> None:
    assert [port for port in range(1, 65536) if not requests_for(port, RANDOM)] == list(range(9100, 9108))


def test_a_client_hello_has_a_random_of_its_own() -> None:
    assert RANDOM in client_hello(RANDOM)
    with pytest.raises(ValueError, match="32 bytes"):
        client_hello(b"short")
