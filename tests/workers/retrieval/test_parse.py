"""What is understood of the language of filters, and that the rest is left to libpcap."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.workers.index.numbers import ARP, IPV6, RARP
from agent.workers.index.numbers import IPV4 as IP
from agent.workers.retrieval.expression import (
    Address,
    And,
    Direction,
    Ethertype,
    Everything,
    Expression,
    Not,
    Or,
    Ports,
    Protocol,
    Unknown,
    Vlan,
)
from agent.workers.retrieval.parse import parse
from tests.workers.retrieval import traffic

ANY = (6, 17, 132)
EITHER = Direction.EITHER


def v4(value: int, mask: int = 0xFFFFFFFF, direction: Direction = EITHER, depth: int = 0) -> Address:
    return Address(value, mask, (IP, ARP, RARP), direction, depth)


def port(number: int, protocols: tuple[int, ...] = ANY, direction: Direction = EITHER) -> Ports:
    return Ports(number, number, protocols, direction, True, 0)


A = v4(0x0A000001)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("", Everything()),
        (" \n", Everything()),
        ("host 10.0.0.1", A),
        ("src 10.0.0.1", replace(A, direction=Direction.SOURCE)),
        ("src or dst host 10.0.0.1", A),
        ("dst && src host 10.0.0.1", replace(A, direction=Direction.BOTH)),
        ("ip host 10.0.0.1", replace(A, ethertypes=(IP,))),
        ("rarp src host 10.0.0.1", replace(A, ethertypes=(RARP,), direction=Direction.SOURCE)),
        ("net 10", v4(0x0A000000, 0xFF000000)),
        ("host 10", v4(10)),
        ("net 10.1", v4(0x0A010000, 0xFFFF0000)),
        ("net 10.1.0.0/15", v4(0x0A010000, 0xFFFE0000)),
        ("net 10.0.0.0 mask 255.0.255.0", v4(0x0A000000, 0xFF00FF00)),
        ("host ::1", Address(1, (1 << 128) - 1, (IPV6,), EITHER, 0)),
        ("ip6 net fe80::/10", Address(0xFE80 << 112, 0x3FF << 118, (IPV6,), EITHER, 0)),
        ("port 0x50", port(80)),
        ("tcp dst port 80", port(80, (6,), Direction.DESTINATION)),
        ("portrange 90-80", Ports(80, 90, ANY, EITHER, True, 0)),
        ("port domain", replace(port(53), certain=False)),
        ("tcp", Protocol(6, (4, 6), 0)),
        ("icmp6", Protocol(58, (6,), 0)),
        (r"proto \udp", Protocol(17, (4, 6), 0)),
        ("ip proto gre", Protocol(47, (4,), 0)),
        ("arp", Ethertype(ARP, 0)),
        ("ether proto 0x88cc", Ethertype(0x88CC, 0)),
        ("port 80 or 443", Or(port(80), port(443))),
        ("port (80 or 443)", Or(port(80), port(443))),
        ("host not 10.0.0.1", Not(A)),
        ("not host 10.0.0.1 and arp", And(Not(A), Ethertype(ARP, 0))),
        ("arp or ip and host 10.0.0.1", And(Or(Ethertype(ARP, 0), Ethertype(IP, 0)), A)),
        ("arp or (ip and host 10.0.0.1)", Or(Ethertype(ARP, 0), And(Ethertype(IP, 0), A))),
        ("vlan 5 and host 10.0.0.1", And(Vlan(5, 0), replace(A, depth=1))),
        ("host 10.0.0.1 or vlan or vlan 7", Or(Or(A, Vlan(None, 0)), Vlan(7, 1))),
        ("tcp[13] & 2 != 0 and host 10.0.0.1", And(Unknown(), A)),
        ("ether host 2:0:0:0:0:1 or host 10.0.0.1", Or(Unknown(), A)),
        ("less 100", Unknown()),
        ("host www.example.org or arp", Or(Unknown(), Ethertype(ARP, 0))),
        ("port 080", Unknown()),
        ("host 10.0.0.1 and (tcp[0] + 1) > 3", Unknown()),
        ("mpls 7 and host 10.0.0.1", And(Unknown(), Unknown())),
        ("ether proto 0x26", Unknown()),
        ("tcp host 10.0.0.1", Unknown()),
        ("host 10.0.0.1 and \N{BULLET}", Unknown()),
    ],
)
def test_an_expression_means_what_libpcap_takes_it_for(text: str, meaning: Expression) -> None:
    assert parse(text) == meaning


@given(st.text(max_size=60))
def test_any_text_is_read_without_an_error(text: str) -> None:
    assert parse(text) is not None


@given(st.integers(0, 2**32), st.data())
def test_nor_is_a_piece_of_an_expression_an_error(seed: int, data: st.DataObject) -> None:
    text = traffic.expression(Random(seed), 4)
    begin = data.draw(st.integers(0, len(text)))
    assert parse(text[begin : data.draw(st.integers(begin, len(text)))]) is not None


@pytest.mark.parametrize("deep", ["(" * 4000, "not " * 2000 + "tcp", "! " * 4000])
def test_what_is_nested_deeper_than_anybody_means_is_left_to_libpcap(deep: str) -> None:
    assert parse(deep) == Unknown()
