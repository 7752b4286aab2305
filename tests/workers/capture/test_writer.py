"""A store that takes no more: the capture goes on, says how many packets were lost, and resumes."""

from __future__ import annotations

import resource
from itertools import count
from pathlib import Path

from tests.workers.capture.lab import Network, numbers, segments, tcpdump_count, worker

SETTINGS = {"interfaces": ["far"], "budget": 2**30, "rotate": {"size": 300_000, "every": 3600}}


def test_a_full_disk_is_reported_counted_and_recovered_from(small_disk: Path, net: Network) -> None:
    with worker(small_disk, net, **SETTINGS) as capture:
        filler = fill(capture.data)
        net.send("near", 20_000)
        event = capture.wait_event("storage_error")
        assert "packets not written: No space left on device" in event["message"]
        capture.wait_figure("not_written", 20_000)
        assert capture.status().endswith("20,000 not written, the disk takes no more")

        filler.unlink()
        with net.start_sending("near", 20_000, first=20_000, pace=10_000) as sender:
            capture.wait_event("storage_resumed")
            assert sender.wait(20) == 0
        capture.stop()
        figures = capture.figures()
        assert figures["received"] == figures["written"] + figures["not_written"] == 40_000
        assert figures["dropped_kernel"] == 0
        assert capture.process.returncode == 0
        kept = numbers(capture.data, "far")
        assert kept == list(range(40_000 - figures["written"], 40_000))
        assert sum(map(tcpdump_count, segments(capture.data, "far"))) == len(kept)


def test_a_disk_smaller_than_the_budget_costs_old_segments_and_no_packet(small_disk: Path, net: Network) -> None:
    with worker(small_disk, net, **SETTINGS) as capture:
        net.send("near", 12_000, size=200, pace=3_000)
        capture.stop()
        figures = capture.figures()
        assert figures["received"] == figures["written"] == 12_000
        assert figures["store_state"] == "pruning"
        assert capture.events() == ["storage_low"]
        kept = numbers(capture.data, "far")
        assert kept == list(range(kept[0], 12_000))
        assert len(kept) * 216 > 2**20


def test_a_segment_directory_that_cannot_be_made_is_a_storage_error(tmp_path: Path, net: Network) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "far").write_text("in the way")
    with worker(tmp_path, net, **SETTINGS) as capture:
        net.send("near", 100)
        assert "File exists" in capture.wait_event("storage_error")["message"]
        capture.wait_figure("not_written", 100)
        (data / "far").unlink()
        with net.start_sending("near", 10_000, first=100, pace=5_000) as sender:
            assert capture.wait_event("storage_resumed")
            assert sender.wait(20) == 0
        capture.stop()
        figures = capture.figures()
        assert figures["written"] + figures["not_written"] == 10_100
        assert len(numbers(data, "far")) == figures["written"] > 0


def test_a_process_without_descriptors_goes_on_counting_and_resumes(tmp_path: Path, net: Network) -> None:
    with worker(tmp_path, net, **SETTINGS) as capture:
        pid = capture.process.pid
        taken = {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        none_free = next(number for number in count() if number not in taken)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (none_free, before[1]))
        net.send("near", 100)
        assert "Too many open files" in capture.wait_event("storage_error")["message"]
        capture.wait_figure("not_written", 100)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        with net.start_sending("near", 10_000, first=100, pace=5_000) as sender:
            capture.wait_event("storage_resumed")
            assert sender.wait(20) == 0
        capture.stop()
        figures = capture.figures()
        assert figures["written"] + figures["not_written"] == figures["received"] == 10_100
        assert len(numbers(capture.data, "far")) == figures["written"] > 0


def fill(directory: Path) -> Path:
    """Take the last free byte of the disk."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return filler
    raise AssertionError("the disk takes everything")
