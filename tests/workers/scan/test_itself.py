"""Scanning one's own host where the kernel has hardly any port to send from but the one that is asked."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from agent.workers.scan.connect import ConnectEngine
from agent.workers.scan.engine import Reply
from agent.workers.scan.speak import hear
from agent.workers.scan.udp import UdpEngine
from tests.workers.scan.driven import replies
from tests.workers.scan.wire import entered

PORT = 40_000
OWN = pytest.mark.parametrize("address", ["127.0.0.1", "::1"])


@pytest.fixture
def namespace() -> Iterator[str]:
    """One of its own, in which a socket gets one of the two ports."""
    name = f"scan-itself-{os.getpid()}-{time.monotonic_ns()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for command in (
            ["ip", "link", "set", "lo", "up"],
            ["sysctl", "-q", "-w", f"net.ipv4.ip_local_port_range={PORT} {PORT + 1}"],
        ):
            subprocess.run(["ip", "netns", "exec", name, *command], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def closed(reason: str) -> list[tuple[str, str]]:
    return [("closed", reason)] * 2


def told(found: dict[tuple[int, int], Reply]) -> list[tuple[str, str]]:
    return [(reply.state, reply.reason) for reply in found.values()]


@OWN
def test_a_connection_to_itself_is_no_open_port(namespace: str, address: str) -> None:
    with entered(namespace):
        engine = ConnectEngine([address])
        try:
            for _ in range(32):  # each time the kernel may choose the other port
                assert told(replies(engine, [(0, PORT), (0, PORT + 1)], expected=2)) == closed("reset")
        finally:
            engine.close()


@OWN
def test_a_datagram_to_itself_is_no_answer(namespace: str, address: str) -> None:
    with entered(namespace):
        engine = UdpEngine([address])
        try:
            for _ in range(32):
                for port in (PORT, PORT + 1):
                    found = replies(engine, [(0, port)], expected=1)
                    assert told(found) == [("closed", "port-unreach")]
        finally:
            engine.close()


@OWN
def test_what_one_says_to_oneself_is_not_listened_to(namespace: str, address: str) -> None:
    with entered(namespace):
        for _ in range(16):
            assert asyncio.run(hear(address, PORT)) == "unreachable"
