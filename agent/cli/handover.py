"""Waiting until another version of the agent has followed, and telling what became of it."""

from __future__ import annotations

import time
from typing import Any

from agent.control.client import Client
from agent.errors import NotRunning, RequestRefused, RuntimeFailure
from agent.linux.files import read_pid
from agent.linux.process import stat
from agent.paths import Paths

PATIENCE = 120.0
"""Seconds that a hand-over may take, a worker that is still being replaced by the new declaration included."""

SILENCE = 20.0
"""Seconds without anybody on the socket after which an agent of which we know no process counts as gone."""

ANSWER = 1.0
"""Seconds for one answer: between two programs nobody gives one, and where systemd holds the socket nobody refuses."""

PAUSE = 0.05


class Unsettled(RuntimeFailure):
    """The other version has followed, and is not done with making the declaration true."""


def awaited(paths: Paths, handover: str) -> dict[str, Any]:
    """The report of that hand-over once it is decided.

    Raises ``RuntimeFailure`` when it failed or nobody is left, and ``Unsettled``.
    """
    client, pid = Client(paths.socket, ANSWER), read_pid(paths.agent_pid)
    begun = heard = time.monotonic()
    report: dict[str, Any] = {"id": handover, "state": "begun", "pause_ms": None}
    while True:
        now = time.monotonic()
        try:
            report = client.request("GET", "/v1/handover")
            heard = now
        except NotRunning as error:
            # At once: systemd does not start it anew while a reload, which may be us, goes on.
            if (pid is not None and stat(pid) is None) or now - heard > SILENCE:
                raise RuntimeFailure(f"the agent died during the hand-over: {error}") from error
        except RequestRefused as error:
            if error.status != 503:  # there is a crowd
                raise
            heard = now
        if report["id"] != handover:
            raise RuntimeFailure("the agent was started anew during the hand-over; `agentctl events` tells more")
        if report["state"] == "failed":
            raise RuntimeFailure(report["message"])
        if report["state"] == "done":
            return report
        if now - begun > PATIENCE and report["pause_ms"] is not None:
            why = f"what is declared anew is not in force after {PATIENCE:g} s; `agentctl status` tells more"
            raise Unsettled(f"{report['message']}; {why}")
        if now - begun > PATIENCE:
            raise RuntimeFailure(f"the hand-over is not done after {PATIENCE:g} s; `agentctl events` tells more")
        time.sleep(PAUSE)
