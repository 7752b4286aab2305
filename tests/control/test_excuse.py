"""Whoever waits for an agent that cannot start is told why, and is not waited for."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from agent.control import excuse
from agent.control.client import Client
from agent.errors import AlreadyRunning, DeclarationError, Problem, RequestRefused
from agent.linux.sockets import listen_unix

NOBODY = 65534
WRONG = DeclarationError(
    [Problem("/srv/key/env.toml", 4, "service.web.colour", "unknown key"), Problem("b", 1, "", "?")]
)
TOLD = "the agent cannot start: /srv/key/env.toml:4: service.web.colour: unknown key (and 1 more: agentctl validate)"


@pytest.fixture
def path(open_directory: Path) -> Path:
    return open_directory / "agent.sock"


@pytest.fixture
def listening(path: Path) -> Iterator[socket.socket]:
    with closing(listen_unix(path, 0o666)) as control:
        yield control


def queued(control: socket.socket, count: int) -> None:
    """Wait until so many are waiting to be let in, as the kernel has it."""
    deadline = time.monotonic() + 8
    while True:
        lines = subprocess.run(["ss", "-Hlx", "src", control.getsockname()], capture_output=True, text=True, check=True)
        if int(lines.stdout.split()[2]) >= count:
            return
        assert time.monotonic() < deadline, "nobody came"


def fail(control: socket.socket, error: Exception) -> None:
    with pytest.raises(type(error)), excuse.excused(control):
        raise error


def test_each_who_waits_is_told_why_and_the_socket_is_given_back(path: Path, listening: socket.socket) -> None:
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(Client(path).request, "GET", "/v1/status") for _ in range(3)]
        asked.append(pool.submit(Client(path).request, "POST", "/v1/reload"))
        queued(listening, 4)
        fail(listening, WRONG)
        for one in asked:
            with pytest.raises(RequestRefused, match=f"^{re.escape(TOLD)}$") as caught:
                one.result(timeout=8)
            assert (caught.value.status, caught.value.exit_code) == (503, 2)
    assert listening.fileno() == -1


def test_what_is_declared_is_not_told_to_everybody(path: Path, listening: socket.socket) -> None:
    ids = ["--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    command = [
        "setpriv",
        *ids,
        "curl",
        "-sS",
        "--max-time",
        "10",
        "--unix-socket",
        str(path),
        "http://localhost/v1/status",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as curl:
        queued(listening, 1)
        fail(listening, WRONG)
        output, _ = curl.communicate(timeout=8)
    assert json.loads(output)["error"] == {"status": 503, "message": "the agent cannot start; its journal says why"}


def test_another_reason_is_told_in_its_words(path: Path, listening: socket.socket) -> None:
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(Client(path).request, "GET", "/v1/status")
        queued(listening, 1)
        fail(listening, AlreadyRunning("/srv", 12))
        with pytest.raises(RequestRefused, match=r"^the agent cannot start: an agent already runs on /srv: process 12"):
            asked.result(timeout=8)


def test_nobody_holds_it_up(path: Path, listening: socket.socket) -> None:
    """Neither who connects and says nothing, nor who has gone, nor a crowd."""
    silent = [socket.socket(socket.AF_UNIX) for _ in range(20)]
    for one in silent:
        one.connect(str(path))
    silent.pop().close()
    begun = time.monotonic()
    fail(listening, WRONG)
    assert time.monotonic() - begun < excuse.PATIENCE + 1
    for one in silent:
        one.settimeout(5)
        with closing(one):
            assert one.recv(65536).startswith(b"HTTP/1.1 503 ")


def test_without_a_socket_and_without_a_failure_nothing_happens(path: Path, listening: socket.socket) -> None:
    with pytest.raises(DeclarationError), excuse.excused(None):
        raise WRONG
    with closing(socket.socket(socket.AF_UNIX)) as waiting:
        waiting.connect(str(path))
        with excuse.excused(listening):
            pass
        queued(listening, 1)
