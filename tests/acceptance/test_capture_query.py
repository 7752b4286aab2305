"""A packet on the wire is found a moment later, in the agent's own store, by both programs."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import time

from tests.harness import Agent, wait_until

SOON = 2.0
"""Seconds from the wire to a query, at most."""


def test_a_packet_can_be_asked_for_at_once_and_long_after_the_agent_is_gone(agent: Agent) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(("127.0.0.1", 0))
        port = service.getsockname()[1]
        agent.declare(
            f"""
            [service.edge]
            kind = "capture"
            interfaces = ["lo"]
            filter = "udp port {port}"
            rotate = {{ every = "1s" }}
            """
        )
        agent.start()
        agent.until("edge", state="running")

        def found() -> int:
            done = agent.ctl("capture", "query", f"udp dst port {port}", "--last", "1m", "--json")
            return int(json.loads(done.stdout)["packets"])

        for sent in range(1, 4):
            service.sendto(b"x" * 100, service.getsockname())
            began = time.monotonic()
            wait_until(lambda sent=sent: found() == sent)  # type: ignore[misc]  # bound at once
            assert time.monotonic() - began < SOON
        assert agent.stop() == 0
    assert found() == 3
    written = agent.prefix / "found.pcapng"
    done = agent.ctl("capture", "query", "udp", "port", str(port), "and", "len = 142", "-o", str(written))
    assert done.stdout == f"{written}: 3 packets, 426 B\n"
    command = ["tshark", "-r", str(written), "-T", "fields", "-e", "udp.dstport"]
    shown = subprocess.run(command, capture_output=True, timeout=30)
    assert shown.stdout.split() == [str(port).encode()] * 3


def test_a_capture_is_watched_as_it_goes_on(agent: Agent) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(("127.0.0.1", 0))
        port = service.getsockname()[1]
        agent.declare(f'[service.edge]\nkind = "capture"\ninterfaces = ["lo"]\nfilter = "udp port {port}"\n')
        agent.start()
        agent.until("edge", state="running")
        service.sendto(b"first", service.getsockname())
        wait_until(lambda: json.loads(agent.ctl("capture", "query", "--last", "1m", "--json").stdout)["found"])
        command = agent.command("capture", "stream", "edge", f"udp port {port}")
        with subprocess.Popen(command, env=agent.environment(), cwd="/", stdout=subprocess.PIPE) as stream:
            assert stream.stdout
            assert stream.stdout.read(24)[:4] == struct.pack("=I", 0xA1B23C4D)
            service.sendto(b"second", service.getsockname())
            head = stream.stdout.read(16)
            assert stream.stdout.read(struct.unpack("=8xI4x", head)[0]).endswith((b"second", b"first"))
            stream.stdout.close()
            assert stream.wait(20) == 141
