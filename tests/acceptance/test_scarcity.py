"""Too little of something: disk, descriptors. Or too much of everything: five hundred services."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.harness import Agent, commanded, marked, wait_until


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(mount)], check=True)
    yield mount
    subprocess.run(["umount", "--lazy", str(mount)], check=True)


@pytest.fixture
def cramped(small_disk: Path, program: Path | None) -> Iterator[Agent]:
    """An agent on the small disk, which has not been started; what it prints goes elsewhere."""
    made = Agent(small_disk / "srv", program)
    made.output = small_disk.parent / "console.txt"
    yield made
    made.clean()


def fill(disk: Path) -> Path:
    """Take every byte that is left."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 65536):
                pass
        except OSError:
            pass
        try:
            while file.write(b"\0"):
                pass
        except OSError:
            pass
    return ballast


def test_a_full_disk_under_logs_segments_and_databases_stops_no_service_and_is_announced(
    small_disk: Path, cramped: Agent
) -> None:
    cramped.declare("""
[service.writer]
kind = "command"
command = ["/bin/sh", "-c", "while :; do echo one more line of a writer; sleep 0.02; done"]

[service.edge]
kind = "capture"
interfaces = ["lo"]
filter = "udp port 9"
budget = "4MiB"
rotate = { size = "1MiB", every = "1s" }

[service.local]
kind = "scan"
targets = ["127.0.0.1"]
ports = "9"
every = "1h"
""")
    cramped.start()
    cramped.event("scan_finished", "local")
    ballast = fill(small_disk)
    begun = cramped.events()[-1]["cursor"]
    send_until(lambda: any(event["kind"] == "storage_error" for event in cramped.events(after=str(begun))))
    # Under a full disk, workers still die and still come back.
    for name in ("writer", "edge"):
        old = cramped.service(name)["pid"]
        os.kill(old, signal.SIGKILL)
        wait_until(partial(running_anew, cramped, name, old), cramped.console)
    outcome = cramped.act("start", "local")
    assert outcome["ok"] or outcome["message"]
    assert cramped.status()["agent"]["storage"] != "ok"
    assert cramped.status()["agent"]["state"] == "degraded"
    ballast.unlink()
    wait_until(lambda: cramped.status()["agent"]["storage"] == "ok", cramped.console)
    lines = len(cramped.log("writer"))
    wait_until(lambda: len(cramped.log("writer")) > lines)
    assert cramped.act("start", "local")["ok"]
    send_until(lambda: cramped.service("edge")["figures"].get("written", 0) > 0)
    assert cramped.service("edge")["state"] == "running"
    assert cramped.stop() == 0


def test_on_a_full_disk_services_come_back_and_what_their_logs_lose_is_counted(
    small_disk: Path, cramped: Agent
) -> None:
    secrets = cramped.prefix / "key" / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "token").write_text("swordfish\n")
    (secrets / "token").chmod(0o600)
    cramped.declare("""
[service.guest]
kind = "command"
command = ["/bin/sh", "-c", "read -r secret < $$TOKEN_FILE && test -s $$SERVICE_CONFIG && exec sleep 86433"]
group = "nogroup"
secrets = ["token"]
heartbeat = { interval = "10s", timeout = "90s" }

[service.talker]
kind = "command"
command = ["/bin/sh", "-c", "while :; do head -c 100000 /dev/zero | tr '\\\\0' x; echo; sleep 0.1; done"]
""")
    cramped.start()
    fill(small_disk)
    for _ in range(3):
        old = cramped.service("guest")["pid"]
        os.kill(old, signal.SIGKILL)
        wait_until(partial(running_anew, cramped, "guest", old), cramped.console)
    wait_until(lambda: cramped.service("talker")["log_dropped_bytes"] > 100_000)


def test_an_agent_starts_on_a_full_disk_and_ends_what_the_one_before_left(small_disk: Path, cramped: Agent) -> None:
    cramped.declare('[service.calm]\nkind = "command"\ncommand = ["/bin/sleep", "86434"]\n')
    cramped.start()
    ballast = fill(small_disk)
    for _ in range(2):
        assert cramped.process is not None
        old = cramped.service("calm")["pid"]
        cramped.process.kill()
        cramped.process.wait()
        cramped.start()
        assert cramped.service("calm")["state"] == "running"
        assert old not in commanded("sleep 86434")
        assert len(commanded("sleep 86434")) == 1
    ballast.unlink()
    assert cramped.stop() == 0


def running_anew(agent: Agent, name: str, old: int) -> bool:
    report = agent.service(name)
    return bool(report["state"] == "running" and report["pid"] != old)


def send_until(condition: object) -> None:
    """Datagrams to the discard port on loopback, a bounded number of them, until a condition holds."""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(400):
            for _ in range(40):
                try:
                    sender.sendto(b"x" * 1200, ("127.0.0.1", 9))
                except ConnectionRefusedError:
                    continue
            if condition():  # type: ignore[operator]  # a callable
                return
            time.sleep(0.02)
    raise AssertionError("what was sent changed nothing")


def test_without_descriptors_services_wait_with_the_reason_and_the_agent_still_answers(agent: Agent) -> None:
    agent.declare(
        "".join(
            f'[service.s{number:03}]\nkind = "command"\ncommand = ["/bin/sleep", "86431"]\n' for number in range(60)
        )
    )
    agent.start(wrapper=("prlimit", "--nofile=128:128"), patience=60)
    services = agent.status()["services"]
    up = [service for service in services if service["state"] == "running"]
    rest = [service for service in services if service["state"] != "running"]
    assert up
    assert rest
    assert all("descriptor" in service["message"] for service in rest)
    # Room that is made is used.
    for service in up[:10]:
        agent.act("stop", service["name"])
    assert agent.act("start", rest[0]["name"])["ok"]
    assert agent.stop() == 0
    assert not commanded("sleep 86431")


def test_five_hundred_services_run_are_replaced_and_stop(agent: Agent, wrapper: tuple[str, ...]) -> None:
    agent.declare(
        "".join(
            f'[service.s{number:03}]\nkind = "command"\ncommand = ["/bin/sleep", "86432"]\n' for number in range(500)
        )
    )
    agent.start(wrapper=wrapper, patience=60)
    services = agent.status()["services"]
    assert len(services) == 500
    assert {service["state"] for service in services} == {"running"}
    victims = random.Random(4).sample(services, 50)
    for victim in victims:
        os.kill(victim["pid"], signal.SIGKILL)
    names = {victim["name"]: victim["pid"] for victim in victims}

    def replaced() -> bool:
        return all(
            service["state"] == "running" and service["pid"] != names.get(service["name"])
            for service in agent.status()["services"]
        )

    wait_until(replaced)
    assert len(commanded("sleep 86432")) == 500
    assert agent.stop(patience=60) == 0
    assert not marked(agent.prefix)
