"""What a SYN and its answer cost by scapy and by plain sockets, which is why a sweep has the latter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from bench.scan_report import Sending
from bench.scanners import ROOT
from tests.workers.scan import lab
from tests.workers.scan.truth import of_kind

COUNTS: Mapping[str, int] = {"scapy": 8_192, "agent": 65_535}
"""Probes; of scapy's fewer, because each takes so long."""
NAMES: Mapping[str, str] = {"scapy": "scapy", "agent": "plain sockets (`scan/syn.py`)"}


def measure(net: lab.Network) -> dict[str, Sending]:
    """Both, at a host of the link whose ports are closed, each a process of its own."""
    (host, *_) = of_kind("closed")
    found = {}
    for way, count in COUNTS.items():
        command = net.inside(sys.executable, "-m", "bench.inside.syns", way, host.address, str(count))
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=ROOT)
        answers, seconds, processor = done.stdout.split()
        found[NAMES[way]] = Sending(count, int(answers), float(seconds), float(processor))
    return found
