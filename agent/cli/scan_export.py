"""``agentctl scan export``: a run for other programs."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import click

from agent.cli.base import Session, command
from agent.cli.names import SCAN
from agent.cli.scan_show import one_run
from agent.cli.scan_stores import chosen, opened, pick, runs_of
from agent.cli.target import STDOUT, told, writing, written_to
from agent.cli.text import count
from agent.errors import RuntimeFailure

if TYPE_CHECKING:
    from agent.cli.stores import Store
    from agent.workers.scan.memory.rows import Run
    from agent.workers.scan.stored import Told

FORMATS = ("xml", "json", "csv", "markdown", "raw")


@command(
    "export",
    short_help="Write a run as XML of nmap's, JSON, CSV or Markdown.",
    examples=(
        "agentctl scan export csv lan_scan -o hosts.csv",
        "agentctl scan export xml lan_scan 12 -o today.xml && ndiff yesterday.xml today.xml",
        "agentctl scan export markdown lan_scan previous",
        "agentctl scan export raw lan_scan -o nmap.xml",
    ),
    context_settings={"ignore_unknown_options": True},
)
@click.argument("form", metavar="FORMAT", type=click.Choice(FORMATS))
@click.argument("words", metavar="[NAME] [RUN]", nargs=-1, shell_complete=SCAN.shell_complete)
@written_to("it")
def export(session: Session, form: str, words: tuple[str, ...], target: str | None) -> None:
    """Write the run RUN of the scan NAME, as `agentctl scan show` takes them, to standard output or FILE.

    FORMAT is xml, json, csv, markdown or raw. The XML is nmap's own, for ndiff, python-nmap and whatever else reads
    that; of a run that is unfinished or degraded it says that nmap did not end well. CSV has a line for each port, and
    before what a spreadsheet would calculate stands an apostrophe. Raw is what nmap itself said while it took part
    in the run, word for word, as one document, for as long as history.raw has it kept; a host stands in it each time
    that nmap told of it.
    """
    from agent.workers.scan import stored

    choice = chosen(session.paths(), words)
    word = one_run(choice.words)
    name = choice.store.name
    with opened(choice.store) as memory:
        run = pick(name, runs_of(memory), word)
        if form == "raw":
            if next(memory.raw(run.id), None) is None:
                raise RuntimeFailure(f"no XML of nmap's is kept of {name} {run.id}: it took no part, or too long ago")
            parts, hosts = _raw(choice.store, run), 0
        else:
            found = stored.told(name, run, tuple(memory.hosts(run.id)), memory.coverage(run.id))
            parts, hosts = (part.encode("utf-8", "replace") for part in _parts(form, found)), len(found.hosts)
    target = STDOUT if target is None else target
    size = 0
    with writing(target) as file, closing(parts):
        for data in parts:
            file.write(data)
            size += len(data)
            if form == "raw":
                hosts += data.startswith(b"<host")  # each is a part by itself
    if session.json or target != STDOUT:
        figures = {"format": form, "run": run.id, "hosts": hosts, "bytes": size}
        told(session, target, f"{count(hosts, 'host')} as {form}", figures)


def _raw(store: Store, run: Run) -> Generator[bytes, None, None]:
    """One document of nmap's after the other: all of them may be more than there is memory."""
    from agent.workers.scan import exporting

    with opened(store) as memory:
        yield from exporting.raw(store.name, run, memory.raw(run.id))


def _parts(form: str, found: Told) -> Iterator[str]:
    from agent.workers.scan import exporting

    match form:
        case "xml":
            yield from exporting.xml(found)
        case "csv":
            yield from exporting.table(found)
        case "markdown":
            yield from (f"{line}\n" for line in exporting.markdown(found))
        case _:
            import json

            yield json.dumps(exporting.document(found), indent=2).replace("\x7f", "\\u007f") + "\n"
