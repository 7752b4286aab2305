"""``make bench-scan``: scans side by side with nmap and others, on hosts whose truth is known.

Everything is in one run and on one lab; rounds take the programs in turn, in random order.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import page, process, scan_kills, scan_memory, scan_peers, scan_rows, scan_sending, scanners
from bench import scan_report as report
from bench.capture import note
from bench.scan_method import METHOD, MISSING
from bench.scan_report import Figures
from tests.workers.scan import lab

ROWS = (*report.TITLES, "sending", "kill", "memory")


@dataclass(frozen=True)
class Scale:
    """How often everything is done: ``rounds`` of what is quick, ``again`` of what is not."""

    rounds: int
    again: int
    kills: int
    runs: int
    limit: float


HOSTS = 1000
"""Of the memory."""
FULL = Scale(rounds=5, again=3, kills=50, runs=1000, limit=scanners.LIMIT)
SHORT = Scale(rounds=1, again=1, kills=4, runs=20, limit=90.0)
"""To see that everything works: its figures are not kept."""


def main() -> None:
    asked = argparse.ArgumentParser(prog="make bench-scan ARGS=", add_help=False)
    asked.add_argument("--write", action="store_true")
    asked.add_argument("--short", action="store_true")
    asked.add_argument("--only", type=lambda text: text.split(","), default=list(ROWS))
    given = asked.parse_args()
    if unknown := set(given.only) - set(ROWS):
        sys.exit(f"there is no {', '.join(sorted(unknown))} to measure: {', '.join(ROWS)}")
    if given.write and (given.short or set(given.only) != set(ROWS)):
        sys.exit("only a whole run is kept: --write goes with neither --short nor --only")
    if os.geteuid() != 0:
        sys.exit("make bench-scan makes network namespaces and scans in them, and that takes root")
    scale = SHORT if given.short else FULL
    scanners.LIMIT = scale.limit
    process.become_subreaper()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was made is removed then too
    figures = Figures(versions=scan_peers.versions())
    place = Path(tempfile.mkdtemp(prefix="bench-scan-", dir="/var/tmp"))
    begun = time.monotonic()
    try:
        served = place / "lab"
        served.mkdir()
        with lab.network(served) as net:
            measure(net, place, scale, set(given.only), figures)
    finally:
        shutil.rmtree(place)
    note(f"done in {(time.monotonic() - begun) / 60:.1f} minutes")
    text = report.render(figures)
    print(text)
    if given.write:
        page.write("bench-scan", report.TITLE, text, method(figures, scale))


def measure(net: lab.Network, place: Path, scale: Scale, wanted: set[str], figures: Figures) -> None:
    """Row by row; nmap, where it mostly waits, beside the making of a memory, which waits for nothing."""
    for row in (row for row in ROWS if row in wanted and row != "memory"):
        with _timed(row):
            _measure(net, place, scale, row, figures)
    database = place / "scan.db"
    with _timed("nmap where it waits, and memory"), ThreadPoolExecutor() as pool:
        patient = {row: peer for row, peer in scan_rows.patient().items() if row in wanted}
        waiting = {row: pool.submit(peer.run, net, place) for row, peer in patient.items()}
        if "memory" in wanted:
            scan_memory.make(database, scale.runs, HOSTS)
        for row, outcome in waiting.items():
            first, *others = figures.runs[row]
            figures.runs[row] = [{**first, report.NMAP: outcome.result()}, *others]
    if "memory" in wanted:
        figures.questions = list(scan_memory.questions(database))


def _measure(net: lab.Network, place: Path, scale: Scale, row: str, figures: Figures) -> None:
    match row:
        case "ports" | "cap" | "loss":
            rounds = scale.rounds if row == "ports" else scale.again
            whole = scan_rows.whole_hosts
            figures.runs[row] = [whole(net, place, row, figures, slow=not number) for number in range(rounds)]
        case "silent":
            figures.runs[row] = [scan_rows.silent(net, place, figures) for _ in range(scale.again)]
        case "services":
            figures.runs[row] = [scan_rows.services(net, place, figures) for _ in range(scale.again)]
            figures.everyone = scan_rows.everyone(net, place)
        case "discovery" | "crowd":
            rounds = scale.rounds if row == "crowd" else scale.again
            discovery = scan_rows.discovery
            figures.runs[row] = [discovery(net, place, row, figures, slow=not number) for number in range(rounds)]
            if row == "crowd":
                figures.memory = scan_rows.discovery_memory(net, place)
        case "sending":
            figures.sendings = scan_sending.measure(net)
        case "kill":
            figures.kills = list(scan_kills.kills(net, place, scale.kills, figures))


@contextmanager
def _timed(what: str) -> Iterator[None]:
    begun = time.monotonic()
    yield
    note(f"{what} took {time.monotonic() - begun:.0f} s")


def method(figures: Figures, scale: Scale) -> str:
    return METHOD.format(
        versions=", ".join(f"{name} {found}" for name, found in figures.versions.items()),
        rounds=scale.rounds,
        again=scale.again,
        kills=scale.kills,
        limit=scale.limit,
        hangs=scan_peers.HANGS,
        missing=MISSING[report.RUSTSCAN in figures.versions],
        rate=scan_kills.RATE,
        runs=scale.runs,
    )


if __name__ == "__main__":
    main()
