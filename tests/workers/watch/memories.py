"""Memories of scans, as the worker of a scan makes them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from agent.workers.scan.found import Host, Port, Rest
from agent.workers.scan.memory.coverage import asked
from agent.workers.scan.spans import of, without
from agent.workers.scan.store import Ending, ScanStore, Task

ALL = ((1, 1024),)


def up(address: str, *ports: Port, others: str = "closed", mac: str = "") -> Host:
    """A host that was asked for TCP ports 1 to 1024."""
    told = of(port.number for port in ports)
    rest = Rest("tcp", others, "reset", without(ALL, told))
    return Host(address, "up", "syn-ack", mac, ports=ports, rest=(rest,))


def remember(
    directory: Path,
    hosts: Iterable[Host],
    at: float,
    *,
    silent: Iterable[str] = (),
    status: Ending = "finished",
    degraded: str = "",
    plan: str = "plan",
    site: str = "",
) -> None:
    """One more run into ``scan.db``, of ten seconds that end at ``at``."""
    store = ScanStore(directory / "scan.db", site=site)
    try:
        run = store.begin(Task(plan, 256, 1), at - 10)
        quiet = asked(silent, (("tcp", ALL),)) if silent else ()
        store.store(run, hosts, at - 1, chunk=0, addresses=256, asked=quiet)
        store.end(run, status, at, degraded=degraded)
    finally:
        store.close()


def imported(directory: Path, hosts: Iterable[Host], at: float, *, silent: Iterable[str] = (), site: str = "") -> None:
    """A report of another program, whose ten seconds ended at ``at``, into ``scan.db``."""
    store = ScanStore(directory / "scan.db", site=site)
    try:
        quiet = asked(silent, (("tcp", ALL),)) if silent else ()
        store.take_in(Task(f"file {at}", 256, 1), hosts, started=at - 10, ended=at, asked=quiet, now=time.time())
    finally:
        store.close()
