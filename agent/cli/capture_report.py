"""``agentctl capture report``: one page about a span of time: traffic, talkers, losses, how far back, new hosts."""

from __future__ import annotations

import time

from agent.cli import limited as limited_by
from agent.cli import output, text
from agent.cli.base import Session, command
from agent.cli.instants import or_last_hour, span, spanned
from agent.cli.limited import deadline, limited
from agent.cli.stores import check_interfaces, find, nothing, warn
from agent.cli.target import told, writing, written_to
from agent.cli.which import of_interfaces, of_services
from agent.errors import RuntimeFailure, UsageError


@command(
    "report",
    short_help="Make one page of what was captured, lost, and seen.",
    examples=(
        "agentctl capture report --last 1h -o report.html",
        "agentctl capture report --service edge --from 14:00 --to 15:00 -o - | ssh desk 'cat > report.html'",
        "agentctl capture report --last 1d --json | jq '.accounts[] | select(.holds | not)'",
    ),
)
@of_services
@of_interfaces
@spanned
@written_to("the page")
@limited()
def report(
    session: Session,
    services: tuple[str, ...],
    interfaces: tuple[str, ...],
    last: str | None,
    begin: str | None,
    end: str | None,
    target: str | None,
    time_limit: str,
) -> None:
    """Write one page about what was captured in the last hour, unless another time is given.

    Traffic over time by interface, top talkers, what was lost and where, how far back the stores go, what is pinned,
    and the hosts that were first seen in that time. The page is one file that needs nothing else, and is written whole
    or not at all. With --json and without -o, its figures are printed instead. All of it is read below PREFIX/spool; no
    agent need run.
    """
    if target is None and not session.json:
        raise UsageError("name the file that the page is to go to, such as -o report.html; -o - is standard output")
    from agent.cli.declared import captures
    from agent.cli.report_data import gather

    until = deadline(time_limit)
    now = time.time_ns()
    within = or_last_hour(now, span(now, last, begin, end))
    paths = session.paths()
    found = find(paths, services)
    if not found.stores:
        raise RuntimeFailure(nothing(paths))
    check_interfaces(found.stores, interfaces)
    figures = gather(found, interfaces, within, now, captures(paths), until)
    warn(figures["unreadable"])
    limited_by.warn({one["service"]: round(one["from"] * 1e9) for one in figures["left_out"]})
    if target is None:
        output.document(figures)
        return
    from agent.cli.report_page import page

    made = page(figures).encode()
    with writing(target) as file:
        file.write(made)
    told(session, target, text.size(len(made)), {"bytes": len(made)})
