"""Reports of other programs are believed as far as they go, and not at all when they are not whole."""

from __future__ import annotations

import hashlib
import socket
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import ScanFailure
from agent.workers.scan import importing
from agent.workers.scan.diff import compare
from agent.workers.scan.found import Host, Port, Rest
from agent.workers.scan.importing import Report, read_report
from agent.workers.scan.memory.coverage import asked
from agent.workers.scan.spans import Ranges
from tests.workers.scan.reports import Answer, Machine, each, report

MASSCAN = b"""<?xml version="1.0"?>
<!-- masscan v1.0 scan -->
<nmaprun scanner="masscan" start="1795795716" version="1.0-BETA"  xmloutputversion="1.03">
<scaninfo type="syn" protocol="tcp" />
<host endtime="1795795716"><address addr="10.9.0.3" addrtype="ipv4"/><ports><port protocol="tcp" portid="8080">\
<state state="open" reason="syn-ack" reason_ttl="64"/></port></ports></host>
<host endtime="1795795716"><address addr="10.9.0.2" addrtype="ipv4"/><ports><port protocol="tcp" portid="22">\
<state state="closed" reason="rst-ack" reason_ttl="64"/></port></ports></host>
<host endtime="1795795716"><address addr="10.9.0.2" addrtype="ipv4"/><ports><port protocol="tcp" portid="80">\
<state state="open" reason="syn-ack" reason_ttl="64"/></port></ports></host>
%s<runstats>
<finished time="1795795721" timestr="2026-11-27 16:08:41" elapsed="5" />
<hosts up="2" down="1" total="3" />
</runstats>
</nmaprun>
"""
"""As masscan 1.3.2 wrote it about two hosts in a network of our own."""


def of_masscan(more: bytes = b"") -> Report:
    return read_report([MASSCAN.replace(b"%s", more)])


def banner(port: int, name: str, text: str) -> bytes:
    return (
        f'<host endtime="1"><address addr="10.9.0.2" addrtype="ipv4"/><ports><port protocol="tcp" portid="{port}">'
        f'<state state="open" reason="response" reason_ttl="64" /><service name="{name}" banner="{text}"></service>'
        "</port></ports></host>\n"
    ).encode()


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_report_of_a_real_nmap_is_read(listener: int) -> None:
    ports = f"1-20,{listener}"
    words = ["nmap", "-n", "-sT", "-p", ports, "-oX", "-", "127.0.0.1", "127.0.0.2"]
    written = subprocess.run(words, capture_output=True, check=True).stdout
    found = read_report([written[:1000], written[1000:]])
    assert (found.tool, found.total, found.detection, found.scripts) == ("nmap", 2, "none", False)
    assert found.ports == (("tcp", ((1, 20), (listener, listener))),)
    assert found.digest == hashlib.sha256(written).hexdigest()
    assert found.started <= found.ended < found.started + 60
    first, second = found.hosts
    assert (first.address, first.state) == ("127.0.0.1", "up")
    assert [port.number for port in first.open_ports()] == [listener]
    assert {first.state_of("tcp", number) for number in range(1, 21)} == {"closed"}
    assert second.state_of("tcp", listener) == "closed"


def test_what_masscan_tells_of_a_host_in_pieces_is_one_host_that_was_asked_for_no_more() -> None:
    found = of_masscan()
    assert (found.tool, found.version, found.total, found.ports, found.asked) == ("masscan", "1.0-BETA", 2, (), ())
    first, second = found.hosts
    assert [(port.number, port.state, port.reason) for port in first.ports] == [
        (22, "closed", "rst-ack"),
        (80, "open", "syn-ack"),
    ]
    assert (second.address, second.rest) == ("10.9.0.3", ())
    without = read_report([MASSCAN.replace(b"%s", b"").replace(b'portid="80"', b'portid="81"')])
    gone = compare(found.hosts, found.side(), without.hosts, without.side())
    assert gone.changes == []  # nobody knows whether port 80 was asked again


def test_banners_of_masscan_are_kept() -> None:
    der = b"\x30\x03\x02\x01\x05"
    more = b"".join(
        (
            banner(80, "http", "HTTP/1.1 200 OK\\x0d\\x0aServer: x&#x9b;31m"),
            banner(80, "title", "Welcome"),
            banner(443, "X509", b64encode(der).decode()),
            banner(443, "X509", "not base64!"),
        )
    )
    web, secure = of_masscan(more).hosts[0].ports[1:]
    assert (web.service, web.method) == ("http", "probed")
    assert [(one.name, one.output) for one in web.scripts] == [
        ("masscan-http", "HTTP/1.1 200 OK\\x0d\\x0aServer: x 31m"),
        ("masscan-title", "Welcome"),
    ]
    assert secure.tunnel == "ssl"
    assert secure.certificate is not None
    assert secure.certificate.sha256 == hashlib.sha256(der).hexdigest()


def test_addresses_that_nmap_does_not_name_were_down_if_its_command_line_says_which_they_are() -> None:
    machines = {"10.0.0.2": Machine()}
    found = read_report([report(machines, asked=4, targets="10.0.0.1-4")])
    assert found.asked == asked(["10.0.0.1", "10.0.0.3", "10.0.0.4"], found.ports)
    assert found.notes == []
    side = found.side()
    assert side.looked("10.0.0.3")
    assert not side.looked("10.0.0.5")
    assert side.ports("10.0.0.3") == found.ports
    for targets in ("-iL hosts", "10.0.0.1-5", "10.0.1.1-4"):
        found = read_report([report(machines, asked=4, targets=targets)])
        assert found.asked == ()
        assert found.notes == ["3 hosts that did not answer are not named: they are not taken for down"]


def test_a_host_that_nmap_gave_up_on_is_neither_up_nor_down() -> None:
    machines = {"10.0.0.1": Machine(), "10.0.0.2": Machine()}
    found = read_report([report(machines).replace(b"<host ", b'<host timedout="true" ', 1)])
    assert [host.address for host in found.hosts] == ["10.0.0.2"]
    assert [(part.outcome, list(each(part))) for part in found.asked] == [("timed_out", ["10.0.0.1"])]
    assert not found.side().looked("10.0.0.1")
    assert found.notes == ["nmap gave up on 1 host, 10.0.0.1 first: not taken for down"]


def test_an_address_that_a_real_nmap_only_lists_was_not_asked() -> None:
    words = ["nmap", "-sL", "-n", "-oX", "-", "10.0.0.0/29"]
    found = read_report([subprocess.run(words, capture_output=True, check=True).stdout])
    assert (found.hosts, found.asked, found.total) == ((), (), 8)
    assert found.notes == ["8 hosts only listed and not asked, 10.0.0.0 first: not taken for down"]
    whole = read_report([report({"10.0.0.1": Machine({3: Answer("open")})}, asked=8, targets="10.0.0.0/29")])
    assert compare(whole.hosts, whole.side(), found.hosts, found.side()).changes == []


@pytest.mark.parametrize("state", [b' state="unknown"', b' state="skipped"', b""])
def test_a_host_of_no_state_was_not_asked(state: bytes) -> None:
    machines = {"10.0.0.1": Machine(), "10.0.0.2": Machine()}
    document = report(machines, asked=4, targets="10.0.0.1-4").replace(b' state="up"', state, 1)
    found = read_report([document])
    assert [host.address for host in found.hosts] == ["10.0.0.2"]
    assert found.asked == asked(["10.0.0.3", "10.0.0.4"], found.ports)
    assert found.notes == ["1 host only listed and not asked, 10.0.0.1 first: not taken for down"]


@pytest.mark.parametrize("option", ["--open", "-open", "--ope"])
def test_who_has_no_open_port_is_not_taken_for_down_where_only_open_ones_are_told_of(option: str) -> None:
    found = read_report(
        [report({"10.0.0.1": Machine()}, asked=4, targets="10.0.0.1-4", options=f"-sS {option}")],
    )
    assert found.asked == ()
    assert found.notes == ["3 hosts that did not answer are not named: they are not taken for down"]


def test_ports_that_nmap_was_told_to_leave_out_were_not_open() -> None:
    machine = Machine({3: Answer("open")}, "closed")
    lines = report({"10.0.0.1": machine}, options="-sS --open")
    begin, end = lines.index(b"<extraports"), lines.index(b"</extraports>") + len(b"</extraports>")
    (host,) = read_report([lines[:begin] + lines[end:]]).hosts
    assert host.state_of("tcp", 4) == "closed|filtered"
    whole = read_report([report({"10.0.0.1": machine})])
    known = read_report([lines[:begin] + lines[end:]])
    assert compare(whole.hosts, whole.side(), known.hosts, known.side()).changes == []


def old(document: bytes) -> bytes:
    """As nmap wrote it before it named the ports that it tells of together."""
    begin = document.index(b' proto="tcp" ports=')
    return document[:begin] + document[document.index(b"/>", begin) :]


def test_an_old_report_that_does_not_say_which_ports_were_closed_is_used_as_far_as_that_is_clear() -> None:
    machine = Machine({3: Answer("open")})
    (host,) = read_report([old(report({"10.0.0.1": machine}))]).hosts
    assert host.rest == (Rest("tcp", "closed", "reset", ((1, 2), (4, 30))),)
    machine = Machine({number: Answer("filtered") for number in range(1, 11)})
    found = read_report([old(old(report({"10.0.0.1": machine})))])
    assert found.hosts == (Host("10.0.0.1", "up", "arp-response"),)
    assert found.notes == [
        "which ports were in which state is not said of 30 ports, as an old nmap does: they are left out"
    ]


def test_what_is_told_twice_of_a_host_is_one_host() -> None:
    document = report({"10.0.0.1": Machine({3: Answer("open")}, together=0)}, ports=range(1, 10))
    more = report({"10.0.0.1": Machine({13: Answer("open")}, together=0)}, ports=range(10, 20))
    begin, end = more.index(b"<host "), more.index(b"<runstats>")
    (host,) = read_report([document.replace(b"<runstats>", more[begin:end] + b"<runstats>")]).hosts
    assert [port.number for port in host.open_ports()] == [3, 13]


@settings(max_examples=100)
@given(st.data())
def test_a_report_cut_anywhere_is_refused(data: st.DataObject) -> None:
    whole = data.draw(
        st.sampled_from([report({"10.0.0.1": Machine({3: Answer("open")})}), MASSCAN.replace(b"%s", b"")])
    )
    with pytest.raises(ScanFailure, match=r"stops before its end|is empty") as failure:
        read_report([whole.rstrip()[: data.draw(st.integers(0, len(whole.rstrip()) - 1))]])
    assert "\n" not in str(failure.value)


@settings(max_examples=100)
@given(st.binary(max_size=200), st.integers(0, 900))
def test_a_damaged_report_is_read_or_refused_in_one_line(noise: bytes, place: int) -> None:
    whole = report({"10.0.0.1": Machine({3: Answer("open", (("name", "http"),))}), "10.0.0.2": Machine()})
    try:
        read_report([whole[:place] + noise + whole[place + len(noise) :]])
    except ScanFailure as failure:
        assert "\n" not in str(failure)
        assert len(str(failure)) < 300


WHOLE = report({"10.0.0.1": Machine()})

FULL = report(
    {
        "10.0.0.1": Machine(
            {3: Answer("open", (("name", "http"), ("tunnel", "ssl")), (("ssl-cert", "x"),)), 4: Answer("filtered")},
            names=("a.lan",),
            mac="02:00:00:00:00:01",
            os=("Linux",),
            scripts=(("smb", "y"),),
        )
    },
    asked=4,
    targets="10.0.0.1-4",
)


PIECES = [
    b"<?xml version='1.0' encoding='foo'?>",
    b"<?xml version='1.0' encoding='gbk'?>",
    b"\xff\xfe",
    b"<!DOCTYPE nmaprun>",
    b"<!DOCTYPE x [<!ENTITY a 'b'>]>",
    b"<![CDATA[x]]>",
    b"<!-- x -->",
    b"<?x y?>",
    b"&a;&#0;&#xD800;",
    b"<host>",
    b"</host>",
    b"<host/>",
    b"<ports/><status/>",
    b"<address addr='10.0.0.1'/>",
    b'="',
    b"\x00",
    b"\xc3\xa9",
    b"\xe9",
    b"9" * 400,
    b" xml:lang='x' xmlns:a='b' a:b='c'",
]


EDITS = st.tuples(
    st.integers(0, 2000),
    st.sampled_from([0, 1, 5, 38, 200]),
    st.sampled_from(PIECES) | st.binary(max_size=4) | st.none(),
)
"""Where, how much is taken out, and what is put in: ``None`` is what stands behind it once more."""


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([FULL, MASSCAN.replace(b"%s", b"")]), st.lists(EDITS, min_size=1, max_size=3))
def test_a_report_that_somebody_edited_is_read_or_refused_in_one_line(
    whole: bytes, edits: list[tuple[int, int, bytes | None]]
) -> None:
    for begin, length, piece in edits:
        put = whole[begin : begin + 300] if piece is None else piece
        whole = whole[:begin] + put + whole[begin + length :]
    try:
        read_report([whole[:400], whole[400:]])
    except ScanFailure as failure:
        assert str(failure).isprintable()
        assert len(str(failure)) < 300


@settings(max_examples=150)
@given(st.data(), st.one_of(st.text(max_size=30), st.sampled_from(["", "-1", "99999999999", "fe80::1%x\x85y", "tcp"])))
def test_any_value_of_any_attribute_is_taken_or_refused_and_what_is_taken_can_be_shown(
    data: st.DataObject, value: str
) -> None:
    root = ElementTree.fromstring(FULL)
    places = [(element, name) for element in root.iter() for name in element.attrib]
    element, name = data.draw(st.sampled_from(places))
    element.set(name, value)
    try:
        found = read_report([ElementTree.tostring(root)])
    except ScanFailure as failure:
        assert str(failure).isprintable()
        return
    compare(found.hosts, found.side(), (), found.side())
    for host in found.hosts:
        shown = [host.address, host.mac, *host.names, *host.os, *(text for port in host.ports for text in told(port))]
        assert all(text.isprintable() for text in shown)


def told(port: Port) -> list[str]:
    return [port.state, port.reason, port.service, port.product, port.tunnel, *(one.output for one in port.scripts)]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "it is empty"),
        (b"GIF89a" + bytes(100), "it is no XML report of nmap or masscan"),
        (WHOLE + WHOLE, "more follows the end of the report, such as what --append-output adds"),
        (WHOLE + b"Nmap done", "more follows the end of the report"),
        (b"<html></html>", "it is no XML report of nmap or masscan: an element 'html'"),
        (
            WHOLE.replace(b'scanner="nmap"', b'scanner="zgrab"'),
            "it was written by 'zgrab'; reports of nmap and masscan",
        ),
        (WHOLE.replace(b"<!DOCTYPE nmaprun>", b'<!DOCTYPE nmaprun [<!ENTITY a "b">]>'), "it is no XML report"),
        (WHOLE.replace(b'exit="success"', b'exit="error" errormsg="no route"'), "nmap did not finish: no route"),
        (WHOLE.replace(b"<finished ", b"<started "), "the report does not say that it is finished"),
        (WHOLE.replace(b'state="closed"', b'state="ajar"'), "'ajar' is not the state of a port"),
        (WHOLE.replace(b'services="1-30"', b'services="1-70000"'), "'1-70000' is not a range of ports"),
        (WHOLE.replace(b'addr="10.0.0.1"', b'addr="nobody"'), "the report cannot be understood"),
        (WHOLE.replace(b'version="7.93"', b'version="5.00"'), "nmap 5.00 is too old"),
        (MASSCAN.replace(b"%s", b"").replace(b"10.9.0.3", b"elsewhere"), "a host without an address"),
        (WHOLE.replace(b'addr="10.0.0.1"', b'addr="fe80::1%|[a](b) |"'), "a host without an address"),
        (WHOLE.replace(b'addr="10.0.0.1"', b'addr="fe80::1%&lt;img&gt;"'), "a host without an address"),
        (WHOLE.replace(b'addr="10.0.0.1"', b'addr="fe80::1%-oX"'), "a host without an address"),
    ],
)
def test_what_is_no_report_that_can_be_used_is_refused_with_the_reason(document: bytes, reason: str) -> None:
    with pytest.raises(ScanFailure) as failure:
        read_report([document])
    assert reason in str(failure.value)


def test_a_report_that_is_too_large_is_refused_before_it_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "MAX_REPORT", 2**20)
    with pytest.raises(ScanFailure, match="larger than 1 MiB"):
        read_report(b" " * 2**16 if piece else b"<nmaprun>" for piece in range(300))
    monkeypatch.setattr(importing, "MAX_HOSTS", 3)
    with pytest.raises(ScanFailure, match="more than 3 hosts"):
        read_report([report({f"10.0.0.{number}": Machine() for number in range(4)})])
    monkeypatch.setattr(importing, "MAX_PORTS", 2)
    with pytest.raises(ScanFailure, match="or 2 ports"):
        of_masscan()


def grouped(groups: int, ranges: int) -> bytes:
    """Every other port below twice ``ranges`` as closed, for so many reasons."""
    reasons = "".join(
        f'<extrareasons reason="r{one}" proto="tcp" count="1"'
        f' ports="{",".join(str(number) for number in range(1 + 2 * one, 2 * ranges, 2 * groups))}"/>'
        for one in range(groups)
    )
    document = report({"10.0.0.1": Machine({3: Answer("open"), 5: Answer("open")})})
    begin, end = document.index(b"<ports>") + len(b"<ports>"), document.index(b"</ports>")
    return document[:begin] + f'<extraports state="closed" count="1">{reasons}</extraports>'.encode() + document[end:]


def work(monkeypatch: pytest.MonkeyPatch, document: bytes) -> int:
    """How many ranges were taken into hand."""
    handled = 0

    def counting(function: Callable[..., Ranges]) -> Callable[..., Ranges]:
        def counted(*given: Iterable[tuple[int, int]]) -> Ranges:
            nonlocal handled
            held = [tuple(each) for each in given]
            handled += sum(map(len, held))
            return function(*held)

        return counted

    with monkeypatch.context() as patch:
        for name in ("merge", "without", "common"):
            patch.setattr(importing, name, counting(getattr(importing, name)))
        read_report([document])
    return handled


def test_the_work_for_one_host_grows_with_its_ranges_and_not_with_its_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = (work(monkeypatch, grouped(groups, 2000)) for groups in (1, 200))
    assert 2000 <= many <= few + 200
    assert work(monkeypatch, grouped(10, 32_000)) < 17 * few


def test_what_no_nmap_says_of_one_host_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    (host,) = read_report([grouped(10, 32_768)]).hosts  # every other port of all, for each reason that nmap may give
    assert sum(len(rest.ports) for rest in host.rest) == 32_768
    with pytest.raises(ScanFailure, match=r"10\.0\.0\.1 has too many groups of ports"):
        read_report([grouped(250, 32_768)])
    with pytest.raises(ScanFailure, match=r"10\.0\.0\.1 has a tcp port in two states"):
        read_report([grouped(2, 100).replace(b'ports="3,', b'ports="1,3,')])
    info = b'<scaninfo type="syn" protocol="tcp" numservices="1" services="7"/>'
    with pytest.raises(ScanFailure, match="it says too often what was asked for"):
        read_report([WHOLE.replace(b"<host ", info * 64 + b"<host ", 1)])
    monkeypatch.setattr(importing, "_MAX_RANGES", 99)
    with pytest.raises(ScanFailure, match="it tells of more than 99 ranges of ports"):
        read_report([grouped(2, 100)])


def test_ports_that_are_not_named_are_not_counted_out_for_too_many_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    document = old(report({f"10.0.0.{number}": Machine() for number in range(5)}))
    for _ in range(4):
        document = old(document)
    info = f'services="{",".join(str(number) for number in range(1, 61, 2))}"'.encode()
    document = document.replace(b'services="1-30"', info)
    assert len(read_report([document]).hosts) == 5
    monkeypatch.setattr(importing, "_MAX_RANGES", 149)
    with pytest.raises(ScanFailure, match="it tells of more than 149 ranges of ports"):
        read_report([document])
