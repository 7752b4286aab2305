"""The memory of a scan service after 1,000 scans of 1,000 hosts: how large it is, and how soon it answers.

``python -m bench.scan_memory [--runs N] [--hosts N] [--keep FILE]``. Written by the store that a worker has, run by
run; the hosts are made up: most stay as they are, some lose a packet, an upgrade or a port now and then.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from agent.workers.scan.found import Certificate, Host, Port, Rest
from agent.workers.scan.memory.coverage import asked
from agent.workers.scan.memory.place import Line, text
from agent.workers.scan.memory.reading import Memory
from agent.workers.scan.spans import without
from agent.workers.scan.store import DETECTED, ScanStore, Task

DAY = 86_400.0
BEGUN = time.time() - 1000 * DAY
"""The last of 1,000 runs, a day apart, was yesterday: ``agentctl drift`` holds it against what is declared."""
CHUNK = 64
ASKED = ((1, 1024),)
FIRST = 0x0A000001
"""10.0.0.1"""

KINDS = (
    Port("tcp", 22, "open", "syn-ack", "ssh", "OpenSSH", "9.2p1 Debian 2", "protocol 2.0", method="probed", ttl=64),
    Port(
        "tcp",
        80,
        "open",
        "syn-ack",
        "http",
        "nginx",
        "1.22.1",
        cpe=("cpe:/a:igor_sysoev:nginx:1.22.1",),
        method="probed",
    ),
    Port("tcp", 443, "open", "syn-ack", "http", "nginx", "1.22.1", tunnel="ssl", method="probed"),
    Port("tcp", 25, "open", "syn-ack", "smtp", "Postfix smtpd", method="probed"),
    Port("tcp", 111, "open", "syn-ack", "rpcbind", "", "2-4", "RPC #100000", method="probed"),
    Port("tcp", 631, "open", "syn-ack", "ipp", "CUPS", "2.4", method="probed"),
    *(
        Port("tcp", 700 + number, "open", "syn-ack", f"app{number}", f"Server {number}", f"1.{number}", method="probed")
        for number in range(24)
    ),
)
FEWEST, MOST = 10, 30
"""Open ports of a host: 20 as a rule."""
CHANGES, LOSES, LEAVES = 0.005, 0.01, 0.002
"""How likely a host has something new in a run, one of its ports is missed, or nobody answers."""
DECLARED = """
[service.lan_scan]
kind = "scan"
targets = ["10.0.0.0/22"]
oncalendar = "yearly"
site = "lab"

[expect.servers]
hosts = ["10.0.0.0/22"]
closed = ["23"]
"""
LIMIT = 0.1
"""Seconds that a question may take."""


def main() -> None:
    """Make it, ask it, say how it was."""
    given = argparse.ArgumentParser(prog="python -m bench.scan_memory")
    given.add_argument("--runs", type=int, default=1000)
    given.add_argument("--hosts", type=int, default=1000)
    given.add_argument("--keep", type=Path, help="where to leave the database")
    arguments = given.parse_args()
    place = Path(tempfile.mkdtemp(prefix="bench-memory-", dir="/var/tmp"))
    try:
        path = place / "spool" / "lan_scan" / "scan.db"
        began = time.process_time()
        make(path, arguments.runs, arguments.hosts)
        spent = time.process_time() - began
        print(f"{arguments.runs} runs of {arguments.hosts} hosts: {path.stat().st_size / 1e6:.1f} MB,", end=" ")
        print(f"{1000 * spent / arguments.runs:.0f} ms of processor a run to store and fold")
        for what, seconds in questions(path):
            late = "   over the limit" if seconds > LIMIT else ""
            print(f"{1000 * seconds:8.2f} ms  {what}{late}")
        for what, seconds in commands(place, arguments.runs):
            print(f"{seconds:8.2f} s   {what}, from the start of Python to its last line")
        if arguments.keep:
            shutil.copy(path, arguments.keep)
    finally:
        shutil.rmtree(place)


def make(path: Path, runs: int, hosts: int) -> None:
    """Runs, a day apart, of the same hosts."""
    chance = random.Random(5)
    world = [_host(number, chance) for number in range(hosts)]
    with closing(ScanStore(path, site="lab")) as store:
        for number in range(runs):
            now = BEGUN + DAY * number
            run = store.begin(Task("plan", hosts, -(-hosts // CHUNK), profile="services", engine="syn"), now)
            for chunk, start in enumerate(range(0, hosts, CHUNK)):
                part = slice(start, start + CHUNK)
                world[part] = [_aged(host, chance) for host in world[part]]
                found = [_looked_at(host, chance) for host in world[part] if chance.random() > LEAVES]
                there = {host.address for host in found}
                silent = asked(host.address for host in world[part] if host.address not in there)
                store.store(run, found, now + chunk, chunk=chunk, addresses=CHUNK, asked=silent, stage=DETECTED)
            store.end(run, "finished", now + 60)
            store.tell(lambda _: None)


def questions(path: Path) -> Iterator[tuple[str, float]]:
    """What an operator asks, and how long each answer takes: the median of five, all of it read."""
    with Memory(path) as memory:
        newest = memory.runs(1)[0].id
        old, before = max(1, newest // 2), max(1, newest - 1)
        address = next(memory.hosts(newest)).address
        coverage = memory.coverage(old)
        chunk = [text(Line(4, ""), FIRST + number) for number in range(CHUNK)]
        since = BEGUN + DAY * (newest - 7)
        asks: dict[str, Callable[[], object]] = {
            "the last 50 runs": lambda: memory.runs(50),
            "all hosts of the last run": lambda: list(memory.hosts(newest)),
            "all hosts of a run half-way back": lambda: list(memory.hosts(old)),
            "one host of a run half-way back": lambda: memory.host(old, address),
            "what differs between the last two runs": lambda: list(memory.differing(before, newest)),
            "what differs between the first run and the last": lambda: list(memory.differing(1, newest)),
            "all hosts and ports as they are now": lambda: list(memory.now()),
            "changes of the last week": lambda: memory.changes(since=since),
            "changes of one run": lambda: memory.changes(run=old),
            "the last 1,000 changes": memory.changes,
            "whether a run asked 1,000 ports": lambda: [
                coverage.asked(text(Line(4, ""), FIRST + number), "tcp", 443) for number in range(1000)
            ],
            "canaries of a chunk": lambda: memory.canaries(chunk, site="lab"),
        }
        for what, ask in asks.items():
            taken = []
            for _ in range(5):
                began = time.perf_counter()
                ask()
                taken.append(time.perf_counter() - began)
            yield what, statistics.median(taken)


def commands(prefix: Path, runs: int) -> Iterator[tuple[str, float]]:
    """The whole commands, on a prefix whose ``spool/lan_scan/scan.db`` was made: the median of three, after a first."""
    (prefix / "key").mkdir(exist_ok=True)
    (prefix / "key" / "env.toml").write_text(DECLARED)
    typed = ("--version", "scan list", "scan show", "scan hosts", f"scan diff 1 {runs}", "scan diff", "drift")
    for words in typed:
        taken = []
        for _ in range(4):
            began = time.perf_counter()
            command = [sys.executable, "-m", "agent", *words.split()]
            subprocess.run(command, env={**os.environ, "PREFIX": str(prefix)}, check=True, stdout=subprocess.DEVNULL)
            taken.append(time.perf_counter() - began)
        yield f"agentctl {words}", statistics.median(taken[1:])


def _host(number: int, chance: random.Random) -> Host:
    ports = sorted(chance.sample(KINDS, chance.randint(FEWEST, MOST)), key=lambda port: port.number)
    return _with(
        Host(
            text(Line(4, ""), FIRST + number), "up", "arp-response", f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"
        ),
        [
            replace(port, certificate=Certificate(f"{chance.getrandbits(256):064x}", f"CN=host{number}"))
            if port.tunnel
            else port
            for port in ports
        ],
    )


def _aged(host: Host, chance: random.Random) -> Host:
    """A day later."""
    if chance.random() > CHANGES:
        return host
    ports = list(host.ports)
    at = chance.randrange(len(ports))
    if len(ports) > 1 and chance.random() < 0.2:
        del ports[at]
    elif chance.random() < 0.2:
        have = {port.number for port in ports}
        ports += [port for port in KINDS if port.number not in have][:1]
    else:
        ports[at] = replace(ports[at], version=f"{chance.randint(1, 9)}.{chance.randint(0, 99)}")
    return _with(host, sorted(ports, key=lambda port: port.number))


def _looked_at(host: Host, chance: random.Random) -> Host:
    """What a scan sees of it, now and then without a port that it has."""
    if chance.random() > LOSES:
        return host
    at = chance.randrange(len(host.ports))
    lost = host.ports[at]
    seen = _with(host, [*host.ports[:at], *host.ports[at + 1 :]])
    rest = replace(seen.rest[0], ports=without(seen.rest[0].ports, ((lost.number, lost.number),)))
    return replace(seen, rest=(rest, Rest("tcp", "filtered", "no-response", ((lost.number, lost.number),))))


def _with(host: Host, ports: list[Port]) -> Host:
    others = without(ASKED, tuple((port.number, port.number) for port in ports))
    return replace(host, ports=tuple(ports), rest=(Rest("tcp", "closed", "reset", others),))


if __name__ == "__main__":
    main()
