"""Services are identified, by the real nmap on a network of known truth, and with programs in its place."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ScanFailure
from agent.workers.scan import detect, identify
from agent.workers.scan.asking import FREE, Leave, Redo
from agent.workers.scan.found import Host, Port
from agent.workers.scan.identify import Identification, Progress, Want
from agent.workers.scan.knowledge import Clock, Identified
from agent.workers.scan.notebook import Notebook
from agent.workers.scan.program import Program
from agent.workers.scan.speak import Clock as Waits
from agent.workers.scan.speak import look
from tests.workers.scan import lab
from tests.workers.scan.truth import LOCAL, of_kind

QUICK = Waits(grace=0.3, banner=0.5, limit=0.8, connect=2.0, quiet=0.2, talk=0.5)
SSH, SILENT, ODD = 22, 7001, 7002
"""Of the servers of ``servers``: the first speaks, the second does not, and what the third says means nothing."""

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


async def _speaks(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 hello\r\n")


async def _silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
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

    def run(
        self,
        hosts: dict[str, list[int]],
        *,
        silent: tuple[int, ...] = (),
        clock: Callable[[str, str, int], Clock] = lambda address, protocol, number: "new",
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
                    serve = partial(self._answer, _silent if number in silent else _speaks)
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

    @staticmethod
    async def _answer(
        serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        with suppress(OSError):
            await serve(reader, writer)
        writer.close()

    @property
    def asked(self) -> list[tuple[int, list[str], list[int]]]:
        """What nmap was asked: intensity, addresses, ports."""
        return [tuple(json.loads(line)) for line in (self.place / "log").read_text().splitlines()]

    def of(self, address: str) -> Identified:
        (found,) = (each for each in self.told if each.host.address == address)
        return found


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr("agent.workers.scan.identify.look", partial(look, clock=QUICK))
    monkeypatch.setattr(identify, "EARLY", 0.2)
    monkeypatch.setattr(identify, "LINGER", 0.2)
    yield Bench(tmp_path)


def host(address: str, *ports: int) -> Host:
    return Host(address, "up", "syn-ack", ports=tuple(Port("tcp", number, "open", "syn-ack") for number in ports))


A, B, C = "127.0.1.1", "127.0.1.2", "127.0.1.3"
P, Q, R = 17001, 17002, 17003


def test_who_says_nothing_is_held_back_and_the_others_are_identified(bench: Bench) -> None:
    bench.how["products"] = {P: "one", Q: "two"}
    figures: list[int] = []
    last = bench.run(
        {A: [P, R], B: [P, R], C: [Q]}, silent=(R,), shown=lambda progress: figures.append(progress.hosts_done)
    )
    assert sorted(bench.asked) == [(2, [A, B], [P]), (2, [C], [Q])]
    found = bench.of(A)
    assert [(port.product, port.reason) for port in found.host.ports] == [
        ("one", "syn-ack"),
        ("", "syn-ack; says nothing"),
    ]
    assert [(held.number, held.silent, held.tried) for held in found.held] == [(R, True, False)]
    assert found.complete
    assert found.raw[0].startswith(b"<host>")
    assert bench.of(C).held == ()
    assert (last.hosts_done, last.ports_done, last.partly) == (3, 5, 0)
    assert (last.running, last.nmap_version) == (0, "7.93")
    assert figures == sorted(figures)


def test_what_is_not_recognised_is_asked_at_length_unless_it_was_lately(bench: Bench) -> None:
    bench.how |= {"products": {P: "one"}, "deep": {Q: "two"}}
    lately = {(B, "tcp", Q)}
    bench.run({A: [P, Q, R], B: [Q]}, clock=lambda *key: "held" if key in lately else "new")
    assert sorted(bench.asked) == [(2, [A], [P, Q, R]), (2, [B], [Q]), (7, [A], [Q]), (7, [A], [R])]
    assert sorted(bench.charged) == [([A], 3 * 8), ([A], 30), ([A], 30), ([B], 8)]
    assert [port.product for port in bench.of(A).host.ports] == ["one", "two", ""]
    assert [(held.number, held.silent, held.tried) for held in bench.of(A).held] == [(R, False, True)]
    assert [(held.number, held.silent, held.tried) for held in bench.of(B).held] == [(Q, False, False)]


def test_a_silent_port_whose_time_has_come_is_handed_to_nmap(bench: Bench) -> None:
    bench.how["products"] = {P: "one", R: "after all"}
    bench.run({A: [P, Q, R]}, silent=(Q, R), clock=lambda *key: "due")
    assert sorted(bench.asked) == [(2, [A], [P]), (2, [A], [Q, R])]
    assert [port.product for port in bench.of(A).host.ports] == ["one", "", "after all"]
    assert [(held.number, held.silent, held.tried) for held in bench.of(A).held] == [(Q, True, True)]


def test_printers_and_ports_that_closed_meanwhile_keep_what_the_sweep_said(bench: Bench) -> None:
    bench.run({A: []})
    assert bench.of(A).host == host(A)
    bench.told.clear()

    async def scenario() -> None:
        await identify_all([host(A, 9100, 17999)], Want(1000), bench.program, on_host=bench.told.append)

    asyncio.run(scenario())
    assert [port.reason for port in bench.of(A).host.ports] == ["syn-ack", "syn-ack; takes no connection now"]
    assert not (bench.place / "log").exists()
    assert bench.of(A).held == ()


def test_without_the_right_to_raw_packets_udp_ports_keep_what_the_sweep_said(bench: Bench) -> None:
    program = replace(bench.program, unprivileged="CAP_NET_RAW is not held")
    answered = Host(A, "up", "udp-response", ports=(Port("udp", 53, "open", "udp-response"),))
    asyncio.run(identify_all([answered], Want(1000), program, on_host=bench.told.append))
    (port,) = bench.of(A).host.ports
    assert port.reason == "udp-response; what it is can be asked with CAP_NET_RAW only"
    assert not (bench.place / "log").exists()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("die", r"services of 127\.0\.1\.1 and 2 more: nmap was killed by SIGKILL, by hand or for want of memory"),
        ("garbage", "nmap wrote something that is not its XML"),
        ("stop", "nmap's XML stops before its end"),
        ("leave out", "nmap scanned 2 of 3 addresses"),
    ],
)
def test_whatever_goes_wrong_is_one_line_and_what_was_said_before_is_kept(
    bench: Bench, what: str, message: str
) -> None:
    bench.how |= {"products": {P: "one"}, "at": {B: what}}
    with pytest.raises(ScanFailure, match=message) as failure:
        bench.run({A: [P], B: [P], C: [P]})
    assert "\n" not in str(failure.value)
    assert bench.of(A).complete
    assert [port.product for port in bench.of(A).host.ports] == ["one"]
    assert {each.host.address for each in bench.told} == ({A, C} if what == "leave out" else {A})


def test_what_nmap_learned_of_a_host_that_is_not_done_is_handed_out_when_it_fails(bench: Bench) -> None:
    bench.how |= {"products": {P: "one"}, "first": {}, "at": {}}

    bench.how["hangs_at"] = [7]

    class Enough(Exception):
        pass

    def enough(progress: Progress) -> None:
        if (bench.place / "log").exists() and any(intensity == 7 for intensity, _, _ in bench.asked):
            raise Enough

    with pytest.raises(Enough):
        bench.run({A: [P, Q]}, shown=enough)
    assert not bench.of(A).complete
    assert [port.product for port in bench.of(A).host.ports] == ["one", ""]


def test_a_run_that_takes_too_long_is_done_in_parts_until_the_culprit_is_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detect.Task, "limit", property(lambda task: 0.4 if ("tcp", Q) in task.ports else 60.0))
    bench.how |= {"products": {P: "one", Q: "two", R: "three"}, "hangs_on": [Q]}
    bench.run({A: [P, Q], B: [R]})
    assert [(port.product, port.reason) for port in bench.of(A).host.ports] == [
        ("one", "syn-ack"),
        ("", "syn-ack; nmap was not through with it after 0 s"),
    ]
    assert [(held.number, held.silent, held.tried) for held in bench.of(A).held] == [(Q, False, True)]
    assert [port.product for port in bench.of(B).host.ports] == ["three"]
    assert sorted(ports for _, addresses, ports in bench.asked if addresses == [A]) == [[P], [P, Q], [Q]]


def test_an_nmap_that_falls_silent_ends_the_scan_instead(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect.Task, "limit", 2.0)
    bench.how |= {"products": {P: "one"}, "at": {B: "fall silent"}}
    with pytest.raises(ScanFailure, match="nmap hangs: it has said nothing for 2 s"):
        bench.run({A: [P], B: [P]})
    assert bench.of(A).complete
    assert len(bench.asked) == 1


def test_what_was_told_before_a_pause_is_not_asked_again(bench: Bench) -> None:
    bench.how |= {"products": {P: "one"}, "first": {B: "hang"}}

    async def redo(make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """As a gate does that closes once somebody was told of."""
        work = asyncio.ensure_future(make())
        while not work.done() and not bench.told:
            await asyncio.wait({work}, timeout=0.02)
        if not work.done():
            work.cancel()
            await asyncio.wait({work})
            work = asyncio.ensure_future(make())
        await work

    bench.run({A: [P], B: [P], C: [P]}, redo=redo)
    assert [addresses for _, addresses, _ in bench.asked] == [[A, B, C], [B, C]]
    assert {each.host.address: each.complete for each in bench.told} == {A: True, B: True, C: True}


INSIDE = """
import asyncio, json, sys
from dataclasses import asdict
from agent.workers.scan.found import Host, Port, Rest
from agent.workers.scan.identify import Identification, Want
from agent.workers.scan.program import find_nmap

def made(address, tcp, udp):
    ports = [Port("tcp", port, "open", "syn-ack") for port in tcp]
    ports += [Port("udp", port, "open", "answer") for port in udp]
    return Host(address, "up", "syn-ack", ports=tuple(ports), rest=(Rest("tcp", "closed", "reset", ((1, 9),)),))

found = []
hosts = [made(*each) for each in json.loads(sys.argv[1])]
source = lambda most, underway: [hosts.pop() for _ in hosts[:most]]
work = Identification(source, Want(5000), find_nmap(), on_host=found.append)
work.finish()
asyncio.run(work.run())
print(json.dumps([[asdict(each.host), [held.number for held in each.held]] for each in found]))
"""


def test_real_servers_are_what_they_are_said_to_be(net: lab.Network) -> None:
    """Over TCP and UDP, IPv4 and a link-local address, with one that is silent and one that closes at once."""
    dns, closes = of_kind("dns")[0], of_kind("closes at once")[0]
    asked = [(LOCAL.address, list(LOCAL.tcp), []), (dns.address, [], [53]), (closes.address, list(closes.tcp), [])]
    command = net.inside(sys.executable, "-c", INSIDE, json.dumps(asked))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found = {each["address"]: (each["ports"], held) for each, held in json.loads(done.stdout)}
    assert set(found) == {LOCAL.address, dns.address, closes.address}
    (ssh, silent), held = found[LOCAL.address]
    assert (ssh["service"], ssh["product"], ssh["method"]) == ("ssh", "OpenSSH", "probed")
    assert ssh["ttl"] == 64
    assert (silent["number"], silent["service"], held) == (7001, "", [7001])
    ((domain,), none) = found[dns.address]
    assert (domain["protocol"], domain["service"], domain["product"], none) == ("udp", "domain", "dnsmasq", [])
    ((closing,), _) = found[closes.address]
    assert (closing["state"], closing["reason"]) == ("open", "syn-ack; nmap: tcpwrapped")
