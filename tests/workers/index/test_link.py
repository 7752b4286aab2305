"""Network headers are found behind every link header. What tshark says of the same packets: ``test_headers``."""

from __future__ import annotations

import pytest

from agent.workers.index.model import ENCAPSULATED, IPV4, ODD, OTHER
from tests.workers.index import lab
from tests.workers.index.kinds import NAMED, V4, mutations
from tests.workers.index.lab import Packet, Piece
from tests.workers.index.truth import Row, one, read


def test_what_is_wrapped_says_so(rows: list[Row]) -> None:
    wrapped = {name for name, number in NAMED.items() if rows[number]["quirks"] & ENCAPSULATED}
    kinds = {"mpls", "pppoe"}
    assert wrapped == {*kinds, *(f"{kind} in a vlan" for kind in kinds), "snap", "spanning tree", "cooked 802.2"}
    assert all(rows[NAMED[name]]["family"] == OTHER for name in wrapped)


@pytest.mark.parametrize("link", [lab.RAW, 12, 14, lab.NULL, lab.LOOP])
def test_without_a_link_header_what_is_no_ip_is_odd(link: int) -> None:
    for data in (b"", b"\0", b"\x50" + bytes(60), b"\0\0\0\7" + V4.data):
        row = one(link, Piece(data))
        assert (row["family"], row["quirks"] & ODD) == (OTHER, ODD)


def test_a_link_type_that_is_not_known_is_odd() -> None:
    for link in (105, 127, 147, 65535):
        row = one(link, Piece(V4.data))
        assert (row["family"], row["quirks"], row["ethertype"]) == (OTHER, ODD, 0)


def test_a_link_type_may_tell_of_a_check_sequence() -> None:
    """Its upper bits do: pcap-savefile(5)."""
    row = one(0x2400_0000 | lab.ETHERNET, lab.ethernet(0x0800, V4))
    assert (row["family"], row["quirks"], row["source"]) == (IPV4, 0, ["10.1.2.3"])


@pytest.mark.parametrize(("expression", "column"), [("vlan 100", "vlan"), ("vlan and vlan 1", "inner_vlan")])
def test_libpcap_finds_the_same_tags(expression: str, column: str) -> None:
    frames = [Packet(lab.BEGIN, kind.packet.data, 9000) for kind in mutations(3000) if kind.link == lab.ETHERNET]
    number, depth = int(expression.split()[-1]), expression.count("vlan")
    seen = 0
    for row, passed in zip(read(lab.ETHERNET, frames), lab.passes(lab.ETHERNET, expression, frames), strict=True):
        if not row["quirks"] & ODD:
            assert passed == (row["tags"] >= depth and row[column] == number)
            seen += passed
    assert seen > 30
