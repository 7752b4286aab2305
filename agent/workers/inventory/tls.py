"""The name that a TLS client asks a server for: server_name in its ClientHello, RFC 6066 and RFC 8446.

By hand: scapy's layers of TLS need the cryptography library, and this is not encrypted.
"""

from __future__ import annotations

_HANDSHAKE, _CLIENT_HELLO, _SERVER_NAME, _HOST_NAME = 22, 1, 0, 0
_FIXED = 5 + 4 + 2 + 32  # record header, handshake header, version, random


def server_name(data: bytes) -> bytes | None:
    """The name in a ClientHello that begins the payload of a TCP segment; ``None`` when there is none in there.

    A ClientHello may go on in further segments: then what is here is looked through.
    """
    if len(data) < _FIXED or data[0] != _HANDSHAKE or data[1] != 3 or data[5] != _CLIENT_HELLO:
        return None
    place = _FIXED
    for width in (1, 2, 1):  # session identifier, cipher suites, compression methods: each with its length before it
        place += width + int.from_bytes(data[place : place + width])
    place += 2  # how long all extensions are
    while place + 4 <= len(data):
        kind, length = int.from_bytes(data[place : place + 2]), int.from_bytes(data[place + 2 : place + 4])
        if kind == _SERVER_NAME:
            # A list, in practice of one: its length, the type of name, the length of the name.
            entry = data[place + 4 : place + 4 + length]
            end = 5 + int.from_bytes(entry[3:5])
            return entry[5:end] if len(entry) >= end > 5 and entry[2] == _HOST_NAME else None
        place += 4 + length
    return None
