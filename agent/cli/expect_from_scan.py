"""``agentctl expect from-scan``: a first expectation, made of what a scan found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from agent.cli import output, text
from agent.cli.base import Session, command
from agent.cli.declared import services
from agent.cli.names import SCAN
from agent.cli.stores import place, unknown
from agent.cli.target import told, writing, written_to
from agent.errors import RuntimeFailure, UsageError
from agent.paths import SCAN_MEMORY, Paths

if TYPE_CHECKING:
    from agent.cli.expect_text import Opened
    from agent.workers.scan.found import Port
    from agent.workers.scan.memory.reading import Memory
    from agent.workers.scan.memory.state import Service

_RUNS = 200
"""The newest runs among which one is looked for that came to its end."""

Found = Iterator[tuple[str, "frozenset[Opened]"]]


@command(
    "from-scan",
    short_help="Write an expectation of what a scan found, to be edited.",
    examples=(
        "agentctl expect from-scan lan_scan >> /srv/key/env.toml",
        "agentctl expect from-scan lan_scan --run 12 -o expected.toml",
    ),
)
@click.argument("name", metavar="[NAME]", required=False, type=SCAN)
@click.option("--run", "run", metavar="ID", type=click.IntRange(1), help="What this run found, not what is so now.")
@written_to("the tables")
def from_scan(session: Session, name: str | None, run: int | None, target: str | None) -> None:
    """Write [expect.NAME] tables that say what the scan NAME has found open, and allow nothing else.

    Hosts that look alike share a table. NAME can be left out where one scan is declared. What is written is a start: it
    makes everything right that is there now.
    """
    from agent.cli.expect_text import tables
    from agent.cli.expect_text import text as written
    from agent.declaration.schema import MOST_ITEMS

    paths = session.paths()
    name = _chosen(paths, name)
    found, source = _read(paths, name, run)
    made = tables(name, found)
    if not made:
        raise RuntimeFailure(f"{source} found no port open: there is nothing to expect")
    made, left = made[:MOST_ITEMS], made[MOST_ITEMS:]
    hosts, left_out = (sum(len(one.hosts) for one in some) for some in (made, left))
    toml = written(made, source, left_out)
    figures = {"tables": len(made), "hosts": hosts, "left_out": left_out}
    if target is not None:
        with writing(target) as file:
            file.write(toml.encode())
        more = f"; {text.count(left_out, 'host')} left out" if left_out else ""
        told(session, target, f"{len(made)} tables of {hosts} hosts{more}", figures)
    elif session.json:
        output.document({"scan": name, "text": toml, **figures})
    else:
        print(toml, end="")


def _chosen(paths: Paths, name: str | None) -> str:
    declared = sorted(one.name for one in services(paths).values() if one.kind == "scan")
    if name is None:
        if len(declared) != 1:
            raise UsageError(f"say which scan: there are {text.some(declared) or 'none'}")
        return declared[0]
    if name not in declared and not place(paths, name).path.joinpath(SCAN_MEMORY).exists():
        raise UsageError(unknown("scan", name, declared))
    return name


def _read(paths: Paths, name: str, run: int | None) -> tuple[list[tuple[str, frozenset[Opened]]], str]:
    """What was found, and by which run that is."""
    from agent.workers.scan.memory.reading import Memory

    with place(paths, name).seen() as directory, Memory(directory / SCAN_MEMORY) as memory:
        if run is None:
            latest = next((one for one in memory.runs(_RUNS) if one.trusted and one.folded), None)
            if latest is None:
                raise RuntimeFailure(f"no run of {name} has come to its end yet")
            return list(_now(memory, latest.site)), f"{name}, as of run {latest.id},"
        if memory.run(run) is None:
            known = [str(one.id) for one in memory.runs(5)]
            raise UsageError(f"{name} has no run {run}; the last are {text.some(known) or 'none'}")
        return list(_then(memory, run)), f"run {run} of {name}"


def _now(memory: Memory, site: str) -> Found:
    for host in memory.now(site=site):
        ports: Iterable[Opened] = (
            _opened(port.protocol, port.number, port.service.name, port.service)
            for port in host.ports
            if port.state == "open"
        )
        yield host.address, frozenset(ports)


def _then(memory: Memory, run: int) -> Found:
    for host in memory.hosts(run):
        yield (
            host.address,
            frozenset(_opened(port.protocol, port.number, port.service, port) for port in host.open_ports()),
        )


def _opened(protocol: str, number: int, name: str, known: Service | Port) -> Opened:
    """An open port; of what answers there what it said itself, and not what its number makes one think."""
    from agent.cli.expect_text import Opened

    if known.method == "table" or not (known.method or known.product):
        return Opened(protocol, number)
    service = f"{known.tunnel}/{name}" if known.tunnel and name else name
    version = f"{known.product} {known.version}".strip() if known.version else ""
    return Opened(protocol, number, service, version)
