"""``agentctl capture report``: one page about a span of time: traffic, talkers, losses, how far back, new hosts."""

from __future__ import annotations

import time

import click

from agent.cli import output
from agent.cli.base import Session, command, no_such
from agent.cli.guard import complain
from agent.cli.instants import Span, span, spanned
from agent.cli.names import SERVICE
from agent.errors import RuntimeFailure, UsageError

DEFAULT = "1h"
"""``--last``, when no time is given."""

MOST_TOLD = 5
"""What cannot be read is named up to so often; the page has more."""


@command(
    "report",
    short_help="Make one page of what was captured, lost, and seen.",
    examples=(
        "agentctl capture report --last 1h -o report.html",
        "agentctl capture report edge_capture --from 14:00 --to 15:00 -o - | ssh desk 'cat > report.html'",
        "agentctl capture report --last 1d --json | jq '.accounts[] | select(.holds | not)'",
    ),
)
@click.argument("names", metavar="[NAME]...", nargs=-1, type=SERVICE)
@click.option("-o", "--output", "target", metavar="FILE", help="Write the page there; - is standard output.")
@spanned
def report(
    session: Session,
    names: tuple[str, ...],
    target: str | None,
    last: str | None,
    begin: str | None,
    end: str | None,
) -> None:
    """Write one page about the captures NAME, or all: of the last hour, unless another time is given.

    Traffic over time by interface, top talkers, what was lost and where, how far back the stores go, what is pinned,
    and the hosts that were first seen in that time. The page is one file that needs nothing else, and is written whole
    or not at all. All of it is read below PREFIX/spool; no agent need run.
    """
    if session.json == (target is not None):
        if session.json:
            raise UsageError("--json prints the figures instead of a page; write either --json or -o FILE")
        raise UsageError("name the file that the page is to go to, such as -o report.html; -o - is standard output")
    from agent.cli.report_data import declared_captures, gather
    from agent.cli.stores import stores

    now = time.time_ns()
    within = span(now, last, begin, end) or span(now, DEFAULT) or Span(0, now)
    paths = session.paths()
    known = stores(paths)
    for name in names:
        if name not in known:
            raise UsageError(f"{no_such('capture', name, known)}; `agentctl capture list` shows what is stored")
    if not known:
        raise RuntimeFailure(f"no packets are stored below {paths.spool}")
    told = gather(paths, tuple(dict.fromkeys(names)) or tuple(known), within, now, declared_captures(paths))
    for line in told["unreadable"][:MOST_TOLD]:
        complain(line)
    if target is None:
        output.document(told)
        return
    from agent.cli.report_page import page

    _write(target, page(told))


def _write(name: str, page: str) -> None:
    """Whole or not at all. Raises ``StorageFailure``."""
    from agent.cli.capture_output import Target

    target = Target(name)
    try:
        target.stream.write(page.encode())
        target.finish()
    except OSError as error:
        target.abandon()
        raise target.failure(error) from error
    except BaseException:
        target.abandon()
        raise
