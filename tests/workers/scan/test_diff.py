"""What changed between two runs: all that ndiff sees, what it does not see, and nothing that did not happen."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from agent.workers.scan.diff import KINDS, Change, Difference, certificate, compare
from agent.workers.scan.found import Certificate, Host, Port, Rest, Script
from agent.workers.scan.importing import read_report
from agent.workers.scan.side import Side
from tests.workers.scan.reports import PORTS, UDP, Answer, Machine, report

Key = tuple[str, int]
HOST = "", 0
EVERY = [*(("tcp", number) for number in PORTS), *(("udp", number) for number in UDP)]

ADDRESSES = [f"10.0.0.{number}" for number in range(1, 13)]
GATEWAY = "10.0.0.254"
TARGETS = "10.0.0.1-12,254 --exclude 10.0.1.1"  # the exclusion is of nobody, as in many a script
STATES = ("open", "closed", "filtered", "unfiltered")

HTTP = (("name", "http"), ("product", "nginx"), ("version", "1.22.1"), ("method", "probed"), ("conf", "10"))


def difference(before: bytes, after: bytes) -> Difference:
    first, second = read_report([before]), read_report([after])
    return compare(first.hosts, first.side(), second.hosts, second.side())


def run_ndiff(before: bytes, after: bytes, *options: str) -> subprocess.CompletedProcess[str]:
    with TemporaryDirectory() as name:
        paths = [Path(name, "a.xml"), Path(name, "b.xml")]
        for path, document in zip(paths, (before, after), strict=True):
            path.write_bytes(document)
        return subprocess.run(["ndiff", *options, *map(str, paths)], capture_output=True, text=True, check=False)


def by_ndiff(before: bytes, after: bytes) -> set[tuple[str, str, Key]]:
    """What the real ndiff tells of: address, what, and protocol and number of a port."""
    done = run_ndiff(before, after, "--xml")
    assert done.returncode in (0, 1), done.stderr
    return {told for part in ElementTree.fromstring(done.stdout).iter("hostdiff") for told in _of_host(part)}


def _of_host(part: ElementTree.Element) -> Iterator[tuple[str, str, Key]]:
    for side in ("a", "b"):
        for host in part.iterfind(f"{side}/host"):
            yield _address(host), "host", HOST
    for host in part.iterfind("host"):
        address = _address(host)
        for what, paths in {
            "state": ("a/status", "b/status"),
            "mac": ("a/address", "b/address"),
            "names": ("hostnames/a", "hostnames/b"),
            "os": ("os/a", "os/b"),
            "extraports": ("ports/a/extraports", "ports/b/extraports"),
            "script": ("hostscript/a", "hostscript/b", "a/hostscript", "b/hostscript"),
        }.items():
            if any(host.find(path) is not None for path in paths):
                yield address, what, HOST
        for found in host.iterfind("ports/portdiff"):
            port = next(found.iter("port"))
            yield address, "port", (port.get("protocol", ""), int(port.get("portid", "")))


def _address(host: ElementTree.Element) -> str:
    return next(one.get("addr", "") for one in host.iter("address") if one.get("addrtype") == "ipv4")


words = st.sampled_from(["", "nginx", "OpenSSH", "Apache"])


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    state = draw(st.sampled_from(STATES))
    one = st.sampled_from(["http-title", "ssh-hostkey"])
    scripts = draw(st.dictionaries(one, st.sampled_from(["x", "y z"]), max_size=1))  # ndiff reads no more
    if state != "open":
        return Answer(state)
    service = {
        "name": draw(st.sampled_from(["http", "ssh"])),
        "product": draw(words),
        "version": draw(st.sampled_from(["", "1.0", "2.0"])),
        "extrainfo": draw(st.sampled_from(["", "Debian"])),
        "tunnel": draw(st.sampled_from(["", "ssl"])),
        "method": draw(st.sampled_from(["probed", "probed", "table"])),
    }
    return Answer(state, tuple((name, value) for name, value in service.items() if value), tuple(scripts.items()))


machines = st.builds(
    Machine,
    ports=st.dictionaries(st.sampled_from(list(PORTS)), answers(), max_size=6),
    others=st.sampled_from(["closed", "closed", "filtered"]),
    names=st.lists(st.sampled_from(["a.lan", "b.lan"]), unique=True).map(tuple),
    mac=st.sampled_from(["", "02:00:00:00:00:01", "02:00:00:00:00:02"]),
    os=st.lists(st.sampled_from(["Linux 5", "Linux 6", "BSD"]), unique=True).map(tuple),
    scripts=st.dictionaries(st.just("smb-os-discovery"), st.sampled_from(["x", "y"])).map(lambda d: tuple(d.items())),
    together=st.integers(3, 9),
    udp=st.dictionaries(
        st.sampled_from(list(UDP)), st.sampled_from(["open", "closed", "filtered"]).map(Answer), max_size=4
    ),
)

networks = st.dictionaries(
    st.sampled_from(ADDRESSES), st.tuples(machines, machines, st.sampled_from(["both", "both", "same", "old", "new"]))
)

ROUTER = Machine(
    {22: Answer("open", (("name", "ssh"),), (("ssh-hostkey", "k"),))},
    "closed",
    ("gw.lan",),
    "02:00:00:00:00:99",
    ("X",),
    udp={53: Answer("open")},
)
"""Both runs know names, MAC addresses, systems and scripts: they covered the same."""


def pair(network: dict[str, tuple[Machine, Machine, str]]) -> tuple[dict[str, Machine], dict[str, Machine]]:
    old = {address: one for address, (one, _, which) in network.items() if which != "new"}
    new = {
        address: one if which == "same" else other for address, (one, other, which) in network.items() if which != "old"
    }
    return {**old, GATEWAY: ROUTER}, {**new, GATEWAY: ROUTER}


def _is_none(what: str, key: Key, here: Machine, there: Machine) -> bool:
    """Whether what ndiff tells of as changed is the same on both machines, only written another way."""
    match what:
        case "port":  # it stands alone in one report, and with others in the other
            return here.answer(key[1], key[0]) == there.answer(key[1], key[0])
        case "extraports":
            return all(here.answer(one, way).state == there.answer(one, way).state for way, one in EVERY)
        case "os":  # less likely guesses in another order
            return set(here.os) == set(there.os) and here.os[:1] == there.os[:1]
    return False


@settings(max_examples=20, phases=[Phase.explicit, Phase.generate])  # each starts ndiff once: none of them to shrink
@given(networks)
def test_everything_that_ndiff_finds_is_found(network: dict[str, tuple[Machine, Machine, str]]) -> None:
    old, new = pair(network)
    before, after = (report(each, asked=13, targets=TARGETS) for each in (old, new))
    found = difference(before, after)
    assert not found.notes
    kinds: dict[tuple[str, Key], set[str]] = {}
    for change in found.changes:
        for low, high in change.ports or ((0, 0),):
            for number in range(low, high + 1):
                kinds.setdefault((change.address, (change.protocol, number)), set()).add(change.kind)
    for address, what, key in by_ndiff(before, after):
        here, there = old.get(address), new.get(address)
        if here and there and _is_none(what, key, here, there):
            continue
        if what == "extraports":
            assert any(where == address and port != HOST for where, port in kinds), (address, what)
            continue
        ours = kinds.get((address, key), set())
        wanted: dict[str, set[str]] = {
            "host": {"host_gone", "host_new", "names_changed"},
            "state": {"host_gone", "host_new"},
            "mac": {"mac_changed"},
            "names": {"names_changed"},
            "os": {"os_changed"},
            "script": {"script_changed"},
            "port": {*KINDS},
        }
        assert ours & wanted[what], (address, what, key, found.changes)


SERVER = """
import socket, sys, threading

def serve(listener, banner):
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(banner)

for address, port, banner in (
    ("10.77.0.2", 21, b"220 (vsFTPd 3.0.3)\\r\\n"),
    ("10.77.0.5", 25, b"220 m ESMTP Exim 4.96\\r\\n"),
):
    threading.Thread(target=serve, args=(socket.create_server((address, port)), banner), daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


def test_of_two_scans_by_nmap_of_hosts_that_changed_all_is_found_that_ndiff_finds(
    network: tuple[str, ...],
    tmp_path: Path,
) -> None:
    there = network[-1].replace("scan-a", "scan-b")

    def scan(name: str) -> bytes:
        words = "-n -sS -sV --version-light --max-retries 2 --script banner,http-title,http-server-header"
        path = tmp_path / name
        ports = ["-p", "21,22,25,80,8080", "-oX", str(path), "10.77.0.2-6"]
        subprocess.run([*network, "nmap", *words.split(), *ports], check=True, capture_output=True, timeout=50)
        return path.read_bytes()

    before = scan("a.xml")
    for words in (
        f"ip -n {there} addr del 10.77.0.3/24 dev wire",
        f"ip -n {there} addr add 10.77.0.5/24 dev wire",
        f"ip netns exec {there} nft add table inet block",
        f"ip netns exec {there} nft add chain inet block in {{ type filter hook input priority 0 ; }}",
        f"ip netns exec {there} nft add rule inet block in tcp dport 8080 drop",
    ):
        subprocess.run(words.split(), check=True)
    served = ["ip", "netns", "exec", there, "python3", "-c", SERVER]
    with subprocess.Popen(served, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout and server.stdout.readline()
        after = scan("b.xml")
        server.communicate("")
    ours = {(one.address, one.kind, number) for one in difference(before, after).changes for number in numbers(one)}
    assert ours == {
        ("10.77.0.2", "port_opened", 21),
        ("10.77.0.2", "port_filtered", 8080),
        ("10.77.0.3", "host_gone", 0),
        ("10.77.0.5", "host_new", 0),
        ("10.77.0.5", "port_opened", 25),
    }
    several = [port for host in read_report([before]).hosts for port in host.ports if len(port.scripts) > 1]
    assert several, "ports with more than one script are read; ndiff ends with a traceback at those"
    assert b"Traceback" in run_ndiff(before, after).stderr.encode()
    plain = [re.sub(rb"<script .*?(/>|</script>)", b"", document, flags=re.DOTALL) for document in (before, after)]
    for address, what, key in by_ndiff(*plain):
        told = {kind for where, kind, number in ours if where == address and number in (0, key[1])}
        assert told or what == "extraports", (address, what, key)


def numbers(change: Change) -> list[int]:
    return [number for low, high in change.ports or ((0, 0),) for number in range(low, high + 1)]


@settings(max_examples=25)
@given(networks)
def test_what_is_told_of_a_port_is_what_became_of_it(network: dict[str, tuple[Machine, Machine, str]]) -> None:
    """Every port of a host that was up both times whose state changed is told of, and no other."""
    old, new = pair(network)
    found = difference(*(report(each, asked=13, targets=TARGETS) for each in (old, new)))
    told = {
        (change.address, change.protocol, number, change.before, change.after)
        for change in found.changes
        if change.kind.startswith("port_") and change.address in old
        for low, high in change.ports
        for number in range(low, high + 1)
    }
    truth = {
        (address, way, number, machine.answer(number, way).state, new[address].answer(number, way).state)
        for address, machine in old.items()
        if address in new
        for way, number in EVERY
    }
    assert told == {one for one in truth if one[3] != one[4]}
    gone = {change.address for change in found.changes if change.kind == "host_gone"}
    assert gone == old.keys() - new.keys()
    assert {change.address for change in found.changes if change.kind == "host_new"} == new.keys() - old.keys()


@settings(max_examples=10)
@given(networks)
def test_a_run_that_is_compared_with_itself_has_not_changed(network: dict[str, tuple[Machine, Machine, str]]) -> None:
    old, _ = pair(network)
    found = difference(
        report(old, asked=13, targets=TARGETS),
        report(dict(reversed(old.items())), asked=13, targets=TARGETS, turned=True),
    )
    assert (found.changes, found.notes) == ([], [])
    assert (found.hosts, found.ports) == (len(old), len(old) * len(EVERY))


@settings(max_examples=10)
@given(networks)
def test_a_degraded_run_takes_nothing_away(network: dict[str, tuple[Machine, Machine, str]]) -> None:
    old, new = pair(network)
    first, second = (read_report([report(each, asked=13, targets=TARGETS)]) for each in (old, new))
    doubtful = compare(
        first.hosts, first.side(), second.hosts, replace(second.side(), doubt="degraded: 1 canary missing")
    )
    sure = compare(first.hosts, first.side(), second.hosts, second.side())
    losses = {"host_gone", "port_closed", "port_filtered"}
    assert not {change.kind for change in doubtful.changes} & losses
    assert len(doubtful.changes) + doubtful.withheld == len(sure.changes)
    assert [one for one in doubtful.changes if one.kind == "port_opened"] == [
        one for one in sure.changes if one.kind == "port_opened"
    ]
    (note,) = doubtful.notes
    assert note.startswith("the second run is degraded: 1 canary missing: nothing is said to be gone or closed by it")


SCRIPT = (("http-title", "Welcome"),)


def web(service: tuple[tuple[str, str], ...] = HTTP, title: str = "Welcome", **others: str) -> dict[str, Machine]:
    answer = Answer("open", (*service, *others.items()), (("http-title", title),))
    return {"10.0.0.5": Machine({3: answer}, names=("web.lan",))}


def test_ndiff_crashes_on_a_script_that_says_something_else_and_we_do_not() -> None:
    before, after = report(web()), report(web(title="Moved"))
    crashed = run_ndiff(before, after)
    assert crashed.returncode == 2
    assert "TypeError" in crashed.stderr
    assert difference(before, after).changes == [
        Change("script_changed", "10.0.0.5", "tcp", ((3, 3),), "Welcome", "Moved", "http-title")
    ]


def test_ndiff_cannot_even_read_a_port_with_two_scripts_and_we_can() -> None:
    (one,) = web()["10.0.0.5"].ports.values()
    more = replace(one, scripts=(*one.scripts, ("http-server-header", "nginx")))
    before, after = report(web()), report({"10.0.0.5": replace(web()["10.0.0.5"], ports={3: more})})
    crashed = run_ndiff(before, after, "--xml")
    assert crashed.returncode == 2
    assert "'ScriptResult' and 'ScriptResult'" in crashed.stderr
    assert difference(before, after).changes == [
        Change("script_changed", "10.0.0.5", "tcp", ((3, 3),), "", "nginx", "http-server-header")
    ]


@pytest.mark.parametrize("added", [True, False])
def test_ndiff_does_not_see_that_tls_came_or_went_and_we_do(added: bool) -> None:
    plain, secure = report(web()), report(web(tunnel="ssl"))
    before, after = (plain, secure) if added else (secure, plain)
    assert run_ndiff(before, after).returncode == 0
    http, https = "http nginx 1.22.1", "ssl/http nginx 1.22.1"
    assert difference(before, after).changes == [
        Change("tls_added", "10.0.0.5", "tcp", ((3, 3),), http, https)
        if added
        else Change("tls_removed", "10.0.0.5", "tcp", ((3, 3),), https, http)
    ]


def test_for_ndiff_a_host_with_another_name_is_another_host_and_for_us_it_is_not() -> None:
    before, after = report(web()), report({"10.0.0.5": replace(web()["10.0.0.5"], names=("shop.lan",))})
    done = run_ndiff(before, after)
    assert "-web.lan (10.0.0.5):\n-Host is up." in done.stdout
    assert "+shop.lan (10.0.0.5):\n+Host is up." in done.stdout
    assert difference(before, after).changes == [
        Change("names_changed", "10.0.0.5", before="web.lan", after="shop.lan")
    ]


def test_for_ndiff_the_order_of_groups_of_ports_is_a_change_and_for_us_it_is_not() -> None:
    machine = Machine({number: Answer("filtered") for number in range(10, 20)})
    before, after = (report({"10.0.0.5": machine}, turned=turned) for turned in (False, True))
    assert run_ndiff(before, after).returncode == 1
    assert difference(before, after).changes == []


def test_for_ndiff_a_port_that_was_not_asked_for_has_closed_and_for_us_it_has_not() -> None:
    before, after = report(web()), report(web(), ports=range(10, 31))
    done = run_ndiff(before, after)
    assert done.returncode == 1
    assert "-3/tcp open" in done.stdout
    found = difference(before, after)
    assert found.changes == []
    assert (found.ports, found.ports_only_first, found.ports_only_second) == (21, 9, 0)
    assert found.notes[-1] == "9 ports not compared: the second run did not ask for them"


def test_a_host_that_was_not_asked_for_has_not_gone() -> None:
    found = difference(report(web()), report({"10.0.0.9": Machine()}))
    assert found.changes == []
    assert found.notes[-2:] == [
        "1 host of the first run not compared: the second did not ask for them",
        "1 host of the second run not compared: the first did not ask for them",
    ]


def test_what_a_new_host_has_open_is_told_too() -> None:
    before = report({}, asked=1, targets="10.0.0.5")
    found = difference(before, report(web()))
    assert found.changes == [
        Change("host_new", "10.0.0.5", after="tcp/3"),
        Change("port_opened", "10.0.0.5", "tcp", ((3, 3),), "", "open"),
    ]
    assert difference(report(web()), before).changes == [Change("host_gone", "10.0.0.5", before="tcp/3")]


def test_what_differs_each_time_is_no_change() -> None:
    first, second = (
        report(web(title=f"It is {day}, 06 Nov 1994 08:49:{second} GMT, session {number:032x}"))
        for day, second, number in (("Sun", 37, 2**100), ("Sun", 38, 3**60))
    )
    assert difference(first, second).changes == []


def port(number: int = 443, **fields: Any) -> Port:
    return replace(Port("tcp", number, "open", "syn-ack", service="https", tunnel="ssl", method="probed"), **fields)


def host(*ports: Port, **fields: Any) -> Host:
    return replace(Host("10.0.0.1", "up", "syn-ack", ports=ports), **fields)


def changes(before: Host, after: Host, first: Side | None = None, second: Side | None = None) -> list[Change]:
    return compare([before], first or Side(), [after], second or Side()).changes


def test_another_certificate_is_told_with_what_tells_them_apart() -> None:
    old, new = Certificate("ab" * 32, "CN=a", not_after=1_800_000_000), Certificate("cd" * 32, "CN=a")
    (change,) = changes(host(port(certificate=old)), host(port(certificate=new)))
    assert (change.kind, change.before) == ("certificate_changed", "CN=a until 2027-01-15, sha256 abababababababab")
    assert change.after == "CN=a, sha256 cdcdcdcdcdcdcdcd"
    assert changes(host(port(certificate=old)), host(port())) == []  # it was not looked at
    assert certificate(replace(new, not_after=10**18)) == change.after


def test_a_service_known_by_its_number_alone_is_not_another_one() -> None:
    guessed = port(service="https-alt", tunnel="", method="table")
    assert changes(host(guessed), host(port())) == []
    found = compare([host(guessed)], Side(detection="some"), [host(port())], Side(detection="some"))
    assert found.notes == ["services of 1 port not compared: only one run looked at what they are"]
    every = Side(detection="every")
    assert [change.kind for change in changes(host(guessed), host(port()), every, every)] == [
        "service_changed",
        "tls_added",
    ]


def test_a_name_that_only_one_run_has_looked_up_by_the_number_is_no_change() -> None:
    silent, looked_up = port(service="", tunnel="", method=""), port(service="https", tunnel="", method="table")
    assert changes(host(silent), host(looked_up)) == []
    assert changes(host(looked_up), host(silent)) == []


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("closed", "open", "port_opened"),
        ("open|filtered", "open", "port_opened"),
        ("open", "closed", "port_closed"),
        ("open|filtered", "closed", "port_closed"),
        ("open", "filtered", "port_filtered"),
        ("closed", "filtered", "port_filtered"),
        ("filtered", "closed", "port_unfiltered"),
        ("filtered", "unfiltered", "port_unfiltered"),
    ],
)
def test_a_state_has_changed(before: str, after: str, kind: str) -> None:
    (change,) = changes(host(port(state=before)), host(port(state=after)))
    assert (change.kind, change.before, change.after) == (kind, before, after)


def test_many_ports_to_which_the_same_happened_are_one_change() -> None:
    before = host(rest=(Rest("tcp", "filtered", "no-response", ((1, 65535),)),))
    after = host(port(80), rest=(Rest("tcp", "closed", "reset", ((1, 79), (81, 65535))),))
    assert changes(before, after) == [
        Change("port_opened", "10.0.0.1", "tcp", ((80, 80),), "filtered", "open"),
        Change("port_unfiltered", "10.0.0.1", "tcp", ((1, 79), (81, 65535)), "filtered", "closed"),
    ]


def test_ports_of_a_host_that_says_open_to_everything_are_told_of_together() -> None:
    before = host(port(443), rest=(Rest("tcp", "closed", "reset", ((1, 1), (3, 442), (444, 500))),))
    after = host(rest=(Rest("tcp", "open", "syn-ack; answers on every port", ((1, 1), (3, 500))),))
    assert changes(before, after) == [
        Change("port_opened", "10.0.0.1", "tcp", ((1, 1), (3, 442), (444, 500)), "closed", "open to everything"),
    ]
    assert [change.before for change in changes(after, before)] == ["open to everything"]


def test_what_a_degraded_first_run_may_have_missed_is_not_sure_to_be_new() -> None:
    found = compare([host(port(state="closed"))], Side(doubt="interrupted"), [host(port())], Side())
    assert [(change.kind, change.sure) for change in found.changes] == [("port_opened", False)]
    assert found.notes == ["the first run is interrupted: what is new may have been there before"]


def test_an_address_that_was_only_taken_for_up_has_not_been_seen() -> None:
    assumed = Host("10.0.0.1", "up", "user-set", rest=(Rest("tcp", "filtered", "no-response", ((1, 9),)),))
    down = Side(looked=lambda _: True)
    for unmet in (assumed, replace(assumed, reason="no-response"), replace(assumed, reason="")):
        assert compare([unmet], Side(), [], down).changes == []
        met = replace(unmet, ports=(port(80, state="closed"),))
        assert [change.kind for change in compare([met], Side(), [], down).changes] == ["host_gone"]


def test_a_script_that_speaks_twice_may_do_so_in_any_order() -> None:
    one, other = Script("x", "1"), Script("x", "2")
    assert changes(host(scripts=(one, other)), host(scripts=(other, one))) == []


def test_a_run_that_is_degraded_for_some_addresses_is_believed_about_the_others() -> None:
    def told(last: int, state: str) -> Host:
        return replace(host(port(state=state)), address=f"10.0.0.{last}")

    before = [told(1, "open"), told(2, "open")]
    partly = Side(
        looked=lambda _: True, doubt="degraded: the way was lost", withheld=lambda address: address == "10.0.0.2"
    )
    found = compare(before, Side(looked=lambda _: True), [told(1, "closed")], partly)
    assert [(change.kind, change.address) for change in found.changes] == [("port_closed", "10.0.0.1")]
    assert found.withheld == 1
    [note] = found.notes
    assert note == (
        "the second run is degraded: the way was lost: nothing is said to be gone or closed there (1 change not told)"
    )
    back = compare([told(1, "closed")], partly, before, Side(looked=lambda _: True))
    assert [(change.kind, change.sure) for change in back.changes] == [("port_opened", True), ("host_new", False)]
