"""``agentctl capture rotate``, from the command line to the segments."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from tests.harness import Agent, wait_until

TOLD = "edge: told to close its segments (running)\n"


def test_captures_close_their_segments_when_they_are_told_to(agent: Agent) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as talk:
        talk.bind(("127.0.0.1", 0))
        port = talk.getsockname()[1]
        agent.declare(f"""
[service.edge]
kind = "capture"
interfaces = ["lo"]
filter = "udp dst port {port}"
rotate = {{ every = "1d" }}

[service.calm]
kind = "command"
command = ["/bin/sleep", "86421"]
""")
        agent.start()
        agent.until("edge", ready=True)
        place = agent.prefix / "spool" / "edge" / "lo"
        for count in (3, 5):
            for _ in range(count):
                talk.sendto(b"said", talk.getsockname())
            done = agent.ctl("capture", "rotate")
            assert (done.returncode, done.stdout, done.stderr) == (0, TOLD, "")
            wait_until(lambda count=count: written(place)[-1:] == [count])  # type: ignore[misc]  # bound at once
    assert written(place) == [3, 5]
    refused = agent.ctl("capture", "rotate", "calm")
    assert (refused.returncode, refused.stderr) == (2, "calm: is no capture: it has no segments to close (running)\n")
    agent.ctl("stop", "edge")
    assert agent.ctl("capture", "rotate", "edge").stderr == "edge: does not capture now (stopped)\n"
    assert agent.ctl("capture", "rotate").stderr == "agentctl: no capture is running\n"


def written(place: Path) -> list[int]:
    """Packets of the segments that were closed because somebody asked for it, oldest first."""
    accounts = [json.loads(path.with_suffix(".meta").read_text()) for path in sorted(place.glob("*.pcap"))]
    assert all(told["unaccounted"] == 0 for told in accounts)
    return [told["written"] for told in accounts if told["reason"] == "request"]
