"""The capture worker and what others do to its host: the disk is filled, an interface stays away, frames of others."""

from __future__ import annotations

import json
import os
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.workers.capture.lab import PATIENCE, Network, numbers, worker

SETTINGS = {"interfaces": ["far"], "budget": 2**26, "rotate": {"size": 100_000, "every": 3600}}


def test_so_much_of_the_disk_stays_free_whoever_fills_it(small_disk: Path, net: Network) -> None:
    """``small_disk`` has 2 MiB, of which somebody else takes a part while it captures: the oldest segments make way."""
    data, least = small_disk / "data", 400_000
    settings = SETTINGS | {"min_free": {"bytes": least}}
    with worker(small_disk, net, **settings) as capture:
        net.send("near", 5_000, size=200)
        capture.wait_figure("written", 5_000)
        assert numbers(data, "far")[0] == 0  # there was room for all of them
        (data / "ballast").write_bytes(bytes(800_000))
        net.send("near", 10_000, first=5_000, size=200, pace=10_000)
        capture.stop()
        assert free(data) >= least
        figures = capture.figures()
        assert figures["received"] == figures["written"] + figures["not_written"] == 15_000
        kept = numbers(data, "far")
        assert kept[0] > 0 and kept[-1] > 5_000


def free(directory: Path) -> int:
    """Bytes of its file system that are free for anybody."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def test_an_interface_that_stays_away_is_tried_ever_less_often_and_captured_once_it_is_there(
    tmp_path: Path, net: Network
) -> None:
    """Each attempt is a socket, of which strace tells the time."""
    log = tmp_path / "strace"

    class Traced(Network):
        def inside(self, *command: str) -> list[str]:
            tracer = ("strace", "-D", "-ttt", "-o", str(log), "-e", "trace=socket")
            return super().inside(*tracer, *command)

    with worker(tmp_path / "worker", Traced(net.name), **SETTINGS) as capture:
        net.send("near", 100)
        net.delete("near")
        capture.wait_event("interface_lost")
        until = time.monotonic() + PATIENCE
        while len(attempts(log)) < 4:
            assert time.monotonic() < until
            capture.listen(0.05)
        net.pair("near", "far")
        capture.wait_event("interface_back")
        net.send("near", 100, first=100)
        capture.stop()
        assert numbers(capture.data, "far") == list(range(200))
    _, *failed = attempts(log)[:4]  # the first one opened it
    first, second = (later - earlier for earlier, later in pairwise(failed))
    assert first >= 0.25 and second >= 0.5


def attempts(log: Path) -> list[float]:
    """When it was tried to open the interface, by what strace has written."""
    lines = log.read_text().splitlines()
    return [float(line.split()[0]) for line in lines if "socket(AF_PACKET, SOCK_RAW" in line]


@pytest.mark.parametrize("promiscuous", [None, False, True])
def test_frames_for_others_are_taken_only_where_that_is_declared(
    tmp_path: Path, net: Network, promiscuous: bool | None
) -> None:
    declared = {} if promiscuous is None else {"promiscuous": promiscuous}
    with worker(tmp_path, net, **SETTINGS, **declared):
        shown = subprocess.run(
            ["ip", "-n", net.name, "-json", "-details", "link", "show", "far"], capture_output=True, timeout=PATIENCE
        )
        assert json.loads(shown.stdout)[0]["promiscuity"] == int(bool(promiscuous))
