"""``agentctl upgrade [FILE]``: another version is installed, and the running agent becomes it in place."""

from __future__ import annotations

import os
import shlex
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from agent.cli import output
from agent.cli.base import Session, command
from agent.cli.guard import complain, interruptible
from agent.cli.handover import PATIENCE, PAUSE, Unsettled, awaited
from agent.cli.install import chosen
from agent.cli.text import safe
from agent.control.client import Client
from agent.errors import AgentError, NotRunning, RequestRefused, RuntimeFailure, UsageError


@command(
    "upgrade",
    examples=("sudo agentctl upgrade ./agentctl-0.2.0", "sudo agentctl upgrade"),
    exit_codes="Exit codes: 0 the other version is installed, and runs where an agent ran, 1 FILE cannot be meant, "
    "2 it failed and the version before goes on.",
)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@interruptible()
def upgrade(session: Session, file: Path | None) -> None:
    """Install the version in FILE, and have the running agent become it: same process, same workers, no pause in them.

    FILE is tried out first, and refused when it does not work here, or is older than what is installed. If it then
    cannot take over, the version before goes on, and is installed again. Without FILE the agent becomes what is
    installed already, be it the same version.
    """
    report = _from_file(session, file) if file is not None else _hand_over(session)
    if session.json:
        output.document(report)
    else:
        print(safe(str(report["message"])))
    if report["refused"]:
        raise RuntimeFailure(f"it refuses the declaration, and goes on with what was declared: {report['refused']}")


def _from_file(session: Session, file: Path) -> dict[str, Any]:
    from agent.installation import candidate
    from agent.installation.record import library, order, read

    if os.geteuid() != 0:
        raise RuntimeFailure("installing another version takes root: do it as root (sudo)")
    prefix, root = chosen(session), Path("/")
    candidate.examine(file.absolute())
    version = candidate.version(file.absolute())
    before = record.version if (record := read(root, prefix)) else ""
    if before and order(version) < order(before):
        raise UsageError(_way_back(file, version, before, prefix))
    complain(f"agentctl: {version}: trying it out")
    candidate.prove(file.absolute())
    complain(f"agentctl: {version}: installing it below {prefix}")
    candidate.install(file.absolute(), prefix)
    try:
        return _hand_over(session, version)
    except NotRunning:
        return _told(before, version, f"{version} is installed; no agent runs")
    except Unsettled:
        raise
    except AgentError as error:
        if not before or before == version:
            raise
        candidate.install(Path(library(prefix), before, "agentctl"), prefix, back=True)
        raise RuntimeFailure(f"{error}; {before} is installed again{_unlike(session, before)}") from error


def _way_back(file: Path, version: str, before: str, prefix: str) -> str:
    """To an older version nobody comes by mistake; the one before is still there to go back to."""
    from agent.installation.record import library

    laid = Path(library(prefix), version, "agentctl")
    program = str(laid) if laid.is_file() else f"{shlex.quote(str(file.absolute()))} --prefix {shlex.quote(prefix)}"
    return (
        f"{before} is installed below {prefix}, and {file} is {version}: go back with "
        f"`{program} install --force`, then `systemctl reload agent`"
    )


def _hand_over(session: Session, wanted: str = "") -> dict[str, Any]:
    """Have the running agent become what is installed. ``wanted`` is a version that need not follow itself."""
    client = session.client()
    begun = _begun(client, wanted)
    if begun is None:  # it was started by our asking, has followed at somebody else's, or is the same
        return _told(wanted, wanted, f"{wanted} is installed, and runs")
    if not session.json:
        complain(f"agentctl: version {begun['before']} hands over")
    return awaited(session.paths(), begun["id"])


def _begun(client: Client, wanted: str) -> dict[str, Any] | None:
    """The report of a hand-over that has begun; ``None`` where the wanted version runs.

    Waits for an agent that is busy with a reload, or with a hand-over that somebody else has asked for.
    """
    deadline = time.monotonic() + PATIENCE
    while _up(client)["version"] != wanted:
        try:
            return client.request("POST", "/v1/upgrade")
        except RequestRefused as error:
            if error.status != 409 or time.monotonic() > deadline:
                raise
        time.sleep(PAUSE)
    return None


def _unlike(session: Session, installed: str) -> str:
    """What to add when another version runs than the one that is installed: it was started anew in between."""
    with suppress(AgentError):
        runs = session.client().request("GET", "/v1/status")["agent"]["version"]
        if runs != installed:
            return f", and {runs} runs: `agentctl upgrade` replaces it"
    return ""


def _up(client: Client) -> dict[str, Any]:
    """What the agent says of itself, once it has started. Raises ``NotRunning``."""
    deadline = time.monotonic() + PATIENCE
    while True:
        agent: dict[str, Any] = client.request("GET", "/v1/status")["agent"]
        if agent["state"] != "starting" or time.monotonic() > deadline:
            return agent
        time.sleep(PAUSE)


def _told(before: str, after: str, message: str) -> dict[str, Any]:
    return {"state": "done", "before": before, "after": after, "message": message, "refused": None}
