"""One budget for several processes: the sum holds, and nobody's death, file or lock is in the way of others."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

import agent
from agent.declaration.model import Scan, Scanning
from agent.paths import BUDGET_VARIABLE
from agent.workers.scan.budget import SECOND, Limits
from agent.workers.scan.budget_file import GONE, SIZE, Budget, budget_of
from agent.workers.scan.sweep import BATCH
from tests.workers.scan.bench import Bench
from tests.workers.scan.test_budget import insist

ROOT = Path(agent.__file__).parent.parent
ROW = ["10.0.0.1", "10.0.0.2", "10.0.1.1"]
WIDE = Limits(1_000_000, 1_000_000, 1_000_000)
"""More than anybody asks for here."""


class Clock:
    """Stands unless it is moved."""

    def __init__(self) -> None:
        self.now = 1_000 * SECOND

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines() -> list[str]:
    """What was told."""
    return []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", directory], check=True)
    yield directory
    subprocess.run(["umount", directory], check=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scan.budget"


class Scans:
    """Budgets on one file, as many as a test likes."""

    def __init__(self, path: Path, clock: Clock, lines: list[str]) -> None:
        self.path, self.clock, self.lines = path, clock, lines
        self.made: list[Budget] = []

    def open(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def add(self, limits: Limits) -> Budget:
        self.made.append(Budget(self.open(), limits, self.lines.append, clock=self.clock))
        return self.made[-1]


@pytest.fixture
def scans(path: Path, clock: Clock, lines: list[str]) -> Iterator[Scans]:
    made = Scans(path, clock, lines)
    yield made
    for one in made.made:
        one.close()
        one.close()


def test_two_scans_share_what_there_is_for_host_network_and_target(scans: Scans, lines: list[str]) -> None:
    for limits, place, other in [
        (Limits(100, 999, 999), 0, 2),
        (Limits(999, 100, 999), 0, 1),
        (Limits(999, 999, 100), 0, 0),
    ]:
        one, two = scans.add(limits), scans.add(limits)
        assert one.of(ROW).take([place] * 3).positions == [0, 1, 2]
        assert two.of(ROW).take([other] * 9).positions == [0, 1]
        assert two.of(ROW).take([other]).positions == []
        scans.clock.now += SECOND
    assert not lines


def test_it_is_asked_again_when_it_said(scans: Scans, clock: Clock) -> None:
    share = scans.add(Limits(999, 999, 20)).of(ROW)
    allowed = share.take([0, 0, 1])
    assert allowed.positions == [0, 2]
    assert allowed.again == pytest.approx(clock.now / SECOND + 0.05)
    clock.now = int(allowed.again * SECOND) + 1
    assert share.take([0]).positions == [0]


def test_where_there_is_no_file_a_scan_keeps_to_its_own_budget(lines: list[str]) -> None:
    for environ in ({}, {BUDGET_VARIABLE: "none"}, {BUDGET_VARIABLE: "99999"}):
        made = budget_of(environ, Limits(100, 100, 100), lines.append)
        assert made.of(ROW).take([0] * 9).positions == [0, 1, 2, 3, 4]
        made.close()
    assert lines == [
        "there is no budget of all scans: this scan keeps to its own",
        "there is no budget of all scans: this scan keeps to its own",
        "the budget of all scans cannot be used: Bad file descriptor; this scan keeps to its own",
    ]


def test_what_is_no_regular_file_is_not_used(lines: list[str]) -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    made = budget_of({BUDGET_VARIABLE: str(writer)}, WIDE, lines.append)
    assert lines == ["the budget of all scans cannot be used: it is no regular file; this scan keeps to its own"]
    made.close()
    os.close(reader)
    with pytest.raises(OSError):
        os.fstat(writer)


@pytest.mark.parametrize("content", [b"x" * 100, b"\0" * SIZE, b"agtscanb" + b"\xff" * (2 * SIZE)])
def test_a_damaged_or_foreign_file_is_begun_anew_and_that_is_told_once(
    scans: Scans, path: Path, content: bytes, lines: list[str]
) -> None:
    path.write_bytes(content)
    one = scans.add(Limits(100, 100, 100))
    two = scans.add(Limits(100, 100, 100))
    assert one.of(ROW).take([0] * 9).positions == [0, 1, 2, 3, 4]
    assert two.of(ROW).take([0]).positions == []
    assert path.stat().st_size == SIZE
    assert lines == ["the budget of all scans was damaged, or another file: begun anew"]


@pytest.mark.parametrize("size", [0, 100, SIZE // 2, 2 * SIZE])
def test_one_that_is_cut_while_it_is_in_use_is_begun_anew(
    scans: Scans, path: Path, size: int, lines: list[str]
) -> None:
    one, two = scans.add(Limits(100, 100, 100)), scans.add(Limits(100, 100, 100))
    assert one.of(ROW).take([0] * 9).positions
    os.truncate(path, size)
    assert one.of(ROW).take([0] * 9).positions == [0, 1, 2, 3, 4]
    assert two.of(ROW).take([0]).positions == []
    assert path.stat().st_size == SIZE
    assert len(lines) == (size > 0)


def test_a_file_of_another_boot_is_begun_anew_without_a_word(scans: Scans, path: Path, lines: list[str]) -> None:
    scans.add(Limits(100, 100, 100)).of(ROW).take([0] * 9)
    with path.open("r+b") as file:
        file.seek(16)
        file.write(b"another boot id.")
    assert scans.add(Limits(100, 100, 100)).of(ROW).take([0] * 9).positions == [0, 1, 2, 3, 4]
    assert not lines


def test_numbers_of_no_sense_hold_nobody_up(scans: Scans, path: Path, lines: list[str]) -> None:
    scans.add(WIDE)
    with path.open("r+b") as file:
        file.seek(64)
        file.write(struct.pack("=q", 2**62) * ((SIZE - 64) // 8))
    assert scans.add(WIDE).of(ROW).take([0, 1, 2]).positions == [0, 1, 2]
    assert not lines


def test_a_full_disk_leaves_each_scan_with_its_own_budget(small_disk: Path, lines: list[str]) -> None:
    fd = os.open(small_disk / "scan.budget", os.O_RDWR | os.O_CREAT, 0o600)
    made = Budget(fd, Limits(100, 100, 100), lines.append)
    assert made.of(ROW).take([0]).positions == [0]
    assert lines == ["the budget of all scans cannot be used: No space left on device; this scan keeps to its own"]
    made.close()


def test_who_begins_while_another_has_the_lock_waits_for_it_for_a_moment(scans: Scans) -> None:
    scans.add(WIDE).of(ROW)
    holder = scans.open()
    fcntl.flock(holder, fcntl.LOCK_EX)
    released = threading.Timer(0.1, os.close, [holder])
    released.start()
    assert scans.add(WIDE).of(ROW).take([0]).positions == [0]
    released.join()
    assert not scans.lines


def test_who_begins_while_another_keeps_the_lock_keeps_to_a_budget_of_its_own(scans: Scans) -> None:
    scans.add(WIDE)
    holder = scans.open()
    fcntl.flock(holder, fcntl.LOCK_EX)
    assert scans.add(WIDE).of(ROW).take([0]).positions == [0]
    why = "another process does not let go of it"
    assert scans.lines == [f"the budget of all scans cannot be used: {why}; this scan keeps to its own"]
    os.close(holder)


def test_whoever_does_not_get_the_lock_sends_nothing_and_says_who_has_it(scans: Scans, clock: Clock) -> None:
    share = scans.add(WIDE).of(ROW)
    holder = scans.open()
    fcntl.flock(holder, fcntl.LOCK_EX)
    allowed = share.take([0])
    assert allowed.positions == []
    assert allowed.again == pytest.approx(clock.now / SECOND + 0.002)
    clock.now += 6 * SECOND
    share.take([0])
    share.take([0])
    who = f"process {os.getpid()}"
    assert scans.lines == [f"nothing is sent: {who} does not let go of the budget of all scans"]
    os.close(holder)
    assert share.take([0]).positions == [0]


def test_what_is_reserved_is_nobody_elses_until_it_is_given_back_or_its_scan_is_gone(
    scans: Scans, clock: Clock
) -> None:
    limits = Limits(1_000, 1_000, 1_000)
    one, two, three = scans.add(limits), scans.add(limits), scans.add(limits)
    assert [one.reserve(400), one.reserve(200), two.reserve(600), three.reserve(600)] == [400, 200, 400, 0]
    one.release(400)
    assert three.reserve(300) == 300
    assert two.reserve(700, least=101) == 0
    assert two.reserve(700, least=100) == 100
    two.close()
    clock.now += GONE - 1
    assert one.reserve(5_000) == 500
    clock.now += 2
    assert one.reserve(5_000) == 300


def test_what_is_sent_without_asking_others_wait_for(scans: Scans, clock: Clock) -> None:
    one, two = scans.add(Limits(1_000, 1_000, 1_000)), scans.add(Limits(1_000, 1_000, 1_000))
    one.of(ROW).charge([0] * 500)
    allowed = two.of(ROW).take([1])
    assert allowed.positions == []
    assert allowed.again == pytest.approx(clock.now / SECOND + 0.5, abs=0.06)


# -- several processes -----------------------------------------------------------------------------------------------

PROCESS = """
import os, sys, time
from ipaddress import ip_address
from agent.workers.scan.budget import Limits
from agent.paths import BUDGET_VARIABLE
from agent.workers.scan.budget_file import Budget
host, network, target, address, user = (int(word) for word in sys.argv[1:])
os.setgroups([])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
instants = []
def clock():
    instants.append(time.monotonic_ns())
    return instants[-1]
budget = Budget(int(os.environ[BUDGET_VARIABLE]), Limits(host, network, target), print, clock=clock)
share = budget.of([str(ip_address(address))])
asked = [0] * 200
print("ready", flush=True)
until = float(sys.stdin.readline())
while True:
    allowed = share.take(asked)
    now = time.monotonic()
    if allowed.positions:
        print(instants[-1], len(allowed.positions))
    instants.clear()
    if now > until:
        break
    time.sleep(max(0.0, min(allowed.again - now, 0.01)))
"""


class Other:
    """A process with a budget, which takes what it can get for an address, from when it is told to."""

    def __init__(self, scans: Scans, limits: Limits, address: str, user: int = 0) -> None:
        fd = scans.open()
        words = [str(number) for number in (*limits, int(ip_address(address)), user)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, *words],
            env={"PYTHONPATH": str(ROOT), BUDGET_VARIABLE: str(fd)},
            pass_fds=(fd,),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(fd)

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def begin(self, until: float) -> None:
        """It ends at that time of the monotonic clock."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{until}\n")
        self.process.stdin.flush()

    def took(self) -> list[tuple[int, int]]:
        """When, and how many."""
        out, err = self.process.communicate(timeout=30)
        assert not err
        return [(int(at), int(count)) for at, count in (line.split() for line in out.splitlines())]


def test_the_sum_of_several_processes_holds_and_each_has_its_share(scans: Scans) -> None:
    """Also those that run as another user, who could not open the file."""
    limits = Limits(8_000, 4_000, 2_000)
    others = [
        Other(scans, limits, f"10.0.{net}.{host}", user)
        for net in (0, 1)
        for host, user in ((1, 0), (1, 65534), (2, 0))
    ]
    for other in others:
        other.wait_until_ready()
    until = time.monotonic() + 0.8
    for other in others:
        other.begin(until)
    took = [other.took() for other in others]
    assert all(took)
    for rate, some in [(8_000, took), (4_000, took[:3]), (4_000, took[3:]), (2_000, took[:2]), (2_000, took[2:3])]:
        insist([at for at, count in sorted(one for each in some for one in each) for _ in range(count)], rate)


def test_a_process_that_is_killed_at_any_moment_is_in_nobodys_way(scans: Scans) -> None:
    limits = Limits(1_000_000, 1_000_000, 1_000_000)
    scans.clock = time.monotonic_ns  # type: ignore[assignment]  # the real one, as those others have it
    share = scans.add(limits).of(ROW)
    others = [Other(scans, limits, "10.0.0.1") for _ in range(3)]
    for other in others:
        other.wait_until_ready()
        other.begin(float("inf"))
    for other in others:
        assert other.process.stdout is not None
        other.process.stdout.readline()  # it is at work
        other.process.kill()
        other.process.communicate()
        began = time.monotonic()
        while not share.take([0]).positions:
            assert time.monotonic() - began < 5
    assert not scans.lines


def test_on_the_wire_two_scans_at_once_send_no_more_than_their_network_may_be_sent(
    bench: Bench, network: tuple[str, ...], tmp_path: Path
) -> None:
    """Each could do all of it alone. What one has leave for it may send late: that is a batch of each at most."""
    rate = 1_500
    (tmp_path / "other").mkdir()
    (tmp_path / "other/scan.budget").symlink_to(tmp_path / "scan.budget")
    other = Bench(tmp_path / "other")
    seen: list[tuple[float, int, float]] = []

    def look() -> None:
        """How many packets have come, and between which times that was so."""
        before = time.monotonic()
        told = subprocess.run(
            ["ip", "-n", f"scan-b-{os.getpid()}", "-s", "-j", "link", "show", "wire"], capture_output=True, check=True
        )
        seen.append((before, json.loads(told.stdout)[0]["stats64"]["rx"]["packets"], time.monotonic()))

    try:
        look()
        processes = [
            one.start(
                Scan(
                    name="lan",
                    targets=(target,),
                    ports="1000-1999",
                    rate=20_000,
                    budget=Scanning(rate=20_000, network_rate=rate, target_rate=20_000),
                ),
                prefix=network,
            )
            for one, target in ((bench, "10.77.0.2"), (other, "10.77.0.3"))
        ]
        while any(process.poll() is None for process in processes):
            look()
            time.sleep(0.02)
        look()
        assert [one.finish(process).code for one, process in zip((bench, other), processes, strict=True)] == [0, 0]
    finally:
        other.close()
    assert seen[-1][1] - seen[0][1] >= 2_000
    aside = rate // 20 + 2 * BATCH + 40  # a burst, what had leave and went late, and ARP
    for position, (begun, count, _) in enumerate(seen):
        for _, later, ended in seen[position + 1 :]:
            assert later - count <= rate * (ended - begun) + aside
