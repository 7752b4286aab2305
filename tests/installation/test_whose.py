"""Whose a unit is, and how little it takes to find out."""

from __future__ import annotations

import subprocess
import sys

import pytest

from agent.installation.whose import owner


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("[Service]\nExecStart=/opt/a/lib/agent/current/agentctl run\n", "/opt/a"),
        ("[Service]\nExecStart=+/srv/lib/agent/current/agentctl run\n", "/srv"),
        ("[Service]\nExecStart=/usr/bin/agent\n", None),
        ("", None),
    ],
)
def test_a_unit_tells_whose_it_is(text: str, prefix: str | None) -> None:
    assert owner(text) == prefix


def test_to_find_out_loads_nothing_that_takes_time() -> None:
    script = "import sys; before = set(sys.modules); import agent.cli.elsewhere; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"msgspec", "psutil", "asyncio", "agent.installation.record"} & set(done.stdout.split())
