"""The kernel says which way a packet goes and whether its neighbour is there: held against ip(8)."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.linux import routing
from agent.linux.routing import Route, Routing
from tests.workers.scan import lab

THERE, GONE = "10.66.0.2", "10.66.0.9"
LOOPBACK = socket.inet_aton("127.0.0.1")


@pytest.fixture(scope="module")
def net() -> Iterator[lab.Network]:
    """Two namespaces with a link; the other is 10.66.0.2 and fd66::2, and a router to 10.67.0.0/16."""
    made = lab.Network(f"routing-test-{os.getpid()}")
    for name in (made.near, made.far):
        lab.run("ip", "netns", "add", name)
    try:
        lab.batch(
            made.near,
            "link set lo up",
            f"link add wire type veth peer name wire netns {made.far}",
            "address add 10.66.0.1/24 dev wire",
            "address add fd66::1/64 dev wire nodad",
            "link set wire up",
            "ntable change name arp_cache dev wire retrans 50",
            "tuntap add pipe mode tun",
            "link set pipe up",
            "route add 10.68.0.0/16 dev pipe",
        )
        lab.batch(
            made.far, "address add 10.66.0.2/24 dev wire", "address add fd66::2/64 dev wire nodad", "link set wire up"
        )
        lab.batch(made.near, "route add 10.67.0.0/16 via 10.66.0.2", "route add prohibit 10.69.0.0/16")
        yield made
    finally:
        for name in (made.near, made.far):
            lab.run("ip", "netns", "delete", name)


@pytest.fixture
def asked(net: lab.Network) -> Iterator[Routing]:
    with lab.entered(net):
        made = Routing()
        yield made
        made.close()


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def test_hosts_of_the_link_are_told_from_those_behind_a_router(asked: Routing) -> None:
    wire = socket.if_nametoindex("wire")
    assert asked.route(packed(THERE)) == Route(wire, packed("10.66.0.1"), direct=True)
    assert asked.route(packed("10.67.1.1")) == Route(wire, packed("10.66.0.1"), direct=False)
    assert asked.route(packed("fd66::2")) == Route(wire, packed("fd66::1"), direct=True)
    assert asked.route(packed("fe80::1"), wire).direct
    assert not asked.route(LOOPBACK).direct
    assert not asked.route(packed("10.66.0.1")).direct


def test_where_nothing_goes_it_says_what_sending_would(asked: Routing) -> None:
    for address, number in (("10.70.0.1", errno.ENETUNREACH), ("10.69.0.1", errno.EACCES)):
        with pytest.raises(OSError) as raised:
            asked.route(packed(address))
        assert raised.value.errno == number


def test_a_neighbour_is_known_once_it_was_found_and_the_kernel_tells(asked: Routing) -> None:
    wire = socket.if_nametoindex("wire")
    assert asked.known(packed(THERE), wire) is None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for address in (THERE, GONE):
            sender.sendto(b"", (address, 9))
    told: dict[bytes, bool] = {}
    until = time.monotonic() + lab.PATIENCE
    while len(told) < 2 and time.monotonic() < until:
        select.select([asked.fd], [], [], 1)
        told |= {address: there for address, interface, there in asked.heed() if interface == wire}
    assert told == {packed(THERE): True, packed(GONE): False}
    assert asked.known(packed(THERE), wire) is True
    shown = subprocess.run(["ip", "neigh"], capture_output=True, text=True, check=True).stdout
    assert f"{GONE} dev wire FAILED" in " ".join(shown.split())


def test_on_a_tunnel_nobody_is_looked_for(asked: Routing) -> None:
    assert asked.looks(socket.if_nametoindex("wire"))
    assert not asked.looks(socket.if_nametoindex("pipe"))
    assert not asked.looks(9999)


@given(st.binary(max_size=24), st.sampled_from([0, 0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80]))
def test_the_state_of_a_neighbour_is_read_from_whatever_is_long_enough(hostile: bytes, state: int) -> None:
    """NUD_NONE and NUD_INCOMPLETE say nothing yet, NUD_FAILED that nobody is there, linux/neighbour.h."""
    assert (routing._state(hostile) is None) >= (len(hostile) < 12)
    message = struct.pack("=BxHiHBB", socket.AF_INET, 0, 1, state, 0, 0) + hostile
    assert routing._state(message) is {0: None, 0x01: None, 0x20: False}.get(state, True)
