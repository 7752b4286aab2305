"""``agentctl top`` beside a real agent with a real capture, on a real terminal."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest

from tests.harness import Agent
from tests.screen import ENTER, LEAVE, on_screen


@contextmanager
def traffic(port: int) -> Iterator[int]:
    """Datagrams to a port of ours, some 200 a second; the port they come from."""
    over = Event()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service,
    ):
        service.bind(("127.0.0.1", port))
        client.bind(("127.0.0.1", 0))

        def send() -> None:
            while not over.wait(0.005):
                client.sendto(bytes(100), service.getsockname())

        sender = Thread(target=send)
        sender.start()
        try:
            yield client.getsockname()[1]
        finally:
            over.set()
            sender.join()


def test_it_shows_services_rates_and_flows_and_leaves_the_terminal_as_it_was(agent: Agent) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    agent.declare(
        f"""
        [service.edge]
        kind = "capture"
        interfaces = ["lo"]
        filter = "udp dst port {port}"
        [service.idle]
        kind = "command"
        command = ["/bin/sleep", "1000"]
        """
    )
    agent.start()
    agent.until("edge", state="running")
    with traffic(port) as ours:
        with on_screen(agent.command("top", "--interval", "300ms"), agent.environment()) as screen:
            before = screen.mode()
            screen.until(f"127.0.0.1:{ours}")
            frame = screen.frame()
            assert frame[0].startswith("agent running, up ") and frame[0].endswith("q quits")
            assert any(line.split()[:2] == ["edge", "running"] for line in frame)
            assert any(line.split()[:2] == ["idle", "running"] for line in frame)
            (lo,) = (line.split() for line in frame if line.startswith("lo "))
            assert lo[1] == "edge" and lo[2] != "0"
            assert any("DROPPED" in line and "IN RING" in line for line in frame if line.startswith("INTERFACE"))
            assert screen.mode() != before
            screen.resize(8, 40)
            screen.until("more")
            screen.resize(30, 100)
            screen.until("DESTINATION")
            screen.press("xq")
            assert screen.end() == 0
            assert screen.mode() == before
            assert ENTER in screen.sent and LEAVE in screen.sent.rpartition(ENTER)[2]

        done = agent.ctl("top", "--json", "--count", "2", "--interval", "1s")
        assert (done.returncode, done.stderr) == (0, "")
        looks = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(looks) == 2
        for look in looks:
            (lo,) = look["interfaces"]
            assert (lo["service"], lo["interface"], lo["read_share"]) == ("edge", "lo", 1)
            assert 20 < lo["packets_per_second"] < 220
            assert lo["bytes_per_second"] / lo["packets_per_second"] == pytest.approx(142)
            edge = next(one for one in look["services"] if one["name"] == "edge")
            assert edge["dropped"] == 0 and edge["ring"] > 0 and edge["received"] > 0
            assert [(flow["source_port"], flow["destination_port"]) for flow in look["flows"]] == [(ours, port)]

        assert agent.stop() == 0
        done = agent.ctl("top", "--once", "--interval", "200ms")
        assert done.returncode == 0
        assert done.stdout.startswith("no agent answers; this is from the stores alone\n")


def test_ctrl_c_and_signals_leave_the_terminal_as_it_was_too(agent: Agent) -> None:
    for end, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)):
        with on_screen(agent.command("top"), agent.environment(), lines=5, columns=30) as screen:
            before = screen.mode()
            screen.until("no agent answers")
            if end is signal.SIGINT:
                screen.press("\x1a\x03")  # Ctrl-Z stops nothing
            else:
                screen.process.send_signal(end)
            assert screen.end() == code
            assert screen.mode() == before
            assert LEAVE in screen.sent.rpartition(ENTER)[2]
