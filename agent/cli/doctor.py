"""``agentctl doctor``: what the agent needs from this host, what of it is there, and how to mend the rest."""

from __future__ import annotations

import os

import click

from agent.cli import output, table
from agent.cli.base import Session, command
from agent.errors import EXIT_RUNTIME

HEADS = ("CHECK", "RESULT", "FINDING")


@command(
    "doctor",
    examples=("agentctl doctor", "agentctl doctor --json | jq '.checks[] | select(.verdict != \"ok\")'"),
    exit_codes="Exit codes: 0 nothing fails, though there may be warnings, 2 something does that the agent needs.",
)
def doctor(session: Session) -> None:
    """Check the declaration, the prefix, the disk, libpcap, nmap, capabilities, cgroups, limits, timers and the clock.

    Each check is ok, warn or fail; what is not ok says how to mend it. What no declared service needs only warns.
    While an agent runs, its own capabilities and limits are checked, otherwise those of this command. Nothing is
    changed.
    """
    from agent.cli.checks import examine

    checks = examine(session.paths(), os.environ)
    failed = any(check.verdict == "fail" for check in checks)
    if session.json:
        output.document({"ok": not failed, "checks": [check._asdict() for check in checks]})
    else:
        rows: list[tuple[str, str, str]] = []
        for check in checks:
            rows.append((check.name, check.verdict, check.finding))
            if check.mend:
                rows.append(("", "", f"mend: {check.mend}"))
        table.show(HEADS, rows)
    if failed:
        click.get_current_context().exit(EXIT_RUNTIME)
