"""What is measured of stored captures: a question to 10 GB of segments, and how soon a packet is in an answer."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from agent.workers.capture.naming import CLOSED, segment_name
from agent.workers.index.growing import Growing
from bench import captors, traffic
from bench.captors import US, Agent
from bench.capture_report import CHOSEN, STENOGRAPHER, TCPDUMP, Queries, Visible
from bench.stenographer import Stenographer
from bench.wire import NEAR, Wire

SEGMENT = 64 * 1024 * 1024
"""Bytes: the size of a segment that is not declared otherwise."""
SPAN = 3600.0
"""Seconds that the store tells about."""
ASKED = (1500, 1800)
"""Five minutes out of these, in seconds from the begin."""
FLOWS = 20_000
REPLAYED = 200_000
"""Packets of the file that is sent over and over."""
SERVICE = "data"
"""What the service is called: the tests' worker has its store in a directory of that name."""
PATIENCE = 120.0
STREAM = 100_000
"""Packets per second, beside which a single one is looked for."""


def queries(wire: Wire, place: Path, size: int, rounds: int) -> Queries:
    """One host, one port, five minutes, out of so many bytes, with all of them in memory and with none."""
    prefix = place / "prefix"
    directory = prefix / "spool" / SERVICE / NEAR
    directory.mkdir(parents=True)
    (directory.parent / "store.json").write_text('{"version": 1}\n')
    flows = traffic.Flows(FLOWS, mixed=True)
    begin = (time.time_ns() // 10**9 - 2 * int(SPAN)) * 10**9
    segments, packets = fill(directory, flows, size, begin)
    indexes = [index(path) for path in segments]
    row = flows.table[np.flatnonzero((flows.table[:, traffic.IPV6] == 0) & (flows.table[:, traffic.TAGGED] == 0))[0]]
    expression = f"host {traffic.host(int(row[traffic.DESTINATION]))} and port {int(row[traffic.PORT])}"
    window = tuple(begin + seconds * 10**9 for seconds in ASKED)
    answer = place / "answer"
    asked: dict[str, Callable[[], tuple[float, int]]] = {
        US: lambda: ask(prefix, expression, window, answer),
        TCPDUMP: lambda: dump(segments, expression, window, answer),
        CHOSEN: lambda: dump(within(segments, *window), expression, window, answer),
    }
    found = Queries(total(segments), total(indexes), packets)
    hour = (begin, begin + int(SPAN) * 10**9)
    nothing = (window[0] - 10**12, window[1] - 10**12)
    for number in range(rounds + 1):
        for who in random.sample(list(asked), len(asked)):
            forgotten([*segments, *indexes])
            found.add(found.cold, who, *asked[who]())
        for path in segments:
            with path.open("rb", 0) as file:
                while file.read(SEGMENT):
                    pass
        for who in random.sample(list(asked), len(asked)):
            took, counted = asked[who]()
            if number:  # the first may still read what is not in memory yet
                found.add(found.warm, who, took, counted)
        found.start.append(ask(prefix, expression, nothing, answer)[0])
        found.whole[US].append(ask(prefix, expression, hour, answer))
    captors.forget(prefix)
    found.whole[STENOGRAPHER] = list(stenographer_answers(wire, place, flows, size, expression, rounds))
    return found


def stenographer_answers(
    wire: Wire, place: Path, flows: traffic.Flows, size: int, expression: str, rounds: int
) -> Iterator[tuple[float, int]]:
    """Seconds, and packets found, of stenographer that has captured as much of the same flows.

    It reads from an interface alone, so all of it is minutes old, and the question is without a time.
    """
    file = place / "replayed.pcap"
    length = traffic.write(file, flows.packets(REPLAYED, time.time_ns(), 1000))
    with Stenographer(wire, place / STENOGRAPHER) as running:
        wire.replay(file, max(1, size // length))
        running.settle()
        for _ in range(rounds):
            took = running.ask(expression, place / "answer")
            if not (found := captors.packets(place / "answer")):
                raise ValueError("stenographer finds nothing")
            yield took, found
    captors.forget(place / STENOGRAPHER)
    file.unlink()


def total(files: list[Path]) -> int:
    return sum(path.stat().st_size for path in files)


def forgotten(files: list[Path]) -> None:
    """Let the kernel drop what it has of these in memory."""
    for path in files:
        with path.open("rb", 0) as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def fill(directory: Path, flows: traffic.Flows, size: int, begin: int) -> tuple[list[Path], int]:
    """Segments of one hour, ``size`` bytes in all; how many packets are in them."""
    each = SEGMENT // 470  # bytes that a packet takes, about
    count = max(1, size // SEGMENT)
    every = SPAN * 1e9 / (count * each)
    found = []
    for number in range(count):
        first = begin + int(number * each * every)
        found.append(directory / segment_name(first, CLOSED))
        traffic.write(found[-1], flows.packets(each, first, every))
        os.utime(found[-1], ns=(last := first + int(each * every), last))  # when it was closed
    return found, count * each


def index(path: Path) -> Path:
    """Make the index of a segment, as the index process does."""
    growing = Growing(path)
    for _ in growing.advance():
        pass
    return growing.finish(path)


def within(segments: list[Path], first: int, last: int) -> list[Path]:
    """Those that somebody would choose by their names who knows the time."""
    names = [path.name for path in segments]
    begin = max(0, sum(name <= segment_name(first, CLOSED) for name in names) - 1)
    return [path for path, name in zip(segments, names, strict=True) if name <= segment_name(last, CLOSED)][begin:]


def ask(prefix: Path, expression: str, window: tuple[int, ...], answer: Path) -> tuple[float, int]:
    """Seconds that ``agentctl capture query`` takes from start to exit, and how many packets it finds."""
    times = [word for name, instant in zip(("--from", "--to"), window, strict=True) for word in (name, unix(instant))]
    answer.unlink(missing_ok=True)
    command = [sys.executable, "-P", "-m", "agent", "capture", "query", expression, *times, "-o", str(answer)]
    took = timed(command, {"PREFIX": str(prefix), "PYTHONPATH": str(captors.ROOT)})
    return took, captors.packets(answer)


def dump(segments: list[Path], expression: str, window: tuple[int, ...], answer: Path) -> tuple[float, int]:
    """The same of tcpdump, over these files. It knows nothing of time: packets outside of it are not counted."""
    files = answer.with_suffix(".list")
    files.write_text("".join(f"{path}\n" for path in segments))
    answer.unlink(missing_ok=True)
    options = ["-n", "--time-stamp-precision=nano", "-Z", "root", "-V", str(files), "-w", str(answer)]
    took = timed(["tcpdump", *options, expression], {})
    found = traffic.read(answer)
    stamps = found.records[(found.starts - traffic.RECORD)[:, None] + np.arange(8)].view(np.uint32).astype(np.int64)
    instants = stamps[:, 0] * 10**9 + stamps[:, 1]
    return took, int(np.count_nonzero((instants >= window[0]) & (instants <= window[1])))


def unix(instant: int) -> str:
    return f"@{instant // 10**9}.{instant % 10**9:09}"


def timed(command: list[str], environment: dict[str, str]) -> float:
    begun = time.monotonic()
    every = os.environ | environment
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=every, timeout=PATIENCE
    )
    if done.returncode:
        raise ValueError(f"{' '.join(command)} ends with {done.returncode}: {done.stderr}")
    return time.monotonic() - begun


def visible(wire: Wire, place: Path, times: int) -> Iterator[Visible]:
    """Send one packet that is like no other, and ask for it over and over until it is there."""
    prefix = place / "prefix"
    stream = place / "stream.pcap"
    traffic.write(stream, traffic.Flows(1000, mixed=False).packets(200_000, time.time_ns(), 1000))
    with Agent(wire, prefix / "spool", captors.RING):
        for number in range(times):
            yield Visible(False, seen_after(wire, place, prefix, number))
        with wire.sending(stream, rate=STREAM):
            for number in range(times):
                yield Visible(True, seen_after(wire, place, prefix, times + number))
    captors.forget(prefix)
    stream.unlink()


def seen_after(wire: Wire, place: Path, prefix: Path, number: int) -> float:
    """Seconds from when it is sent until the answer that has it is there."""
    file = place / "one.pcap"
    port = 20_000 + number
    traffic.write(file, traffic.datagram(port))
    now = time.time_ns()
    with wire.sending(file, limit=1):
        begun = time.monotonic()
        deadline = begun + PATIENCE
        while time.monotonic() < deadline:
            window = (now - 10**9, time.time_ns() + 10**9)
            if ask(prefix, f"udp dst port {port}", window, place / "answer")[1] == 1:
                return time.monotonic() - begun
    raise TimeoutError(f"a packet cannot be seen {PATIENCE:.0f} s after it was sent")
