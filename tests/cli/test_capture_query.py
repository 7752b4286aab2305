"""``agentctl capture query`` as an operator types it: what comes out, where, and what is said when it cannot be."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from agent.cli.main import main
from agent.workers.capture import account
from agent.workers.capture.account import Account
from agent.workers.capture.savefile import FILE_HEADER
from agent.workers.retrieval import answer
from agent.workers.retrieval.offline import packets
from tests.workers.retrieval import traffic
from tests.workers.retrieval.stores import BEGIN, index, joined, segment, tcpdump

SECOND = 1_000_000_000
PROGRAM = [sys.executable, "-m", "agent"]


@pytest.fixture
def prefix(stored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stored, tmp_path / "prefix"))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("stored")
    for number, interface in enumerate(("eth0", "eth1", "eth0")):
        sent = traffic.packets(Random(number), 2000, begin=BEGIN + number * SECOND // 2, step=300_000)
        path = segment(place / "spool" / "edge", interface, sent)
        if number < 2:
            index(path)
        told = Account(
            interface=interface,
            opened=BEGIN,
            closed=BEGIN + SECOND,
            written=2000,
            bytes=1,
            reason="time",
            received=2010,
            dropped_kernel=10,
            filter="not port 9",
        )
        account.write(path.with_suffix(".meta"), told)
    (place / "spool" / "agent").mkdir()
    return place


class Done(NamedTuple):
    """What a query said, and how it ended."""

    returncode: int
    stdout: bytes
    stderr: bytes


Ask = Callable[..., Done]


def asked(prefix: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    """In a process of its own."""
    command = [*PROGRAM, "--prefix", str(prefix), "capture", "query", *words]
    return subprocess.run(command, capture_output=True, timeout=30)


@pytest.fixture
def ask(prefix: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Ask:
    """In this process, which alone does not stand back: the other tests would have to wait."""

    def ask(*words: str) -> Done:
        code = main(["--prefix", str(prefix), "capture", "query", *words])
        return Done(code, *capfdbinary.readouterr())

    return ask


def test_packets_are_listed_in_order_of_time(ask: Ask) -> None:
    done = ask("tcp port 80", "--from", "@1795183200", "--to", "@1795183200.5")
    lines = done.stdout.decode().splitlines()
    form = re.compile(r"2026-11-20 \d\d:\d\d:00\.\d{6} eth[01] .*\S+:\d+ > \S+:\d+ tcp .* \d+")
    assert len(lines) > 10
    assert not [line for line in lines if not form.fullmatch(line)]
    assert lines == sorted(lines)


@pytest.mark.parametrize("name", ["found.pcap", "found.pcapng"])
def test_a_file_holds_what_tcpdump_finds(prefix: Path, ask: Ask, tmp_path: Path, name: str) -> None:
    done = ask("net 10.0.0.0/8 and not port 22", "-o", str(tmp_path / name))
    assert done.returncode == 0, done.stderr
    everything = joined(prefix / "spool" / "edge", tmp_path / "all.pcap")
    wanted = sorted(tcpdump(everything, "net 10.0.0.0/8 and not port 22", tmp_path / "a"), key=lambda each: each.time)
    assert tcpdump(tmp_path / name, "", tmp_path / "b") == wanted
    assert done.stdout.decode().startswith(f"{tmp_path / name}: {len(wanted)} packets, ")
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o640
    assert not list(tmp_path.glob(".*"))


def test_pcapng_says_what_was_asked_and_what_was_dropped(ask: Ask, tmp_path: Path) -> None:
    assert ask("udp", "--from", "@1795183200", "-o", str(tmp_path / "o")).returncode == 0
    told = subprocess.run(["capinfos", "-M", str(tmp_path / "o")], capture_output=True, text=True, timeout=30).stdout
    for fact in (
        "Capture comment:     agentctl capture query 'udp' --from @1795183200",
        "Name = eth0",
        "Name = eth1",
        "Filter string = not port 9",
        "Strict time order:   True",
        "Number of stat entries = 1",
    ):
        assert fact in told, told


def test_standard_output_is_for_wireshark(ask: Ask) -> None:
    done = ask("arp", "-o", "-", "--json")
    read = subprocess.run(
        ["tshark", "-r", "-", "-T", "fields", "-e", "arp"], input=done.stdout, capture_output=True, timeout=30
    )
    figures = json.loads(done.stderr)
    assert read.stdout.count(b"\n") == figures["packets"] > 10


def test_a_reader_that_goes_away_ends_it_quietly(prefix: Path) -> None:
    for words in (["ip"], ["ip", "-o", "-"]):
        query = [*PROGRAM, "--prefix", str(prefix), "capture", "query", *words]
        with subprocess.Popen(query, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asking:
            assert asking.stdout
            assert asking.stderr
            asking.stdout.close()
            assert asking.wait(30) == 141
            assert asking.stderr.read() == b""


def test_machines_get_packets_and_figures(ask: Ask, tmp_path: Path) -> None:
    document = json.loads(ask("tcp and host 10.0.0.1", "--limit", "3", "--json").stdout)
    assert (document["packets"], document["complete"], document["stopped_by"]) == (3, False, "packets")
    first, *_ = document["found"]
    assert {"time", "service", "interface", "length", "captured", "protocol", "source"} <= set(first)
    whole = json.loads(ask("tcp", "-o", str(tmp_path / "o"), "--json").stdout)
    assert (whole["complete"], whole["stopped_by"], whole["unreadable"]) == (True, None, [])
    assert "found" not in whole


def test_a_limit_is_told_and_is_no_failure(ask: Ask) -> None:
    for words, said in (
        (["--limit", "5"], b"agentctl: stopped after 5 packets, by --limit; there are more\n"),
        (["--limit-bytes", "1KiB"], b"by --limit-bytes; there are more\n"),
    ):
        done = ask("ip", *words)
        assert done.returncode == 0
        assert said in done.stderr


def test_a_time_limit_is_told_with_what_was_searched(ask: Ask) -> None:
    """And is not said to be the same as nothing found."""
    done = ask("ip", "--time-limit", "1us")
    told = b"agentctl: stopped after 0 packets, by --time-limit, with nothing searched\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", told)
    done = ask("ip", "--time-limit", "1us", "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, done.stderr, document["found"], document["packets"]) == (0, b"", [], 0)
    assert (document["complete"], document["stopped_by"], document["searched_until"]) == (False, "time", None)


def test_up_to_where_a_time_limit_let_it_search_is_told(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its clock goes on by a second at each look, so that it comes to an end in the middle."""
    looks = 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        return looks

    monkeypatch.setattr(answer, "Answer", partial(answer.Answer, clock=clock))
    whole = json.loads(ask("ip", "--json", "--limit", "9999", "--time-limit", "1d").stdout)
    limit = f"{looks // 2}s"
    done = ask("ip", "--json", "--limit", "9999", "--time-limit", limit)
    part = json.loads(done.stdout)
    assert (done.returncode, part["complete"], part["stopped_by"]) == (0, False, "time")
    assert 0 < part["packets"] < whole["packets"]
    assert part["found"] == whole["found"][: part["packets"]]
    left = whole["found"][part["packets"] :]
    assert part["found"][-1]["time"] <= part["searched_until"] <= left[0]["time"]
    done = ask("ip", "--limit", "9999", "--time-limit", limit)
    words = f"agentctl: stopped after {part['packets']} packets, by --time-limit, with all up to "
    assert done.returncode == 0
    assert done.stderr.decode().startswith(words) and done.stderr.endswith(b" searched\n")


def test_a_terminal_is_not_flooded(prefix: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*PROGRAM, "--prefix", str(prefix), "capture", "query"], stdout=theirs, stderr=subprocess.PIPE
    ) as asking:
        os.close(theirs)
        shown = b""
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:
                break
            shown += data
        assert asking.stderr
        told = asking.stderr.read()
    os.close(ours)
    assert shown.count(b"\n") == 1000
    assert told == b"agentctl: stopped after 1,000 packets, as a terminal is not for more; --limit N or -o FILE is\n"


def test_packets_do_not_go_to_a_terminal(prefix: Path) -> None:
    ours, theirs = pty.openpty()
    command = [*PROGRAM, "--prefix", str(prefix), "capture", "query", "-o", "-"]
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, timeout=30)
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 1
    assert b"packets are not for a terminal" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["tcp and prot 80"], 1, 'filter "tcp and prot 80": syntax error at "prot" (column 9)'),
        (["ip", "--service", "egde"], 1, "no capture is named 'egde'; did you mean edge?"),
        (["ip", "--interface", "eth7"], 1, "no interface is named 'eth7'; did you mean eth1?"),
        (["ip", "--last", "yesterday"], 1, '"yesterday" is not a duration'),
        (["ip", "--from", "14:00", "--last", "5m"], 1, "--last goes back from now"),
        (["ip6 protochain 6", "--time-limit", "0"], 1, "with protochain a query needs a --time-limit: a packet can be"),
        (["ip", "--format", "pcap"], 1, "--format says what is written to a file"),
        (["ip", "-o", "/nowhere/x.pcap"], 2, "/nowhere/x.pcap: cannot be written: No such file or directory"),
        (["ip", "-o", "/dev/full"], 2, "/dev/full: cannot be written: No space left on device"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(ask: Ask, words: list[str], code: int, said: str) -> None:
    done = ask(*words)
    assert (done.returncode, done.stdout) == (code, b"")
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(f"agentctl: {said}")


def test_a_failure_leaves_no_file_and_what_was_there_as_it_was(ask: Ask, tmp_path: Path) -> None:
    kept = tmp_path / "found.pcap"
    kept.write_text("as it was")
    assert ask("prot", "-o", str(kept)).returncode == 1
    assert kept.read_text() == "as it was"
    assert not list(tmp_path.glob(".*"))


def test_several_link_types_are_no_pcap(prefix: Path, ask: Ask, tmp_path: Path) -> None:
    store = prefix / "spool" / "edge"
    segment(store, "tun0", traffic.packets(Random(1), 50, traffic.RAW, begin=BEGIN), link_type=traffic.RAW)
    refused = ask("ip", "-o", str(tmp_path / "o.pcap"))
    assert refused.returncode == 1
    assert b"(eth0: 1, eth1: 1, tun0: 101); name an --interface" in refused.stderr
    assert ask("ip", "-o", str(tmp_path / "o.pcap"), "--interface", "tun0").returncode == 0
    assert (tmp_path / "o.pcap").read_bytes()[20:24] == (101).to_bytes(4, "little")
    assert ask("ip", "-o", str(tmp_path / "o.pcapng")).returncode == 0


def test_a_store_of_a_newer_version_is_refused(prefix: Path, ask: Ask) -> None:
    (prefix / "spool" / "edge" / "store.json").write_text('{"version": 9}')
    for words in ((), ("--service", "edge")):
        done = ask("ip", *words)
        assert done.returncode == 1
        assert b"the store is of version 9" in done.stderr
    segment(prefix / "spool" / "core", "eth0", traffic.packets(Random(1), 50, begin=BEGIN))
    done = ask("ip", "--json")
    assert done.returncode == 0
    told = json.loads(done.stdout)
    assert {one["service"] for one in told["found"]} == {"core"} and not told["complete"]
    assert "the store is of version 9" in told["unreadable"][0]


def test_nothing_stored_is_said(prefix: Path, ask: Ask) -> None:
    shutil.rmtree(prefix / "spool" / "edge")
    nothing = f"agentctl: no packets are stored below {prefix / 'spool'}\n".encode()
    assert ask() == (0, b"", nothing)
    shutil.rmtree(prefix / "spool")
    assert ask("tcp", "port", "80") == (0, b"", nothing)
    wrong = ask("tcp prot 80")
    assert (wrong.returncode, wrong.stdout) == (1, b"")
    assert wrong.stderr == b'agentctl: filter "tcp prot 80": syntax error at "prot" (column 5)\n'


def test_nothing_found_is_said(ask: Ask) -> None:
    done = ask("host 203.0.113.77", "--service", "edge")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"agentctl: no packet was found\n")


def test_a_filter_that_libpcap_never_comes_to_an_end_with_is_stopped(prefix: Path, tmp_path: Path) -> None:
    """``protochain`` takes the length of an authentication header for a place in the packet, and may go in circles."""
    frame = bytes.fromhex(
        "b99412d9ae55a7f1b8cda91886dd60000000003533400000000000000000000000000a00000100000000000000000000000000000000"
        "3301000000000000000000002101000000000000000000000035005000000001000000015012040000000000cfb13e9c7da04d2743"
    )
    hostile = traffic.packets(Random(1), 1, begin=BEGIN)[0]._replace(data=frame, length=len(frame))
    segment(prefix / "spool" / "trap", "eth0", [hostile])
    began = time.monotonic()
    done = asked(prefix, "ip6 protochain 6", "--service", "trap", "--time-limit", "0.1s", "-o", str(tmp_path / "x"))
    assert done.returncode == 2
    assert done.stderr == b"agentctl: the filter does not come to an end on some packet; stopped by --time-limit\n"
    assert time.monotonic() - began < 10
    assert not [path for path in tmp_path.iterdir() if path.name != "prefix"]


def test_it_stands_back_for_others_and_loads_little(prefix: Path) -> None:
    """At idle priority, and without scapy or rich."""
    program = (
        "import os, sys, agent.cli.main\n"
        f"sys.argv = ['agentctl', '--prefix', {str(prefix)!r}, 'capture', 'query', 'port 53', '--limit', '1']\n"
        "code = agent.cli.main.main()\n"
        "print(code, os.sched_getscheduler(0) == os.SCHED_IDLE, *(name in sys.modules for name in ('scapy', 'rich')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.stdout.splitlines()[-1] == "0 True False False"


def test_what_is_found_again_is_what_was_stored(prefix: Path, ask: Ask) -> None:
    """Of each packet every byte, and the instant to the nanosecond."""
    done = ask("", "--format", "pcap", "-o", "-", "--interface", "eth1")
    stored = next((prefix / "spool" / "edge" / "eth1").glob("*.pcap")).read_bytes()
    assert list(packets(done.stdout[FILE_HEADER:])) == list(packets(stored[FILE_HEADER:]))
