"""``agentctl uninstall``: what ``agentctl install`` has laid is taken back, exactly that, and on demand the data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from agent.cli import output
from agent.cli.base import Session, command
from agent.cli.elsewhere import hint
from agent.cli.guard import complain, interruptible
from agent.cli.install import DRY_RUN, ROOT, below, chosen, shown
from agent.cli.progress import Progress, document
from agent.cli.text import safe
from agent.installation import install as installation
from agent.installation.units import data


@command(
    "uninstall",
    params=[ROOT, DRY_RUN],
    examples=("sudo agentctl uninstall", "sudo agentctl uninstall --purge", "agentctl uninstall --dry-run"),
    exit_codes="Exit codes: 0 it is gone, now or before, 1 the command line is wrong, 2 it failed; then do it again.",
)
@click.option("--purge", is_flag=True, help="Remove the declaration, all data and logs, and the user, too.")
@interruptible()
def uninstall(session: Session, root: Path | None, dry_run: bool, purge: bool) -> None:
    """Stop and disable the services, and remove what was laid below PREFIX and for it elsewhere.

    PREFIX/key, spool and log stay, with the user they belong to, until --purge. A file that was changed since it was
    laid stays too, and is named. What agentctl has not laid is not touched.
    """
    prefix = chosen(session)
    progress = Progress(prefix, dry_run=dry_run, show=shown(session))
    try:
        outcome = installation.uninstall(
            prefix, below(root), purge=purge, dry_run=dry_run, tell=None if dry_run else progress
        )
    except KeyboardInterrupt:
        complain("agentctl: interrupted: the next run goes on from there")
        raise
    for step in outcome.steps if dry_run else ():
        progress(step)
    progress.close()
    if session.json:
        output.document(document(outcome))
    else:
        for line in ending(outcome):
            print(safe(line))


def ending(outcome: installation.Outcome) -> Iterator[str]:
    """What the state is now."""
    if not outcome.steps:
        yield f"nothing to do: nothing is installed below {outcome.prefix}{hint(outcome.prefix, Path(outcome.root))}"
    elif outcome.dry_run:
        yield "nothing was done: this is what would be"
    elif outcome.kept:
        yield f"{outcome.before or 'agentctl'} is no longer installed below {outcome.prefix}"
    else:
        yield f"nothing of it is left below {outcome.prefix}"
    places = [path for path in outcome.kept if path in data(outcome.prefix)]
    if places:
        yield f"kept: {', '.join(places)}: agentctl uninstall --purge removes them"
    for path in outcome.kept:
        if path not in places:
            yield f"kept: {path}: changed since it was laid, or not laid by agentctl"
