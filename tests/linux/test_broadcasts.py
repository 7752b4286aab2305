"""What the kernel says of broadcast addresses, and what no kernel says."""

from __future__ import annotations

import socket
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from agent.linux.broadcasts import broadcast_addresses, destinations
from agent.linux.netlink import attribute

ASK = "from agent.linux.broadcasts import broadcast_addresses; print(*broadcast_addresses())"


def test_each_network_of_an_interface_has_its_broadcast_address() -> None:
    """One where it was set, one where it was not, and one that has none."""
    script = (
        "ip link set lo up; ip link add wire type veth peer name eriw; ip link set wire up;"
        "ip addr add 10.77.0.1/24 dev wire; ip addr add 10.78.0.9/29 brd + dev wire;"
        "ip addr add 10.79.0.0/31 dev wire;"
        f"exec {sys.executable} -c '{ASK}'"
    )
    done = subprocess.run(["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["10.77.0.255", "10.78.0.15", "127.255.255.255"], done.stderr


def test_it_is_what_ip_route_says_of_this_host() -> None:
    told = subprocess.run(
        ["ip", "-4", "route", "show", "table", "local", "type", "broadcast"], capture_output=True, text=True, check=True
    ).stdout
    assert set(broadcast_addresses()) == {line.removeprefix("broadcast ").split()[0] for line in told.splitlines()}


@given(st.binary(min_size=4, max_size=4), st.binary(max_size=60))
def test_the_address_of_a_route_is_found_among_whatever_follows_it(address: bytes, hostile: bytes) -> None:
    route = bytes((socket.AF_INET, 32, 0, 0, 0, 0, 0, 3)) + bytes(4)
    assert destinations(route + attribute(4, b"eth") + attribute(1, address)) == {int.from_bytes(address, "big")}
    assert len(destinations(route + hostile)) <= 1
    assert len(destinations(hostile)) <= 1
