"""Drift on a real host: a listener appears, a scan finds it, the watch tells it once, and an armed capture keeps it."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from tests.harness import Agent, wait_until

DECLARED = """
[service.lan_scan]
kind = "scan"
targets = ["127.0.0.1"]
ports = "{port},9"
oncalendar = "yearly"

[service.edge]
kind = "capture"
interfaces = ["lo"]
filter = "tcp port {port}"
trigger = {{ before = "30s", after = "1s", on = ["watch.drift_found"] }}

[expect.host]
hosts = ["127.0.0.1"]
closed = ["{port}"]
"""


def segment_of(row: dict[str, Any]) -> str:
    """The file that is named as the one that holds the packets."""
    (name,) = [one["segment"] for one in row["evidence"] if one["source"] == "seen"]
    return str(name)


def without_segment(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "evidence": [{**one, "segment": None} for one in row["evidence"]]}


def test_a_listener_that_should_not_be_is_told_once_and_the_capture_keeps_the_packets_that_found_it(
    agent: Agent,
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # the port is taken, and nobody listens yet
        port = listener.getsockname()[1]
        agent.declare(DECLARED.format(port=port))
        agent.start()
        for name in ("watch", "edge"):
            agent.until(name, state="running", ready=True)

        def scan() -> None:
            done = agent.ctl("run-once", "lan_scan")
            assert done.returncode == 0, done.stderr

        def drift(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
            done = agent.ctl("drift", "--json", "--exit-code", *arguments)
            return done.returncode, json.loads(done.stdout)["rows"]

        scan()
        assert drift() == (0, [])

        began = time.time()
        listener.listen()
        scan()
        found = agent.event("drift_found", "watch")
        assert found["message"].startswith(f"critical: 127.0.0.1 tcp/{port} ")
        assert found["data"]["drift"] == "open_forbidden"
        triggered = agent.event("triggered", "edge")
        assert triggered["message"].startswith(f"watch.drift_found: critical: 127.0.0.1 tcp/{port} ")

        with socket.create_connection(("127.0.0.1", port)) as client:  # as a stranger does, and the capture sees it
            client.sendall(b"hello\n")
            served, _ = listener.accept()
            with served:
                assert served.recv(6) == b"hello\n"
                served.sendall(b"hello\n")
        scan()  # seen twice, an open port is settled
        sources = {"declared", "listening", "scanned", "seen"}
        wait_until(lambda: {one["source"] for one in drift()[1][0]["evidence"]} >= sources)
        code, (row,) = drift()
        assert (code, row["kind"], row["severity"], row["port"]) == (2, "open_forbidden", "critical", port)
        evidence = {one["source"]: one for one in row["evidence"]}
        assert evidence["listening"]["pids"] == [os.getpid()]
        assert (evidence["scanned"]["scan"], evidence["scanned"]["state"]) == ("lan_scan", "open")
        seen = evidence["seen"]
        assert (seen["capture"], seen["interface"]) == ("edge", "lo")
        assert began - 60 < seen["first"] <= seen["last"] < time.time()
        # It has another name once it is closed, which may be now.
        wait_until(lambda: Path(segment_of(drift()[1][0])).is_file())
        ours = Path(f"/proc/{os.getpid()}").stat().st_ctime  # who listens may have done so since it began
        assert min(began, ours) - 60 < row["since"] < time.time()
        code, (again,) = drift("--least", "critical", "--host", "127.0.0.0/8", "--kind", "open_forbidden")
        assert segment_of(again)
        assert (code, without_segment(again)) == (2, without_segment(row))
        assert drift("--kind", "other_mac") == (0, [])
        told = agent.ctl("drift")
        assert told.returncode == 0
        assert told.stdout.splitlines()[1].split()[:4] == ["critical", "open_forbidden", "127.0.0.1", f"tcp/{port}"]

    scan()
    scan()
    gone = agent.event("drift_gone", "watch")
    assert gone["data"]["key"] == f"open_forbidden 127.0.0.1 tcp/{port}"
    assert [event["kind"] for event in agent.events(service="watch") if "drift" in event["kind"]] == [
        "drift_found",
        "drift_gone",
    ]
    assert drift() == (0, [])
    (pin,) = json.loads(agent.ctl("capture", "pins", "--json").stdout)["pins"]
    assert pin["reason"].startswith("watch.drift_found: ")
    kept = json.loads(agent.ctl("capture", "query", f"tcp port {port}", "--json").stdout)
    assert kept["found"]
    assert agent.stop() == 0
