"""``agentctl validate [CONFIG]``: everything that is wrong with a declaration, at once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli import output
from agent.cli.base import Session, command
from agent.cli.guard import complain
from agent.errors import EXIT_CONFIGURATION, DeclarationError, Problem

if TYPE_CHECKING:
    from agent.declaration.model import Declaration
    from agent.paths import Paths


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

    Where root asks, PREFIX/key/env.toml and what goes with it must be for the agent's user to read, too. Nothing is
    started, changed or asked of a running agent. Every mistake is one line on stderr, FILE:LINE: KEY: what is wrong and
    what would be right; the exit code is then 1.
    """
    paths = session.paths(config)
    try:
        declaration, warnings = judged(paths)
    except DeclarationError as error:
        if not session.json:
            raise
        problems = [problem._asdict() for problem in error.problems]
        output.document({"file": str(paths.declaration), "valid": False, "services": None, "problems": problems})
        click.get_current_context().exit(EXIT_CONFIGURATION)
    for warning in warnings:
        complain(f"warning: {warning}")
    if session.json:
        count = len(declaration.services)
        output.document({"file": str(paths.declaration), "valid": True, "services": count, "problems": []})
    else:
        print(f"{paths.declaration}: valid: {counts(declaration)}")


def judged(paths: Paths) -> tuple[Declaration, list[Problem]]:
    """What is declared, and what may be wrong for the agent. Raises ``DeclarationError`` for what certainly is.

    Root sees more than the agent: whatever root could read is looked at once more as the agent's user. But the text is
    what root has just read. The agent may be given it as a credential, and has that as it was at its start. While no
    agent runs nobody can say what it will be given: a declaration that is root's alone is then only worth a warning.
    """
    from agent.declaration.load import load, load_text

    if os.geteuid() != 0 or not paths.own:
        return load(paths, os.environ), []
    from agent.cli.checks import given_to, running, status_of, whose
    from agent.cli.eyes import Seen

    pid = running(paths)
    user = whose(paths, status_of(pid) if pid else "")
    paths = paths._replace(credentials=paths.credentials or given_to(pid))
    declaration = load(paths, os.environ)
    if user is None:
        return declaration, []
    seen = Seen(user)
    text = seen.by_root(Path(declaration.file))
    problems = _problems(lambda: load_text(text, paths, os.environ, seen))
    if paths.credential(paths.declaration.name) is None:
        problems |= _problems(lambda: load(paths, os.environ, seen))
    withheld = {problem for problem in problems if problem.file == str(paths.declaration) and not problem.line}
    if problems - withheld or (withheld and pid):
        raise DeclarationError(list(problems))
    return declaration, sorted(withheld)


def _problems(look: Callable[[], object]) -> set[Problem]:
    try:
        look()
    except DeclarationError as error:
        return set(error.problems)
    return set()


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
