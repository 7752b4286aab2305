"""Which probe an ICMP message is about, and what it says of it; nothing that a stranger sends breaks the reading."""

from __future__ import annotations

import socket
import struct

from hypothesis import given
from hypothesis import strategies as st

from agent.workers.scan.unreachable import REASONS, REASONS6, ip_header, quoted, quoted6

TCP = socket.IPPROTO_TCP
words = st.integers(0, 10)


def header(target: bytes, options: int = 0, protocol: int = TCP, fragment: int = 0) -> bytes:
    fixed = struct.pack("!BBHHHBBH4s4s", 0x45 + options, 0, 40, 1, fragment, 64, protocol, 0, bytes(4), target)
    return fixed + bytes(4 * options)


@given(st.sampled_from(sorted(REASONS)), words, words, st.binary(min_size=4, max_size=4), st.binary(max_size=30))
def test_the_quoted_packet_is_found_behind_both_headers(
    told: tuple[int, int], outer: int, inner: int, target: bytes, payload: bytes
) -> None:
    packet = header(b"host", outer, 1) + struct.pack("!BBHI", *told, 0, 0) + header(target, inner) + payload
    found = quoted(packet, len(packet), TCP)
    assert found == (REASONS[told], target, len(packet) - len(payload))
    assert quoted(packet, len(packet) - len(payload) - 1, TCP) is None
    assert quoted(packet, len(packet), socket.IPPROTO_UDP) is None


@given(st.integers(0, 255), st.integers(0, 255))
def test_a_message_that_says_nothing_of_the_way_is_none(kind: int, code: int) -> None:
    packet = header(b"host", 0, 1) + struct.pack("!BBHI", kind, code, 0, 0) + header(b"them") + bytes(8)
    assert (quoted(packet, len(packet), TCP) is not None) == ((kind, code) in REASONS)
    message = struct.pack("!BBHI", kind, code, 0, 0) + bytes([0x60, 0, 0, 0, 0, 0, TCP, 64]) + bytes(40)
    assert (quoted6(message, len(message), TCP) is not None) == ((kind, code) in REASONS6)


def test_a_later_fragment_has_no_ports() -> None:
    packet = header(b"host", 0, 1) + struct.pack("!BBHI", 3, 1, 0, 0) + header(b"them", fragment=185) + bytes(8)
    assert quoted(packet, len(packet), TCP) is None


@given(st.sampled_from(sorted(REASONS6)), st.binary(min_size=16, max_size=16), st.binary(max_size=30))
def test_the_same_of_version_6(told: tuple[int, int], target: bytes, payload: bytes) -> None:
    inner = struct.pack("!IHBB16s16s", 6 << 28, 24, TCP, 64, bytes(16), target)
    message = struct.pack("!BBHI", *told, 0, 0) + inner + payload
    assert quoted6(message, len(message), TCP) == (REASONS6[told], target, 48)
    assert quoted6(message, 47, TCP) is None
    assert quoted6(message, len(message), socket.IPPROTO_UDP) is None


@given(st.binary(max_size=120), st.integers(0, 60))
def test_no_bytes_break_it(hostile: bytes, at: int) -> None:
    quoted(hostile, len(hostile), TCP)
    quoted6(hostile, len(hostile), TCP)
    assert ip_header(hostile, at, len(hostile)) in {0, *range(20, 61, 4)}
