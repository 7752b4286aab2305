"""``agentctl run`` and ``agentctl run-once``: the agent, or one job, in the foreground.

Neither runs in this process as it is. The command line has loaded click, and a process that is to run for months should
not keep a parser in memory that it used once; so the process replaces itself, by execve(2), with a fresh interpreter on
the internal entries of ``agent.__main__``. PID, environment, open streams and capabilities stay the same.

``agentctl run`` without any option does not even come here: ``agent.__main__`` takes it before click is loaded.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from agent.cli.base import Session, command
from agent.cli.files import write_declaration
from agent.cli.invitation import hint
from agent.cli.names import SERVICE
from agent.errors import UsageError
from agent.linux.become import become
from agent.linux.environment import one_file, own_environment, own_program
from agent.paths import Paths


@command(
    "run",
    examples=(
        "agentctl run",
        "PREFIX=./var agentctl run --default",
        "python -m agent --prefix /srv /srv/key/env.toml      the same, as a container starts it",
    ),
    exit_codes="Exit codes: 0 it was told to stop (SIGTERM, SIGINT or Ctrl-C) and did, 1 the declaration is wrong and "
    "nothing was started, 2 it failed, or another agent runs on this prefix.",
)
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option(
    "--default", "demonstration", is_flag=True, help="If there is no declaration, write one that shows every kind."
)
def run(session: Session, config: Path | None, demonstration: bool) -> None:
    """Run the agent in the foreground on the declaration CONFIG, or on PREFIX/key/env.toml.

    Progress is printed in plain lines on stderr; with --json, each event as a line of JSON on stdout. Ctrl-C stops all
    services, then the agent.
    """
    paths = session.paths(config)
    if demonstration:
        from agent.declaration.default import DEMO

        if config is not None:
            raise UsageError(f"--default writes {session.paths().declaration}; give it or a CONFIG, not both")
        if write_declaration(paths, DEMO):
            stream = sys.stderr if session.json else sys.stdout
            print(f"wrote a demonstration to {paths.declaration}", file=stream, flush=True)
    words = ["daemon", form(session), str(paths.prefix), str(paths.declaration)]
    turn_into(paths, *words, *([] if session.json else hint(paths)))


@command(
    "run-once",
    examples=("agentctl run-once lan_scan", "agentctl run-once lan_scan || logger 'the scan failed'"),
    exit_codes="Exit codes: the job's own, as the contract has it: 0 it succeeded, 1 it, or the declaration, is "
    "configured wrongly, 2 it failed, was killed, or ran out of its time; 130 Ctrl-C.",
)
@click.argument("name", type=SERVICE)
@click.option("--retry", is_flag=True, help="After a failure try again, as far as its `restart` says so.")
def run_once(session: Session, name: str, retry: bool) -> None:
    """Run the job or service NAME once, in the foreground, with its output here. No agent need run.

    For cron and systemd timers, which judge a job by its exit code. With --json its output goes to stderr, and how it
    ended is one JSON document on stdout.
    """
    paths = session.paths()
    turn_into(
        paths, "once", form(session), str(paths.prefix), str(paths.declaration), name, *(["retry"] if retry else [])
    )


def form(session: Session) -> str:
    """How the process that follows is to talk."""
    return "json" if session.json else "plain"


def turn_into(paths: Paths, *words: str) -> NoReturn:
    """Replace this process by an internal entry of this program. Raises ``RuntimeFailure`` and ``StorageFailure``."""
    sys.stdout.flush()
    if one_file():
        from agent.installation.unpacked import move_in

        move_in(paths, words)
    become([*own_program(), *words], {**os.environ, **own_environment()})
