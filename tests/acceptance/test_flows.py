"""Packets on the wire to flows: shown while the segment is still open, and at a real collector once it is closed."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from tests.harness import Agent, wait_until
from tests.workers.flows.peers import free_port, nfcapd

PACKETS = 25


def test_flows_are_shown_at_once_and_reach_the_collector_when_a_segment_is_closed(agent: Agent, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service, nfcapd(tmp_path / "nf") as collector:
        service.bind(("127.0.0.1", 0))
        port = service.getsockname()[1]
        agent.declare(
            f"""
            [service.edge]
            kind = "capture"
            interfaces = ["lo"]
            filter = "udp port {port}"
            rotate = {{ every = "2s" }}
            ipfix = "127.0.0.1:{collector.port}"
            """
        )
        agent.start()
        agent.until("edge", state="running")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(service.getsockname())
            for _ in range(PACKETS):
                client.send(bytes(100))
            ours = client.getsockname()[1]

        def seen() -> int:
            done = agent.ctl("flows", f"udp src port {ours}", "--last", "1m", "--by", "flow", "--json")
            assert done.returncode == 0, done.stderr
            found = json.loads(done.stdout)["top"]
            return sum(line["packets"] for line in found)

        wait_until(lambda: seen() == PACKETS)
        wait_until(lambda: agent.service("edge")["figures"].get("ipfix_records", 0) >= 1)
        assert agent.stop() == 0
        flows = collector.flows()
    assert sum(flow.packets for flow in flows) == PACKETS
    assert {flow.ends for flow in flows} == {("127.0.0.1", ours, "127.0.0.1", port, "udp")}
    assert sum(flow.octets for flow in flows) == PACKETS * 128
    assert "Sequence Errors: 0, Bad Packets: 0" in collector.said


def test_a_collector_that_is_not_there_holds_nothing_up_and_is_told_of_once(agent: Agent) -> None:
    port, target = free_port(), free_port()
    agent.declare(
        f"""
        [service.edge]
        kind = "capture"
        interfaces = ["lo"]
        filter = "udp port {target}"
        rotate = {{ every = "1s" }}
        ipfix = "127.0.0.1:{port}"
        """
    )
    agent.start()
    agent.until("edge", state="running")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", ("127.0.0.1", target))
        told = agent.event("export_failed", "edge")
        assert told["message"].startswith(f"collector 127.0.0.1:{port}: nobody listens on that port")
        client.sendto(b"x", ("127.0.0.1", target))
        wait_until(lambda: agent.service("edge")["figures"].get("ipfix_failures", 0) >= 2)
    assert agent.service("edge")["state"] == "running"
    assert sum(event["kind"] == "export_failed" for event in agent.events()) == 1
