"""What an open port is asked to find out whether it speaks: short questions of our own, in the words of its protocol.

None of them logs in, changes anything, or is longer than a packet. Which of them a port gets follows from its number
(IANA's registry of port numbers); all get an HTTP request, a TLS ClientHello and two empty lines besides.
"""

from __future__ import annotations

import struct
from typing import Final

NEVER_ASKED: Final = range(9100, 9108)
"""Ports of printers: what is sent there is printed. nmap leaves the same ones out of service detection."""

HTTP: Final = b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: agent-scan\r\nAccept: */*\r\nConnection: close\r\n\r\n"
"""RFC 9112."""

LINES: Final = b"\r\n\r\n"


def client_hello(random: bytes) -> bytes:
    """A TLS ClientHello (RFC 5246 7.4.1.2) of TLS 1.2, which servers of 1.3 answer too. ``random``: 32 bytes."""
    if len(random) != 32:
        raise ValueError("the random of a ClientHello has 32 bytes")
    suites = struct.pack("!12H", *_SUITES)
    groups = struct.pack("!5H", 8, 0x001D, 0x0017, 0x0018, 0x0019)  # RFC 8422 5.1.1, RFC 7748: x25519 and NIST curves
    signatures = struct.pack("!9H", 16, 0x0403, 0x0503, 0x0603, 0x0804, 0x0805, 0x0401, 0x0501, 0x0201)
    extensions = b"".join(
        (
            _extension(10, groups),
            _extension(11, b"\x01\x00"),  # points are not compressed
            _extension(13, signatures),
        )
    )
    body = b"\x03\x03" + random + b"\x00" + struct.pack("!H", len(suites)) + suites + b"\x01\x00"
    body += struct.pack("!H", len(extensions)) + extensions
    message = b"\x01" + struct.pack("!I", len(body))[1:] + body
    return b"\x16\x03\x01" + struct.pack("!H", len(message)) + message


# RFC 5289, RFC 7905, RFC 5246, in the order of preference; the last ones for what is old.
_SUITES = (
    *(0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8),
    *(0xC013, 0xC014, 0x009C, 0x002F, 0x0035, 0x000A),
)


def _extension(number: int, content: bytes) -> bytes:
    return struct.pack("!HH", number, len(content)) + content


def _smb() -> bytes:
    """An SMB2 NEGOTIATE request, MS-SMB2 2.2.1.2 and 2.2.3, in the frame of 2.1 that direct TCP has."""
    header = b"\xfeSMB" + struct.pack("<HHIHHIIQIIQ16x", 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    dialects = struct.pack("<4H", 0x0202, 0x0210, 0x0300, 0x0302)
    body = struct.pack("<HHHHI16sQ", 36, 4, 1, 0, 0, b"agent-scan".ljust(16, b"\0"), 0) + dialects
    return struct.pack("!I", len(header) + len(body)) + header + body


def _netbios() -> bytes:
    """A session request from and to ``*SMBSERVER``, RFC 1002 4.3.2 with names encoded as in RFC 1001 14.1."""
    letters = bytes(65 + half for byte in b"*SMBSERVER".ljust(16) for half in (byte >> 4, byte & 15))
    names = (b"\x20" + letters + b"\0") * 2
    return b"\x81\0" + struct.pack("!H", len(names)) + names


def _rdp() -> bytes:
    """An X.224 connection request that offers TLS and CredSSP, MS-RDPBCGR 2.2.1.1."""
    negotiation = struct.pack("<BBHI", 1, 0, 8, 3)
    x224 = struct.pack("!BBHHB", 6 + len(negotiation), 0xE0, 0, 0, 0) + negotiation
    return struct.pack("!BBH", 3, 0, 4 + len(x224)) + x224


def _dns() -> bytes:
    """Who serves the root, RFC 1035 4.1 and 4.2.2."""
    query = struct.pack("!6H", 0x5CA9, 0x0100, 1, 0, 0, 0) + b"\0" + struct.pack("!2H", 2, 1)
    return struct.pack("!H", len(query)) + query


def _rpc() -> bytes:
    """The null procedure of the portmapper, RFC 5531 9 and 11."""
    call = struct.pack("!10I", 0x5CA9, 0, 2, 100000, 2, 0, 0, 0, 0, 0)
    return struct.pack("!I", 0x80000000 | len(call)) + call


def _mqtt() -> bytes:
    """CONNECT of MQTT 3.1.1, section 3.1."""
    body = b"\0\x04MQTT\x04\x02\0\x0a" + b"\0\x0aagent-scan"
    return bytes((0x10, len(body))) + body


def _tds() -> bytes:
    """PRELOGIN, MS-TDS 2.2.6.5: a version and no encryption."""
    options = b"\x00" + struct.pack("!HH", 11, 6) + b"\x01" + struct.pack("!HH", 17, 1) + b"\xff"
    data = options + bytes(6) + b"\x02"
    return struct.pack("!BBHHBB", 0x12, 1, 8 + len(data), 0, 0, 0) + data


def _mongodb() -> bytes:
    """``hello`` in an OP_MSG, MongoDB's wire protocol, with BSON as on bsonspec.org."""
    fields = b"\x10hello\0" + struct.pack("<i", 1) + b"\x02$db\0" + struct.pack("<i", 6) + b"admin\0"
    document = struct.pack("<i", len(fields) + 5) + fields + b"\0"
    body = struct.pack("<I", 0) + b"\0" + document
    return struct.pack("<iiii", 16 + len(body), 1, 0, 2013) + body


def _kafka() -> bytes:
    """ApiVersions in version 0, Kafka's protocol guide."""
    body = struct.pack("!hhih", 18, 0, 1, 10) + b"agent-scan"
    return struct.pack("!i", len(body)) + body


_SIP = (
    b"OPTIONS sip:localhost SIP/2.0\r\nVia: SIP/2.0/TCP localhost;branch=z9hG4bKagentscan\r\nMax-Forwards: 70\r\n"
    b"To: <sip:localhost>\r\nFrom: <sip:agent@localhost>;tag=agent\r\nCall-ID: agent-scan\r\nCSeq: 1 OPTIONS\r\n"
    b"Content-Length: 0\r\n\r\n"
)
"""RFC 3261, section 11."""

_LDAP = bytes.fromhex("300c020101600702010304008000")
"""A simple bind without a name or password, RFC 4511 4.2."""

_BY_PORT: Final[dict[int, bytes]] = {
    **dict.fromkeys((53,), _dns()),
    **dict.fromkeys((111, 2049), _rpc()),
    139: _netbios(),
    445: _smb(),
    **dict.fromkeys((389, 3268), _LDAP),
    554: b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n",  # RFC 2326 10.1
    1433: _tds(),
    1883: _mqtt(),
    2181: b"ruok",  # ZooKeeper's administrator's guide, "four letter words"
    3389: _rdp(),
    4369: b"\0\x01n",  # NAMES_REQ, Erlang's distribution protocol
    5060: _SIP,
    **dict.fromkeys((5432, 6432), struct.pack("!II", 8, 80877103)),  # SSLRequest, PostgreSQL's message formats
    5672: b"AMQP\0\0\x09\x01",  # AMQP 0-9-1, 4.2.2
    **dict.fromkeys((6379, 26379), b"PING\r\n"),  # Redis's protocol, inline commands
    9042: b"\x04\0\0\0\x05\0\0\0\0",  # OPTIONS, CQL binary protocol v4
    9092: _kafka(),
    11211: b"version\r\n",  # memcached's protocol.txt
    27017: _mongodb(),
}


def requests_for(port: int, random: bytes) -> dict[str, bytes]:
    """What to send to a TCP port, each on a connection of its own: a name to the bytes.

    Nothing at all for a port of ``NEVER_ASKED``. ``random`` as in ``client_hello``.
    """
    if port in NEVER_ASKED:
        return {}
    made = {"http": HTTP, "tls": client_hello(random)}
    if special := _BY_PORT.get(port):
        made["protocol"] = special
    return made
