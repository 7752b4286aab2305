"""The kernel lets pass what the engine reads, and nothing else: shown on socket pairs, where a filter works as well."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hypothesis import given
from hypothesis import strategies as st

from agent.workers.capture.socket_filter import attach
from agent.workers.scan import synfilter

PORT, TCP = 40_000, socket.IPPROTO_TCP
flags = st.integers(0, 255)
ports = st.sampled_from([PORT, PORT + 1, PORT ^ 0x8000, 0])
options = st.integers(0, 10)


@contextmanager
def filtered(program: bytes) -> Iterator[Callable[[bytes], bool]]:
    """Tells of a packet whether it gets through the filter."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def passes(packet: bytes) -> bool:
        one.send(packet)
        try:
            return other.recv(512) == packet
        except BlockingIOError:
            return False

    with one, other:
        other.setblocking(False)
        attach(other, program)
        yield passes


def header(more: int, protocol: int) -> bytes:
    return struct.pack("!BBHHHBBH8s", 0x45 + more, 0, 40, 1, 0, 64, protocol, 0, b"fromhere") + bytes(4 * more)


def tcp(port: int, bits: int) -> bytes:
    return struct.pack("!HHIIBBHHH", 443, port, 1, 2, 0x50, bits, 0, 0, 0)


@given(ports, flags, options)
def test_answers_to_our_port_pass(port: int, bits: int, more: int) -> None:
    wanted = port == PORT and bool(bits & 0x10 and bits & 0x06)
    with filtered(synfilter.answers(PORT)) as passes:
        assert passes(header(more, TCP) + tcp(port, bits)) == wanted
    with filtered(synfilter.answers6(PORT)) as passes:
        assert passes(tcp(port, bits)) == wanted


@given(ports, st.sampled_from([TCP, socket.IPPROTO_UDP]), options, options)
def test_errors_about_our_port_pass(port: int, protocol: int, outer: int, inner: int) -> None:
    quoted = struct.pack("!HHI", port, 443, 5)
    wanted = port == PORT and protocol == TCP
    with filtered(synfilter.errors(TCP, PORT)) as passes:
        assert passes(header(outer, 1) + b"\x03\x01" + bytes(6) + header(inner, protocol) + quoted) == wanted
    with filtered(synfilter.errors6(TCP, PORT)) as passes:
        message = b"\x01\x01" + bytes(6) + bytes([0x60, 0, 0, 0, 0, 0, protocol, 64]) + bytes(32) + quoted
        assert passes(message) == wanted


@given(st.integers(1, 33), st.integers(1, 49))
def test_what_is_too_short_does_not_pass(answer: int, error: int) -> None:
    with filtered(synfilter.answers(PORT)) as passes:
        assert passes((header(0, TCP) + tcp(PORT, 0x12))[:34])
        assert not passes((header(0, TCP) + tcp(PORT, 0x12))[:answer])
    whole = header(0, 1) + b"\x03\x01" + bytes(6) + header(0, TCP) + struct.pack("!HHI", PORT, 443, 5)
    with filtered(synfilter.errors(TCP, PORT)) as passes:
        assert passes(whole[:50])
        assert not passes(whole[:error])
