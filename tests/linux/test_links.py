"""Interfaces that come and go, as the kernel tells of them."""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.linux.links import LinkWatch, interface_names, speaks_of_links
from tests.workers.capture.lab import network, run


def message(kind: int, payload: bytes = b"") -> bytes:
    return struct.pack("=IHHII", 16 + len(payload), kind, 0, 0, 0) + payload


@given(st.binary(max_size=200))
def test_whatever_the_message_reading_it_ends(data: bytes) -> None:
    speaks_of_links(data)


@pytest.mark.parametrize(
    ("data", "speaks"),
    [
        (message(16), True),
        (message(17, b"xyz"), True),
        (message(20) + message(16), True),
        (message(20, b"12345") + bytes(3) + message(17), True),
        (message(20), False),
        (bytes(16) + message(16), False),
        (message(16)[:15], False),
        (b"", False),
    ],
)
def test_messages_about_interfaces_are_told_from_others(data: bytes, speaks: bool) -> None:
    assert speaks_of_links(data) is speaks


def test_the_kernel_tells_when_an_interface_comes_and_goes() -> None:
    with network() as net:
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        away = os.open(f"/run/netns/{net.name}", os.O_RDONLY)
        libc_setns(away)
        try:
            watch = LinkWatch()
            assert interface_names() == ["lo"]
        finally:
            libc_setns(home)
            os.close(home)
            os.close(away)
        try:
            assert not watch.heed()
            net.pair("near", "far", up=False)
            assert select.select([watch.fd], [], [], 5)[0]
            assert watch.heed()
            while watch.heed():
                pass
            run("ip", "-n", net.name, "addr", "add", "10.0.0.1/24", "dev", "near")
            assert not watch.heed()
            net.delete("near")
            assert select.select([watch.fd], [], [], 5)[0]
            assert watch.heed()
        finally:
            watch.close()


def test_what_another_process_says_is_no_sign() -> None:
    watch = LinkWatch()
    try:
        while watch.heed():
            pass
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as other:
            other.sendto(message(16), watch._socket.getsockname())
        assert select.select([watch.fd], [], [], 5)[0]
        assert not watch.heed()
    finally:
        watch.close()


def libc_setns(fd: int) -> None:
    assert ctypes.CDLL(None, use_errno=True).setns(fd, 0) == 0
