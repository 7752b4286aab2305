"""A program in the place of nmap, servers for it to ask, and an identification of what those are."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.workers.scan.asking import FREE, Leave, Redo
from agent.workers.scan.found import Host, Port
from agent.workers.scan.identify import Identification, Progress, Want
from agent.workers.scan.knowledge import Due, Identified
from agent.workers.scan.notebook import Notebook
from agent.workers.scan.program import Program

FAKE = """#!{python}
import json, os, re, signal, sys, time
here = os.path.dirname(os.path.abspath(__file__))
how = json.load(open(here + "/how"))
words = sys.argv[1:]
addresses = open(words[words.index("-iL") + 1]).read().split()
spans = [span.partition("-") for span in re.sub("[TU]:", "", words[words.index("-p") + 1]).split(",")]
ports = [port for low, _, high in spans for port in range(int(low), int(high or low) + 1)]
intensity = int(words[words.index("--version-intensity") + 1])
with open(here + "/log", "a") as log:
    log.write(json.dumps([intensity, addresses, ports]) + "\\n")
say = lambda text: print(text, flush=True)
say('<?xml version="1.0"?><!DOCTYPE nmaprun><nmaprun version="7.93">')
told = 0
for address in addresses:
    if how.get("first", {{}}).get(address):
        what = how["first"].pop(address)
        json.dump(how, open(here + "/how", "w"))
    else:
        what = how.get("at", {{}}).get(address)
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "garbage":
        say("<<<")
        sys.exit(0)
    if what == "stop":
        sys.exit(0)
    if what == "leave out":
        continue
    if what == "fall silent":
        time.sleep(60)
    if what == "hang" or intensity in how.get("hangs_at", []) or set(ports) & set(how.get("hangs_on", [])):
        while True:
            say('<taskprogress task="Service scan" percent="1.0"/>')
            time.sleep(0.05)
    said = ""
    for port in ports:
        known = how["products"].get(str(port)) or (how.get("deep", {{}}).get(str(port)) if intensity == 7 else None)
        service = f'name="s" product="{{known}}" method="probed"' if known else 'name="s" method="table"'
        state = '<state state="open" reason="syn-ack"/>'
        said += f'<port protocol="tcp" portid="{{port}}">{{state}}<service {{service}}/></port>'
    say(f'<host><status state="up" reason="user-set"/><address addr="{{address}}" addrtype="ipv4"/><hostnames/>'
        f'<ports>{{said}}</ports></host>')
    told += 1
say(f'<runstats><finished exit="success"/><hosts total="{{told}}"/></runstats></nmaprun>')
"""


async def speaks(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 hello\r\n")


async def silently(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read(-1)


def source_of(hosts: Sequence[Host]) -> Callable[[int, Collection[str]], list[Host]]:
    waiting = deque(hosts)
    return lambda most, underway: [waiting.popleft() for _ in range(min(most, len(waiting)))]


async def identify_all(
    hosts: Sequence[Host],
    want: Want,
    program: Program,
    *,
    shown: Callable[[Progress], None] = lambda progress: None,
    **options: Any,
) -> Progress:
    work = Identification(
        source_of(hosts), want, program, turn=lambda: shown(work.progress), turn_every=0.02, **options
    )
    work.finish()
    await work.run()
    return work.progress


class Bench:
    """Servers on addresses of the loopback, and a program in the place of nmap that answers as ``how`` says."""

    def __init__(self, place: Path) -> None:
        self.place = place
        path = place / "nmap"
        path.write_text(FAKE.format(python=sys.executable))
        path.chmod(0o755)
        self.program = Program(str(path), {"PATH": os.environ["PATH"]}, "", None, None)
        self.told: list[Identified] = []
        self.how: dict[str, Any] = {"products": {}}
        self.charged: list[tuple[list[str], int]] = []
        self.connected: dict[int, int] = {}
        """How often each port was."""
        self.open_now = 0

    def run(
        self,
        hosts: dict[str, list[int]],
        *,
        silent: tuple[int, ...] = (),
        clock: Callable[[str, str, int], Due] = lambda address, protocol, number: "new",
        redo: Redo | None = None,
        notes: Notebook | None = None,
        on_host: Callable[[Identified], None] | None = None,
        shown: Callable[[Progress], None] = lambda progress: None,
    ) -> Progress:
        """Identify these ports, which are of servers that speak, unless they are ``silent``."""
        (self.place / "how").write_text(json.dumps(self.how))
        real: dict[tuple[str, int], int] = {}

        async def scenario() -> Progress:
            servers = []
            for address, ports in hosts.items():
                for number in ports:
                    serve = self.serving(silently if number in silent else speaks)
                    servers.append(await asyncio.start_server(serve, address, number))
                    real[address, number] = number
            try:
                return await identify_all(
                    [host(address, *ports) for address, ports in hosts.items()],
                    Want(1000, processes=3),
                    self.program,
                    on_host=on_host or self.told.append,
                    clock=clock,
                    leave=Leave(pay=self.pay, redo=redo or FREE.redo),
                    notes=notes,
                    shown=shown,
                )
            finally:
                for server in servers:
                    server.close()

        return asyncio.run(scenario())

    async def pay(self, addresses: Sequence[str], each: int) -> None:
        self.charged.append((list(addresses), each))

    def serving(
        self, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            number = writer.get_extra_info("sockname")[1]
            self.connected[number] = self.connected.get(number, 0) + 1
            self.open_now += 1
            with suppress(OSError):
                await serve(reader, writer)
            writer.close()
            self.open_now -= 1

        return answer

    @property
    def asked(self) -> list[tuple[int, list[str], list[int]]]:
        """What nmap was asked: intensity, addresses, ports."""
        return [tuple(json.loads(line)) for line in (self.place / "log").read_text().splitlines()]

    def of(self, address: str) -> Identified:
        (found,) = (each for each in self.told if each.host.address == address)
        return found


def host(address: str, *ports: int) -> Host:
    return Host(address, "up", "syn-ack", ports=tuple(Port("tcp", number, "open", "syn-ack") for number in ports))


A, B, C = "127.0.1.1", "127.0.1.2", "127.0.1.3"
P, Q, R = 17001, 17002, 17003
