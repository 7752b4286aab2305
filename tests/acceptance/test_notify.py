"""Whoever is declared to be told is told, by an agent as an operator runs it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from pathlib import Path
from typing import Any

from tests.harness import Agent, wait_until
from tests.workers.watch.sinks import hook

DECLARED = """
[service.api]
kind = "command"
command = ["/bin/sh", "-c", "read line < {pipe}; exit 3"]
restart = "no"

[notify.operators]
webhook = "{url}"
secret = "hook_key"
kinds = ["failed"]
group = "100ms"

[notify.pager]
command = ["/bin/sh", "-c", 'cat > "$$0"', "{page}"]
kinds = ["failed"]
group = "0s"
"""


def test_a_service_that_fails_is_told_of_by_webhook_and_to_a_program(agent: Agent, tmp_path: Path) -> None:
    pipe, page = tmp_path / "pipe", tmp_path / "page"
    secret = agent.prefix / "key" / "secrets" / "hook_key"
    with hook() as server:
        agent.declare(DECLARED.format(url=server.url, pipe=pipe, page=page))
        secret.parent.mkdir(parents=True, exist_ok=True)
        secret.write_text("s3cret\n")
        secret.chmod(0o600)
        os.mkfifo(pipe)
        agent.start()
        wait_until(lambda: figures(agent) is not None)
        pipe.write_text("\n")
        assert server.came.acquire(timeout=30)
        wait_until(page.exists)
        wait_until(lambda: page.read_text().endswith("}"))
        (request,) = server.requests
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    expected = base64.b64encode(hmac.new(b"s3cret", signed, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{expected}"
    for message in (json.loads(request.body), json.loads(page.read_text())):
        (event,) = message["events"]
        assert (event["service"], event["kind"], event["severity"]) == ("api", "failed", "err")
    wait_until(lambda: (figures(agent) or {}).get("notifications_delivered") == 2)
    assert "s3cret" not in (agent.prefix / "run" / "watch.json").read_text()


def figures(agent: Agent) -> dict[str, Any] | None:
    """What the watch tells of itself, once it does."""
    for service in agent.status()["services"]:
        if service["name"] == "watch" and "notifications_delivered" in service["figures"]:
            found: dict[str, Any] = service["figures"]
            return found
    return None
