"""Armed captures: what was before and after something happened is kept and found, everything else goes."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.workers.capture import shm
from tests.acceptance.test_capabilities import opened
from tests.harness import SOURCE, Agent, wait_until

EDGE = """
[service.{name}]
kind = "capture"
interfaces = ["lo"]
filter = "udp dst port {port}"
rotate = {{ every = "1s" }}
{user}
[service.{name}.trigger]
before = "1s"
after = "3s"
keep = "{keep}"
on = ["other.failed", "lan_scan.scan_finished"]
when = ["received > 500"]
"""

OTHER = """
[service.other]
kind = "command"
command = ["/bin/sh", "-c", "read line < {pipe}; exit 3"]
restart = "no"

[service.lan_scan]
kind = "scan"
targets = ["127.0.0.1"]
ports = "9"
oncalendar = "yearly"
"""

BURST = 2000
LIMIT = ("--limit", "9999")


class Talk:
    """Datagrams to nobody, told apart by their length."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]

    def say(self, length: int, times: int = 1) -> None:
        for _ in range(times):
            self.socket.sendto(bytes(length), self.socket.getsockname())


@pytest.fixture
def talk() -> Iterator[Talk]:
    made = Talk()
    yield made
    made.socket.close()


def test_what_was_around_an_event_a_bound_a_command_and_a_scan_is_kept_and_nothing_else(
    agent: Agent, talk: Talk
) -> None:
    """One capture keeps its packets on disk and runs as a user of its own, the other keeps them in memory."""
    pipe = agent.prefix / "pipe"
    os.mkfifo(pipe)
    names = ("disk", "memory")
    agent.declare(
        EDGE.format(name="disk", port=talk.port, keep="disk", user='user = "nobody"')
        + EDGE.format(name="memory", port=talk.port, keep="memory", user="")
        + OTHER.format(pipe=pipe)
    )
    agent.start(wrapper=opened(Path(sys.base_prefix), Path(sys.prefix), SOURCE, agent.prefix), wait=False)
    wait_until(agent.answers, agent.console)
    for name in (*names, "other"):
        agent.until(name, state="running")

    def found(name: str) -> list[int]:
        done = agent.ctl("capture", "query", f"udp dst port {talk.port}", "--service", name, "--json", *LIMIT)
        return [packet["length"] - 42 for packet in json.loads(done.stdout)["found"]] if done.returncode == 0 else []

    def holds(name: str) -> bool:
        return {20, 21, 30, 31, 40, 41, 50} <= set(found(name))

    def told(name: str) -> str:
        return str(sorted(set(found(name))))

    def pinned(name: str) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = json.loads(agent.ctl("capture", "pins", "--service", name, "--json").stdout)[
            "pins"
        ]
        return told

    def kept(count: int) -> None:
        wait_until(lambda: all(len(pinned(name)) == count for name in names), lambda: str([pinned(n) for n in names]))

    talk.say(10)  # nothing happens to it
    began = time.monotonic()
    time.sleep(2.5)
    talk.say(20)
    pipe.write_bytes(b"fail\n")
    kept(1)
    talk.say(21)
    wait_until(lambda: time.time() > max(pinned(name)[-1]["to"] for name in names))
    talk.say(30)
    talk.say(31, BURST)
    kept(2)
    wait_until(lambda: time.time() > max(pinned(name)[-1]["to"] for name in names))
    talk.say(40)
    for name in names:
        done = agent.ctl("capture", "trigger", name, "--reason", "by hand")
        assert (done.returncode, done.stderr) == (0, "")
    talk.say(41)
    wait_until(lambda: time.time() > max(pinned(name)[-1]["to"] for name in names))
    talk.say(50)
    assert agent.ctl("start", "lan_scan").returncode == 0
    kept(4)
    for name in names:
        reasons = [pin["reason"] for pin in pinned(name)]
        assert reasons[0].startswith("other.failed: ")
        assert reasons[1].startswith("received > 500 (it is ")
        assert reasons[2] == "by hand"
        assert reasons[3].startswith("lan_scan.scan_finished: ")
        triggered = [event["message"] for event in agent.events(service=name) if event["kind"] == "triggered"]
        assert [message.partition("; kept as pin ")[0] for message in triggered] == [*reasons[:2], reasons[3]]
        wait_until(partial(holds, name), partial(told, name))
        assert found(name).count(31) == BURST
    assert 10 not in found("memory")
    wait_until(lambda: 10 not in found("disk"))
    assert time.monotonic() - began > 6  # for so long a trigger may still want it
    assert agent.stop() == 0
    for name in names:
        assert shm.found(agent.prefix / "spool" / name) == []
        assert set(found(name)) == {20, 21, 30, 31, 40, 41, 50}
        assert "trigger_failed" not in {event["kind"] for event in stored(agent, name)}


def stored(agent: Agent, name: str) -> list[dict[str, Any]]:
    """All events of a service, after the agent has ended."""
    lines = agent.ctl("events", name, "--json").stdout.splitlines()
    return [json.loads(line) for line in lines]
