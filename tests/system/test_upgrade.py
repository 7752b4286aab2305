"""``agentctl upgrade``: another version tried out, installed and followed; or refused, and the one before goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.binary import built
from tests.system.container import Container
from tests.system.host import UNIT, Host

NEXT = "0.1.1"

WEB = """
[service.web]
kind = "command"
command = ["/usr/bin/python3", "-m", "http.server", "8000"]
"""


@pytest.fixture
def host(container: Container) -> Host:
    """The agent installed from its one file, and running."""
    host: Host = container  # type: ignore[assignment]  # see below
    host.copy_in(built().onefile, "/root/agentctl")
    host.run(["/root/agentctl", "install"])
    host.declare(WEB)
    host.run(["systemctl", "enable", "--now", "--quiet", "agent.socket", UNIT])
    return host


@pytest.fixture
def container(installed: Host) -> Host:
    return installed


def offered(host: Host) -> str:
    """The one file of the next version, as an operator has copied it."""
    host.copy_in(built(NEXT).onefile, "/root/agentctl-next")
    return "/root/agentctl-next"


def running(host: Host) -> tuple[str, int, int | None]:
    """Which version runs, as which process, with which worker."""
    return host.status()["agent"]["version"], host.pid, host.service("web")["pid"]
