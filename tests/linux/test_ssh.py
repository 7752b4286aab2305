"""Which connection a command was typed over."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agent.linux.ssh import Connection, connection

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ("10.0.0.2 50000 10.0.0.1 22", Connection("10.0.0.2", 50000, "10.0.0.1", 22)),
        ("fe80::1%eth0 50000 fe80::2%eth0 22", Connection("fe80::1", 50000, "fe80::2", 22)),
        ("::ffff:10.0.0.2 50000 ::ffff:10.0.0.1 22", Connection("10.0.0.2", 50000, "10.0.0.1", 22)),
    ],
)
def test_sshd_tells_it(told: str, meant: Connection) -> None:
    assert connection({"SSH_CONNECTION": told}) == meant


@pytest.mark.parametrize("told", ["", "rubbish", "a b c d", "1 2 3"])
def test_without_sshd_there_is_none(told: str) -> None:
    assert connection({"SSH_CONNECTION": told}) is None


_ASK = "import json, os; from agent.linux.ssh import connection; print(json.dumps(connection({})))"

_SSHD = """
import ctypes, subprocess, sys
ctypes.CDLL(None).prctl(15, b"sshd-session", 0, 0, 0)  # PR_SET_NAME
subprocess.run(["sh", "-c", 'exec "$0" -c "$1"; true', sys.executable, sys.argv[1]], check=True)
"""


def test_where_nobody_tells_it_is_that_of_the_ancestor_that_is_an_sshd() -> None:
    """As below sudo(8), which drops the variable: a process of that name that holds a connection stands for sshd."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        with accepted:
            shown = subprocess.run(
                [sys.executable, "-c", _SSHD, _ASK],
                pass_fds=[accepted.fileno()],
                cwd=ROOT,
                check=True,
                capture_output=True,
                text=True,
                timeout=30,
            ).stdout
            here, there = client.getsockname(), server.getsockname()
            assert json.loads(shown) == [here[0], here[1], there[0], there[1]]
