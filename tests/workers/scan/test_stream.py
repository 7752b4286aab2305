"""nmap's XML is believed only when all of it says so."""

from __future__ import annotations

import subprocess
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import ScanFailure
from agent.workers.scan import stream as module
from agent.workers.scan.stream import Verdict, XmlStream, clean


@cache
def real_document() -> bytes:
    """What nmap says about this host's loopback."""
    return subprocess.run(
        ["nmap", "-n", "-sT", "-p", "1-30", "-oX", "-", "127.0.0.1"], capture_output=True, check=True
    ).stdout


def document(inside: str = "", *, exit: str = 'exit="success"', total: str = "1") -> bytes:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE nmaprun>\n<nmaprun scanner="nmap" version="7.93">'
        f'{inside}<runstats><finished time="1" {exit}/><hosts up="1" down="0" total="{total}"/></runstats></nmaprun>\n'
    ).encode()


def read(data: bytes) -> tuple[Verdict, XmlStream]:
    stream = XmlStream()
    stream.feed(data)
    return stream.close(), stream


def test_a_real_answer_is_understood() -> None:
    verdict, _ = read(real_document())
    assert verdict.exit == "success"
    assert verdict.hosts_total == 1
    assert verdict.version[0].isdigit()


@settings(deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=30))
def test_it_does_not_matter_how_the_bytes_arrive(sizes: list[int]) -> None:
    whole = real_document()
    stream = XmlStream()
    start = 0
    for size in sizes:
        stream.feed(whole[start : start + size])
        start += size
    stream.feed(whole[start:])
    assert stream.close() == read(whole)[0]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_an_answer_cut_anywhere_is_refused(data: st.DataObject) -> None:
    whole = real_document().rstrip()
    stream = XmlStream()
    with pytest.raises(ScanFailure, match=r"stops before its end|wrote nothing") as failure:
        stream.feed(whole[: data.draw(st.integers(0, len(whole) - 1))])
        stream.close()
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("encoding", ["foo", "gbk", "utf-16", "cp037", "utf-7", "x" * 500])
def test_another_encoding_is_refused(encoding: str) -> None:
    with pytest.raises(ScanFailure, match="not its XML: its encoding is") as failure:
        read(document().replace(b"UTF-8", encoding.encode()))
    assert len(str(failure.value)) < 200


@pytest.mark.parametrize("encoding", ["utf-8", "Us-Ascii"])
def test_what_is_utf8_whatever_it_is_called_is_read(encoding: str) -> None:
    assert read(document().replace(b"UTF-8", encoding.encode()))[0].exit == "success"


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_end_in_a_verdict_or_a_stated_reason(data: bytes) -> None:
    try:
        verdict, _ = read(data)
    except ScanFailure as failure:
        assert "\n" not in str(failure)
        assert len(str(failure)) < 300
    else:
        assert verdict.exit != "success"


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE nmaprun [<!ENTITY a "aaaa">]>',
        "<!DOCTYPE nmaprun [<!ELEMENT nmaprun ANY>]>",
        '<!DOCTYPE nmaprun SYSTEM "file:///etc/passwd">',
        '<!DOCTYPE nmaprun PUBLIC "x" "http://127.0.0.1/x.dtd">',
        "<!DOCTYPE html>",
    ],
)
def test_entities_and_foreign_document_types_are_refused(doctype: str) -> None:
    stream = XmlStream()
    with pytest.raises(ScanFailure, match="not its XML"):
        stream.feed(document().replace(b"<!DOCTYPE nmaprun>", doctype.encode()))


def test_a_document_of_another_kind_is_refused() -> None:
    with pytest.raises(ScanFailure, match="not its XML: an element 'html'"):
        read(b"<html></html>")


def test_an_element_nested_beyond_reason_is_refused() -> None:
    with pytest.raises(ScanFailure, match="not its XML"):
        read(b"<nmaprun>" + b"<a>" * 100_000)


def cut(data: bytes, sizes: list[int], limit: int = 1 << 20) -> tuple[list[bytes], Verdict]:
    """The hosts of a document that arrives in pieces of these sizes, and then the rest."""
    hosts: list[bytes] = []
    stream = XmlStream(on_host=hosts.append, limit=limit)
    start = 0
    for size in sizes:
        stream.feed(data[start : start + size])
        start += size
    stream.feed(data[start:])
    return hosts, stream.close()


@settings(deadline=None)
@given(st.lists(st.text(max_size=40), max_size=6), st.lists(st.integers(1, 90), max_size=40))
def test_each_host_comes_out_whole_however_the_bytes_arrive(banners: list[str], sizes: list[int]) -> None:
    escaped = ["".join(f"&#{ord(c)};" if c.isprintable() else "?" for c in banner) for banner in banners]
    hosts = [f'<host><a x="{text}>"/>\n<b>{text}</b></host>'.encode() for text in escaped]
    found, verdict = cut(document('<taskbegin task="x"/>' + "".join(host.decode() for host in hosts)), sizes)
    assert found == hosts
    assert verdict.oversized == 0


def test_a_host_comes_out_before_the_document_ends() -> None:
    hosts: list[bytes] = []
    stream = XmlStream(on_host=hosts.append)
    stream.feed(b"<nmaprun><host><address/></ho")
    assert hosts == []
    stream.feed(b"st>")
    assert hosts == [b"<host><address/></host>"]


def test_a_host_of_which_too_much_is_said_is_left_out_and_the_others_are_not() -> None:
    large = '<host><a x="' + "y" * 5000 + '"/>' + "<b/>" * 500 + "</host>"
    small = '<host><address addr="10.0.0.1"/></host>'
    for sizes in ([], [100] * 90, [7000]):
        found, verdict = cut(document(small + large + small), sizes, limit=6000)
        assert found == [small.encode()] * 2
        assert verdict.oversized == 1


def test_nothing_but_the_host_at_hand_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = XmlStream(on_host=lambda element: None, limit=1000)
    stream.feed(b"<nmaprun>")
    for _ in range(1000):
        stream.feed(b"<host>" + b"<a/>" * 100 + b"</host><taskprogress/>")
        assert len(stream._held) < 2000
    stream.feed(b'<a x="')
    with pytest.raises(ScanFailure, match="an element without an end"):
        for _ in range(100):
            stream.feed(b"y" * 500)
    monkeypatch.setattr(module, "MAX_BESIDE", 5000)
    stream = XmlStream()
    stream.feed(b"<nmaprun>")
    with pytest.raises(ScanFailure, match="that tell of no host"):
        for _ in range(100):
            stream.feed(b"<taskprogress/>" * 10)


@pytest.mark.parametrize(("version", "old"), [("6.20", True), ("5.51", True), ("6.25", False), ("7.8", False)])
def test_an_nmap_that_is_too_old_is_found_out_before_it_sends_anything(version: str, old: bool) -> None:
    stream = XmlStream()
    head = f'<?xml version="1.0"?><!DOCTYPE nmaprun><nmaprun version="{version}">'.encode()
    if not old:
        stream.feed(head)
        return
    with pytest.raises(ScanFailure, match=rf"nmap {version} is too old: 6\.25 or newer is needed"):
        stream.feed(head)


def test_hosts_that_timed_out_or_were_skipped_are_named() -> None:
    verdict, _ = read(
        document(
            '<target specification="10.0.0.9" status="skipped" reason="invalid"/>'
            '<host timedout="true"><address addr="10.0.0.1" addrtype="ipv4"/>'
            '<address addr="02:00:00:00:00:01" addrtype="mac"/></host>'
            '<hosthint><address addr="10.0.0.2" addrtype="ipv4"/></hosthint>'
            '<host><address addr="10.0.0.2" addrtype="ipv4"/></host>'
        )
    )
    assert verdict.timed_out == ["10.0.0.1"]
    assert verdict.skipped == ["10.0.0.9"]


def test_an_error_of_nmap_is_kept_in_its_words() -> None:
    verdict, _ = read(document(exit='exit="error" errormsg="no route"'))
    assert (verdict.exit, verdict.error) == ("error", "no route")


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["ARP Ping Scan", "SYN Stealth Scan", "Service scan", "x"]), st.text()), max_size=9
    )
)
def test_progress_never_falls_nor_reaches_the_end_before_it_is_there(reports: list[tuple[str, str]]) -> None:
    stream = XmlStream()
    stream.feed(b"<nmaprun>")
    before = 0.0
    for task, percent in reports:
        escaped = "".join(f"&#{ord(c)};" for c in percent if c.isprintable())
        stream.feed(f'<taskprogress task="{task}" percent="{escaped}"/>'.encode())
        assert before <= stream.fraction < 1
        before = stream.fraction


def test_progress_follows_nmaps_discovery_and_nothing_else() -> None:
    stream = XmlStream()
    seen = []
    stream.feed(b"<nmaprun>")
    for task, percent in (
        ("ARP Ping Scan", "50.00"),
        ("Ping Scan", "20.00"),
        ("Service scan", "99.90"),
        ("ND Ping Scan", "100.00"),
    ):
        stream.feed(f'<taskprogress task="{task}" percent="{percent}"/>'.encode())
        seen.append(round(stream.fraction, 2))
    assert seen == [0.5, 0.5, 0.5, 0.99]


@settings(deadline=None)
@given(st.text(max_size=2000), st.integers(0, 300))
def test_cleaned_text_is_one_short_printable_line(text: str, limit: int) -> None:
    result = clean(text, limit)
    assert result.isprintable()
    assert len(result) <= limit
    assert result == result.lstrip()
    assert clean(result, limit) == result.strip()


def test_nothing_is_cleaned_to_nothing() -> None:
    assert clean(None) == clean("") == clean("\x00\n") == ""
