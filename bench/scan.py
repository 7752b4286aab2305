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
from dataclasses import dataclass
from pathlib import Path

from bench import page, process, scan_kills, scan_memory, scan_peers, scan_rows, scan_sending, scanners
from bench import scan_report as report
from bench.capture import note
from bench.scan_method import METHOD, MISSING
from bench.scan_report import Figures
from tests.workers.scan import lab

ROWS = (*report.TITLES, "sending", "memory", "kill")


@dataclass(frozen=True)
class Scale:
    """How often everything is done: ``rounds`` of what is quick, ``again`` of what is not."""

    rounds: int
    again: int
    kills: int
    runs: int
    limit: float


FULL = Scale(rounds=5, again=3, kills=50, runs=1000, limit=scanners.LIMIT)
SHORT = Scale(rounds=1, again=1, kills=4, runs=20, limit=30.0)
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
    for row in (row for row in ROWS if row in wanted):
        begun = time.monotonic()
        _measure(net, place, scale, row, figures)
        note(f"{row} took {time.monotonic() - begun:.0f} s")


def _measure(net: lab.Network, place: Path, scale: Scale, row: str, figures: Figures) -> None:
    match row:
        case "ports" | "cap" | "loss":
            rounds = scale.rounds if row == "ports" else scale.again
            whole = scan_rows.whole_hosts
            figures.runs[row] = [whole(net, place, row, figures, slow=not number) for number in range(rounds)]
        case "silent":
            silent = scan_rows.silent
            figures.runs[row] = [silent(net, place, figures, slow=not number) for number in range(scale.again)]
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
        case "memory":
            path = place / "scan.db"
            scan_memory.make(path, scale.runs, 1000)
            figures.questions = list(scan_memory.questions(path))
        case "kill":
            figures.kills = list(scan_kills.kills(net, place, scale.kills, figures))


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
