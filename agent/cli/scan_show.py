"""``agentctl scan show``: one run: what it covered, what it found, how long it took, and whether to believe it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from agent.cli import output, table, text
from agent.cli.base import Session, command
from agent.cli.names import SCAN
from agent.cli.scan_list import document as run_document
from agent.cli.scan_list import loss, note, status
from agent.cli.scan_stores import chosen, opened, pick, runs_of
from agent.cli.scan_words import ports as short_ports
from agent.cli.scan_words import remark, says_everything
from agent.errors import UsageError

if TYPE_CHECKING:
    from agent.workers.scan.found import Host, Port, Script
    from agent.workers.scan.memory.coverage import Asked
    from agent.workers.scan.memory.reading import Run

HEADS = ("ADDRESS", "PORT", "STATE", "TLS", "SERVICE")


@command(
    "show",
    short_help="Show one run: what it covered and found.",
    examples=(
        "agentctl scan show",
        "agentctl scan show lan_scan 12",
        "agentctl scan show lan_scan previous --json | jq '.hosts[] | select(.ports | length > 0) | .address'",
    ),
    context_settings={"ignore_unknown_options": True},
)
@click.argument("words", metavar="[NAME] [RUN]", nargs=-1, shell_complete=SCAN.shell_complete)
def show(session: Session, words: tuple[str, ...]) -> None:
    """Show the run RUN of the scan NAME: its last one, and of the only scan there is, unless others are given.

    RUN is the number of a run, last or previous among those that came to their end, -1 for the newest of all and -2
    for the one before it, or a time: then it is the last that had begun by then.
    """
    from agent.workers.scan import exporting
    from agent.workers.scan.stored import told

    paths = session.paths()
    choice = chosen(paths, words)
    word = one_run(choice.words)
    with opened(choice.store) as memory:
        run = pick(choice.store.name, runs_of(memory), word)
        hosts = tuple(memory.hosts(run.id))
        coverage = memory.coverage(run.id)
        asked = list(coverage.without_picture())
        if session.json:
            of_hosts = exporting.document(told(choice.store.name, run, hosts, coverage))
    if session.json:
        output.document({"scan": choice.store.name, **run_document(run), **{key: of_hosts[key] for key in _OF_HOSTS}})
        return
    table.show_pairs(_pairs(choice.store.name, run, hosts, asked))
    rows = [row for host in hosts for row in _rows(host)]
    if rows:
        print()
        table.show(HEADS, rows)


_OF_HOSTS = ("doubt", "asked", "hosts")


def one_run(words: Sequence[str]) -> str:
    """The only word there may be, ``last`` without one. Raises ``UsageError``."""
    if len(words) > 1:
        raise UsageError(f"one run is shown, and {text.some(list(words))} are {len(words)} words")
    return words[0] if words else "last"


def _pairs(name: str, run: Run, hosts: Sequence[Host], asked: Sequence[Asked]) -> list[tuple[str, str]]:
    declared = run.declared
    pairs = [
        ("scan", name),
        ("run", str(run.id)),
        ("status", status(run)),
        ("started", text.moment(run.started)),
        ("took", text.ABSENT if run.ended is None else text.duration(run.ended - run.started)),
    ]
    pairs += [(key, _words(declared[key])) for key in ("targets", "exclude") if declared.get(key)]
    if declared.get("ports"):
        pairs.append(("ports", short_ports(_words(declared["ports"]))))
    if declared.get("file"):
        pairs.append(("file", _words(declared["file"])))
    if run.profile:
        pairs.append(("profile", run.profile))
    if run.engine or run.nmap_version:
        version = f"nmap {run.nmap_version}" if run.nmap_version else ""
        engine = "" if version and run.engine == "nmap" else run.engine
        pairs.append(("by", ", ".join(part for part in (engine, version) if part)))
    pairs.append(("covered", covered(run, hosts, asked)))
    pairs.append(("found", f"{text.count(run.hosts_up, 'host')} up, {text.count(run.ports_open, 'port')} open"))
    if run.sent:
        lost = f", {loss(run)} lost" if run.loss is not None else ""
        pairs.append(("probes", f"{run.sent:,} sent, {run.answered:,} answered{lost}"))
    if note(run):
        pairs.append(("note", note(run)))
    notes = declared.get("notes")
    pairs += [("note", str(each)) for each in notes] if isinstance(notes, list) else []
    return pairs


def covered(run: Run, hosts: Sequence[Host], asked: Sequence[Asked]) -> str:
    """Such as ``256 of 256 addresses: 3 answered, 253 did not``."""
    from agent.workers.scan.found import answered
    from agent.workers.scan.spans import size

    met = sum(map(answered, hosts))
    outcomes = {"silent": len(hosts) - met, "timed_out": 0}  # one that was taken to be up may never have said anything
    for part in asked:
        outcomes[part.outcome] = outcomes.get(part.outcome, 0) + size(part.addresses)
    done = met + outcomes["silent"]
    words = {"silent": "did not", "timed_out": "given up"}
    parts = [f"{met:,} answered", *(f"{outcomes[one]:,} {words[one]}" for one in words if outcomes.get(one))]
    return f"{done:,} of {run.hosts_total:,} addresses: {', '.join(parts)}"


def _words(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ", ".join(value)
    if isinstance(value, str):
        return value
    import json

    return json.dumps(value)


def _rows(host: Host) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for port in host.ports:
        if port.state not in ("closed", "filtered"):
            place = host.address, f"{port.protocol}/{port.number}", port.state, text.yes(port.tunnel == "ssl")
            rows += [(*place, _answers(port)), *map(_of_script, port.scripts)]
    together = _together(host)
    beside = [
        says_everything(host.everything) if host.everything else "",
        f"also: {together}" if rows and together else together,
        f"names: {', '.join(host.names)}" if host.names else "",
        f"system: {host.os[0]}" if host.os else "",
    ]
    line = "; ".join(filter(None, beside))
    if not rows:
        rows.append((host.address, text.ABSENT, host.state, text.ABSENT, line))
    elif line:
        rows.append((*_BLANK, line))
    return [*rows, *map(_of_script, host.scripts)]


_BLANK = ("", "", "", "")
_LONG = 200
"""Characters of what a script said that are shown; JSON has all of it."""


def _of_script(script: Script) -> tuple[str, ...]:
    said = script.output if len(script.output) <= _LONG else f"{script.output[:_LONG]}..."
    return (*_BLANK, f"{script.name}: {said}")


def _answers(port: Port) -> str:
    """What answers there, with the certificate that it shows."""
    from agent.workers.scan.diff import certificate, service

    shown = f"certificate {certificate(port.certificate)}" if port.certificate else ""
    return ", ".join(filter(None, (" ".join(filter(None, (service(port), remark(port.reason)))), shown)))


def _together(host: Host) -> str:
    """Such as ``997 closed``: the ports that are not shown one by one."""
    from agent.workers.scan.spans import size

    counts: dict[str, int] = {}
    for rest in host.rest:
        if rest.state == "open":
            continue  # ``says_everything``
        counts[rest.state] = counts.get(rest.state, 0) + size(rest.ports)
    for port in host.ports:
        if port.state in ("closed", "filtered"):
            counts[port.state] = counts.get(port.state, 0) + 1
    return ", ".join(f"{number:,} {state}" for state, number in sorted(counts.items()))
