"""What a UDP port is asked, by its number: a question that every server of that protocol answers. Pure.

A datagram that is no question of its protocol is thrown away by most, and then an open port looks like a firewall. Each
of these is the smallest question of its standard, changes nothing where it is answered, and is made here from the text
of that standard. What has no question here is sent an empty datagram.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

_ID: Final = 0x5CA7
"""Where a question has a number of its own. What an answer is to, its addresses and ports tell."""


def payloads(port: int) -> tuple[bytes, ...]:
    """The datagrams that are sent to a port, one after another."""
    return _BY_PORT.get(port, _NOTHING)


def questions(port: int) -> int:
    """How many those are."""
    return len(payloads(port))


def _dns(name: str, kind: int, answer_to: int = 1) -> bytes:
    """A query, RFC 1035, 4.1; ``answer_to`` is its class. Recursion is not asked for, so that no server asks others."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label)
    return struct.pack("!6H", _ID, 0, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, answer_to)


def _netbios() -> bytes:
    """A node status request for any name, RFC 1002, 4.2.17; names are written as in RFC 1001, 14.1."""
    name = "".join(chr(0x41 + (byte >> 4)) + chr(0x41 + (byte & 15)) for byte in b"*" + bytes(15))
    return _dns(name, 0x21)


def _ber(tag: int, *parts: bytes) -> bytes:
    """A value in BER with the short form of its length, X.690, 8.1.3: up to 127 bytes."""
    body = b"".join(parts)
    return bytes([tag, len(body)]) + body


def _integer(value: int) -> bytes:
    return _ber(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _snmp3() -> bytes:
    """The discovery of an engine, RFC 3414, 4: asks for a report, with no user and no key."""
    security = _ber(0x30, _ber(4), _integer(0), _integer(0), _ber(4), _ber(4), _ber(4))
    header = _ber(0x30, _integer(_ID), _integer(65507), _ber(4, b"\x04"), _integer(3))
    scoped = _ber(0x30, _ber(4), _ber(4), _ber(0xA0, _integer(_ID), _integer(0), _integer(0), _ber(0x30)))
    return _ber(0x30, _integer(3), header, _ber(4, security), scoped)


def _snmp2() -> bytes:
    """A request for sysDescr.0 in the community that everybody may read, RFC 3416, 4.2.1, and RFC 1213."""
    name = _ber(6, bytes([0x2B, 6, 1, 2, 1, 1, 1, 0]))
    variables = _ber(0x30, _ber(0x30, name, _ber(5)))
    request = _ber(0xA0, _integer(_ID), _integer(0), _integer(0), variables)
    return _ber(0x30, _integer(1), _ber(4, b"public"), request)


def _cldap() -> bytes:
    """A search of the root for the attribute ``supportedLDAPVersion``, RFC 4511, 4.5.1, over UDP."""
    scope = b"".join((_ber(4), _ber(10, b"\0"), _ber(10, b"\0"), _integer(0), _integer(0), _ber(1, b"\0")))
    search = _ber(0x63, scope, _ber(0x87, b"objectClass"), _ber(0x30, _ber(4, b"supportedLDAPVersion")))
    return _ber(0x30, _integer(1), search)


def _ike() -> bytes:
    """The first message of main mode, RFC 2409, 5, with one proposal, RFC 2408, 3.5: 3DES, SHA, group 2, PSK."""
    attributes = ((1, 5), (2, 2), (3, 1), (4, 2), (11, 1), (12, 28800))
    values = b"".join(struct.pack("!HH", 0x8000 | kind, value) for kind, value in attributes)
    transform = struct.pack("!BBHBBH", 0, 0, 8 + len(values), 1, 1, 0) + values
    proposal = struct.pack("!BBHBBBB", 0, 0, 8 + len(transform), 1, 1, 0, 1) + transform
    association = struct.pack("!BBHII", 0, 0, 12 + len(proposal), 1, 1) + proposal
    cookie = struct.pack("!QQ", _ID << 32 | 1, 0)
    return cookie + struct.pack("!BBBBII", 1, 0x10, 2, 0, 0, 28 + len(association)) + association


def _sip() -> bytes:
    """OPTIONS, RFC 3261, 11, to whoever is there; the response goes back to the port it came from (RFC 3581)."""
    lines = (
        "OPTIONS sip:scan@invalid SIP/2.0",
        "Via: SIP/2.0/UDP invalid;branch=z9hG4bK5ca7;rport",
        "Max-Forwards: 0",
        "To: <sip:scan@invalid>",
        "From: <sip:scan@invalid>;tag=5ca7",
        "Call-ID: 5ca7@invalid",
        "CSeq: 1 OPTIONS",
        "Accept: application/sdp",
        "Content-Length: 0",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _ssdp() -> bytes:
    """A search to one address, UPnP Device Architecture 2.0, 1.3.2."""
    lines = ("M-SEARCH * HTTP/1.1", "HOST: 239.255.255.250:1900", 'MAN: "ssdp:discover"', "MX: 1", "ST: ssdp:all")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _quic() -> bytes:
    """A first packet of a version that nobody has (RFC 9000, 15), upon which a server names its own (6.1).

    It has the 1,200 bytes below which a server does not answer.
    """
    start = b"\xc0" + struct.pack("!I", 0x1A2A3A4A) + b"\x08" + struct.pack("!Q", _ID) + b"\x08" + bytes(8)
    return start.ljust(1200, b"\0")


def _rpc() -> bytes:
    """The procedure of the port mapper that does nothing: RFC 5531, 9, and RFC 1833, 3.1."""
    return struct.pack("!10I", _ID, 0, 2, 100_000, 2, 0, 0, 0, 0, 0)


_NOTHING = (b"",)
_LINE = (b"\r\n",)
_IKE = _ike()

_BY_PORT: Final[Mapping[int, tuple[bytes, ...]]] = {
    7: _LINE,  # echo, RFC 862
    13: _LINE,  # daytime, RFC 867
    17: _LINE,  # quote of the day, RFC 865
    37: _LINE,  # time, RFC 868
    53: (_dns("", 2),),
    111: (_rpc(),),
    123: (b"\xe3".ljust(48, b"\0"),),  # RFC 5905, 7.3: a client of version 4 whose clock is not set
    137: (_netbios(),),
    161: (_snmp3(), _snmp2()),
    389: (_cldap(),),
    443: (_quic(),),
    500: (_IKE,),
    520: (struct.pack("!BBHHHIIII", 1, 2, 0, 0, 0, 0, 0, 0, 16),),  # RIP, RFC 2453, 3.9.1: the whole table
    623: (bytes.fromhex("0600ff06 000011be 80000000"),),  # RMCP: a presence ping, DSP0136, 3.2.4.2
    1194: (b"\x38" + struct.pack("!Q", _ID) + bytes(5),),  # OpenVPN: the client's reset, ssl_pkt.h
    1434: (b"\x03",),  # SQL Server Resolution Protocol, MC-SQLR, 2.2.2: which instances there are
    1900: (_ssdp(),),
    3478: (struct.pack("!HHI12s", 1, 0, 0x2112A442, b"scan"),),  # STUN: a binding request, RFC 8489, 5
    4500: (bytes(4) + _IKE,),  # RFC 3948, 2.2: four zeros mean IKE
    5060: (_sip(),),
    5351: (bytes(2),),  # NAT-PMP: the outer address, RFC 6886, 3.2
    # DNS-SD: which kinds of services there are, RFC 6763, 9; the answer comes to us alone, RFC 6762, 5.4.
    5353: (_dns("_services._dns-sd._udp.local", 12, 0x8001),),
    5355: (_dns("wpad", 1),),  # LLMNR, RFC 4795, 2.1
    # CoAP: what resources there are, RFC 7252, 3 and 7.2.
    5683: (struct.pack("!BBH", 0x40, 1, _ID) + b"\xbb.well-known\x04core",),
    11211: (struct.pack("!4H", _ID, 0, 1, 0) + b"version\r\n",),  # memcached's protocol.txt, "UDP protocol"
}
