"""The capture worker as a process: every packet once, in whole segments, within the budget, whatever comes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.workers.capture.lab import KIB, Network, numbers, packets, refused, segments, tcpdump_count, worker


def small(**settings: object) -> dict[str, object]:
    return {"interfaces": ["far"], "budget": 64 * KIB * KIB, "rotate": {"size": 100_000, "every": 3600}, **settings}


def test_every_packet_is_in_exactly_one_segment_across_rotations_by_size(tmp_path: Path, net: Network) -> None:
    with worker(tmp_path, net, **small()) as capture:
        net.send("near", 20_000)
        capture.stop()
        assert numbers(capture.data, "far") == list(range(20_000))
        closed = segments(capture.data, "far")
        assert len(closed) >= 6  # each holds what the ring held when it was full, up to a tenth of a second
        assert sum(map(tcpdump_count, closed)) == 20_000
        figures = capture.figures()
        assert (figures["received"], figures["written"]) == (20_000, 20_000)
        assert figures["dropped_kernel"] == figures["dropped_interface"] == figures["not_written"] == 0
        assert figures["bytes"] == sum(path.stat().st_size for path in closed)
        assert figures["store_bytes"] == store_size(capture.data)
        assert figures["segments"] == len(closed)
        assert capture.events() == []


def test_rotation_by_time_is_aligned_to_the_wall_clock_and_loses_nothing(tmp_path: Path, net: Network) -> None:
    every = 0.5
    with worker(tmp_path, net, **small(rotate={"size": 2**30, "every": every})) as capture:
        net.send("near", 4_000, pace=2_000)
        capture.stop()
        assert numbers(capture.data, "far") == list(range(4_000))
        closed = segments(capture.data, "far")
        assert len(closed) >= 4
        starts = []
        for path in closed:
            times = [packet.time for packet in packets(path)]
            starts.append(min(times) - max(times) // int(every * 1e9) * every * 1e9)
        # A tenth of a second the kernel holds packets back. A busy machine may be later than that, but not every time.
        assert sorted(starts)[len(starts) // 2] >= -0.3e9


def test_a_segment_is_named_after_its_first_packet(tmp_path: Path, net: Network) -> None:
    with worker(tmp_path, net, **small()) as capture:
        net.send("near", 1)
        capture.stop()
        (path,) = segments(capture.data, "far")
        seconds, nanoseconds = divmod(packets(path)[0].time, 10**9)
        assert path.name == time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds)) + f".{nanoseconds // 1000:06}Z.pcap"


def test_an_idle_link_still_rotates_and_leaves_no_empty_segment(tmp_path: Path, net: Network) -> None:
    with worker(tmp_path, net, **small(rotate={"size": 2**30, "every": 1})) as capture:
        net.send("near", 3)
        capture.wait_figure("written", 3)
        settled(lambda: len(segments(capture.data, "far")) == 1)
        settled_at = time.monotonic()
        capture.wait_for(lambda _: time.monotonic() > settled_at + 2.1, "anything for two more rotations")
        assert sorted(path.suffix for path in (capture.data / "far").iterdir()) == [".idx", ".meta", ".pcap"]
        assert numbers(capture.data, "far") == [0, 1, 2]


def settled(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_stopping_takes_less_than_a_second_and_writes_what_the_kernel_still_held(tmp_path: Path, net: Network) -> None:
    with worker(tmp_path, net, **small()) as capture:
        net.send("near", 100)
        assert capture.stop() < 1.0
        assert numbers(capture.data, "far") == list(range(100))


def test_an_idle_worker_stops_in_less_than_a_second_and_leaves_nothing(tmp_path: Path, net: Network) -> None:
    with worker(tmp_path, net, **small()) as capture:
        assert capture.stop() < 1.0
        assert segments(capture.data, "far") + segments(capture.data, "far", ".part") == []


def test_a_storm_of_sigterm_is_one_stop(tmp_path: Path, net: Network) -> None:
    with worker(tmp_path, net, **small()) as capture:
        net.send("near", 100)
        for _ in range(20):
            capture.process.send_signal(signal.SIGTERM)
        assert capture.stop() < 1.0
        assert numbers(capture.data, "far") == list(range(100))


def test_what_a_killed_worker_had_written_is_completed_by_the_next(tmp_path: Path, net: Network) -> None:
    with worker(tmp_path, net, **small(rotate={"size": 2**30, "every": 3600})) as capture:
        net.send("near", 1_000)
        capture.wait_figure("written", 1_000)
        capture.process.kill()
        capture.process.wait()
    (part,) = segments(tmp_path / "data", "far", ".part")
    with part.open("ab") as file:
        file.write(bytes(range(1, 30)))  # as if it had died in the middle of a packet
    with worker(tmp_path, net, **small()) as capture:
        assert capture.events() == ["segment_recovered"]
        assert numbers(capture.data, "far") == list(range(1_000))
        assert segments(capture.data, "far", ".part") == []
        net.send("near", 10, first=1_000)
        capture.stop()
        assert numbers(capture.data, "far") == list(range(1_010))


def test_the_budget_is_never_exceeded_and_the_newest_packets_stay(tmp_path: Path, net: Network) -> None:
    budget = 3_000_000
    data = tmp_path / "data"
    (data / "far").mkdir(parents=True)
    foreign = data / "far" / "notes.pcap"
    foreign.write_bytes(b"not ours" * 1000)
    with (
        worker(tmp_path, net, **small(budget=budget)) as capture,
        net.start_sending("near", 10_000, size=200, pace=5_000) as sender,
    ):
        largest = 0
        while sender.poll() is None:
            largest = max(largest, store_size(data))
        capture.stop()
        assert 0.5 * budget < largest <= budget
        kept = numbers(capture.data, "far")
        assert kept == list(range(kept[0], 10_000))
        assert foreign.exists()
        assert capture.figures()["store_bytes"] == store_size(data)
        assert capture.figures()["written"] == 10_000


def store_size(data: Path) -> int:
    """Bytes of all segments at one instant: looked at until none comes or goes meanwhile."""
    while True:
        before = sorted(data.glob("*/2*"))
        try:
            size = sum(path.stat().st_size for path in before)
        except FileNotFoundError:  # completed or removed since
            continue
        if sorted(data.glob("*/2*")) == before:
            return size


def test_interfaces_of_one_service_share_its_budget(tmp_path: Path, net: Network) -> None:
    net.pair("near2", "far2")
    budget = 3_000_000
    settings = small(interfaces=["far", "far2"], budget=budget)
    with worker(tmp_path, net, **settings) as capture:
        net.send("near", 5_000)
        net.send("near2", 20_000, size=200, pace=5_000)
        capture.stop()
        kept = numbers(capture.data, "far2")
        assert kept == list(range(kept[0], 20_000))
        # The oldest of all are gone; the segment that was still open could not be.
        assert len(numbers(capture.data, "far")) <= 100_000 / 80
        assert 0.5 * budget < store_size(capture.data) <= budget
        assert capture.figures()["written"] == 25_000


def test_a_filter_decides_what_is_captured_and_the_account_still_balances(tmp_path: Path, net: Network) -> None:
    with (
        # Sending first, so that packets arrive between the opening and the filter.
        net.start_sending("near", 10_000, pace=5_000) as sender,
        worker(tmp_path, net, **small(filter="ether[17] & 1 = 1")) as capture,
    ):
        assert sender.wait(20) == 0
        capture.stop()
        kept = numbers(capture.data, "far")
        assert kept == list(range(kept[0], 10_000, 2))
        assert kept[0] % 2 == 1
        figures = capture.figures()
        assert figures["received"] == figures["written"] == len(kept)
        assert capture.events() == []


def test_packets_are_cut_to_the_snaplen_and_their_true_length_is_kept(tmp_path: Path, net: Network) -> None:
    with worker(tmp_path, net, **small(snaplen=40)) as capture:
        net.send("near", 10, size=500)
        capture.stop()
        (path,) = segments(capture.data, "far")
        assert {(packet.captured, packet.original) for packet in packets(path)} == {(40, 500)}


def test_the_heartbeat_stays_fresh_and_memory_small_under_a_flood(tmp_path: Path, net: Network) -> None:
    settings = small(heartbeat={"interval": 0.2, "timeout": 1}, rotate={"size": 2**22, "every": 1})
    with (
        worker(tmp_path, net, **settings) as capture,
        net.start_sending("near", 150_000, pace=0) as one,
        net.start_sending("near", 150_000, first=150_000, pace=0) as two,
    ):
        stalest = 0.0
        while one.poll() is None or two.poll() is None:
            stalest = max(stalest, time.time() - capture.heartbeat.stat().st_mtime)
            capture.listen(0.01)
        resident = resident_bytes(capture.process.pid) - capture.figures()["ring"]
        capture.stop()
        figures = capture.figures()
        assert figures["received"] == net.arrived("far") > 100_000
        assert figures["written"] + figures["dropped_kernel"] == figures["received"]
        assert len(numbers(capture.data, "far")) == figures["written"]
        assert stalest < 1
        assert resident < 40 * KIB * KIB
        assert capture.events() == []


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_the_status_is_one_line_for_people(tmp_path: Path, net: Network) -> None:
    with worker(tmp_path, net, **small()) as capture:
        net.send("near", 1_234)
        capture.stop()
        assert capture.status() == "far: 1,234 packets, 0 dropped, 96.4 KiB in 1 segment"


def test_a_ring_that_the_kernel_does_not_grant_in_full_is_told_as_it_is(tmp_path: Path, net: Network) -> None:
    log = tmp_path / "strace"

    class Traced(Network):
        options: tuple[str, ...] = ()

        def inside(self, *command: str) -> list[str]:
            return super().inside("strace", "-D", "-o", str(log), "-e", "trace=setsockopt", *self.options, *command)

    traced = Traced(net.name)
    with worker(tmp_path / "whole", traced, **small(ring=2**22)) as capture:
        assert capture.wait_figure("ring", 1)["ring"] == 2**22
        capture.stop()
    calls = [line for line in log.read_text().splitlines() if line.startswith("setsockopt(")]
    ring, *_ = [number for number, call in enumerate(calls, 1) if "PACKET_RX_RING" in call]
    traced.options = ("-e", f"inject=setsockopt:error=ENOMEM:when={ring}")
    with worker(tmp_path / "shrunk", traced, **small(ring=2**22)) as capture:
        granted = capture.wait_figure("ring", 1)["ring"]
        assert 2**21 < granted < 2**22
        (event,) = capture.told()
        assert event["message"] == f"far: the kernel granted {granted} bytes for its ring, not {2**22}"
        net.send("near", 100)
        capture.stop()
        assert numbers(capture.data, "far") == list(range(100))


HINT = 'interface eth99 does not exist; this host has far, lo, near; a pattern such as "eth99*" would wait for it'


def test_an_unknown_interface_is_a_mistake_in_the_declaration(tmp_path: Path, net: Network) -> None:
    status, lines = refused(tmp_path, net, **small(interfaces=["eth99"]))
    assert (status, lines) == (1, [HINT])


def test_a_bad_filter_is_a_mistake_in_the_declaration_told_with_its_place(tmp_path: Path, net: Network) -> None:
    status, lines = refused(tmp_path, net, **small(filter="udp port bananas"))
    assert (status, lines) == (1, ["far: filter \"udp port bananas\": unknown port 'bananas' (column 10)"])


def test_a_snaplen_that_keeps_nothing_is_a_mistake_in_the_declaration(tmp_path: Path, net: Network) -> None:
    status, lines = refused(tmp_path, net, **small(snaplen=0))
    assert (status, lines) == (1, ["service.edge.snaplen: 0 is not within 1..262144 bytes"])


def test_a_budget_that_cannot_work_is_a_mistake_in_the_declaration(tmp_path: Path, net: Network) -> None:
    status, (line,) = refused(tmp_path, net, **small(budget=1_000))
    assert status == 1
    assert line.startswith("service.edge.budget: 1000 bytes are too few for 1 interfaces with packets of up to 262144")


def test_a_store_of_a_newer_version_is_refused_and_not_touched(tmp_path: Path, net: Network) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "store.json").write_text('{"version": 2}')
    status, lines = refused(tmp_path, net, **small())
    told = f"{data / 'store.json'}: the store is of version 2, and this program knows 1"
    assert (status, [line[: len(told)] for line in lines]) == (1, [told])
    assert [path.name for path in data.iterdir()] == ["store.json"]


def test_without_permission_it_says_which_capability_is_missing(tmp_path: Path, net: Network) -> None:
    class Unprivileged(Network):
        def inside(self, *command: str) -> list[str]:
            return super().inside("setpriv", "--bounding-set=-net_raw", *command)

    status, lines = refused(tmp_path, Unprivileged(net.name), **small())
    assert (status, lines) == (2, ["capturing on far needs CAP_NET_RAW: run as root or with that capability"])
