"""``agentctl scan pause|resume|stop NAME…``: what a scan is told while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from agent.cli.actions import insist_on_services, perform
from agent.cli.base import Session, command
from agent.cli.names import SCAN
from agent.errors import UsageError


@command("pause", examples=("agentctl scan pause lan_scan", "agentctl scan pause lan_scan && agentctl status lan_scan"))
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=SCAN)
def pause(session: Session, names: tuple[str, ...]) -> None:
    """Have the scans NAME send nothing more until they are resumed.

    Within a second nothing leaves this host any more. A pause outlives restarts of the scan and of the agent; a scan
    that does not run now waits when it is started. The time for which it was paused does not count for its timeout.
    """
    insist_on_scans(session, names)
    perform(session, "pause", list(dict.fromkeys(names)), wait=False)


@command("resume", examples=("agentctl scan resume lan_scan",))
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=SCAN)
def resume(session: Session, names: tuple[str, ...]) -> None:
    """Have the scans NAME go on where they were paused.

    Outside of its declared window a scan still waits for that.
    """
    insist_on_scans(session, names)
    perform(session, "resume", list(dict.fromkeys(names)), wait=False)


@command("stop", examples=("agentctl scan stop lan_scan",))
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=SCAN)
@click.option("--no-wait", is_flag=True, help="Return once the scan was told.")
def stop(session: Session, names: tuple[str, ...], no_wait: bool) -> None:
    """End the runs of the scans NAME that are under way.

    What they have found is kept. The next run, at the next declared time, begins anew and does not go on with this
    one; to go on later, pause instead. `agentctl stop` keeps the scan from running at its times, too. Exits 2 when one
    of them does not run now.
    """
    insist_on_scans(session, names)
    perform(session, "end", list(dict.fromkeys(names)), wait=not no_wait)


def insist_on_scans(session: Session, names: Sequence[str], *, enabled: bool = False) -> None:
    """Raise ``UsageError`` when one of these is no scan, or if so asked, a disabled one.

    Nothing has been done to the others then.
    """
    wrong = [_objection(service, enabled) for service in insist_on_services(session, names).values()]
    if any(wrong):
        raise UsageError("; ".join(filter(None, wrong)))


def _objection(service: dict[str, Any], enabled: bool) -> str:
    if service["kind"] != "scan":
        return f"{service['name']} is no scan, but a {service['kind']}"
    if enabled and not service["enabled"]:
        return f"{service['name']} is disabled in the declaration (enabled = false)"
    return ""
