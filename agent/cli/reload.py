"""``agentctl reload``: the running agent reads its declaration again and changes only what differs."""

from __future__ import annotations

from typing import Any

import click

from agent.cli import output, text
from agent.cli.base import Session, command
from agent.cli.guard import complain, read_by_the_journal
from agent.cli.handover import awaited
from agent.cli.text import not_in_sync
from agent.errors import EXIT_RUNTIME, RuntimeFailure


@command("reload", examples=("agentctl validate && agentctl reload",))
def reload(session: Session) -> None:
    """Make the running agent read its declaration again.

    Services that are declared as before keep running untouched; each of the others is shown with what was done to it,
    the settings that differ and, if it does not run, why; and once more with the reason if it then failed. A
    declaration with mistakes changes nothing: all of them are shown, and the exit code is 1. Where another version has
    been installed meanwhile, the agent becomes it first, without a worker being restarted; a version that fails its
    self-test changes nothing either, and the exit code is 2.
    """
    client = session.client()
    report = client.request("POST", "/v1/reload")
    if report["handover"]:
        followed = awaited(session.paths(), report["handover"])
        if followed["refused"]:
            raise RuntimeFailure(f"{followed['message']}; it refuses the declaration: {followed['refused']}")
        report = followed["reload"]
        complain(followed["message"])
    if session.json:
        output.document(report)
    elif not read_by_the_journal():
        for line in lines(report):
            print(line)
    if report["stuck"]:
        click.get_current_context().exit(EXIT_RUNTIME)


def lines(report: dict[str, Any]) -> list[str]:
    """What a reload changed, a line for each service, and how many it left alone."""
    changes = [
        f"{name}: {change}{_why(report, name)}"
        for change in ("stopped", "removed", "restarted", "updated", "added", "started")
        for name in report.get(change, ())
    ]
    changes += [f"{name}: failed: {why}" for name, why in report["failed"].items()]
    changes += [f"{name}: as it was: its processes do not end, not even by SIGKILL" for name in report["stuck"]]
    kept = report["unchanged"]
    changes.append(f"{kept} service{'' if kept == 1 else 's'} unchanged")
    return [text.safe(line) for line in [*changes, *not_in_sync(report["timers_out_of_sync"])]]


def _why(report: dict[str, Any], name: str) -> str:
    """The settings that differ, and why it does not run if it does not, in brackets."""
    note = report.get("notes", {}).get(name)
    settings = [one for one in report["reasons"].get(name, ()) if (one, note) != ("enabled", "disabled")]
    told = "; ".join(filter(None, (", ".join(settings), note)))
    return f" ({told})" if told else ""
