"""``agentctl scan export``: a run for other programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from agent.cli.base import Session, command
from agent.cli.names import SCAN
from agent.cli.scan_show import one_run
from agent.cli.scan_stores import chosen, opened, pick, runs_of
from agent.cli.target import STDOUT, told, writing, written_to
from agent.cli.text import count

if TYPE_CHECKING:
    from agent.workers.scan.stored import Told

FORMATS = ("xml", "json", "csv", "markdown")


@command(
    "export",
    short_help="Write a run as XML of nmap's, JSON, CSV or Markdown.",
    examples=(
        "agentctl scan export csv lan_scan -o hosts.csv",
        "agentctl scan export xml lan_scan 12 -o today.xml && ndiff yesterday.xml today.xml",
        "agentctl scan export markdown lan_scan previous",
    ),
    context_settings={"ignore_unknown_options": True},
)
@click.argument("form", metavar="FORMAT", type=click.Choice(FORMATS))
@click.argument("words", metavar="[NAME] [RUN]", nargs=-1, shell_complete=SCAN.shell_complete)
@written_to("it")
def export(session: Session, form: str, words: tuple[str, ...], target: str | None) -> None:
    """Write the run RUN of the scan NAME, as `agentctl scan show` takes them, to standard output or FILE.

    FORMAT is xml, json, csv or markdown. The XML is nmap's own, for ndiff, python-nmap and whatever else reads that; of
    a run that is unfinished or degraded it says that nmap did not end well. CSV has a line for each port, and cells
    that a spreadsheet would calculate begin with an apostrophe.
    """
    from agent.workers.scan import stored

    choice = chosen(session.paths(), words)
    word = one_run(choice.words)
    name = choice.store.name
    with opened(choice.store) as memory:
        run = pick(name, runs_of(memory), word)
        found = stored.told(name, run, tuple(memory.hosts(run.id)), memory.coverage(run.id))
    target = STDOUT if target is None else target
    size = 0
    with writing(target) as file:
        for part in _parts(form, found):
            data = part.encode("utf-8", "replace")
            file.write(data)
            size += len(data)
    if session.json or target != STDOUT:
        figures = {"format": form, "run": run.id, "hosts": len(found.hosts), "bytes": size}
        told(session, target, f"{count(len(found.hosts), 'host')} as {form}", figures)


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
