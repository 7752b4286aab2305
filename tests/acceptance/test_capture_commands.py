"""The commands about captures, asked of a real agent that captures a link of its own: they agree on what was there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Agent, wait_until
from tests.workers.capture.lab import Network, network
from tests.workers.flows.traffic import arp, conversation, udp

SNAPLEN = 96
CLIENT, SERVER = "10.77.0.5", "192.0.2.1"
FRAMES = [
    *(packet.frame for packet in conversation(0, CLIENT, 40000, SERVER, 443)),
    *(udp(CLIENT, 50000, "192.0.2.53", 53, size) for size in (20, 200, 300)),
    arp(CLIENT, "10.77.0.1"),
]
CUT = sum(len(frame) > SNAPLEN for frame in FRAMES)

_SENDER = """
import socket, sys
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("near", 0))
for line in sys.stdin:
    raw.send(bytes.fromhex(line))
"""


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        made.pair("near", "far")
        yield made


def say(net: Network, frames: list[bytes]) -> None:
    command = net.inside(sys.executable, "-c", _SENDER)
    subprocess.run(command, input="\n".join(map(bytes.hex, frames)), text=True, check=True, timeout=20)


def ask(agent: Agent, *arguments: str) -> Any:
    done = agent.ctl(*arguments, "--json")
    assert (done.returncode, done.stderr) == (0, ""), arguments
    return json.loads(done.stdout)


def test_what_was_on_the_link_is_told_alike_by_every_command(agent: Agent, net: Network, tmp_path: Path) -> None:
    agent.declare(
        f"""
        [service.edge]
        kind = "capture"
        interfaces = ["far"]
        snaplen = {SNAPLEN}
        budget = "256MiB"
        ring = "4MiB"
        rotate = {{ every = "1d" }}
        """
    )
    # Its readiness would be told to a socket of another network namespace.
    agent.start(wrapper=("ip", "netns", "exec", net.name), wait=False)
    wait_until(agent.answers, agent.console)
    agent.until("edge", ready=True)
    say(net, FRAMES)

    def seen() -> dict[str, Any]:
        found: dict[str, Any] = agent.service("edge")["interfaces"].get("far", {})
        return found

    wait_until(lambda: (seen().get("written"), seen().get("cut")) == (len(FRAMES), CUT))
    status = ask(agent, "status", "edge")
    far = status["interfaces"]["far"]
    assert {name: far[name] for name in ("received", "cut", "bytes", "ring")} == {
        name: status["figures"][name] for name in ("received", "cut", "bytes", "ring")
    }
    assert (far["received"], far["ring"], far["waiting"], far["lag_max"] > 0) == (len(FRAMES), 4 << 20, False, True)
    assert f" far: received={len(FRAMES)} " in agent.ctl("status", "edge").stdout

    (look,) = (json.loads(line) for line in agent.ctl("top", "--json", "--interval", "200ms").stdout.splitlines())
    (shown,) = look["interfaces"]
    assert (shown["service"], shown["interface"], shown["dropped"], shown["cut"]) == ("edge", "far", 0, CUT)
    assert shown["dropped_per_second"] == 0 and shown["ring"] == 4 << 20 and shown["received"] == len(FRAMES)

    flows = ask(agent, "flows", "udp", "--last", "1h", "--by", "flow")["top"]
    assert [(one["source"], one["destination_port"], one["packets"]) for one in flows] == [(CLIENT, 53, 3)]
    wait_until(lambda: bool(agent.prefix.joinpath("spool/edge/hosts.json").exists()))
    (host,) = (one for one in ask(agent, "hosts", "--address", CLIENT)["hosts"])
    assert host["mac"] and "edge/far" in host["seen_by"]

    assert agent.ctl("capture", "rotate", "edge").returncode == 0
    place = agent.prefix / "spool" / "edge" / "far"
    wait_until(lambda: [path.suffix for path in sorted(place.glob("2*"))] == [".idx", ".meta", ".pcap"])
    (segment,) = ask(agent, "capture", "list", "--segments")["segments"]
    counts = ("received", "written", "cut", "dropped_kernel", "dropped_interface", "not_written", "unaccounted")
    assert [segment[name] for name in counts] == [len(FRAMES), len(FRAMES), CUT, 0, 0, 0, 0]
    assert (segment["holds"], segment["reason"], segment["snaplen"]) == (True, "request", SNAPLEN)
    (service,) = ask(agent, "capture", "list")["services"]
    assert (service["segments"], service["budget"], service["interfaces"][0]["cut"]) == (1, 256 << 20, CUT)

    page = tmp_path / "report.html"
    assert agent.ctl("capture", "report", "--last", "1h", "-o", str(page)).returncode == 0
    assert page.read_text().startswith("<!doctype html>")
    (balance,) = ask(agent, "capture", "report", "--last", "1h")["accounts"]
    assert [balance[name] for name in counts] == [segment[name] for name in counts]

    done = agent.ctl("capture", "pin", "edge", "--last", "1h", "--reason", "shown")
    assert (done.returncode, done.stderr) == (0, "")
    (pin,) = ask(agent, "capture", "pins")["pins"]
    assert (pin["service"], pin["reason"], pin["segments"]) == ("edge", "shown", 1)
    wait_until(lambda: agent.service("edge")["figures"]["pins"] == 1)
    assert agent.ctl("capture", "unpin", "edge", pin["id"]).stdout == "edge: 1 pin taken back\n"
    wait_until(lambda: agent.service("edge")["figures"]["pins"] == 0)

    assert agent.stop() == 0
    assert ask(agent, "capture", "list", "--segments")["segments"] == [segment]
