"""What is exported is read by others as it was, and harms nobody who opens it."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import ScanFailure, StorageFailure
from agent.workers.scan import exporting
from agent.workers.scan.diff import compare
from agent.workers.scan.found import Certificate, Host, Port, Rest, Script
from agent.workers.scan.importing import read_report
from agent.workers.scan.library import nmap
from agent.workers.scan.memory.coverage import asked
from agent.workers.scan.memory.rows import Run
from agent.workers.scan.results import document as kept
from agent.workers.scan.stored import Told
from agent.workers.scan.stream import clean
from tests.workers.scan.reports import each

START = 1_795_788_000

WEB = Port(
    "tcp",
    443,
    "open",
    "syn-ack",
    service="http",
    product="nginx",
    version="1.22.1",
    extrainfo="Debian",
    tunnel="ssl",
    cpe=("cpe:/a:igor_sysoev:nginx:1.22.1", "cpe:/o:linux:linux_kernel"),
    method="probed",
    hostname="web.lan",
    ostype="Linux",
    ttl=64,
    fingerprint="SF-Port443-TCP:V=7.93",
    certificate=Certificate("ab" * 32, "commonName=web.lan", "", 1_790_000_000, 1_800_000_000),
    scripts=(Script("http-title", "Welcome"),),
)
HOST = Host(
    "10.0.0.2",
    "up",
    "arp-response",
    mac="02:00:00:00:00:0a",
    names=("web.lan",),
    ports=(Port("tcp", 22, "closed", "reset", service="ssh", method="table"), WEB),
    rest=(
        Rest("tcp", "closed", "reset", ((1, 21), (23, 442))),
        Rest("udp", "open|filtered", "no-response", ((53, 53),)),
    ),
    os=("Linux 5.0 - 5.2 (96 %)", "Linux 3.1 (95 %)"),
    scripts=(Script("smb-os-discovery", "OS: Unix"),),
)


def told(*hosts: Host, **others: object) -> Told:
    found = Told(
        name="lan 12",
        started=float(START),
        ended=START + 60.0,
        tool="agent",
        arguments="",
        doubt="",
        hosts=hosts,
        asked=asked(["10.0.0.1", "10.0.0.3"], (("tcp", ((1, 443),)), ("udp", ((53, 53),)))),
        total=len(hosts) + 2,
    )
    return replace(found, **others)  # type: ignore[arg-type]  # fields of it, by those who write these tests


def document(found: Told) -> bytes:
    return "".join(exporting.xml(found)).encode()


# What `stream.clean` lets through, and no more.
texts = st.text(max_size=12).map(clean)
names = st.sampled_from(["http", "ssh", "domain", 'a"b', "<&>"])

ports = st.builds(
    Port,
    protocol=st.just("tcp"),
    number=st.integers(1, 100),
    state=st.sampled_from(["open", "closed", "filtered"]),
    reason=st.sampled_from(["syn-ack", "reset"]),
    service=names,
    product=texts,
    version=texts,
    extrainfo=texts,
    tunnel=st.sampled_from(["", "ssl"]),
    cpe=st.lists(texts.filter(bool), max_size=2).map(tuple),
    method=st.sampled_from(["probed", "table"]),
    hostname=texts,
    ttl=st.integers(0, 255),
    scripts=st.lists(st.builds(Script, st.sampled_from(["a", "b"]), texts), max_size=2, unique_by=lambda s: s.name).map(
        lambda found: tuple(sorted(found, key=lambda script: script.name))
    ),
)


guesses = st.dictionaries(st.sampled_from(["A", "B (x)"]), st.integers(1, 100))


@st.composite
def hosts(draw: st.DrawFn, address: str) -> Host:
    found = draw(st.lists(ports, max_size=4, unique_by=lambda port: port.number))
    return Host(
        address,
        "up",
        "arp-response",
        mac=draw(st.sampled_from(["", "02:00:00:00:00:01"])),
        names=tuple(draw(st.lists(texts.filter(bool), max_size=2))),
        ports=tuple(sorted(found, key=lambda port: port.number)),
        rest=(
            Rest("tcp", "closed", "reset", ((101, 200),)),
            Rest("tcp", "filtered", "no-response", ((201, 201), (203, 203))),
        ),
        os=tuple(
            f"{name} ({sure} %)"
            for name, sure in draw(st.dictionaries(st.sampled_from(["A", "B (x)"]), st.integers(1, 100))).items()
        ),
        scripts=tuple(Script("smb", text) for text in draw(st.lists(texts, max_size=1))),
    )


@settings(max_examples=40)
@given(hosts("10.0.0.2"), hosts("fd00::7"))
def test_what_was_exported_as_xml_is_imported_as_it_was(first: Host, second: Host) -> None:
    found = told(first, second)
    back = read_report([document(found)])
    assert back.hosts == (first, second)
    assert back.notes == []
    assert {address for part in back.asked for address in each(part)} == {"10.0.0.1", "10.0.0.3"}
    assert (back.started, back.ended, back.total) == (START, START + 60, 4)
    assert not compare(found.hosts, back.side(), back.hosts, back.side()).changes


def test_the_interface_of_a_link_local_address_is_told_in_a_comment_and_read_back() -> None:
    there = tuple(replace(HOST, address=f"fe80::{place}") for place in ("a%eth0", "b%eth1.7"))
    written = document(told(*there, HOST))
    assert [one.get("comment") for one in ElementTree.fromstring(written).iter("host")] == [
        "zone=eth0",
        "zone=eth1.7",
        None,
    ]
    back = read_report([written])
    assert {host.address for host in back.hosts} == {"fe80::a%eth0", "fe80::b%eth1.7", HOST.address}
    assert {address for part in back.asked for address in each(part)} == {"10.0.0.1", "10.0.0.3"}
    # No other comment makes another host of it, nor of an address that has no use for an interface.
    for old, new in (('comment="zone=eth0"', 'comment="zone=-oN x"'), ("fe80::a", "2001:db8::a")):
        changed = read_report([written.replace(old.encode(), new.encode())])
        assert sum("%" in host.address for host in changed.hosts) == 1


def test_a_certificate_survives() -> None:
    (host,) = read_report([document(told(HOST))]).hosts
    assert host.ports[1].certificate == WEB.certificate
    assert host.ports[1].scripts == (*WEB.scripts, Script("ssl-cert", "Subject: commonName=web.lan"))


parts = st.dictionaries(st.sampled_from(["commonName", "organizationName", "1.3.6.1", "countryName"]), texts)


@given(parts, parts)
def test_the_names_in_a_certificate_survive(subject: dict[str, str], issuer: dict[str, str]) -> None:
    def line(name: dict[str, str]) -> str:
        return clean(
            ", ".join(f"{key}={name[key]}" for key in sorted(name, key=lambda key: (key != "commonName", key)))
        )

    certificate = Certificate("ab" * 32, line(subject), line(issuer))
    (host,) = read_report([document(told(replace(HOST, ports=(replace(WEB, certificate=certificate),))))]).hosts
    assert host.ports[0].certificate == certificate


def test_the_names_in_a_certificate_are_told_as_nmap_tells_of_them() -> None:
    certificate = Certificate("ab" * 32, "commonName=web.lan, organizationName=Web, Inc.", 'commonName=<a "b">')
    (script,) = (
        script
        for script in ElementTree.fromstring(
            document(told(replace(HOST, ports=(replace(WEB, certificate=certificate),))))
        ).iter("script")
        if script.get("id") == "ssl-cert"
    )
    tables = {table.get("key"): [(elem.get("key"), elem.text) for elem in table] for table in script.iter("table")}
    assert tables["subject"] == [("commonName", "web.lan"), ("organizationName", "Web, Inc.")]
    assert tables["issuer"] == [("commonName", '<a "b">')]


def test_python_nmap_reads_what_is_exported() -> None:
    parser = nmap.PortScanner.__new__(nmap.PortScanner)
    found = parser.analyse_nmap_xml_scan(document(told(HOST)).decode())
    host = found["scan"]["10.0.0.2"]
    assert found["nmap"]["scanstats"]["totalhosts"] == "3"
    assert host["hostnames"][0]["name"] == "web.lan"
    assert host["addresses"]["mac"] == "02:00:00:00:00:0A"
    assert host["tcp"][443]["product"] == "nginx"
    assert host["tcp"][443]["script"]["http-title"] == "Welcome"
    assert host["osmatch"][0] | {"osclass": []} == {
        "name": "Linux 5.0 - 5.2",
        "accuracy": "96",
        "line": "0",
        "osclass": [],
    }


def test_ndiff_reads_what_is_exported_and_sees_what_changed(tmp_path: Path) -> None:
    plain = replace(WEB, certificate=None)  # ndiff cannot read a port with two scripts
    before, after = tmp_path / "a.xml", tmp_path / "b.xml"
    before.write_bytes(document(told(replace(HOST, ports=(HOST.ports[0], plain)))))
    after.write_bytes(document(told(replace(HOST, ports=(HOST.ports[0], replace(plain, version="1.26.0"))))))
    same = subprocess.run(["ndiff", before, before], capture_output=True, text=True, check=False)
    assert (same.returncode, same.stdout, same.stderr) == (0, "", "")
    other = subprocess.run(["ndiff", before, after], capture_output=True, text=True, check=False)
    assert other.returncode == 1
    assert "-443/tcp open  ssl/http nginx 1.22.1 (Debian)" in other.stdout
    assert "+443/tcp open  ssl/http nginx 1.26.0 (Debian)" in other.stdout


def test_a_run_that_cannot_be_trusted_says_so_in_its_xml_and_is_not_imported_as_a_good_one() -> None:
    with pytest.raises(ScanFailure, match="nmap did not finish: degraded: 2 canaries"):
        read_report([document(told(HOST, doubt="degraded: 2 canaries"))])


HOSTILE = '=cmd|"/c calc"!A1'
EVIL = replace(
    HOST,
    names=("@SUM(1)", "[x](http://evil.example)"),
    ports=(replace(WEB, product=HOSTILE, version="<script>alert(1)</script>", extrainfo="a | b `c` www.evil.example"),),
)


def test_no_cell_of_the_csv_is_calculated() -> None:
    rows = list(csv.DictReader(io.StringIO("".join(exporting.table(told(EVIL))), newline="")))
    assert [row["port"] for row in rows] == ["443", "1-21,23-442", "53"]
    assert rows[0]["product"] == f"'{HOSTILE}"
    assert rows[0]["names"].startswith("'@SUM(1)")
    assert rows[0]["certificate_until"] == "2027-01-15"
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "-", "@", "\t"))]


@given(st.text(max_size=20))
def test_no_text_becomes_a_formula_and_none_is_lost(text: str) -> None:
    cell = exporting.inert(text)
    assert not cell.lstrip().startswith(("=", "+", "-", "@"))
    assert cell.replace("'", "") == text.replace("'", "")


@given(st.text(st.sampled_from(';\t"=+-@\uff1d a,'), max_size=12), st.sampled_from([";", "\t"]))
def test_no_text_becomes_a_formula_where_another_list_separator_is_set(text: str, separator: str) -> None:
    """Excel takes that of the country for a file that it opens; a quote in a cell is only a quote there."""
    line = exporting._line(["lan 1", text, "end"])
    for cells in (line.split(separator), next(csv.reader(io.StringIO(line, newline=""), delimiter=separator))):
        for cell in cells:
            assert not cell.lstrip(' "').startswith(("=", "+", "-", "@", "\uff1d")), cell
    assert next(csv.reader(io.StringIO(line, newline="")))[1].replace("'", "") == text


def test_an_apostrophe_stands_only_before_what_would_be_calculated() -> None:
    for text in ("Apache; mod_ssl", "a - b", "x=1;y=2", "c++; d"):
        assert exporting.inert(text) == text
    assert exporting.inert('Apache;=HYPERLINK("http://evil")') == """Apache;'=HYPERLINK("http://evil")"""
    assert exporting.inert("=1; -2") == "'=1;' -2"


def test_nothing_in_the_markdown_is_markup() -> None:
    page = "\n".join(exporting.markdown(told(EVIL)))
    (line,) = (line for line in page.splitlines() if line.startswith("| 10.0.0.2"))
    assert line.count("|") == 6
    assert "<" not in page
    assert "](" not in page
    assert "http://" not in page
    assert "www." not in page
    assert "`" not in page
    doubtful = "\n".join(exporting.markdown(told(HOST, doubt="degraded: *x*")))
    assert "**Not to be relied on for what is missing: degraded&#58; &#42;x&#42;.**" in doubtful


@pytest.mark.parametrize("zone", ["|[a](b.co) |", "<img src=x>", "www.evil.co", "`x`"])
def test_the_interface_in_an_address_is_no_markup_either(zone: str) -> None:
    """A memory may be another user's, and hold what no report would."""
    there = replace(HOST, address=f"fe80::1%{zone}")
    for host in (there, replace(there, ports=())):
        lines = list(exporting.markdown(told(host)))[6:]
        assert lines and all(line.count("|") == 6 for line in lines)
        assert not [mark for mark in ("<", "](", "www.", "`") if mark in "".join(lines)]
    ElementTree.fromstring(document(told(there, asked=())))


def test_the_json_holds_everything() -> None:
    (host,) = json.loads(json.dumps(exporting.document(told(HOST))))["hosts"]
    assert host["others"][0] == {"protocol": "tcp", "state": "closed", "reason": "reset", "ports": "1-21,23-442"}
    assert host["ports"][1]["certificate"]["sha256"] == "ab" * 32
    assert host["ports"][1]["fingerprint"] == "SF-Port443-TCP:V=7.93"
    assert host["scripts"] == {"smb-os-discovery": "OS: Unix"}


def test_the_xml_has_the_elements_and_attributes_of_nmap() -> None:
    """Against the declarations of nmap.dtd, which the host's nmap has beside it."""
    dtd = Path("/usr/share/nmap/nmap.dtd").read_text()
    for element in ElementTree.fromstring(document(told(HOST))).iter():
        assert f"<!ELEMENT {element.tag}" in " ".join(dtd.split())
        for attribute in element.attrib:
            assert attribute in dtd


def run_of(status: str = "finished", degraded: str = "") -> Run:
    figures = (0, 0, None, 2, 2, 0, 1, 1, 0, True)
    return Run(7, "", START, START + 9, status, "", degraded, "", 0, "full", "syn", "7.94", {}, [], *figures)


@given(st.lists(st.lists(texts, max_size=3), max_size=4))
def test_what_nmap_said_is_one_document_of_nothing_but_ascii(banners: list[list[str]]) -> None:
    elements = [[f"<host><x y={quoteattr(text)}/></host>".encode() for text in texts] for texts in banners]
    parts = list(exporting.raw("lan", run_of(), (kept(found, "7.94") for found in elements)))
    whole = b"".join(parts).decode("ascii")
    root = ElementTree.fromstring(whole)
    assert [one.get("y") for one in root.iter("x")] == [text for texts in banners for text in texts]
    assert root.get("version") == "7.94"
    assert all(character.isprintable() or character in "\t\n" for character in whole)


def test_what_was_planted_in_nmaps_xml_obeys_no_terminal_and_what_is_none_is_refused() -> None:
    planted = kept(["<host><x y='\x7f\x9b2J\u202e'/></host>".encode()], "")
    assert b"<x y='&#127;&#155;2J&#8238;'/>" in b"".join(exporting.raw("lan", run_of(), [planted]))
    for wrong in (planted[:-30], b"<html/>", b"", b'<!DOCTYPE nmaprun [<!ENTITY a "b">]><nmaprun/>'):
        with pytest.raises(StorageFailure, match="nmap's XML of run 7 of lan cannot be read: nmap"):
            list(exporting.raw("lan", run_of(), [wrong]))


def test_of_a_run_that_does_not_tell_everything_nmaps_own_words_say_so_too() -> None:
    [doubted] = ElementTree.fromstring(b"".join(exporting.raw("lan", run_of(degraded="blind"), ()))).iter("finished")
    assert (doubted.get("exit"), doubted.get("errormsg")) == ("error", "degraded: blind")
