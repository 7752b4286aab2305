"""``agentctl selftest``: proves that this program, as it stands, works on this host."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import click

from agent import __version__
from agent.cli import output, table
from agent.cli.base import Session, command
from agent.cli.guard import interruptible
from agent.errors import EXIT_RUNTIME, SpawnFailed

if TYPE_CHECKING:
    from agent.linux.spawn import Completed

HEADS = ("PART", "RESULT", "FINDING")

TEMPORARY = "/tmp"  # noqa: S108  # only ever the parent of a directory with a random name and mode 0700
"""Where there is no $TMPDIR."""

PATIENCE = 60.0
"""Seconds that one part may take."""

Verdict = Literal["ok", "unchecked", "fail"]


class Result(NamedTuple):
    """What became of one part. ``unchecked`` is the verdict when nothing of it could be looked at."""

    name: str
    verdict: Verdict
    finding: str
    unchecked: str = ""


@command(
    "selftest",
    examples=("agentctl selftest", "agentctl selftest --json | jq '.parts[] | select(.verdict == \"fail\")'"),
    exit_codes="Exit codes: 0 all that could be checked works, 2 something does not.",
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Work in a new directory below DIR, and remove it.  [default: $TMPDIR, else /tmp]",
)
@interruptible()
def selftest(session: Session, directory: Path | None) -> None:
    """Prove that what this program is made of works here: capture, index, scans, database, control socket and more.

    Each part really does it, in a process of its own, without a declaration or an agent, and writes only to a
    directory that is removed again. What this host does not allow to be checked is said, and is no failure.
    """
    from agent.cli.proofs import PARTS, WRITING

    results = [examine(part) for part in PARTS]
    above = directory or Path(os.environ.get("TMPDIR") or TEMPORARY)
    try:
        with private(above) as place:
            results += [examine(part, place) for part in WRITING]
    except OSError as error:
        reason = f"no directory can be made below {above}: {error.strerror}"
        results += [Result(part, "unchecked", "", reason) for part in WRITING]
    failed = any(result.verdict == "fail" for result in results)
    if session.json:
        parts = [result._asdict() for result in results]
        output.document({"ok": not failed, "version": __version__, "parts": parts})
    else:
        rows = [(result.name, result.verdict, "; ".join(filter(None, result[2:]))) for result in results]
        table.show(HEADS, rows)
    if failed:
        click.get_current_context().exit(EXIT_RUNTIME)


@contextmanager
def private(above: Path) -> Iterator[Path]:
    """A directory that only this user can enter, while the block runs. Raises ``OSError``."""
    made = Path(tempfile.mkdtemp(prefix="agentctl-selftest-", dir=above))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def examine(part: str, directory: Path | None = None) -> Result:
    """Run one part in a process of its own, and judge how that ended and what it said."""
    from agent.linux.spawn import SpawnRequest, base_environment, own_program, run

    argv = [*own_program(), "prove", part, *([] if directory is None else [str(directory)])]
    try:
        done = run(SpawnRequest(argv=argv, environment=base_environment(os.environ), own_program=True), PATIENCE)
    except SpawnFailed as error:
        return Result(part, "fail", str(error))
    return judge(part, done)


def judge(part: str, done: Completed) -> Result:
    """What a part that has ended was worth. One that says nothing, or no JSON, has failed."""
    if done.timed_out:
        return Result(part, "fail", f"did not end within {PATIENCE:.0f} s")
    try:
        said = json.loads(done.stdout)
        failed, found, unchecked = (str(said.get(key, "")) for key in ("failed", "found", "unchecked"))
    except (ValueError, AttributeError):
        last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return Result(part, "fail", f"{done.status}{': ' if last else ''}{last}")
    if failed or not done.status.success:
        return Result(part, "fail", failed or str(done.status))
    return Result(part, "ok" if found else "unchecked", found, unchecked)
