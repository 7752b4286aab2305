"""A SYN whose answer proves itself, and what answers look like. Pure: bytes in, bytes out.

The sequence number of a SYN is a cookie: 19 bits that nobody can know who has not seen it, and 13 bits that say when it
was sent. Whoever answers it acknowledges the number after it (RFC 9293, 3.10.7), and whoever reports it undeliverable
quotes it (RFC 792; RFC 4443, 3.1). So nothing has to be remembered of a probe, and what does not fit is not ours.

For one address the 19 bits are multiply-shift hashing of the port with a key that is the address's own, from BLAKE2
under a secret: what is learned from the answers of one host tells nothing about another.
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

TICK: Final = 0.001
"""Seconds of a unit of the time in a cookie."""

TICKS: Final = 1 << 13
"""The time in a cookie begins anew after so many ticks, 8.2 s: what is older looks young."""

LONGEST_ANSWER: Final = 256
"""Bytes that are looked at of a packet, its headers included: more than any answer has."""

_TIME = TICKS - 1
_TAG = 0xFFFFFFFF & ~_TIME
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
    time: int
    base: int


class Answer(NamedTuple):
    """``port`` is the one that was asked, ``age`` seconds ago."""

    port: int
    state: State
    reason: str
    age: float


def make_key(secret: bytes, address: bytes, base: int = 0) -> Key:
    """The key of an address (4 or 16 bytes) under a secret of 16 to 64 bytes."""
    hashed = blake2b(address, key=secret, digest_size=18).digest()
    factor, offset = int.from_bytes(hashed[:8], "big") | 1, int.from_bytes(hashed[8:16], "big")
    return Key(factor, offset, int.from_bytes(hashed[16:], "big") & _TIME, base)


def checksum_base(source: bytes, destination: bytes, source_port: int) -> int:
    """The part of the checksum that all SYNs from there to there share: RFC 9293, 3.1, with the IPv4 pseudo-header."""
    words = struct.unpack("!4H", source + destination)
    rest = source_port + _FLAGS + _WINDOW + (_MSS >> 16) + (_MSS & 0xFFFF)
    return int(sum(words)) + _TCP + SYN_LENGTH + rest


def put_syn(buffer: bytearray, key: Key, source_port: int, port: int, now: float) -> None:
    """Write a SYN to a port into the first ``SYN_LENGTH`` bytes. ``now`` is of the clock that ``read`` is told."""
    tag = ((key.factor * port + key.offset) & _HASHED) >> 32 & _TAG
    sequence = tag | (int(now / TICK) + key.time) & _TIME
    total = key.base + port + (sequence >> 16) + (sequence & 0xFFFF)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    _put_syn(buffer, 0, source_port, port, sequence, 0, _FLAGS, _WINDOW, ~total & 0xFFFF, 0, _MSS)


def age(key: Key, port: int, sequence: int, now: float) -> float | None:
    """How many seconds ago the SYN with that number was sent to that port; ``None`` when none was.

    Up to ``TICK * TICKS``, from where it begins at 0 again.
    """
    if ((key.factor * port + key.offset) & _HASHED) >> 32 & _TAG != sequence & _TAG:
        return None
    return ((int(now / TICK) + key.time - sequence) & _TIME) * TICK


def read(segment: memoryview | bytes, at: int, length: int, key: Key, source_port: int, now: float) -> Answer | None:
    """What a TCP header at ``at`` of so many bytes answers to a SYN of ours; ``None`` when it is no such answer.

    ``length`` counts from the beginning of ``segment``. SYN and ACK are ``open``, RST and ACK ``closed``.
    """
    if length < at + 20:
        return None
    port, destination, acknowledged, flags = _answer(segment, at)
    if destination != source_port or not flags & _ACK:
        return None
    if not (flags & _RST or flags & _SYN_ACK == _SYN_ACK):
        return None
    seconds = age(key, port, (acknowledged - 1) & 0xFFFFFFFF, now)
    if seconds is None:
        return None
    return Answer(port, "closed", "reset", seconds) if flags & _RST else Answer(port, "open", "syn-ack", seconds)


def read_quoted(
    packet: memoryview | bytes, at: int, length: int, key: Key, source_port: int, reason: str, now: float
) -> Answer | None:
    """What a TCP header that an ICMP message quotes at ``at`` says of a SYN of ours; ``None`` when it is none.

    At least eight bytes of it are quoted, RFC 792: the ports and the sequence number.
    """
    if length < at + 8:
        return None
    source, port, sequence = _ports_and_sequence(packet, at)
    if source != source_port:
        return None
    seconds = age(key, port, sequence, now)
    return None if seconds is None else Answer(port, "filtered", reason, seconds)
