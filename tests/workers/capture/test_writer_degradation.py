"""A disk that is full, broken, read-only or shared by quota: every step is told, and every packet is accounted for."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.workers.capture import pins
from tests.workers.capture.lab import PATIENCE, Network, Worker, numbers, segments, tcpdump_count, worker

SETTINGS: dict[str, Any] = {"interfaces": ["far"], "budget": 2**30, "rotate": {"size": 300_000, "every": 3600}}


def balance(capture: Worker, sent: int) -> dict[str, Any]:
    """Stop the worker and hold its account against the packets on disk; returns the final figures."""
    capture.stop()
    figures = capture.figures()
    kept = numbers(capture.data, "far")
    assert figures["received"] == figures["written"] + figures["not_written"] == sent
    assert figures["dropped_kernel"] == 0
    assert kept == sorted(set(kept)), "a packet is there twice"
    assert len(kept) == figures["written"] == sum(map(tcpdump_count, segments(capture.data, "far")))
    return figures


def index_process(capture: Worker) -> int:
    """The process that the worker keeps for its index."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        for number in Path(f"/proc/{capture.process.pid}/task/{capture.process.pid}/children").read_text().split():
            if b"\0index\0" in Path(f"/proc/{number}/cmdline").read_bytes():
                return int(number)
        capture.listen(0.02)
    raise AssertionError("there is no index process")


def test_what_waits_for_its_index_stops_the_writing_and_not_the_counting(tmp_path: Path, net: Network) -> None:
    settings = SETTINGS | {"budget": 1_000_000, "rotate": {"size": 100_000, "every": 3600}}
    with worker(tmp_path, net, **settings) as capture:
        index = index_process(capture)
        os.kill(index, signal.SIGSTOP)
        net.send("near", 8_000, size=200)
        event = capture.wait_event("storage_error")
        assert "the budget of 1000000 bytes is used up; " in event["message"]
        assert "segments wait for their index" in event["message"]
        figures = capture.wait_figure("unindexed", 2)  # all that the budget holds, of any length in a burst
        assert figures["store_bytes"] > 500_000
        assert (figures["store_state"], figures["not_written"] > 0) == ("full", True)
        assert numbers(capture.data, "far")[0] == 0
        os.kill(index, signal.SIGCONT)
        with net.start_sending("near", 6_000, first=8_000, size=200, pace=2_000) as sender:
            capture.wait_event("storage_resumed")
            assert sender.wait(PATIENCE) == 0
        capture.stop()
        figures = capture.figures()
        assert figures["received"] == figures["written"] + figures["not_written"] == 14_000
        assert numbers(capture.data, "far")[-1] == 13_999
        assert figures["store_state"] == "ok"


def test_a_pin_set_while_it_runs_keeps_the_oldest_packets_when_others_go(tmp_path: Path, net: Network) -> None:
    settings = SETTINGS | {"budget": 1_500_000, "rotate": {"size": 100_000, "every": 3600}}
    with worker(tmp_path, net, **settings) as capture:
        net.send("near", 1_000, size=200)
        capture.wait_figure("written", 1_000)
        pins.add(capture.data, 0, time.time_ns(), created=time.time_ns())
        capture.wait_figure("pins", 1)
        net.send("near", 8_000, first=1_000, size=200, pace=2_500)
        capture.stop()
        kept = numbers(capture.data, "far")
        assert kept[:1_000] == list(range(1_000))
        assert kept[-3_000:] == list(range(6_000, 9_000))
        assert len(kept) < 8_000
        assert capture.figures()["written"] == 9_000
        assert capture.events() == []


def test_a_disk_that_becomes_read_only_is_told_and_so_is_its_return(small_disk: Path, net: Network) -> None:
    with worker(small_disk, net, **SETTINGS | {"rotate": {"size": 300_000, "every": 0.2}}) as capture:
        net.send("near", 100)
        capture.wait_figure("segments", 1)
        remount(capture, "ro")
        net.send("near", 500, first=100)
        assert "Read-only file system" in capture.wait_event("storage_error")["message"]
        figures = capture.wait_figure("not_written", 500)
        assert figures["store_state"] == "full"
        remount(capture, "rw")
        with net.start_sending("near", 3_000, first=600, pace=2_000) as sender:
            capture.wait_event("storage_resumed")
            assert sender.wait(PATIENCE) == 0
        assert balance(capture, 3_600)["not_written"] >= 500


def remount(capture: Worker, how: str) -> None:
    """Once nothing is open for writing there."""
    until = time.monotonic() + PATIENCE
    while subprocess.run(
        ["mount", "-o", f"remount,{how}", str(capture.data)], capture_output=True, check=False
    ).returncode:
        assert time.monotonic() < until
        capture.listen(0.05)


def accounted(capture: Worker, sent: int) -> dict[str, Any]:
    """Figures of the first report in which each packet is either written or not."""

    def all_of_them(fields: dict[str, str]) -> bool:
        figures = json.loads(fields.get("X_FIGURES", "{}"))
        return bool(figures.get("written", 0) + figures.get("not_written", 0) >= sent)

    figures: dict[str, Any] = json.loads(capture.wait_for(all_of_them, f"{sent} accounted for")["X_FIGURES"])
    return figures


def test_writes_that_fail_in_the_middle_of_a_segment_cost_what_was_not_on_disk_and_no_more(
    tmp_path: Path, net: Network
) -> None:
    with worker(tmp_path, net, **SETTINGS) as capture:
        net.send("near", 100)
        capture.wait_figure("written", 100)
        limit = resource.prlimit(capture.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(capture.process.pid, resource.RLIMIT_FSIZE, (100_000, limit[1]))
        net.send("near", 5_000, size=200, pace=5_000, first=100)
        assert "File too large" in capture.wait_event("storage_error")["message"]
        resource.prlimit(capture.process.pid, resource.RLIMIT_FSIZE, limit)
        sent, figures = 5_100, accounted(capture, 5_100)
        until = time.monotonic() + PATIENCE
        gained = 0
        while gained < 100:  # it tries again, ever more rarely, when there is a packet
            assert time.monotonic() < until
            net.send("near", 100, first=sent)
            sent += 100
            before, figures = figures, accounted(capture, sent)
            gained = figures["written"] - before["written"]
        figures = balance(capture, sent)
        assert 0 < figures["not_written"] < sent - 100
        assert numbers(capture.data, "far")[-1] == sent - 1


@contextmanager
def failing(pid: int, error: str) -> Iterator[None]:
    """Every write(2) of the process fails with that error, as strace(1) makes it see."""
    tracer = subprocess.Popen(
        ["strace", "-qq", "-p", str(pid), "-e", "trace=write", "-e", f"inject=write:error={error}", "-o", "/dev/null"]
    )
    try:
        until = time.monotonic() + PATIENCE
        while "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
            assert time.monotonic() < until
            time.sleep(0.01)
        yield
    finally:
        tracer.terminate()
        tracer.wait(PATIENCE)


def test_a_broken_disk_is_told_and_what_it_did_not_take_is_counted(tmp_path: Path, net: Network) -> None:
    with worker(tmp_path, net, **SETTINGS) as capture:
        net.send("near", 100)
        capture.wait_figure("written", 100)
        with failing(capture.process.pid, "EIO"):
            net.send("near", 400, first=100)
            assert "Input/output error" in capture.wait_event("storage_error")["message"]
            capture.wait_figure("not_written", 1)
        with net.start_sending("near", 3_000, first=500, pace=2_000) as sender:
            capture.wait_event("storage_resumed")
            assert sender.wait(PATIENCE) == 0
        balance(capture, 3_500)


def test_a_quota_is_told_from_a_full_disk_and_costs_old_segments_too(tmp_path: Path, net: Network) -> None:
    with worker(tmp_path, net, **SETTINGS | {"rotate": {"size": 100_000, "every": 3600}}) as capture:
        net.send("near", 6_000, size=200)
        capture.wait_for(lambda fields: '"unindexed":0' in fields.get("X_FIGURES", ""), "that all is indexed")
        with failing(capture.process.pid, "EDQUOT"):
            net.send("near", 400, first=6_000)
            assert "Disk quota exceeded: for a while no more than" in capture.wait_event("storage_low")["message"]
            assert "packets not written: Disk quota exceeded" in capture.wait_event("storage_error")["message"]
            capture.wait_figure("not_written", 1)
        with net.start_sending("near", 3_000, first=6_400, pace=2_000) as sender:
            capture.wait_event("storage_resumed")
            assert sender.wait(PATIENCE) == 0
        capture.stop()
        figures = capture.figures()
        assert figures["received"] == figures["written"] + figures["not_written"] == 9_400
        kept = numbers(capture.data, "far")
        assert kept[0] > 0
        assert kept[-1] == 9_399
        assert figures["store_bytes"] <= 1_300_000
        assert figures["store_state"] == "pruning"
