"""``agentctl validate [CONFIG]``: everything that is wrong with a declaration, at once."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli import output
from agent.cli.base import Session, command
from agent.errors import EXIT_CONFIGURATION, DeclarationError

if TYPE_CHECKING:
    from agent.declaration.model import Declaration


@command(
    "validate",
    examples=(
        "agentctl validate",
        "agentctl validate ./env.toml && install -o root -g agent -m 640 env.toml /srv/key/",
    ),
)
@click.argument("config", required=False, type=click.Path(path_type=Path))
def validate(session: Session, config: Path | None) -> None:
    """Check the declaration CONFIG, or PREFIX/key/env.toml, with its projects and interpolation.

    Nothing is started, changed or asked of a running agent. Every mistake is one line on stderr, FILE:LINE: KEY: what
    is wrong and what would be right; the exit code is then 1.
    """
    from agent.declaration.load import load

    paths = session.paths(config)
    try:
        declaration = load(paths, os.environ)
    except DeclarationError as error:
        if not session.json:
            raise
        problems = [problem._asdict() for problem in error.problems]
        output.document({"file": str(paths.declaration), "valid": False, "services": None, "problems": problems})
        click.get_current_context().exit(EXIT_CONFIGURATION)
    if session.json:
        count = len(declaration.services)
        output.document({"file": str(paths.declaration), "valid": True, "services": count, "problems": []})
    else:
        print(f"{paths.declaration}: valid: {counts(declaration)}")


def counts(declaration: Declaration) -> str:
    """``3 services: 1 capture, 1 command, 1 scan; 1 of them on a timer, 1 disabled``."""
    services = declaration.services.values()
    kinds = Counter(service.kind for service in services)
    shown = f"{len(services)} service{'' if len(services) == 1 else 's'}"
    if kinds:
        shown += ": " + ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    timed = sum(service.timer is not None for service in services)
    disabled = sum(not service.enabled for service in services)
    remarks = [f"{count} {what}" for count, what in ((timed, "on a timer"), (disabled, "disabled")) if count]
    return f"{shown}; {', '.join(remarks)}" if remarks else shown
