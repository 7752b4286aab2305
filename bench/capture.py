"""``make bench-capture``: captures side by side with the programs that people would use instead.

Sender and receiver are in network namespaces that are made here, joined by a veth pair and pinned to a processor each.
Everything is in one run, on one disk; rounds take the programs in turn, in random order.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench import accountants, captors, capture_store, capture_wire, page, process, stenographer
from bench import capture_report as report
from bench.capture_method import METHOD
from bench.capture_report import Figures
from bench.wire import Wire, wire

GB = 1_000_000_000
ROWS = ("loss", "cpu", "scapy", "rotation", "kill", "memory", "flows", "query", "visible")
PACKAGES = ("tcpdump", "wireshark-common", "netsniff-ng", "tcpreplay", "softflowd", "nfdump", "pmacct", "stenographer")


@dataclass(frozen=True)
class Scale:
    """How much of everything: packets of a run, rounds of runs on the wire and of those over files, seconds, kills."""

    packets: int
    rounds: int
    again: int
    rotation: int
    kills: int
    memory: int
    accounted: int
    store: int
    visible: int


FULL = Scale(
    packets=3_000_000,
    rounds=5,
    again=3,
    rotation=60,
    kills=100,
    memory=30,
    accounted=2_000_000,
    store=10 * GB,
    visible=10,
)
SHORT = Scale(
    packets=1_000_000,
    rounds=1,
    again=1,
    rotation=5,
    kills=5,
    memory=8,
    accounted=500_000,
    store=GB // 2,
    visible=2,
)
"""To see that everything works: its figures are not kept."""


def main() -> None:
    asked = argparse.ArgumentParser(prog="make bench-capture ARGS=", add_help=False)
    asked.add_argument("--write", action="store_true")
    asked.add_argument("--short", action="store_true")
    asked.add_argument("--only", type=lambda text: text.split(","), default=list(ROWS))
    given = asked.parse_args()
    if unknown := set(given.only) - set(ROWS):
        sys.exit(f"there is no {', '.join(sorted(unknown))} to measure: {', '.join(ROWS)}")
    if given.write and (given.short or set(given.only) != set(ROWS)):
        sys.exit("only a whole run is kept: --write goes with neither --short nor --only")
    if os.geteuid() != 0:
        sys.exit("make bench-capture makes network namespaces and captures in them, and that takes root")
    if (os.cpu_count() or 1) < 2:
        sys.exit("make bench-capture needs a processor for who sends and another for who captures")
    scale = SHORT if given.short else FULL
    process.become_subreaper()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was made is removed then too
    figures = Figures(versions={name: version(name) for name in PACKAGES})
    place = Path(tempfile.mkdtemp(prefix="bench-capture-", dir="/var/tmp"))
    begun = time.monotonic()
    try:
        if (free := shutil.disk_usage(place).free) < 20 * GB:
            sys.exit(f"make bench-capture needs 20 GB below {place.parent}, and there are {free / GB:.0f}")
        with wire() as joined:
            measure(joined, place, scale, set(given.only), figures)
    finally:
        shutil.rmtree(place)
    note(f"done in {(time.monotonic() - begun) / 60:.1f} minutes")
    text = report.render(figures)
    print(text)
    if given.write:
        page.write("bench-capture", report.TITLE, text, method(figures, scale))


def measure(joined: Wire, place: Path, scale: Scale, wanted: set[str], figures: Figures) -> None:
    if wanted & {"loss", "cpu"}:
        note(f"{scale.rounds} rounds of {scale.packets:,} packets as fast as they can be sent, and of a steady stream")
        figures.runs = list(capture_wire.runs(joined, place, scale.packets, scale.rounds))
    if "scapy" in wanted:
        note("scapy: the rate at which it loses nothing")
        figures.scapy = capture_wire.scapy_rate(joined, place)
    if "rotation" in wanted:
        note(f"rotation every second for {scale.rotation} s")
        figures.rotation = capture_wire.rotation(joined, place, scale.rotation)
    if "flows" in wanted:
        note(f"flows of {scale.accounted:,} packets, {scale.again} rounds")
        figures.accounted = list(accountants.accounts(place, scale.accounted, scale.again))
    if "query" in wanted:
        note(f"a query out of {scale.store / GB:.1f} GB, {scale.again} rounds")
        figures.queries = capture_store.queries(joined, place, scale.store, scale.again)
    if "visible" in wanted:
        note("packets looked for as soon as they are sent")
        figures.visible = list(capture_store.visible(joined, place, scale.visible))
    if "kill" in wanted:
        note(f"{scale.kills} kills")
        figures.kill_bound = capture_wire.kill_bound()
        figures.kills = list(capture_wire.kills(joined, place, scale.kills))
    if "memory" in wanted:
        note(f"memory, {scale.memory} s of many flows")
        figures.memory = capture_wire.memory(joined, place, scale.memory)


def method(figures: Figures, scale: Scale) -> str:
    return METHOD.format(
        **dataclasses.asdict(scale),
        versions=", ".join(f"{name} {found}" for name, found in figures.versions.items()),
        flows=capture_wire.FLOWS,
        ring=captors.RING // captors.MIB,
        scapy=capture_wire.SCAPY_SECONDS,
        age=stenographer.AGE,
    )


def version(package: str) -> str:
    """Of what Debian has installed."""
    done = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Version}", package], check=True, capture_output=True, text=True
    )
    return done.stdout


def note(text: str) -> None:
    print(f"bench: {text} (load {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
