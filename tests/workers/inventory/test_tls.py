"""The name in a ClientHello, wherever it stands; and in everything else none."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from agent.workers.inventory.tls import server_name


def hello(name: bytes, before: bytes = b"", *, session: bytes = b"", kind: int = 0) -> bytes:
    """As in RFC 8446, 4.1.2, with other extensions before server_name."""
    entry = struct.pack("!BH", kind, len(name)) + name
    extension = struct.pack("!HHH", 0, len(entry) + 2, len(entry)) + entry
    extensions = before + extension
    body = b"\3\3" + bytes(32) + bytes([len(session)]) + session + b"\0\4\x13\1\x13\2" + b"\1\0"
    body += struct.pack("!H", len(extensions)) + extensions
    handshake = b"\1" + len(body).to_bytes(3) + body
    return b"\x16\3\1" + struct.pack("!H", len(handshake)) + handshake


def test_it_is_found_behind_other_extensions_and_a_session() -> None:
    grease = b"\x0a\x0a\0\0" + struct.pack("!HH", 16, 5) + b"\0\3\2h2"
    assert server_name(hello(b"www.lab.test", grease, session=bytes(32))) == b"www.lab.test"


def test_a_name_that_is_not_of_a_host_or_empty_is_none() -> None:
    assert server_name(hello(b"www", kind=1)) is None
    assert server_name(hello(b"")) is None


@given(st.integers(0, 120))
def test_one_that_is_cut_off_has_the_whole_name_or_none(length: int) -> None:
    assert server_name(hello(b"www.lab.test")[:length]) in (None, b"www.lab.test")


@given(st.binary(max_size=200), st.integers(0, 90))
def test_no_octets_do_harm(raw: bytes, place: int) -> None:
    whole = hello(b"www.lab.test")
    for data in (raw, whole[:place] + raw, whole[:place] + raw[:2] + whole[place + 2 :]):
        found = server_name(data)
        assert found is None or len(found) <= len(data)
