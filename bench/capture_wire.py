"""What is measured of captures on a wire: loss, processor, rotation, being killed, memory, and scapy for scale."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench import captors, process, traffic
from bench.captors import RING, US, Agent, Captor
from bench.capture_report import LOADS, Kill, Load, Memory, Rotation, Run
from bench.wire import NEAR, Wire, ended
from tests.workers.capture import lab

MIB = 1024 * 1024
SLOT = 160
"""Bytes of the ring that a frame of 64 takes: 48 of header, 20 of address, padding up to where IP is aligned, and the
frame, rounded up to 16 (tpacket_rcv in net/packet/af_packet.c)."""
STDIO = 256 * 1024
FLOWS = 1000
REPLAYED = 200_000
"""Packets of the file that is sent over and over."""
PACED = 4.0
"""Seconds of a load that has a rate."""
ROTATION_RATE = 200_000
MEMORY_RATE, MEMORY_FLOWS = 400_000, 100_000
LIVES = (0.15, 0.45)
"""Seconds that a capture runs before it is killed: any time between these."""
SCAPY_RATES = (500.0, 64_000.0)
SCAPY_SECONDS, SCAPY_FINE = 2.0, 1.1


def runs(wire: Wire, place: Path, packets: int, rounds: int) -> Iterator[Run]:
    """Every captor under every load, in turn, in random order."""
    files = {load: place / f"replayed-{number}.pcap" for number, load in enumerate(LOADS)}
    for load, file in files.items():
        flows = traffic.Flows(FLOWS, mixed=load.mixed)
        traffic.write(file, flows.packets(REPLAYED, time.time_ns(), 1000))
    for _ in range(rounds):
        for load, file in files.items():
            for kind in random.sample(captors.ALL, len(captors.ALL)):
                yield run(wire, place, load, file, kind, packets)
    for file in files.values():
        file.unlink()


def run(wire: Wire, place: Path, load: Load, file: Path, kind: type[Captor], packets: int) -> Run:
    directory = place / kind.name
    with kind(wire, directory, RING) as captor:
        before, beside = captors.processor(captor.pid), captor.beside()
        if load.rate:
            sent = wire.send(file, rate=load.rate, limit=round(load.rate * PACED))
        else:
            sent = wire.replay(file, packets // REPLAYED)
        captor.settle()
        used = captors.processor(captor.pid) - before
        captor.catch_up(sent.arrived)
        beside = captor.beside() - beside
    captors.forget(directory)
    return Run(load, kind.name, sent, captor.written, captor.dropped, used, beside)


def scapy_rate(wire: Wire, place: Path) -> float:
    """The highest rate, packets per second, at which scapy's AsyncSniffer sees every packet of a few seconds."""
    file = place / "scapy.pcap"
    traffic.write(file, traffic.Flows(FLOWS, mixed=False).packets(20_000, time.time_ns(), 1000))
    command = wire.near(sys.executable, "-m", "bench.sniffer", NEAR, str(RING))
    with ended(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)) as sniffer:
        assert sniffer.stdin and sniffer.stdout
        if sniffer.stdout.readline() != b"ready\n":
            raise ValueError("scapy does not sniff")
        good, bad = SCAPY_RATES
        while bad / good > SCAPY_FINE:
            rate = (good * bad) ** 0.5
            sent = wire.send(file, rate=rate, limit=round(rate * SCAPY_SECONDS))
            sniffer.stdin.write(b"count\n")
            sniffer.stdin.flush()
            seen = int(sniffer.stdout.readline())
            good, bad = (rate, bad) if seen == sent.arrived else (good, rate)
    file.unlink()
    return good


def rotation(wire: Wire, place: Path, seconds: int) -> Rotation:
    """Segments of a second each; every frame has a number, and all are looked for."""
    file = numbered_file(place)
    with Agent(wire, place / US, RING, rotate={"every": 1.0, "size": 1024 * MIB}) as captor:
        sent = wire.send(file, rate=ROTATION_RATE, limit=ROTATION_RATE * seconds, numbered=True)
        captor.settle()
    segments = lab.segments(captor.worker.data, NEAR)
    numbers = np.concatenate([traffic.numbers(path) for path in segments])
    captors.forget(captor.directory)
    return Rotation(
        sent=sent,
        segments=len(segments),
        stored=len(numbers),
        distinct=len(np.unique(numbers)),
        in_order=bool((np.diff(numbers.astype(np.int64)) > 0).all()),
    )


def kills(wire: Wire, place: Path, count: int) -> Iterator[Kill]:
    """A capture at full rate is killed at a random moment, and begun again; what is stored is looked at each time."""
    counter = place / "sent"
    checked: set[Path] = set()
    captor = Agent(wire, place / US, RING)
    with wire.sending(numbered_file(place), numbered=True, count_in=counter):
        sent = np.memmap(counter, np.uint64, "r")
        captor.start()
        for _ in range(count):
            ready_at, begun = int(sent[0]), time.monotonic()
            time.sleep(random.uniform(*LIVES))
            family = process.children(captor.pid)
            os.kill(captor.pid, signal.SIGKILL)
            killed_at, lived = int(sent[0]), time.monotonic() - begun
            process.end_all(family)  # as the agent does, which ends the whole group
            captor.close()
            captor.start()  # which completes what was left
            yield judged(captor, checked, ready_at, killed_at, lived)
        captor.worker.stop()
        captor.close()
    captors.forget(captor.directory)


def judged(captor: Agent, checked: set[Path], ready_at: int, killed_at: int, lived: float) -> Kill:
    """What the last life has left, now that it is complete.

    ``ready_at`` and ``killed_at``: how many frames had been sent when it said that it captures, and by its end,
    ``lived`` seconds later.
    """
    found = [path for path in lab.segments(captor.worker.data, NEAR) if path not in checked]
    checked.update(found)
    numbers = np.concatenate([np.empty(0, np.int64), *(traffic.numbers(path) for path in found)])
    told = sum(lab.tcpdump_count(path) for path in found)  # raises when tcpdump cannot read one to its end
    kept = numbers[numbers >= ready_at]
    if not len(kept):
        raise ValueError(f"none of the {killed_at - ready_at} frames that were sent is stored")
    return Kill(
        lost=max(0, killed_at - ready_at - int(np.count_nonzero(kept < killed_at))),
        stored=len(numbers),
        whole=told == len(numbers) and bool((np.diff(numbers) > 0).all()),
        rate=(killed_at - ready_at) / lived,
    )


def kill_bound() -> int:
    """The packets that the ring and one buffer of the capture can hold."""
    return RING // SLOT + STDIO // (traffic.RECORD + traffic.SMALL)


def memory(wire: Wire, place: Path, seconds: int) -> Memory:
    """What a capture and its index weigh towards the end of a busy while, with many flows at once."""
    file = place / "flows.pcap"
    traffic.write(file, traffic.Flows(MEMORY_FLOWS, mixed=False).packets(1_000_000, time.time_ns(), 1000))
    capturing: list[int] = []
    indexing: list[int] = []
    with Agent(wire, place / US, RING) as captor:
        before = wire.arrived()
        with wire.sending(file, rate=MEMORY_RATE) as sending:
            begun = time.monotonic()
            while time.monotonic() - begun < seconds:
                time.sleep(0.5)
                capturing.append(weight(captor.pid))
                indexing.append(sum(weight(child) for child in process.children(captor.pid)))
            rate = (wire.arrived() - before) / (time.monotonic() - begun)
            assert sending.poll() is None
        arrived = wire.arrived() - before
        captor.settle()
    captors.forget(captor.directory)
    file.unlink()
    return Memory(rate, arrived, captor.written, max(capturing), max(indexing))


def weight(pid: int) -> int:
    """Bytes of memory of a process beside its ring: PSS without what is mapped of a packet socket."""
    total = ring = 0
    mapped = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            mapped = "socket:[" in line
        elif line.startswith("Pss:"):
            size = int(line.split()[1]) * 1024
            total, ring = total + size, ring + size * mapped
    return total - ring


def numbered_file(place: Path) -> Path:
    file = place / "numbered.pcap"
    traffic.write(file, traffic.numbered(64 * 64))
    return file
