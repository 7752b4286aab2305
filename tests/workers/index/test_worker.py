"""The index process: every closed segment gets an index, whatever lies beside it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.declaration.model import Capture
from agent.linux.notify import SystemdNotifier
from agent.workers.capture.naming import segment_name
from agent.workers.index import form
from agent.workers.index import worker as worker_module
from agent.workers.runtime import Context
from tests.workers.capture.lab import PATIENCE, ROOT, Network, network, worker
from tests.workers.index.pcaps import HEADER, records, segment


class Process(subprocess.Popen[str]):
    """An index process, and our end of its channel."""

    channel: socket.socket

    def ask_to_end(self) -> None:
        """As the capture worker does when it has written all."""
        self.channel.shutdown(socket.SHUT_WR)


@contextmanager
def index_process(data: Path, **variables: str) -> Iterator[Process]:
    """An index process as the capture worker starts it, but with nobody who listens to it."""
    config = data.parent / "service.json"
    config.write_text('{"kind": "capture", "name": "edge", "interfaces": ["eth0"]}')
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "SERVICE_CONFIG": str(config),
        "SERVICE_DATA": str(data),
        "SERVICE_CHANNEL": str(theirs.fileno()),
        **variables,
    }
    process = Process(
        [sys.executable, "-m", "agent", "worker", "index"],
        env=environment,
        pass_fds=[theirs.fileno()],
        stderr=subprocess.PIPE,
        text=True,
    )
    theirs.close()
    process.channel = ours
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
        ours.close()


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def packets(path: Path) -> int:
    return sum(chunk.packets for chunk in form.decode(path.read_bytes()))


def test_every_closed_segment_gets_an_index_and_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    segments = [segment(data, interface, second, records(30)) for interface in ("eth0", "eth1") for second in (0, 60)]
    done = segment(data, "eth0", 120, records(5))
    done.with_suffix(".idx").write_bytes(b"made before")
    foreign = segment(data, "eth0", 180, b"")
    foreign.write_bytes(b"no pcap file")
    (data / "eth0" / "notes.pcap").write_bytes(b"somebody's")
    with index_process(data) as process:
        wait_until(lambda: all(path.with_suffix(".idx").exists() for path in segments))
        process.ask_to_end()
        assert process.wait(PATIENCE) == 0
    assert [packets(path.with_suffix(".idx")) for path in segments] == [30] * 4
    assert done.with_suffix(".idx").read_bytes() == b"made before"
    assert not foreign.with_suffix(".idx").exists()
    assert len(list(data.rglob("*.idx"))) == 5


def test_a_segment_over_which_it_died_before_is_left_and_searched_as_it_is(tmp_path: Path) -> None:
    data = tmp_path / "data"
    suspect, other = segment(data, "eth0", 0, records(30)), segment(data, "eth0", 60, records(30))
    with index_process(data, SERVICE_SUSPECT=f"{suspect.stat().st_dev}:{suspect.stat().st_ino}"):
        wait_until(other.with_suffix(".idx").exists)
    assert suspect.with_suffix(".idx").read_bytes() == b""
    assert packets(other.with_suffix(".idx")) == 30


def test_a_segment_of_ours_that_is_damaged_gets_an_index_of_what_there_is(tmp_path: Path) -> None:
    """Else it could never be removed. A power failure leaves zeros, or nothing, under a name and beside an account."""
    data = tmp_path / "data"
    zeros, cut = segment(data, "eth0", 0, b""), segment(data, "eth0", 60, records(30) + bytes(5000))
    zeros.write_bytes(bytes(4096))
    foreign = segment(data, "eth0", 120, b"")
    foreign.write_bytes(b"somebody's")
    for path in (zeros, cut):
        path.with_suffix(".meta").touch()
    with index_process(data) as process:
        wait_until(lambda: zeros.with_suffix(".idx").exists() and cut.with_suffix(".idx").exists())
        process.ask_to_end()
        _, said = process.communicate(timeout=PATIENCE)
    assert zeros.with_suffix(".idx").read_bytes() == b""
    assert packets(cut.with_suffix(".idx")) == 30
    assert not foreign.with_suffix(".idx").exists()
    whole = cut.stat().st_size - 5000
    assert [said.count(line) for line in ("not a pcap file", f"damaged from byte {whole} on")] == [1, 1]


def test_what_is_kept_of_all_segments_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "MOST_KEPT", 3_000)
    data = tmp_path / "data"
    paths = [segment(data, f"eth{number}", 0, records(50 + number), ".part") for number in range(6)]

    async def look() -> None:
        indexing = worker_module.IndexWorker(
            Context(Capture(name="edge", interfaces=("eth0",)), data, SystemdNotifier({}))
        )
        known = indexing._look()
        await indexing._open(known)
        assert sum(growing.weight for growing in indexing._growing.values()) <= 3_000
        tails = [path.with_suffix(".tail") for path in paths if path.with_suffix(".tail").exists()]
        assert 0 < len(tails) < 6
        await indexing.stop()

    asyncio.run(look())


def test_what_began_and_was_closed_between_its_last_look_and_its_end_is_indexed_too(tmp_path: Path) -> None:
    data = tmp_path / "data"
    old = segment(data, "eth0", 0, records(10))

    async def stopped() -> Path:
        indexing = worker_module.IndexWorker(
            Context(Capture(name="edge", interfaces=("eth0",)), data, SystemdNotifier({}))
        )
        new = old.with_name(segment_name(time.time_ns(), ".pcap"))
        new.write_bytes(HEADER + records(20))
        await indexing.stop()
        return new

    new = asyncio.run(stopped())
    assert packets(new.with_suffix(".idx")) == 20
    assert not old.with_suffix(".idx").exists(), "what was waiting may be much, and waits on"


def test_the_signal_that_stops_all_of_a_capture_leaves_it_to_index_what_is_written_last(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = segment(data, "eth0", 0, records(30))
    with index_process(data) as process:
        wait_until(first.with_suffix(".idx").exists)
        process.send_signal(signal.SIGTERM)
        second = segment(data, "eth0", 60, records(20))
        wait_until(second.with_suffix(".idx").exists)
        process.ask_to_end()
        assert process.wait(PATIENCE) == 0


def test_it_holds_no_capability(tmp_path: Path) -> None:
    data = tmp_path / "data"
    path = segment(data, "eth0", 0, records(1))
    with index_process(data) as process:
        wait_until(path.with_suffix(".idx").exists)
        status = Path(f"/proc/{process.pid}/status").read_text()
    sets = ("CapInh", "CapPrm", "CapEff", "CapAmb")
    assert [line.split()[1] for line in status.splitlines() if line.startswith(sets)] == ["0" * 16] * 4


def test_it_begins_when_an_earlier_one_of_the_same_store_has_ended(tmp_path: Path) -> None:
    data = tmp_path / "data"
    path = segment(data, "eth0", 0, records(30))
    fd = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(fd, fcntl.LOCK_EX)  # as the earlier one does
    with index_process(data) as process:
        wait_until(lambda: waits(process.pid, data))
        assert not path.with_suffix(".idx").exists()
        assert not path.with_suffix(".tail").exists()
        os.close(fd)
        wait_until(path.with_suffix(".idx").exists)
        fd = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)
        process.ask_to_end()
        assert process.wait(PATIENCE) == 0
    assert packets(path.with_suffix(".idx")) == 30


def waits(pid: int, data: Path) -> bool:
    """Whether this process has opened the directory."""
    return any(opened.resolve() == data for opened in Path(f"/proc/{pid}/fd").iterdir())


def test_it_stands_back_for_the_capture(tmp_path: Path) -> None:
    data = tmp_path / "data"
    path = segment(data, "eth0", 0, records(1))
    with index_process(data) as process:
        wait_until(path.with_suffix(".idx").exists)
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        made.pair("near", "far")
        yield made


SETTINGS = {"interfaces": ["far"], "budget": 2**26, "rotate": {"size": 100_000, "every": 3600}}


def test_what_a_capture_writes_is_indexed_and_the_figures_say_how_far(tmp_path: Path, net: Network) -> None:
    with worker(tmp_path, net, **SETTINGS) as capture:
        net.send("near", 5_000)
        figures = capture.wait_figure("index_packets", 5_000)
        assert figures["index_until"] == pytest.approx(time.time(), abs=10)
        capture.stop()
        indexes = sorted((capture.data / "far").glob("*.idx"))
        assert len(indexes) == len(list((capture.data / "far").glob("*.pcap"))) >= 3
        assert sum(map(packets, indexes)) == 5_000
        assert not list((capture.data / "far").glob("*.tail"))


def test_a_killed_index_process_is_started_again_and_makes_up_for_what_is_missing(tmp_path: Path, net: Network) -> None:
    with worker(tmp_path, net, **SETTINGS) as capture:
        net.send("near", 1_000)
        capture.wait_figure("index_packets", 1_000)
        (child,) = children(capture.process.pid)
        os.kill(child, signal.SIGKILL)
        capture.wait_event("companion_ended")
        net.send("near", 4_000, first=1_000)
        capture.wait_figure("written", 5_000)
        wait_until(lambda: bool(children(capture.process.pid)))
        capture.wait_figure("index_packets", 4_000)
        capture.stop()
        assert sum(map(packets, (capture.data / "far").glob("*.idx"))) == 5_000


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
