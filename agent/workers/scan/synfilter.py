"""Programs of classic BPF that let an engine's raw sockets see its own answers and nothing else. Pure.

A raw socket is offered every packet of its protocol that this host gets: without a filter, each of them would wake us.
A raw socket of IPv4 sees the IP header, one of IPv6 does not: raw(7), ipv6(7). Assembled by hand, for they are short
and libpcap has no name for what an IPv6 raw socket sees; the instructions are those of linux/bpf_common.h.
"""

from __future__ import annotations

import struct
from typing import Final

from agent.workers.scan.rawtcp import LONGEST_ANSWER

_LDX_HEADER: Final = 0xB1  # X = 4 * (P[k] & 15): the length of an IPv4 header
_LDB_X, _LDH_X = 0x50, 0x48  # A = P[X + k]
_LDB, _LDH = 0x30, 0x28  # A = P[k]
_AND, _SHIFT, _ADD_X, _TAX = 0x54, 0x64, 0x0C, 0x07
_EQUAL, _ANY_BIT, _RETURN = 0x15, 0x45, 0x06

_SYN_OR_RST, _ACK = 0x06, 0x10
_PROTOCOL, _NEXT_HEADER = 9, 6  # where it is in a header of IPv4 and of IPv6
_MESSAGE, _HEADER6 = 8, 40  # bytes of the header of an ICMP message, and of an IPv6 packet

Test = tuple[int, int]
"""An instruction and its number; one that tests is followed by the next if it holds, and ends in a refusal if not."""


def answers(port: int) -> bytes:
    """TCP over IPv4 for that port of ours, with ACK and one of SYN and RST."""
    flags = ((_LDB_X, 13), (_ANY_BIT, _ACK), (_ANY_BIT, _SYN_OR_RST))
    return _assembled((_LDX_HEADER, 0), (_LDH_X, 2), (_EQUAL, port), *flags)


def answers6(port: int) -> bytes:
    """The same over IPv6."""
    flags = ((_LDB, 13), (_ANY_BIT, _ACK), (_ANY_BIT, _SYN_OR_RST))
    return _assembled((_LDH, 2), (_EQUAL, port), *flags)


def errors(protocol: int, port: int) -> bytes:
    """ICMP messages that quote a packet of that protocol from that port of ours. Which types, another filter says."""
    return _assembled(
        (_LDX_HEADER, 0),
        (_LDB_X, _MESSAGE + _PROTOCOL),
        (_EQUAL, protocol),
        (_LDB_X, _MESSAGE),
        (_AND, 15),
        (_SHIFT, 2),
        (_ADD_X, 0),
        (_TAX, 0),
        (_LDH_X, _MESSAGE),
        (_EQUAL, port),
    )


def errors6(protocol: int, port: int) -> bytes:
    """The same of ICMPv6; a quoted packet with extension headers is none of ours."""
    return _assembled(
        (_LDB, _MESSAGE + _NEXT_HEADER),
        (_EQUAL, protocol),
        (_LDH, _MESSAGE + _HEADER6),
        (_EQUAL, port),
    )


def _assembled(*tests: Test) -> bytes:
    end = len(tests)
    program = b""
    for place, (code, number) in enumerate(tests):
        # To the instruction after the next but `end - place`.
        refused = end - place if code in (_EQUAL, _ANY_BIT) else 0
        program += struct.pack("=HBBI", code, 0, refused, number)
    return program + struct.pack("=HBBIHBBI", _RETURN, 0, 0, LONGEST_ANSWER, _RETURN, 0, 0, 0)
