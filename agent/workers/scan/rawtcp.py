"""A SYN whose answer proves itself, and what answers look like. Pure: bytes in, bytes out.

The sequence number of a SYN is a cookie: 32 bits that nobody can know who has not seen them. Whoever answers it
acknowledges the number after it (RFC 9293, 3.10.7), and whoever reports it undeliverable quotes it (RFC 792; RFC 4443,
3.1). So nothing has to be remembered of a probe to know its answer, and what does not fit is not ours.

A probe that is sent again is the same segment again, so that a host that has answered the first, and whose answer was
lost, repeats itself. Were it another number that happens to lie in its window, it would reset the connection (RFC 9293,
3.10.7.4, as RFC 793 had it; ``tcp_check_req`` of Linux), and an open port would look closed.

For one address the number is multiply-shift hashing of the port with a key that is the address's own, from BLAKE2 under
a secret: what is learned from the answers of one host tells nothing about another.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import Final, NamedTuple

from agent.workers.scan.engine import State

SYN_LENGTH: Final = 24
"""Bytes of a SYN: the header, and one option, without which some hosts and devices take it for an attack."""

CHECKSUM_OFFSET: Final = 16
"""Where in a TCP header the checksum is, RFC 9293, 3.1."""

LONGEST_ANSWER: Final = 256
"""Bytes that are looked at of a packet, its headers included: more than any answer has."""

_HASHED = 0xFFFFFFFFFFFFFFFF
_FLAGS = 6 << 12 | 0x02  # six words of header, SYN
_WINDOW = 1024
_MSS = 0x02040000 | 1460  # kind 2, four bytes: RFC 9293, 3.2
_ACK, _RST, _SYN_ACK = 0x10, 0x04, 0x12
_TCP: Final = 6

_put_syn = struct.Struct("!HHIIHHHHI").pack_into
_ports_and_sequence = struct.Struct("!HHI").unpack_from
_answer = struct.Struct("!HHxxxxIxB").unpack_from


class Key(NamedTuple):
    """What an address is asked with. ``base`` is its part of the checksum, 0 where the kernel makes that."""

    factor: int
    offset: int
    base: int


class Answer(NamedTuple):
    """``port`` is the one that was asked."""

    port: int
    state: State
    reason: str


def make_key(secret: bytes, address: bytes, base: int = 0) -> Key:
    """The key of an address (4 or 16 bytes) under a secret of 16 to 64 bytes."""
    hashed = blake2b(address, key=secret, digest_size=16).digest()
    return Key(int.from_bytes(hashed[:8], "big") | 1, int.from_bytes(hashed[8:], "big"), base)


def checksum_base(source: bytes, destination: bytes, source_port: int) -> int:
    """The part of the checksum that all SYNs from there to there share: RFC 9293, 3.1, with the IPv4 pseudo-header."""
    words = struct.unpack("!4H", source + destination)
    rest = source_port + _FLAGS + _WINDOW + (_MSS >> 16) + (_MSS & 0xFFFF)
    return int(sum(words)) + _TCP + SYN_LENGTH + rest


def cookie(key: Key, port: int) -> int:
    """The sequence number of a SYN to that port."""
    return ((key.factor * port + key.offset) & _HASHED) >> 32


def put_syn(buffer: bytearray, key: Key, source_port: int, port: int) -> None:
    """Write a SYN to a port into the first ``SYN_LENGTH`` bytes."""
    sequence = ((key.factor * port + key.offset) & _HASHED) >> 32  # ``cookie``, without the call
    total = key.base + port + (sequence >> 16) + (sequence & 0xFFFF)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    _put_syn(buffer, 0, source_port, port, sequence, 0, _FLAGS, _WINDOW, ~total & 0xFFFF, 0, _MSS)


def read(segment: memoryview | bytes, at: int, length: int, key: Key, source_port: int) -> Answer | None:
    """What a TCP header at ``at`` answers to a SYN of ours; ``None`` when it is no such answer.

    ``length`` is that of all of ``segment``. SYN and ACK are ``open``, RST and ACK ``closed``.
    """
    if length < at + 20:
        return None
    port, destination, acknowledged, flags = _answer(segment, at)
    if destination != source_port or not flags & _ACK:
        return None
    if not (flags & _RST or flags & _SYN_ACK == _SYN_ACK) or cookie(key, port) != (acknowledged - 1) & 0xFFFFFFFF:
        return None
    return Answer(port, "closed", "reset") if flags & _RST else Answer(port, "open", "syn-ack")


def read_quoted(
    packet: memoryview | bytes, at: int, length: int, key: Key, source_port: int, reason: str
) -> Answer | None:
    """What a TCP header that an ICMP message quotes at ``at`` says of a SYN of ours; ``None`` when it is none.

    At least eight bytes of it are quoted, RFC 792: the ports and the sequence number.
    """
    if length < at + 8:
        return None
    source, port, sequence = _ports_and_sequence(packet, at)
    if source != source_port or sequence != cookie(key, port):
        return None
    return Answer(port, "filtered", reason)
