"""No packet that libpcap would accept is left out, and of what an index can tell nothing more is kept than that."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import UsageError
from agent.workers.index import build
from agent.workers.index.headers import MARGIN
from agent.workers.index.model import EXTENDED, ODD, Chunk
from agent.workers.retrieval.narrow import candidates
from agent.workers.retrieval.offline import Filter, Packet, packets
from agent.workers.retrieval.parse import parse
from tests.workers.retrieval import traffic


def indexed(sent: list[Packet], link_type: int = traffic.ETHERNET) -> Chunk:
    data = b"".join(map(traffic.record, sent))
    kind = build.kind_of(traffic.file_header(link_type))
    assert kind
    made = build.chunk(data + bytes(MARGIN), len(data), 0, kind)
    assert made
    return made


def kept(chunk: Chunk, sent: list[Packet], expression: str) -> list[Packet]:
    """The packets of the rows that are candidates."""
    places = np.cumsum([0, *(16 + len(packet.data) for packet in sent)])
    rows = candidates(chunk.flows, chunk.link_type, parse(expression))
    return [sent[number] for number in np.searchsorted(places, chunk.offsets_of(rows))]


def accepted(sent: list[Packet], expression: str, link_type: int = traffic.ETHERNET) -> list[Packet]:
    judge = Filter(traffic.file_header(link_type), expression)
    return list(packets(judge.among(map(traffic.record, sent))))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from(
        [traffic.ETHERNET, traffic.ETHERNET, traffic.RAW, traffic.LINUX_SLL, traffic.LINUX_SLL2, traffic.NULL]
    ),
)
def test_what_libpcap_accepts_is_among_the_candidates(seed: int, link_type: int) -> None:
    random = Random(seed)
    sent = traffic.packets(random, 120, link_type)
    chunk = indexed(sent, link_type)
    for _ in range(20):
        expression = traffic.expression(random)
        try:
            wanted = accepted(sent, expression, link_type)
        except UsageError:
            continue
        lost = {packet.time for packet in wanted} - {packet.time for packet in kept(chunk, sent, expression)}
        assert not lost, expression


WHOLE = [
    *("host 10.0.0.1", "net 10.1", "ip", "arp", "not ip and not ip6", "vlan 5", "ether proto 0x88cc", "ip proto gre"),
    *("src host 10.0.0.1 and dst port 443", "udp port 53 or tcp dst port 22", "not host 10.0.0.1 and not ip6"),
    *("host 10.0.0.2 and (port 80 or 443)", "src and dst net 10", "vlan and host 10.0.0.2", "host fe80::1 and udp"),
    *("vlan and vlan 7", "portrange 80-443 and not arp", "arp host 10.0.0.2", "ip6 net fe80::/10", "icmp"),
]


@pytest.mark.parametrize("expression", WHOLE)
def test_of_packets_that_were_decoded_the_candidates_are_exactly_what_is_meant(expression: str) -> None:
    """Those whose headers are whole, without extension headers, and of no more tags than are asked about."""
    sent = traffic.packets(Random(7), 6000)
    chunk = indexed(sent)
    certain = {packet.time for packet in _decoded(chunk, sent, expression.count("vlan"))}
    found = {packet.time for packet in kept(chunk, sent, expression)} & certain
    assert len(certain) > 300
    assert found
    assert found == {packet.time for packet in accepted(sent, expression)} & certain


def _decoded(chunk: Chunk, sent: list[Packet], tags: int) -> list[Packet]:
    flows = chunk.flows
    places = np.cumsum([0, *(16 + len(packet.data) for packet in sent)])
    rows = ((flows.quirks & (ODD | EXTENDED)) == 0) & (flows.tags >= tags)
    return [sent[number] for number in np.searchsorted(places, chunk.offsets_of(rows))]


@pytest.mark.parametrize("expression", ["", "tcp[13] & 2 != 0", "less 100", "(ip[0] & 15) * 4 = 20", "mpls and ip"])
def test_what_an_index_cannot_tell_leaves_everything_in(expression: str) -> None:
    sent = traffic.packets(Random(5), 500)
    assert kept(indexed(sent), sent, expression) == sent


def test_a_link_type_that_is_read_otherwise_by_libpcap_leaves_everything_in() -> None:
    sent = traffic.packets(Random(5), 500, traffic.NULL)
    assert kept(indexed(sent, traffic.NULL), sent, "tcp and not ip6") == sent
