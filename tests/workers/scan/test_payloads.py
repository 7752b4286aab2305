"""Each question is one of its protocol: somebody else's dissector says so."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from agent.workers.scan.payloads import _BY_PORT, payloads

PROTOCOLS = {
    53: "dns",
    111: "rpc",
    123: "ntp",
    137: "nbns",
    161: "snmp",
    389: "cldap",
    443: "quic",
    500: "isakmp",
    520: "rip",
    623: "asf",
    1194: "openvpn",
    1900: "ssdp",
    3478: "stun",
    4500: "isakmp",
    5060: "sip",
    5351: "portcontrol",
    5353: "mdns",
    5355: "llmnr",
    5683: "coap",
}
"""What tshark calls them; it knows no dissector by port for the rest."""


@pytest.fixture(scope="module")
def dissected(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[str]]:
    """The layers of each datagram that is sent to a port."""
    path = tmp_path_factory.mktemp("payloads") / "questions.pcap"
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101))  # DLT_RAW
        for port in sorted(_BY_PORT):
            for payload in payloads(port):
                length = 28 + len(payload)
                ip = struct.pack("!BBHHHBBHII", 0x45, 0, length, 1, 0, 64, 17, 0, 0x0A630001, 0x0A630002)
                packet = ip + struct.pack("!HHHH", 40_000, port, 8 + len(payload), 0) + payload
                file.write(struct.pack("<IIII", 0, 0, len(packet), len(packet)) + packet)
    fields = ("-e", "udp.dstport", "-e", "frame.protocols")
    options = ("-n", "-r", str(path), "-T", "fields", "-E", "occurrence=f", *fields)
    done = subprocess.run(["tshark", *options], check=True, capture_output=True, text=True, timeout=20)
    found: dict[int, list[str]] = {}
    for line in done.stdout.splitlines():
        target, _, layers = line.partition("\t")
        found.setdefault(int(target), []).append(layers)
    return found


def test_every_question_is_of_its_protocol(dissected: dict[int, list[str]]) -> None:
    for port, protocol in PROTOCOLS.items():
        for layers in dissected[port]:
            assert protocol in layers.lower().split(":"), (port, layers)


def test_none_is_malformed(dissected: dict[int, list[str]]) -> None:
    assert dissected.keys() == _BY_PORT.keys()
    assert not [port for port, seen in dissected.items() if any("malformed" in layers for layers in seen)]


def test_what_has_no_question_is_sent_an_empty_datagram() -> None:
    assert payloads(9) == (b"",)
    assert payloads(65535) == (b"",)


def test_none_is_larger_than_what_is_never_fragmented() -> None:
    assert all(len(payload) <= 1200 for each in _BY_PORT.values() for payload in each)


def test_this_file_does_not_come_from_nmap() -> None:
    assert "nmap" not in Path(payloads.__code__.co_filename).read_text()
