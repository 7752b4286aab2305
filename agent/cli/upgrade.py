"""``agentctl upgrade [FILE]``: another version is installed, and the running agent becomes it in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agent import __version__
from agent.cli import output
from agent.cli.base import Session, command
from agent.cli.guard import complain
from agent.cli.handover import awaited
from agent.cli.install import chosen
from agent.cli.text import safe
from agent.errors import AgentError, NotRunning, RuntimeFailure


@command(
    "upgrade",
    examples=("sudo agentctl upgrade ./agentctl-0.2.0", "sudo agentctl upgrade"),
    exit_codes="Exit codes: 0 the other version is installed, and runs where an agent ran, 1 FILE cannot be meant, 2 it "
    "failed and the version before goes on.",
)
@click.argument("file", required=False, type=click.Path(path_type=Path))
def upgrade(session: Session, file: Path | None) -> None:
    """Install the version in FILE, and have the running agent become it: same process, same workers, no pause in them.

    FILE is tried out first, and refused when it does not work here. If it then cannot take over, the version before
    goes on, and is installed again. Without FILE the agent becomes what is installed already, be it the same version.
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
    from agent.installation.record import library, read

    prefix, root = chosen(session), Path("/")
    candidate.examine(file.absolute())
    version = candidate.version(file.absolute())
    complain(f"agentctl: {version}: trying it out")
    candidate.prove(file.absolute())
    before = record.version if (record := read(root, prefix)) else ""
    complain(f"agentctl: {version}: installing it below {prefix}")
    candidate.install(file.absolute(), prefix)
    try:
        return _hand_over(session)
    except NotRunning:
        return {
            "before": before,
            "after": version,
            "message": f"{version} is installed; no agent runs",
            "refused": None,
        }
    except AgentError as error:
        if not before or before == version:
            raise
        candidate.install(Path(library(prefix), before, "agentctl"), prefix, back=True)
        raise RuntimeFailure(f"{error}; {before} is installed again") from error


def _hand_over(session: Session) -> dict[str, Any]:
    client = session.client()
    begun = client.request("POST", "/v1/upgrade")
    if not session.json:
        complain(f"agentctl: version {begun['before']} hands over (this is {__version__})")
    return awaited(client, begun["id"])
