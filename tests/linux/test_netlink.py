"""The framing of netlink: what is written is read again, and any bytes are read to an end."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.linux import netlink

KINDS = st.integers(0, 0x3FFF)


@given(
    st.lists(st.tuples(KINDS, st.binary(max_size=20)), max_size=5), st.integers(0, 0xFFFF), st.integers(0, 2**32 - 1)
)
def test_what_is_written_is_read_again(wanted: list[tuple[int, bytes]], kind: int, sequence: int) -> None:
    body = b"".join(netlink.attribute(name, value) for name, value in wanted)
    data = netlink.message(kind, netlink.NLM_F_REQUEST, sequence, body)
    assert list(netlink.messages(data + data)) == [(kind, sequence, body)] * 2
    assert list(netlink.attributes(b"1234" + body, 4)) == wanted


@given(st.binary(max_size=200), st.integers(0, 20))
def test_of_any_bytes_no_more_is_read_than_is_there(data: bytes, at: int) -> None:
    assert sum(16 + len(payload) for _, _, payload in netlink.messages(data)) <= len(data)
    assert sum(4 + len(value) for _, value in netlink.attributes(data, at)) <= len(data)


@pytest.mark.parametrize("length", [0, 3, 15])
def test_a_length_that_does_not_reach_over_its_own_header_is_the_end(length: int) -> None:
    """Or reading would stand still."""
    after = netlink.message(16, 0, 0, b"")
    assert not list(netlink.messages(struct.pack("=IHHII", length, 16, 0, 0, 0) + after))
    assert not list(netlink.attributes(struct.pack("=HH", min(length, 3), 1) + after))


def test_flags_of_an_attribute_are_no_part_of_its_type() -> None:
    assert list(netlink.attributes(netlink.attribute(0x8000 | 7, b"x"))) == [(7, b"x")]


def test_a_refusal_is_told_from_an_acknowledgement() -> None:
    refused = netlink.error(struct.pack("=i", -errno.ENETUNREACH))
    assert refused is not None
    assert refused.errno == errno.ENETUNREACH
    assert netlink.error(bytes(4)) is None
    assert netlink.error(b"\xff") is None
