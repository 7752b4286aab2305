"""``agentctl scan diff``: what changed between two runs, or two reports."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from agent.cli import output, table, text
from agent.cli.base import Session, command
from agent.cli.guard import complain
from agent.cli.names import SCAN
from agent.cli.scan_files import hinting, is_file, read, short
from agent.cli.scan_stores import chosen, opened, pick, runs_of
from agent.errors import EXIT_RUNTIME, UsageError

if TYPE_CHECKING:
    from agent.workers.scan.diff import Change, Difference
    from agent.workers.scan.found import Host
    from agent.workers.scan.memory.reading import Memory, Run
    from agent.workers.scan.side import Side

HEADS = ("ADDRESS", "PORT", "CHANGE", "BEFORE", "AFTER")
EXIT_CODES = (
    "Exit codes: 0 success, 1 the declaration or the command line is wrong, 2 it failed while running, or with"
    " --exit-code something differs, 130 Ctrl-C."
)


class One(NamedTuple):
    """One of the two: how it is called, when it began (unix seconds), its hosts and what it asked."""

    name: str
    run: int | None
    started: float
    hosts: Sequence[Host]
    side: Side


@command(
    "diff",
    short_help="Show what changed between two runs.",
    examples=(
        "agentctl scan diff",
        "agentctl scan diff lan_scan 11 12",
        "agentctl scan diff lan_scan -7d last --exit-code || mail -s 'the network changed' ops",
        "agentctl scan diff before.xml after.xml --json | jq '.changes[] | select(.kind == \"port_opened\")'",
    ),
    exit_codes=EXIT_CODES,
    context_settings={"ignore_unknown_options": True},
)
@click.argument("words", metavar="[NAME] [A B]", nargs=-1, shell_complete=SCAN.shell_complete)
@click.option("--exit-code", "by_code", is_flag=True, help="Exit with 2 when something differs.")
@click.option("--same-targets", is_flag=True, help="Believe that both asked for the addresses of either.")
def diff(session: Session, words: tuple[str, ...], by_code: bool, same_targets: bool) -> None:
    """Show what changed from A to B: the run before the last and the last one of the scan NAME, or of the only scan
    there is, unless others are given.

    A and B are runs (a number, last, previous, -1 for the newest, or a time such as -7d: then the last that had begun
    by then) or XML reports of nmap and masscan. Only what both asked is compared; what is not, is said. A run that is
    unfinished or degraded closes nothing.

    A report of nmap names the hosts that are up, and its command line seldom the others; so a host that only one of two
    files names is compared only if its addresses can be read from there, or with --same-targets.
    """
    with ExitStack() as stack:
        with hinting(words):
            first, second = _both(session, words, stack)
        if same_targets:
            first, second = _believed(first, second)
        from agent.workers.scan.diff import compare

        found = compare(first.hosts, first.side, second.hosts, second.side)
    if session.json:
        output.document(_document(first, second, found))
    else:
        _show(first, second, found)
    if by_code and found.changes:
        click.get_current_context().exit(EXIT_RUNTIME)


def _both(session: Session, words: tuple[str, ...], stack: ExitStack) -> tuple[One, One]:
    """The two sides. Files are read with the eyes of whoever asks, before any database is opened."""
    reports = {word: _of_file(word) for word in words if is_file(word)}
    if len(words) == 2 and len(reports) == len(set(words)):
        return reports[words[0]], reports[words[1]]
    choice = chosen(session.paths(), words)
    ends = choice.words or ("previous", "last")
    if len(ends) != 2:
        raise UsageError(f"two runs or reports are compared, and {text.some(list(ends))} is {len(ends)}")
    memory = stack.enter_context(opened(choice.store))
    runs = runs_of(memory)
    name = choice.store.name
    if not choice.words:
        runs = _of_one_site(name, runs)
    picked = {word: pick(name, runs, word) for word in ends if word not in reports}
    _insist_on_one_site(name, list(picked.values()))
    first, second = (reports[word] if word in reports else _of_run(name, memory, picked[word]) for word in ends)
    return first, second


def _of_one_site(name: str, runs: Sequence[Run]) -> list[Run]:
    """Those of the site where the last one was. Raises ``RuntimeFailure`` when no other came to its end there."""
    last = pick(name, runs, "last")
    here = [run for run in runs if run.site == last.site]
    pick(name if len(here) == len(runs) else f"{name} at the site {last.site}", here, "previous")
    return here


def _insist_on_one_site(name: str, runs: Sequence[Run]) -> None:
    """Raise ``UsageError`` for runs of different sites: one address is another host there."""
    sites = {run.site: run for run in runs}
    if len(sites) > 1:
        told = " and ".join(
            f"run {run.id} of {name} is of the site {site or 'without a name'}" for site, run in sites.items()
        )
        raise UsageError(f"{told}: these are other hosts, and not compared")


def _of_file(name: str) -> One:
    report = read(name)
    for note in report.notes:
        complain(f"agentctl: {name}: {note}")
    return One(short(name), None, report.started, report.hosts, report.side())


def _of_run(name: str, memory: Memory, run: Run) -> One:
    from agent.workers.scan.stored import side

    return One(f"{name} {run.id}", run.id, run.started, list(memory.hosts(run.id)), side(run, memory.coverage(run.id)))


def _believed(first: One, second: One) -> tuple[One, One]:
    """As if each had asked for the hosts of the other, and for the same ports there as of its own; but for those of
    which it says itself that it did not.
    """
    from dataclasses import replace

    from agent.workers.scan.memory.coverage import union
    from agent.workers.scan.memory.picture import asked

    def believed(one: One) -> One:
        ports, left = union(asked(host) for host in one.hosts), one.side.left
        return one._replace(side=replace(one.side, looked=lambda address: not left(address), ports=lambda _: ports))

    return believed(first), believed(second)


def _document(first: One, second: One, found: Difference) -> dict[str, Any]:
    return {
        "first": {"name": first.name, "run": first.run, "started": first.started, "doubt": first.side.doubt},
        "second": {"name": second.name, "run": second.run, "started": second.started, "doubt": second.side.doubt},
        "compared": {"hosts": found.hosts, "ports": found.ports},
        "withheld": found.withheld,
        "changes": [_change(change) for change in found.changes],
        "notes": found.notes,
    }


def _change(change: Change) -> dict[str, Any]:
    from agent.workers.scan.argv import format_ports

    return {
        "kind": change.kind,
        "address": change.address,
        "protocol": change.protocol,
        "ports": format_ports(change.ports),
        "before": change.before,
        "after": change.after,
        "script": change.script,
        "sure": change.sure,
    }


def _show(first: One, second: One, found: Difference) -> None:
    print(text.safe(f"{first.name}, {_when(first)} -> {second.name}, {_when(second)}"))
    if found.changes:
        print()
        table.show(HEADS, [_row(change) for change in found.changes])
        print()
    kinds: dict[str, int] = {}
    for change in found.changes:
        kinds[change.kind] = kinds.get(change.kind, 0) + 1
    told = ", ".join(f"{number:,} {kind}" for kind, number in kinds.items()) or "no changes"
    print(f"{told}; compared: {text.count(found.hosts, 'host')}, {text.count(found.ports, 'port')}")
    for note in found.notes:
        print(text.safe(f"note: {note}"))


def _when(one: One) -> str:
    """When it began; a report need not say."""
    return text.moment(one.started or None)


def _row(change: Change) -> tuple[str, ...]:
    from agent.workers.scan.argv import format_ports

    ports = format_ports(change.ports)
    kind = f"{change.kind} ({change.script})" if change.script else change.kind
    return (
        change.address,
        f"{change.protocol}/{ports if len(ports) <= _WIDE else f'{ports[:_WIDE]}...'}" if change.ports else text.ABSENT,
        kind if change.sure else f"{kind}?",
        change.before or text.ABSENT,
        change.after or text.ABSENT,
    )


_WIDE = 40
"""Characters of the ports of one change in a table; JSON has all of them."""
