"""What nmap is called with: nothing of a declaration's text, only numbers and words that stand here."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from unittest import mock
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.declaration.ports import parse_ports
from agent.declaration.targets import file_of, is_name, span, target
from agent.errors import AgentError, ConfigurationError, ScanFailure, UsageError
from agent.workers.scan.allowed import Allowed
from agent.workers.scan.argv import Ask, ask_argv, nmap_environment, privileges, target_list
from agent.workers.scan.detect import askable, tasks
from agent.workers.scan.found import Host
from agent.workers.scan.pinned import pin
from agent.workers.scan.plan import make_plan
from agent.workers.scan.program import choose_scripts, find_nmap
from agent.workers.scan.results import given_as, read_host
from agent.workers.scan.stream import XmlStream

WORDS = {
    *("-n", "--no-stylesheet", "--stats-every", "1s", "-oX", "-", "--max-rate", "-6", "-sn", "-sS", "-sT", "-sU", "-p"),
    *("-Pn", "-sV", "--version-intensity", "--min-parallelism", "-O", "--script", "--script-timeout", "60s", "-iL"),
}
NUMBERS = re.compile(r"[0-9]+|(T:|U:)?[0-9]+(-[0-9]+)?(,(T:|U:)?[0-9]+(-[0-9]+)?)*|/proc/self/fd/[0-9]+", re.ASCII)

ports_text = st.sampled_from(
    ["--script=x", "-oN/tmp/x", "80 -oN x", "80,--script", "T:80", "U:53", "-", "1-", "-80", "http*", "[80]", "8\u0660"]
)
hostile = st.sampled_from(
    ["--script=x", "-oN/tmp/x", "/x/scripts/a.nse,vuln", "/x/../../etc/passwd", "all", "-", "/x/ -oN.nse"]
)


@settings(deadline=None)
@given(
    st.text(max_size=30) | ports_text,
    st.lists(st.text(max_size=30) | hostile, max_size=2),
    st.sampled_from([0, 2, 7]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(-5, 2_000_000),
)
def test_no_text_can_become_an_option(
    ports: str, scripts: list[str], intensity: int, system: bool, v6: bool, privileged: bool, rate: int
) -> None:
    try:
        asked = parse_ports(ports)
        ask = Ask(6 if v6 else 4, asked.tcp, asked.udp, intensity, 8, tuple(scripts), system)
        program, *words = ask_argv(ask, nmap="/usr/bin/nmap", rate=rate, privileged=privileged, targets=7)
    except ConfigurationError as error:
        assert "\n" not in str(error)
        return
    assert program == "/usr/bin/nmap"
    files = words[words.index("--script") + 1] if "--script" in words else ""
    for word in words:
        assert word in WORDS or NUMBERS.fullmatch(word) or word == files
    for file in files.split(",") if files else ():
        assert re.fullmatch(r"/[A-Za-z0-9/._+-]+/[a-z0-9][a-z0-9._-]*\.nse", file)
    assert max(map(len, words)) < 100_000  # execve(2) takes 128 KiB in one word


numbers = st.sampled_from(["0", "1", "10", "007", "255", "256", "-1", "1-9", "\u0661", "0x7f", "*", "1,2"])
octets = st.tuples(st.just("10"), *[numbers] * 3).map(".".join)
groups = st.sampled_from(["fd00::1", "fe80::1", "::1", "fd00::/126", "FE80::0001", "::ffff:10.0.0.1", "fd00:1::g"])
zones = st.sampled_from(
    ["eth0", "eth0.7", "a b", "-oN", "e\nth0", "x" * 16, "", "eth0/64", "\u0435th0", "--script=x", "%"]
)
"""Linux takes any name for an interface that has no slash and no space in it (dev_valid_name, net/core/dev.c)."""
tails = st.sampled_from(
    ["/24", "/30", "/33", "/-1", "-5", "-10.0.0.9", "-oN", " -oN x", "\n-iL/etc/passwd", "#", ",10.0.0.1"]
)
near = st.one_of(
    st.tuples(octets, st.just("") | tails).map("".join),
    st.tuples(groups, st.just("") | tails | zones.map("%{}".format)).map("".join),
    st.tuples(st.sampled_from(["-", "--", "-iL", "@", "file:", " ", "+", "\x00"]), octets | groups).map("".join),
    hostile,
    st.text(max_size=40),
)
"""Targets, and what is nearly one."""
LINE = re.compile(rb"[0-9a-f:][0-9a-f:.]*(%[A-Za-z0-9_.-]{1,15})?", re.ASCII)


def lines(addresses: Iterable[str]) -> list[str]:
    """What nmap is given, of which nothing is more than an address."""
    listed = target_list(tuple(addresses)).split(b"\n")
    assert listed.pop() == b""
    for line in listed:
        assert LINE.fullmatch(line)
        ip_address(line.decode().partition("%")[0])
    return [line.decode() for line in listed]


def planned(targets: Iterable[str], exclude: Iterable[str] = ()) -> list[str]:
    """What nmap is given of these; nothing where they are refused, in one line."""
    try:
        return lines(address for chunk in make_plan(targets, exclude).chunks() for address in chunk.addresses)
    except AgentError as error:
        assert str(error).isprintable()
        return []


@settings(deadline=None)
@given(st.lists(near, max_size=3), st.lists(near, max_size=2))
def test_no_text_of_targets_can_become_more_than_an_address(targets: list[str], exclude: list[str]) -> None:
    planned(["10.0.0.1", *targets], exclude)
    normal = []
    for text in targets:
        with suppress(UsageError):
            normal.append(target(text))
    hosts = [text for text in normal if not is_name(text) and file_of(text) is None]
    wanted = [span(text) for text in hosts]
    for line in planned(hosts):
        assert any(one.low <= int(ip_address(line.partition("%")[0])) <= one.high for one in wanted)


@settings(deadline=None)
@given(st.integers(0, 255).map("10.0.{}.4".format), st.sampled_from(["", "/30", "-10.0.255.9"]))
def test_what_is_a_target_arrives(address: str, tail: str) -> None:
    one = span(normal := target(address + tail))
    assert [int(ip_address(line)) for line in planned([normal])] == list(range(one.low, one.high + 1))


@settings(deadline=None)
@given(st.lists(near, min_size=1, max_size=3))
def test_no_answer_of_a_name_server_can_become_more_than_an_address(answers: list[str]) -> None:
    """Nor of whatever else nsswitch.conf(5) asks."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answer, 0)) for answer in answers]
    with mock.patch.object(socket, "getaddrinfo", return_value=found):
        try:
            pinned = asyncio.run(pin(["nas.example.org"]))
        except AgentError as error:
            assert str(error).isprintable()
            return
    assert set(pinned.targets) <= set(answers)
    planned(pinned.targets)


said = near | st.sampled_from(["80", "-p80", "0", "65536", "open", "ssh", "10.0.0.1", "10.0.0.2", "--script=vuln"])


heard = said.map(lambda text: "".join(one for one in text if one.isprintable() or one in "\n\t"))
"""What XML can say: of anything else nothing is read."""


def seldom(strange: st.SearchStrategy[str], *usual: str) -> st.SearchStrategy[str]:
    """What is read of most documents, so that it gets on to the next command line."""
    return st.integers(0, 5).flatmap(lambda dice: strange if dice == 0 else st.sampled_from(usual))


@settings(deadline=None)
@given(
    seldom(said, "10.0.0.1", "10.0.0.2", "8.8.8.8"),
    heard,
    seldom(said, "53", "161", "1"),
    *[heard] * 5,
    st.integers(0, 5).map(lambda dice: dice == 0),
)
def test_nothing_that_nmap_heard_can_become_an_option_of_the_next_one(
    address: str, name: str, port: str, service: str, product: str, script: str, output: str, mac: str, plain: bool
) -> None:
    def q(text: str) -> str:
        return f'"{text}"' if plain else quoteattr(text)

    asked = ("10.0.0.1", "10.0.0.2")
    xml = (
        f'<nmaprun scanner="nmap" version="7.93"><host><status state="up" reason={q(output)}/>'
        f'<address addr={q(address)} addrtype="ipv4"/><address addr={q(mac)} addrtype="mac"/>'
        f"<hostnames><hostname name={q(name)} type={q(name)}/></hostnames><ports>"
        f'<port protocol="tcp" portid="22"><state state="open" reason="syn-ack"/>'
        f"<service name={q(service)} product={q(product)} tunnel={q(service)}/>"
        f"<script id={q(script)} output={q(output)}/></port>"
        f'<port protocol={q("udp")} portid={q(port)}><state state="open" reason="x"/></port>'
        f"</ports></host><runstats/></nmaprun>"
    )
    hosts: list[Host] = []
    stream = XmlStream(on_host=lambda element: hosts.append(read_host(element, given_as(asked))))
    try:
        stream.feed(xml.encode())
    except (ScanFailure, UnicodeEncodeError) as error:
        assert isinstance(error, UnicodeEncodeError) or str(error).isprintable()
        return
    for host in hosts:
        for task in tasks(
            "light", {host.address: askable(host)}, beside={host.address: host}, scripts=["/x/ssl-cert.nse"]
        ):
            assert set(lines(task.addresses)) <= set(asked)
            for word in ask_argv(task.ask, nmap="nmap", rate=1, privileged=True, targets=7)[1:]:
                assert word in WORDS or NUMBERS.fullmatch(word) or word == "/x/ssl-cert.nse"


@pytest.mark.parametrize(
    "text", ["-iL", "10.0.0.1\n8.8.8.8", "10.0.0.1 -oN x", "", "fe80::1%", "fe80::1%a b", "10.0.0.0/24"]
)
def test_the_list_of_targets_holds_nothing_but_addresses(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not an address"):
        target_list(("10.0.0.1", text))
    with pytest.raises(ScanFailure, match=r"^\S.* is no address: nothing was sent to it$"):
        Allowed().check(["10.0.0.1", text])


def asks() -> list[tuple[Ask, bool]]:
    (certificates,) = choose_scripts(["ssl-cert"], find_nmap().data)
    one = ((1, 1),)
    return [
        (Ask(4, probes=("echo", "443", "80", "timestamp")), True),
        (Ask(6, probes=("443",), tries=1), True),
        (Ask(4, probes=("443", "80")), False),
        (Ask(4, tcp=one), False),
        (Ask(6, tcp=one, intensity=2, at_once=64, scripts=(certificates.path,)), True),
        (Ask(4, tcp=one, udp=one, intensity=0, system=True), True),
    ]


@pytest.mark.parametrize("number", range(6))
def test_nmap_itself_takes_every_command_line(number: int) -> None:
    ask, privileged = asks()[number]
    reading, writing = os.pipe()
    os.write(writing, target_list(("::1" if ask.family == 6 else "127.0.0.1",)))
    os.close(writing)
    words = ask_argv(ask, nmap="nmap", rate=1000, privileged=privileged, targets=reading)
    environment = nmap_environment(os.environ, privileged=privileged, data_directory=None)
    done = subprocess.run(words, env=environment, pass_fds=[reading], capture_output=True, check=True)
    os.close(reading)
    assert b'exit="success"' in done.stdout
    assert b'total="1"' in done.stdout


@pytest.mark.parametrize(
    ("ask", "match"),
    [
        (Ask(4, udp=((53, 53),)), "need CAP_NET_RAW"),
        (Ask(4, tcp=((1, 65535),), intensity=2), "65535 ports are too many"),
        (Ask(4, tcp=((1, 1),), intensity=10), "from 0 to 9"),
        (Ask(4, tcp=((1, 1),), intensity=1, at_once=0), "from 1 to 300"),
        (Ask(4, tcp=((1, 1),), scripts=("vuln",)), "not the path of a script"),
        (Ask(4, tries=0), "from 1 to 2"),
        (Ask(4, probes=("443", "80"), tries=1), "443, 80 cannot be sent once each by one nmap"),
        (Ask(4, probes=("443", "echo")), "443, echo cannot all be sent here"),
    ],
)
def test_what_nmap_is_never_asked(ask: Ask, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        ask_argv(ask, nmap="nmap", rate=1, privileged=False, targets=3)


@pytest.mark.parametrize(("rate", "least"), [(1, 1), (2, 1), (1000, 500), (4000, 2000), (20_000, 2000)])
def test_a_discovery_sends_half_of_what_it_may_even_where_nobody_answers(rate: int, least: int) -> None:
    words = ask_argv(Ask(4, tries=1), 7, "/proc/self/fd/8", nmap="nmap", rate=rate, privileged=True)
    options = dict(pairwise(words))
    assert (options["--min-rate"], options["--max-rate"], options["--max-retries"]) == (str(least), str(rate), "0")
    assert options["-oX"] == "/proc/self/fd/8"
    assert options["--min-rtt-timeout"] == "1s"
    assert "--packet-trace" in words
    assert not [word for word in words if word.startswith("-P")], "what nmap asks of itself"


def status(uid: int, permitted: int, bounding: int) -> str:
    return (
        f"Name:\tx\nUid:\t0\t{uid}\t0\t0\nCapInh:\t0\nCapPrm:\t{permitted:016x}\nCapEff:\t0\n"
        f"CapBnd:\t{bounding:016x}\nCapAmb:\t0\n"
    )


def test_raw_packets_are_used_when_the_right_to_them_survives_into_nmap() -> None:
    raw = 1 << 13
    assert privileges(status(0, raw, raw)) == (True, "")
    assert privileges(status(1000, raw, raw)) == (True, "")
    assert privileges(status(1000, raw, 0)) == (True, "")  # the bounding set concerns root and files only
    for without in (status(0, raw, 0), status(0, 0, raw), status(1000, 0, raw), status(0, ~raw & 0xFF, 0)):
        privileged, reason = privileges(without)
        assert not privileged
        assert "CAP_NET_RAW" in reason
    assert privileges("")[0] is False


def test_the_status_of_this_process_can_be_read() -> None:
    assert privileges(Path("/proc/self/status").read_text()) == (True, "")


def test_nmaps_environment_says_what_it_may_do_and_nothing_that_was_inherited() -> None:
    base = {"PATH": "/bin", "NMAPDIR": "/home/mallory", "NMAP_PRIVILEGED": "1", "NMAP_ARGS": "--script x"}
    assert nmap_environment(base, privileged=False, data_directory=None) == {
        "PATH": "/bin",
        "LC_ALL": "C",
        "NMAP_UNPRIVILEGED": "1",
    }
    assert nmap_environment(base, privileged=True, data_directory="/usr/share/nmap") == {
        "PATH": "/bin",
        "LC_ALL": "C",
        "NMAP_PRIVILEGED": "1",
        "NMAPDIR": "/usr/share/nmap",
    }
