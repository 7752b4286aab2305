"""``agentctl validate [CONFIG]``: everything that is wrong with a declaration, at once."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli import output
from agent.cli.base import Session, command
from agent.cli.guard import complain
from agent.errors import EXIT_CONFIGURATION, CaptureFailure, DeclarationError, Problem

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
        wrong, unsure = filters(declaration, paths)
        if wrong:
            raise DeclarationError(wrong)
    except DeclarationError as error:
        if not session.json:
            raise
        problems = [problem._asdict() for problem in error.problems]
        output.document({"file": str(paths.declaration), "valid": False, "services": None, "problems": problems})
        click.get_current_context().exit(EXIT_CONFIGURATION)
    for warning in [*warnings, *unsure]:
        complain(f"warning: {warning}")
    left_out = never_scanned(declaration)
    if session.json:
        count = len(declaration.services)
        found = {"file": str(paths.declaration), "valid": True, "services": count, "problems": []}
        output.document({**found, "left_out": left_out})
    else:
        print(f"{paths.declaration}: valid: {counts(declaration)}")
        for name, addresses in left_out.items():
            print(f"service.{name}: {_never(addresses)}")


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


def never_scanned(declaration: Declaration) -> dict[str, dict[str, str]]:
    """By name of each scan that has such the addresses that it leaves out by itself, each with what it is."""
    from agent.declaration import resolve_scan
    from agent.declaration.model import Scan
    from agent.declaration.sources import Disk

    scans = [service for service in declaration.services.values() if isinstance(service, Scan)]
    found = {scan.name: resolve_scan.never_scanned(scan, Disk().read) for scan in scans}
    return {name: addresses for name, addresses in sorted(found.items()) if addresses}


def _never(addresses: dict[str, str]) -> str:
    first = [f"{address} ({what})" for address, what in list(addresses.items())[:_SHOWN]]
    more = f" and {len(addresses) - _SHOWN} more" if len(addresses) > _SHOWN else ""
    noun = "1 address is" if len(addresses) == 1 else f"{len(addresses)} addresses are"
    return f"{noun} never scanned, and left out: {', '.join(first)}{more}"


_SHOWN = 4
"""Addresses that a line names."""

_DEPENDS = re.compile("only on|only supported|not supported|link|unknown (host|network)")
"""What libpcap says of a filter that another interface may take, or another day."""


def filters(declaration: Declaration, paths: Paths) -> tuple[list[Problem], list[Problem]]:
    """What libpcap has against the filters of captures: for certain, and on an interface like Ethernet today.

    Nothing where there is no libpcap. The worker compiles them anew, for the interface.
    """
    from agent.declaration.model import Capture

    captures = [service for service in declaration.services.values() if isinstance(service, Capture) and service.filter]
    wrong: list[Problem] = []
    unsure: list[Problem] = []
    if not captures:
        return wrong, unsure
    try:
        from agent.workers.capture.expression_error import refusal
    except CaptureFailure:
        return wrong, unsure
    os.environ.setdefault("RES_OPTIONS", "timeout:1 attempts:1")  # resolv.conf(5): names in filters are looked up
    for service in captures:
        if (said := refusal(service.filter)) is not None:
            file = declaration.file if service.project is None else str(paths.projects / f"{service.project}.toml")
            where = f"service.{service.name}.filter"
            if where in declaration.masked_fields:
                said = "libpcap refuses this filter; its text holds a secret"
            problem = Problem(file, _line(file, ("service", service.name, "filter")), where, said)
            (unsure if _DEPENDS.search(said.rpartition('": ')[2]) else wrong).append(problem)
    return wrong, unsure


def _line(file: str, path: tuple[str, ...]) -> int:
    """On which line of a file a key stands; 0 when nobody can say."""
    from agent.declaration.locate import TooDeep, locate

    try:
        return locate(Path(file).read_text(encoding="utf-8")).of(path)
    except (OSError, ValueError, TooDeep):
        return 0


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
