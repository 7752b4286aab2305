"""``make bench-scan``: scans side by side with nmap, on hosts whose truth is known.

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

from bench import page, process, scan_rows, scanners
from bench import scan_report as report
from bench.capture import note, version
from bench.scan_method import METHOD
from bench.scan_report import Figures
from tests.workers.scan import lab

ROWS = (*report.TITLES, "kill")
PACKAGES = ("nmap", "nginx", "openssh-server", "redis-tools", "dnsmasq-base")


@dataclass(frozen=True)
class Scale:
    """How often everything is done: ``rounds`` of what is quick, ``again`` of what is not."""

    rounds: int
    again: int
    kills: int
    limit: float


FULL = Scale(rounds=5, again=3, kills=50, limit=scanners.LIMIT)
SHORT = Scale(rounds=1, again=1, kills=3, limit=30.0)
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
    figures = Figures(versions={name: version(name) for name in PACKAGES})
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
    for row, rounds in (("ports", scale.rounds), ("loss", 1), ("cap", scale.again)):
        if row in wanted:
            note(f"{report.TITLES[row]}, rounds: {rounds}")
            figures.runs[row] = [scan_rows.whole_hosts(net, place, row, figures) for _ in range(rounds)]
    if "silent" in wanted:
        note(report.TITLES["silent"])
        figures.runs["silent"] = [scan_rows.silent(net, place, figures)]
    if "services" in wanted:
        note(f"{report.TITLES['services']}, rounds: {scale.again}")
        figures.runs["services"] = [scan_rows.services(net, place, figures) for _ in range(scale.again)]
    for row in ("discovery", "crowd"):
        if row in wanted:
            note(f"{report.TITLES[row]}, rounds: {scale.rounds}")
            figures.runs[row] = [scan_rows.discovery(net, place, row, figures) for _ in range(scale.rounds)]
    if "crowd" in wanted:
        figures.memory = scan_rows.discovery_memory(net, place)
    if "kill" in wanted:
        note(f"{scale.kills} kills")
        figures.kills = list(scan_rows.kills(net, place, scale.kills, figures))


def method(figures: Figures, scale: Scale) -> str:
    return METHOD.format(
        versions=", ".join(f"{name} {found}" for name, found in figures.versions.items()),
        rounds=scale.rounds,
        again=scale.again,
        kills=scale.kills,
        limit=scale.limit,
        rate=scan_rows.KILLED_RATE,
    )


if __name__ == "__main__":
    main()
