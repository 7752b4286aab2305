"""A capture of several processes under a real agent, by both programs: each packet is there once, whoever asks."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import IO, Any

import pytest

from tests.harness import Agent, wait_until
from tests.workers.capture import wire
from tests.workers.capture.lab import Network, network, packets

FIRST, COUNT = 500, 6000
PROCESSES = 3
FAULTS = {"companion_ended", "packets_unaccounted", "segment_recovered", "segment_unreadable", "storage_error"}


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        made.pair("near", "far")
        yield made


def told(agent: Agent, *arguments: str) -> Any:
    done = agent.ctl(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def send(net: Network, first: int, count: int) -> None:
    done = subprocess.run(net.inside(sys.executable, wire.__file__, str(first), str(count), "20000"), timeout=20)
    assert done.returncode == 0


def streamed(stream: IO[bytes], count: int) -> list[int]:
    """The numbers of so many packets that come out of ``agentctl capture stream``."""
    found = []
    for _ in range(count):
        (length,) = struct.unpack("=8xI4x", stream.read(16))
        found.append(wire.number(stream.read(length)))
    return found


def test_packets_shared_by_several_processes_are_there_once_each(agent: Agent, net: Network) -> None:
    agent.declare(f"""
[service.edge]
kind = "capture"
interfaces = ["far"]
filter = "{wire.FILTER}"
fanout = {PROCESSES}
ring = "1MiB"
budget = "1GiB"
rotate = {{ every = "1d" }}
""")
    agent.start(wrapper=("nsenter", f"--net=/run/netns/{net.name}"), wait=False)  # the harness listens in another one
    wait_until(agent.answers, agent.console)
    agent.until("edge", state="running", ready=True)
    wait_until(lambda: agent.service("edge")["figures"].get("ring", 0) >= PROCESSES * 2**20)
    send(net, 0, FIRST)
    wait_until(lambda: agent.service("edge")["figures"]["written"] == FIRST)
    command = agent.command("capture", "stream", "edge")
    with subprocess.Popen(command, env=agent.environment(), cwd="/", stdout=subprocess.PIPE) as stream:
        try:
            assert stream.stdout
            header = stream.stdout.read(24)
            assert struct.unpack_from("=I", header) == (0xA1B23C4D,)
            send(net, FIRST, COUNT - FIRST)
            assert sorted(streamed(stream.stdout, COUNT - FIRST)) == list(range(FIRST, COUNT))
        finally:
            stream.kill()
    place = agent.prefix / "spool" / "edge" / "far"
    assert len(list(place.glob("*.part"))) == PROCESSES
    ask(agent)
    assert agent.ctl("capture", "rotate").returncode == 0
    wait_until(lambda: len(list(place.glob("*.idx"))) == PROCESSES)
    ask(agent)
    assert {event["kind"] for event in agent.events()} & FAULTS == set()
    closed = list(place.glob("*.pcap"))
    assert sorted(wire.number(packet.data) for path in closed for packet in packets(path)) == list(range(COUNT))
    assert agent.stop() == 0
    (store,) = told(agent, "capture", "list")["services"][0]["interfaces"]
    assert (store["interface"], store["segments"]) == ("far", PROCESSES)
    assert store["bytes"] == sum(path.stat().st_size for path in place.iterdir())
    (books,) = told(agent, "capture", "report", "--last", "1h")["accounts"]
    assert (books["segments"], books["received"], books["written"], books["holds"]) == (PROCESSES, COUNT, COUNT, True)


def ask(agent: Agent) -> None:
    """What was captured is counted right, by the packet and by the flow."""
    assert told(agent, "capture", "query", wire.FILTER, "--last", "1h")["packets"] == COUNT
    one = f"udp src port {1024 + 7}"
    each = sum(number % wire.FLOWS == 7 for number in range(COUNT))
    written = agent.prefix / "one.pcap"
    assert agent.ctl("capture", "query", one, "-o", str(written)).returncode == 0
    assert [wire.number(packet.data) for packet in packets(written)] == list(range(7, COUNT, wire.FLOWS))
    flows = told(agent, "flows", "--last", "1h", "--by", "flow", "--top", "1000")["top"]
    assert len(flows) == wire.FLOWS
    assert sum(flow["packets"] for flow in flows) == COUNT
    assert sum(flow["packets"] for flow in told(agent, "flows", one, "--last", "1h", "--by", "flow")["top"]) == each
