"""Services are identified, by the real nmap on a network of known truth, and with programs in its place."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ScanFailure, StorageFailure
from agent.workers.scan import detect, identify
from agent.workers.scan.asking import Leave
from agent.workers.scan.found import Host, Port
from agent.workers.scan.identify import Identification, Progress, Want
from agent.workers.scan.knowledge import Identified
from agent.workers.scan.notebook import Notebook
from agent.workers.scan.pausing import Ended, Gate
from agent.workers.scan.speak import Clock as Waits
from agent.workers.scan.speak import look
from tests.workers.scan import lab
from tests.workers.scan.fake_nmap import A, B, Bench, C, P, Q, R, host, identify_all, speaks
from tests.workers.scan.truth import LOCAL, of_kind

QUICK = Waits(grace=0.3, banner=0.5, limit=0.8, connect=2.0, quiet=0.2, talk=0.5)
SSH, SILENT, ODD = 22, 7001, 7002
"""Of the servers of ``servers``: the first speaks, the second does not, and what the third says means nothing."""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr("agent.workers.scan.identify.look", partial(look, clock=QUICK))
    monkeypatch.setattr(identify, "EARLY", 0.2)
    monkeypatch.setattr(identify, "LINGER", 0.2)
    yield Bench(tmp_path)


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
    assert (last.hosts_done, last.partly, last.nmap_version) == (3, 0, "7.93")
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


def test_what_ends_it_stays_the_reason_when_nothing_can_be_stored_any_more(bench: Bench) -> None:
    """A stop while the disk is full is a stop."""
    bench.how |= {"products": {P: "one"}, "hangs_at": [7]}

    def stop(progress: Progress) -> None:
        if (bench.place / "log").exists() and any(intensity == 7 for intensity, _, _ in bench.asked):
            raise Ended

    def full(found: Identified) -> None:
        bench.told.append(found)
        raise StorageFailure("scan.db: the disk is full")

    with pytest.raises(Ended):
        bench.run({A: [P, Q]}, shown=stop, on_host=full)
    assert not bench.of(A).complete


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


def test_a_host_at_which_run_after_run_takes_too_long_is_given_up_as_a_whole(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detect.Task, "limit", property(lambda task: 60.0 if task.addresses == (B,) else 0.4))
    monkeypatch.setattr(identify, "OVERDUE", 1)
    bench.how |= {"products": {R: "three"}, "hangs_on": [P, Q]}
    more = [Q + number for number in range(2, 8)]
    bench.how["hangs_on"] += more
    bench.run({A: [P, Q, *more], B: [R]})
    reasons = {port.reason for port in bench.of(A).host.ports}
    assert reasons == {"syn-ack; nmap was not through with it after 0 s"}
    assert [port.product for port in bench.of(B).host.ports] == ["three"]
    runs = [ports for _, addresses, ports in bench.asked if addresses == [A]]
    assert len(runs) <= 4, "all, two halves, and at most one that had been begun; not each by itself"


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


def test_whoever_continues_asks_neither_a_port_nor_nmap_again_for_what_was_known(bench: Bench, tmp_path: Path) -> None:
    bench.how |= {"products": {P: "one"}, "hangs_at": [7]}

    class Killed(Exception):
        pass

    def killed(progress: Progress) -> None:
        if (bench.place / "log").exists() and any(intensity == 7 for intensity, _, _ in bench.asked):
            raise Killed

    notes = Notebook(tmp_path / "services", "this run")
    with pytest.raises(Killed):
        bench.run({A: [P, Q, R]}, silent=(R,), shown=killed, notes=notes)
    (bench.place / "log").unlink()
    bench.told.clear()
    bench.connected.clear()
    bench.how |= {"hangs_at": [], "deep": {Q: "two"}}
    bench.run({A: [P, Q, R]}, silent=(R,), notes=notes)
    assert bench.asked == [(7, [A], [Q])]
    assert bench.connected == {}
    found = bench.of(A)
    assert [(port.product, port.reason) for port in found.host.ports] == [
        ("one", "syn-ack"),
        ("two", "syn-ack"),
        ("", "syn-ack; says nothing"),
    ]
    assert [(held.number, held.silent, held.tried) for held in found.held] == [(R, True, False)]
    assert len(found.raw) == 2
    assert not [*(tmp_path / "services").iterdir()]


def test_notes_that_are_nonsense_cost_a_second_look_and_nothing_else(bench: Bench, tmp_path: Path) -> None:
    bench.how |= {"products": {P: "one"}}
    notes = Notebook(tmp_path / "services", "this run")
    notes.told(A, "light", [("tcp", P)], b"<host><address addr='10.9.9.9' addrtype='ipv4'/></host>")
    notes.heard(A, P, "banner")
    bench.run({A: [P], B: [P]}, notes=notes)
    assert [port.product for each in bench.told for port in each.host.ports] == ["one", "one"]


def test_a_pause_ends_a_look_at_once_and_what_is_missing_is_looked_at_afterwards(bench: Bench, tmp_path: Path) -> None:
    """One port has spoken by then, and the other is silent until the pause: both of its connections are closed."""
    bench.how["products"] = {P: "one"}
    gate = Gate(tmp_path / "lan.json")
    pause = tmp_path / "lan.paused"
    seen: list[tuple[int, int]] = []

    async def redo(make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await gate.redo(make)

    def shown(progress: Progress) -> None:
        if bench.connected.get(R) and bench.connected.get(P) and not seen:
            pause.touch()
            seen.append((0, 0))
        elif not gate.open and pause.exists():
            seen.append((bench.open_now, sum(bench.connected.values())))
            if len(seen) > 10 and len(set(seen[-5:])) == 1 and bench.open_now == 0:
                pause.unlink()

    bench.run({A: [P, R]}, silent=(R,), redo=redo, shown=shown)
    assert not pause.exists()
    assert bench.connected[P] <= 2  # whether it had spoken before the pause or not
    assert [(port.product, port.reason) for port in bench.of(A).host.ports] == [
        ("one", "syn-ack"),
        ("", "syn-ack; says nothing"),
    ]


def test_an_order_to_end_ends_a_look(bench: Bench, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "lan.json")

    async def redo(make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await gate.redo(make)

    def shown(progress: Progress) -> None:
        if bench.connected:
            (tmp_path / "lan.ended").touch()

    with pytest.raises(Ended):
        bench.run({A: [R]}, silent=(R,), redo=redo, shown=shown)
    assert bench.told == []


def test_every_run_is_checked_after_it_was_paid_for_and_one_that_must_not_be_never_starts(bench: Bench) -> None:
    order: list[str] = []

    async def pay(addresses: Sequence[str], each: int) -> None:
        order.append(f"pays {each}")

    def check(addresses: Sequence[str]) -> None:
        order.append(f"checks {addresses[0]}")
        raise ScanFailure("not that one")

    answered = Host(A, "up", "udp-response", ports=(Port("udp", 53, "open", "udp-response"),))
    program = replace(bench.program, unprivileged="")
    with pytest.raises(ScanFailure, match="not that one"):
        asyncio.run(
            identify_all([answered], Want(1000), program, on_host=bench.told.append, leave=Leave(pay=pay, check=check))
        )
    assert order == ["pays 8", f"checks {A}"]
    assert not (bench.place / "log").exists()


def test_hosts_are_taken_up_while_others_are_at_work_and_one_that_hangs_holds_up_none(bench: Bench) -> None:
    bench.how |= {"products": {P: "one"}, "hangs_on": [Q]}

    async def scenario() -> None:
        waiting = [host(A, Q)]
        done = asyncio.Event()

        def on_host(found: Identified) -> None:
            bench.told.append(found)
            done.set()

        def source(most: int, underway: Collection[str]) -> list[Host]:
            return [waiting.pop() for _ in waiting[:most]]

        work = Identification(source, Want(1000, processes=3), bench.program, on_host=on_host)
        (bench.place / "how").write_text(json.dumps(bench.how))
        async with AsyncExitStack() as stack:
            for address, number in ((A, Q), (B, P), (C, P)):
                stack.push_async_callback(closed, await asyncio.start_server(bench.serving(speaks), address, number))
            running = asyncio.ensure_future(work.run())
            while not (bench.place / "log").exists():
                await asyncio.sleep(0.02)
            for address in (B, C):  # each is swept while nmap is at the first
                waiting.append(host(address, P))
                work.more()
                done.clear()
                await done.wait()
            assert [found.host.address for found in bench.told] == [B, C]
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

    asyncio.run(scenario())


async def closed(server: asyncio.Server) -> None:
    server.close()


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
