"""What answers a SYN of ours is known by the number that it acknowledges, and by nothing that was kept."""

from __future__ import annotations

import socket
import struct

from hypothesis import given
from hypothesis import strategies as st

from agent.workers.scan import rawtcp
from agent.workers.scan.rawtcp import Answer, Key

ports = st.integers(1, 65535)
addresses = st.binary(min_size=4, max_size=4)
keys = st.builds(rawtcp.make_key, st.binary(min_size=16, max_size=64), addresses)
OURS = 40_000
SYN, ACK, RST = 0x02, 0x10, 0x04


def sequence(key: Key, port: int) -> int:
    buffer = bytearray(rawtcp.SYN_LENGTH)
    rawtcp.put_syn(buffer, key, OURS, port)
    return int(struct.unpack_from("!I", buffer, 4)[0])


def answer(port: int, acknowledged: int, flags: int, to: int = OURS) -> bytes:
    return struct.pack("!HHIIBBHHH", port, to, 7, acknowledged & 0xFFFFFFFF, 0x50, flags, 0, 0, 0)


@given(st.binary(min_size=16, max_size=64), addresses, addresses, ports, ports)
def test_a_syn_has_the_checksum_that_its_addresses_make(
    secret: bytes, source: bytes, there: bytes, ours: int, port: int
) -> None:
    buffer = bytearray(rawtcp.SYN_LENGTH)
    key = rawtcp.make_key(secret, there, rawtcp.checksum_base(source, there, ours))
    rawtcp.put_syn(buffer, key, ours, port)
    pseudo = source + there + struct.pack("!HH", socket.IPPROTO_TCP, len(buffer))
    total = sum(struct.unpack(f"!{(len(pseudo) + len(buffer)) // 2}H", pseudo + buffer))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF  # RFC 1071
    assert struct.unpack_from("!HH", buffer) == (ours, port)
    assert buffer[12] >> 4 == len(buffer) // 4
    assert buffer[13] == SYN


@given(keys, ports, st.sampled_from([SYN | ACK, RST | ACK]), st.integers(0, 60))
def test_an_answer_says_what_was_asked(key: Key, port: int, flags: int, before: int) -> None:
    told = bytes(before) + answer(port, sequence(key, port) + 1, flags)
    found = rawtcp.read(told, before, len(told), key, OURS)
    assert found == (Answer(port, "open", "syn-ack") if flags & SYN else Answer(port, "closed", "reset"))


@given(keys, ports, st.integers(0, 255), st.integers(0, 0xFFFFFFFF), ports)
def test_what_does_not_fit_is_no_answer(key: Key, port: int, flags: int, other: int, to: int) -> None:
    fits = sequence(key, port) + 1
    asked = bool(flags & ACK and flags & (SYN | RST))
    found = rawtcp.read(answer(port, other, flags, to), 0, 20, key, OURS)
    assert (found is not None) == (other == fits & 0xFFFFFFFF and asked and to == OURS)
    assert (rawtcp.read(answer(port, fits, flags), 0, 20, key, OURS) is not None) == asked
    assert rawtcp.read(answer(port, fits, ACK | SYN), 0, 19, key, OURS) is None


@given(keys, keys, st.lists(ports, min_size=100, max_size=100, unique=True))
def test_the_key_of_another_host_proves_nothing(ours: Key, other: Key, asked: list[int]) -> None:
    assert ours == other or not any(rawtcp.cookie(ours, port) == sequence(other, port) for port in asked)


@given(keys, ports)
def test_a_probe_that_is_sent_again_is_the_same_segment(key: Key, port: int) -> None:
    """Else it may be a SYN in the window of the connection that the first has begun, and be answered by a reset."""
    assert sequence(key, port) == sequence(key, port) == rawtcp.cookie(key, port)


@given(keys, ports, st.binary(max_size=64))
def test_what_icmp_quotes_is_known_by_its_own_number(key: Key, port: int, rest: bytes) -> None:
    quoted = struct.pack("!HHI", OURS, port, sequence(key, port)) + rest
    found = rawtcp.read_quoted(quoted, 0, len(quoted), key, OURS, "admin-prohibited")
    assert found == Answer(port, "filtered", "admin-prohibited")
    assert rawtcp.read_quoted(quoted, 0, 7, key, OURS, "admin-prohibited") is None
    assert rawtcp.read_quoted(quoted, 0, len(quoted), key, OURS + 1, "admin-prohibited") is None


@given(keys, st.binary(max_size=rawtcp.LONGEST_ANSWER), st.integers(0, 80))
def test_no_bytes_break_it(key: Key, hostile: bytes, at: int) -> None:
    rawtcp.read(hostile, at, len(hostile), key, OURS)
    rawtcp.read_quoted(hostile, at, len(hostile), key, OURS, "host-unreach")
