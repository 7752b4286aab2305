"""What ``agentctl selftest`` proves: the parts of this program that a bundle could lack or break, each really used.

Each part runs in a process of its own, which prints one JSON object and ends: scapy and python-nmap are never in one
process, and a library that crashes takes one part along. So everything is imported where it is needed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from agent import __version__
from agent.errors import EXIT_CONFIGURATION, EXIT_OK, EXIT_RUNTIME, AgentError, RuntimeFailure, SpawnFailed

TIMEOUT = 20.0
"""Seconds that a program of the host may take to print its environment, or this one to print its version."""

ZONES = Path("/usr/share/zoneinfo")

ELAPSES = (
    ("Mon..Fri 02:30 UTC", 1_772_323_200, 1_772_418_600),
    ("*-02~1 UTC", 1_772_323_200, 1_803_772_800),
    ("*-07-01 12:00 Europe/Helsinki", 1_772_323_200, 1_782_896_400),
    ("*-*-* 02:30 Europe/Helsinki", 1_772_323_200, 1_772_325_000),
)
"""Expression, a unix time, and the first elapse after it, as systemd-analyze(1) has them."""


class Proof(NamedTuple):
    """What was found to work, and why something could not be looked at; either may be empty."""

    found: str
    unchecked: str = ""


def capture() -> Proof:
    """libpcap loads, compiles, writes and reads; on the loopback interface too where this process may capture."""
    from agent.cli.checks import check_raw_sockets
    from agent.workers.capture import proof
    from agent.workers.capture.handle import InterfaceLost

    version = proof.offline()
    found = f"{version}: a savefile written, read back and filtered"
    if check_raw_sockets(Path("/proc/self/status").read_text("ascii", "replace"), needed=True).verdict != "ok":
        return Proof(found, "CAP_NET_RAW is not effective: nothing was captured on lo")
    try:
        proof.live()
    except InterfaceLost as error:
        return Proof(found, str(error))
    return Proof(f"{found}; packets captured on lo")


def scan() -> Proof:
    """An answer of nmap is judged, and read by python-nmap."""
    from agent.workers.scan import proof

    return Proof(proof.understood())


def hosts() -> Proof:
    """Packets that tell of hosts are taken apart by scapy."""
    from agent.workers.inventory import proof

    return Proof(proof.understood())


def index(directory: Path) -> Proof:
    """A segment is indexed, and what is looked for is found in it."""
    from agent.workers.index import proof

    (place := directory / "segments").mkdir()
    return Proof(proof.found_again(place))


def database(directory: Path) -> Proof:
    """Events are stored, and found again by whoever opens the database next."""
    from agent.telemetry.events import EventStore

    path = directory / "events.db"
    stored: list[tuple[int, str]] = []
    for turn in range(2):
        store = EventStore(path, schedule=lambda seconds, callback: None)
        try:
            before = [(event.cursor, event.message) for event in store.last(10)]
            if before != stored:
                raise RuntimeFailure(f"{len(stored)} events were stored and {len(before)} found again")
            stored.append((store.append("selftest", f"event {turn}").cursor, f"event {turn}"))
            if not store.flush():
                raise RuntimeFailure(store.storage)
            mode = _journal_mode(path)
        finally:
            store.close()
    if mode != "wal":
        raise RuntimeFailure(f"{path}: its journal is kept as {mode!r}, not as a write-ahead log")
    return Proof(f"SQLite {sqlite3.sqlite_version}: events stored and found again, with a write-ahead log")


def _journal_mode(path: Path) -> str:
    connection = sqlite3.connect(path)
    try:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])
    finally:
        connection.close()


def calendar() -> Proof:
    """Expressions elapse when systemd says they do, in UTC and in a zone of this host."""
    from agent.declaration.calendar_parse import parse_calendar

    zones = ZONES.is_dir()
    for expression, after, expected in ELAPSES:
        if zones or expression.endswith("UTC"):
            elapse = parse_calendar(expression).next_elapse(after)
            if elapse != expected:
                raise RuntimeFailure(f"{expression!r} elapses at @{elapse} after @{after}, not at @{expected}")
    if not zones:
        return Proof("elapses in UTC are right", f"this host has no time zones in {ZONES}: install tzdata")
    return Proof("elapses are right, in UTC and in Europe/Helsinki")


def control(directory: Path) -> Proof:
    """An agent without services answers on a control socket."""
    return asyncio.run(_ask_an_agent(directory))


async def _ask_an_agent(directory: Path) -> Proof:
    # What cannot even be loaded could not give a process back.
    from agent.control import daemon  # noqa: F401  # that it can be loaded is the proof
    from agent.control.client import Client
    from agent.control.facade import RunningAgent
    from agent.control.server import ControlServer
    from agent.control.succession import Succession
    from agent.declaration import load, show  # noqa: F401  # the same
    from agent.declaration.model import AgentSettings, Declaration
    from agent.linux.notify import SystemdNotifier
    from agent.paths import Paths
    from agent.supervisor.engine import Supervisor
    from agent.telemetry.events import EventStore

    loop, paths = asyncio.get_running_loop(), Paths.of(directory)
    events = EventStore(directory / "control.db", schedule=loop.call_later)
    bugs: list[BaseException] = []
    declared = Declaration(agent=AgentSettings(server="selftest"), services={})
    supervisor = Supervisor(
        loop=loop, paths=paths, declaration=declared, environ={}, events=events, tree=None, sink=_no_sink
    )
    notifier = SystemdNotifier({})
    agent = RunningAgent(supervisor, events, notifier, Succession([], {}, notifier), _nobody_follows, since=time.time())
    server = ControlServer(agent, directory / "agent.sock", on_bug=bugs.append)
    await server.start()
    try:
        client = Client(directory / "agent.sock")
        status = await asyncio.to_thread(client.request, "GET", "/v1/status")
    finally:
        await server.stop()
        events.close()
    if bugs:
        raise bugs[0]
    if status["agent"]["version"] != __version__ or status["agent"]["pid"] != os.getpid():
        raise RuntimeFailure(f"the control socket answered for version {status['agent']['version']}")
    return Proof("an agent answered on a control socket")


async def _nobody_follows(program: object) -> None:
    raise AssertionError("no other program is installed")


def _no_sink(service: object) -> Any:
    raise AssertionError("no service is declared")


def processes() -> Proof:
    """This program starts itself, and others without what is its own; and nothing can start it behind our back."""
    from agent.linux.environment import base_environment, frozen, one_file, own_program
    from agent.linux.spawn import SpawnRequest, run

    form = "the one file" if one_file() else "the installed form" if frozen() else "the source tree"
    environment = base_environment(os.environ)
    own = run(SpawnRequest(argv=[*own_program(), "--version"], environment=environment, own_program=True), TIMEOUT)
    if not own.status.success or not own.stdout.decode("utf-8", "replace").rstrip().endswith(f" {__version__}"):
        raise RuntimeFailure(f"{own_program()[0]} --version {own.status}: {own.stderr.decode('utf-8', 'replace')}")
    if frozen() and find_spec("multiprocessing"):
        raise RuntimeFailure("multiprocessing is in the bundle, and would run this program for each of its processes")
    try:
        foreign = run(SpawnRequest(argv=["env"], environment=environment), TIMEOUT)
    except SpawnFailed as error:
        return Proof(f"{form} starts itself", str(error))
    leaked = sorted(line for line in foreign.stdout.decode("utf-8", "replace").splitlines() if _ours(line))
    if leaked:
        raise RuntimeFailure(f"programs of this host are started with {leaked[0]}")
    return Proof(f"{form} starts itself, and others without its libraries")


def _ours(line: str) -> bool:
    """Whether a variable tells of a bundle."""
    bundle = str(getattr(sys, "_MEIPASS", "\0"))
    return line.startswith("_PYI_") or bundle in line


PARTS: dict[str, Callable[[], Proof]] = {
    "capture": capture,
    "scan": scan,
    "hosts": hosts,
    "calendar": calendar,
    "processes": processes,
}
WRITING: dict[str, Callable[[Path], Proof]] = {"index": index, "database": database, "control": control}
"""Those that need a directory to write to."""


def main(part: str, directory: str | None = None) -> int:
    """The entry of the internal word ``prove``: one of ``PARTS``, or of ``WRITING`` with a directory.

    Prints ``{"found", "unchecked"}`` or ``{"failed"}``, and returns the exit code of the contract.
    """
    if part not in (PARTS if directory is None else WRITING):
        print(f"prove {part}: no such part; one of {', '.join([*PARTS, *WRITING])}", file=sys.stderr)
        return EXIT_CONFIGURATION
    try:
        proof = PARTS[part]() if directory is None else WRITING[part](Path(directory))
    except AgentError as error:
        print(json.dumps({"failed": str(error)}))
        return EXIT_RUNTIME
    except Exception as error:
        print(json.dumps({"failed": f"{type(error).__name__}: {error} ({_place(error)})"}))
        return EXIT_RUNTIME
    print(json.dumps(proof._asdict()))
    return EXIT_OK


def _place(error: BaseException) -> str:
    """Where in the source it went wrong."""
    while error.__cause__ is not None:
        error = error.__cause__
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "nowhere"
