"""Questions beside a capture: they cost it no packet, and their answers are whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.workers.capture.lab import KIB, Network, numbers, worker

PACKETS = 60_000
RATE = 20_000
"""A second."""


def test_a_capture_loses_nothing_while_questions_are_asked_over_and_over(tmp_path: Path, net: Network) -> None:
    settings = {"interfaces": ["far"], "budget": 256 * KIB * KIB, "rotate": {"size": 1_000_000, "every": 3600}}
    (tmp_path / "spool").mkdir()
    with (
        worker(tmp_path / "spool", net, **settings) as capture,
        net.start_sending("near", PACKETS, pace=RATE) as sender,
    ):
        found = [0]
        while sender.poll() is None:
            found.append(asked(tmp_path))
        capture.stop()
        assert numbers(capture.data, "far") == list(range(PACKETS))
        figures = capture.figures()
        assert (figures["received"], figures["written"]) == (PACKETS, PACKETS)
        assert figures["dropped_kernel"] == figures["dropped_interface"] == figures["not_written"] == 0
        assert found == sorted(found), "each finds what the one before has found, and what came since"
        assert len(found) >= 3
        assert 0 < found[-1] <= asked(tmp_path) == PACKETS


def asked(prefix: Path) -> int:
    """How many packets a query finds that reads all of them."""
    command = [sys.executable, "-m", "agent", "--json", "--prefix", str(prefix), "capture", "query", "-o", "/dev/null"]
    done = subprocess.run([*command, "ether[12:2] = 0x88b5"], capture_output=True, text=True, timeout=60, check=True)
    document = json.loads(done.stdout)
    assert document["complete"], document
    return int(document["packets"])
