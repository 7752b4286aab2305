"""The framing of netlink, linux/netlink.h: messages with a header each, and within them attributes. Pure.

What is read may be anything: any process may send to a netlink socket. Numbers are in this host's order.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Final

HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
ATTRIBUTE: Final = struct.Struct("=HH")  # struct nlattr, and struct rtattr: length, type
INT: Final = struct.Struct("=i")

NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLM_F_REQUEST: Final = 0x001
NLM_F_DUMP: Final = 0x300

_TYPE = 0x3FFF  # NLA_TYPE_MASK: two bits of a type are flags


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """A message to the kernel."""
    return HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + body


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The messages in a datagram: type, sequence number, payload; they end with the first that is none."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, _, sequence, _ = HEADER.unpack_from(data, offset)
        if length < HEADER.size:
            return
        yield kind, sequence, data[offset + HEADER.size : offset + length]
        offset += length + 3 & ~3  # NLMSG_ALIGN


def attribute(kind: int, data: bytes) -> bytes:
    """An attribute, padded as the next must find it."""
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(data), kind) + data + bytes(-len(data) % 4)


def attributes(body: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """The attributes of a payload from ``offset`` on: type, value; they end with the first that is none."""
    while offset + ATTRIBUTE.size <= len(body):
        length, kind = ATTRIBUTE.unpack_from(body, offset)
        if length < ATTRIBUTE.size:
            return
        yield kind & _TYPE, body[offset + ATTRIBUTE.size : offset + length]
        offset += length + 3 & ~3  # NLA_ALIGN


def error(payload: bytes) -> OSError | None:
    """What a message of type ``NLMSG_ERROR`` says; ``None`` for an acknowledgement, and for one that is cut off."""
    code = -INT.unpack_from(payload)[0] if len(payload) >= INT.size else 0
    return OSError(code, os.strerror(code)) if code > 0 else None
