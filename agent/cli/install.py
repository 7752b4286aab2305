"""``agentctl install``: this program, its units and its directories, laid below a prefix and brought up to date."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from agent.cli import output
from agent.cli.base import Session, command
from agent.cli.guard import complain, interruptible
from agent.cli.progress import Progress, document, refuse
from agent.cli.text import safe
from agent.installation import candidate, tree
from agent.installation import install as installation
from agent.paths import native_prefix

ROOT = click.Option(
    ["--root"],
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Work in the image of another system below DIR.",
)
DRY_RUN = click.Option(["--dry-run"], is_flag=True, help="Only say what would be done.")


@command(
    "install",
    params=[ROOT, DRY_RUN],
    examples=(
        "sudo ./agentctl install",
        "sudo ./agentctl install --prefix /opt/agent",
        "sudo ./agentctl install --root /mnt/image",
        "./agentctl install --dry-run",
    ),
    exit_codes="Exit codes: 0 it is installed, now or before, 1 the command line is wrong, 2 it failed and nothing has "
    "changed.",
)
@click.option(
    "--force", is_flag=True, help="Go back to an older version, and replace files of ours that were changed since."
)
@interruptible()
def install(session: Session, root: Path | None, dry_run: bool, force: bool) -> None:
    """Lay this program below PREFIX, with its units, manual page and completions, and make its user and directories.

    What is there already is left as it is: a second time there is nothing to do. A newer version is laid beside the
    old one, which stays to go back to. A declaration that exists is never touched, nor is anything that agentctl has
    not laid. Services are neither enabled nor restarted. PREFIX/lib/agent/install.json records what was laid.
    """
    prefix = chosen(session)
    place = below(root)
    progress = Progress(prefix, dry_run=dry_run, show=shown(session))
    try:
        outcome = installation.install(
            tree.own(),
            prefix,
            place,
            force=force,
            dry_run=dry_run,
            wait=candidate.WAIT in os.environ,
            tell=None if dry_run else progress,
        )
    except installation.Refused as error:
        raise refuse(error) from error
    except KeyboardInterrupt:
        complain("agentctl: interrupted: the next run goes on from there, and `agentctl uninstall` takes it back")
        raise
    for step in outcome.steps if dry_run else ():
        progress(step)
    progress.close()
    if session.json:
        output.document(document(outcome))
    else:
        for line in ending(outcome):
            print(safe(line))


def chosen(session: Session) -> str:
    """The prefix as it was given: what is wrong with it is for others to say."""
    return str(session.prefix) if session.prefix is not None else os.environ.get("PREFIX") or native_prefix()


def below(root: Path | None) -> Path:
    """The root to work in."""
    return installation.HERE if root is None else root.absolute()


def shown(session: Session) -> Callable[[str], None]:
    """How lines are shown while it happens: at once, or, where JSON is wanted, not at all."""

    def show(line: str) -> None:
        if not session.json:
            print(line, flush=True)

    return show


def ending(outcome: installation.Outcome) -> Iterator[str]:
    """What the state is now, and what may come next."""
    here = outcome.root == "/"
    if not outcome.steps:
        yield f"nothing to do: {outcome.version} is installed below {outcome.prefix}"
    elif outcome.dry_run:
        yield f"nothing was done: this is what would install {outcome.version} below {outcome.prefix}"
    else:
        yield f"{outcome.version} is installed below {outcome.prefix}" + ("" if here else f" in {outcome.root}")
        if not outcome.before:
            enable = "systemctl enable --now" if here else f"systemctl --root={outcome.root} enable"
            yield f"next: edit {outcome.prefix}/key/env.toml; then {enable} agent.socket agent.service"
    if not outcome.before and outcome.steps:
        for user in outcome.users:
            yield f"the service runs as the user {user} that was there before: who logs in as {user} commands the agent"
    if outcome.running:
        pids = ", ".join(map(str, outcome.running))
        yield f"another version is still running (process {pids}): systemctl reload agent replaces it"
    for path in outcome.kept:
        yield f"kept: {path}: changed since it was laid, or not laid by agentctl"
