"""A flow as a line of JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from agent.workers.flows.ended import IDLE_TIMEOUT
from agent.workers.flows.lines import encoded, iso, lines
from tests.workers.flows import traffic
from tests.workers.flows.test_top import rows
from tests.workers.flows.traffic import NOON, Packet

NAMES = [("edge", "eth0")]


def test_a_line_has_every_field_and_is_stable() -> None:
    (line,) = lines(
        rows([Packet(NOON + 5, traffic.tcp("10.0.0.1", 1024, "10.0.0.2", 80, traffic.SYN, vlans=[7, 8]))]),
        NAMES,
        np.array([IDLE_TIMEOUT], np.uint8),
    )
    assert json.loads(encoded(line)) == {
        "service": "edge",
        "interface": "eth0",
        "start": "2026-11-20T14:00:00.000000005Z",
        "end": "2026-11-20T14:00:00.000000005Z",
        "start_ns": NOON + 5,
        "end_ns": NOON + 5,
        "family": "ipv4",
        "protocol": "tcp",
        "source": "10.0.0.1",
        "destination": "10.0.0.2",
        "source_port": 1024,
        "destination_port": 80,
        "icmp_type": None,
        "icmp_code": None,
        "protocol_number": 6,
        "ethertype": 2048,
        "vlans": [7, 8],
        "tcp_flags": "S",
        "packets": 1,
        "bytes": 62,
        "odd": False,
        "fragments": False,
        "reason": "idle",
    }


def test_what_a_flow_does_not_have_is_null() -> None:
    found = {
        line.protocol: line
        for line in lines(
            rows(
                [
                    Packet(NOON, traffic.arp("10.0.0.1", "10.0.0.2")),
                    Packet(NOON, traffic.icmp("2001:db8::1", "2001:db8::2", 135)),
                    Packet(NOON, bytes(12) + b"\x88\xcc" + bytes(46)),
                ]
            ),
            NAMES,
        )
    }
    arp, message, link = found["arp"], found["icmp6"], found["lldp"]
    assert (arp.source, arp.destination, arp.source_port, arp.protocol_number) == ("10.0.0.1", "10.0.0.2", None, None)
    assert (message.icmp_type, message.icmp_code, message.source_port, message.tcp_flags) == (135, 0, None, None)
    assert (link.source, link.family, link.ethertype, link.reason) == (None, "other", 0x88CC, None)


def test_a_line_is_ascii_whatever_the_interface_is_called() -> None:
    (line,) = lines(rows([Packet(NOON, traffic.arp("10.0.0.1", "10.0.0.2"))]), [("edge", "e\x7f\x9b\udcff")])
    text = encoded(line)
    assert text.isascii() and b"\x7f" not in text and text.count(b"\n") == 1
    assert json.loads(text)["interface"] == "e\x7f\x9b\udcff"


def test_no_number_in_an_index_is_too_large_to_be_told() -> None:
    table = rows([Packet(NOON, traffic.arp("10.0.0.1", "10.0.0.2"))])
    far = np.array([2**64 - 1], np.uint64)
    (line,) = lines(replace(table, first=far, last=far, octets=far), NAMES)
    assert json.loads(encoded(line))["end_ns"] == 2**64 - 1
    assert iso(2**64 - 1) == "2554-07-21T23:34:33.709551615Z"
