"""Lines that nmap 7.93 wrote, of each kind, and what is told by them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.workers.scan.trace import Answered, Line, Sent, read_line

LINES: list[tuple[str, Line]] = [
    (
        "SENT (0.0466s) ICMP [10.77.0.1 > 10.78.1.0 Echo request (type=8/code=0) id=39678 seq=0] IP [ttl=50 id=64667 "
        "iplen=28 ]",
        Sent("10.78.1.0", "echo"),
    ),
    (
        "SENT (0.0090s) ICMP [10.77.0.1 > 10.78.0.129 Timestamp request (type=13/code=0) id=6992 seq=0 orig=0 recv=0 "
        "trans=0] IP [ttl=46 id=5974 iplen=40 ]",
        Sent("10.78.0.129", "timestamp"),
    ),
    (
        "SENT (1.4548s) TCP 10.77.0.1:53902 > 10.78.0.129:443 S ttl=59 id=9387 iplen=44  seq=4201754431 win=1024 "
        "<mss 1460>",
        Sent("10.78.0.129", "443"),
    ),
    (
        "SENT (0.0090s) TCP 10.77.0.1:53902 > 10.78.0.2:80 A ttl=51 id=65393 iplen=40  seq=0 win=1024 ",
        Sent("10.78.0.2", "80"),
    ),
    ("SENT (0.0133s) ARP who-has 10.77.0.3 tell 10.77.0.1", Sent("10.77.0.3", "arp")),
    (
        "SENT (1.2619s) ICMPv6 (58) fd77::1 > fd78::1:5 (type=128/code=0) hopl=255 flow=0 payloadlen=8",
        Sent("fd78::1:5", "echo"),
    ),
    (
        "SENT (1.2621s) TCP fd77::1:48485 > fd78::1:5:443 S hopl=255 flow=0 payloadlen=24 seq=3857323423 win=1024 "
        "<mss 1460>",
        Sent("fd78::1:5", "443"),
    ),
    (
        "SENT (1.2622s) TCP fd77::1:48485 > fd78::5:80 A hopl=255 flow=0 payloadlen=20 seq=0 win=1024 ",
        Sent("fd78::5", "80"),
    ),
    ("CONN (0.0008s) TCP localhost > 10.78.0.2:80 => Operation now in progress", Sent("10.78.0.2", "80")),
    ("CONN (1.1018s) TCP localhost > fd77::3:443 => Operation now in progress", Sent("fd77::3", "443")),
    (
        "RCVD (0.0090s) ICMP [10.78.0.2 > 10.77.0.1 Echo reply (type=0/code=0) id=57873 seq=0] IP [ttl=64 id=15422 "
        "iplen=28 ]",
        Answered("10.78.0.2", "echo", "echo-reply"),
    ),
    (
        "RCVD (0.0090s) ICMP [10.78.0.2 > 10.77.0.1 Timestamp reply (type=14/code=0) id=41844 seq=0 orig=0 "
        "recv=79436618 trans=79436618] IP [ttl=64 id=15423 iplen=40 ]",
        Answered("10.78.0.2", "timestamp", "timestamp-reply"),
    ),
    (
        "RCVD (0.0090s) TCP 10.78.0.2:443 > 10.77.0.1:53902 RA ttl=64 id=0 iplen=40  seq=0 win=0 ",
        Answered("10.78.0.2", "443", "reset"),
    ),
    (
        "RCVD (0.0090s) TCP 10.78.0.2:443 > 10.77.0.1:53902 SA ttl=64 id=0 iplen=44  seq=1 win=0 ",
        Answered("10.78.0.2", "443", "syn-ack"),
    ),
    (
        "RCVD (1.2621s) TCP fd78::5:80 > fd77::1:48485 R hopl=64 flow=ef5eb payloadlen=20 seq=3 win=0 ",
        Answered("fd78::5", "80", "reset"),
    ),
    (
        "RCVD (0.0133s) ARP reply 10.77.0.2 is-at 76:4C:D2:F9:6A:C7",
        Answered("10.77.0.2", "arp", "arp-response", "76:4c:d2:f9:6a:c7"),
    ),
    (
        "RCVD (1.2619s) ICMPv6 (58) fd78::5 > fd77::1 (type=129/code=0) hopl=64 flow=78fea payloadlen=8",
        Answered("fd78::5", "echo", "echo-reply"),
    ),
    (
        "RCVD (0.0140s) neighbor advertisement fd77::2 > fd77::1 fd77::2 is at 76:4c:d2:f9:6a:c7",
        Answered("fd77::2", "", "nd-response", "76:4c:d2:f9:6a:c7"),
    ),
    (
        "RCVD (0.1s) ICMP [10.77.0.9 > 10.77.0.1 Port 443 unreachable (type=3/code=3) ] IP [ttl=64 id=1 iplen=56 ]",
        Answered("10.77.0.9", "", "port-unreach"),
    ),
    (
        "RCVD (0.1s) ICMP [10.77.0.9 > 10.77.0.1 Communication administratively prohibited by filtering "
        "(type=3/code=13) ] IP [ttl=64 id=1 iplen=56 ]",
        Answered("10.77.0.9", "", "dest-unreach"),
    ),
    (
        "RCVD (1.2619s) ICMPv6 (58) fd77::2 > fd77::1 (type=1/code=0) hopl=64 flow=61a5d payloadlen=56",
        Answered("fd77::2", "", "dest-unreach"),
    ),
    ("CONN (0.0016s) TCP localhost > 10.77.0.2:80 => Connection refused", Answered("10.77.0.2", "80", "conn-refused")),
    ("CONN (0.0016s) TCP localhost > 127.0.0.1:443 => Connected", Answered("127.0.0.1", "443", "syn-ack")),
]


@pytest.mark.parametrize(("text", "said"), LINES)
def test_a_line_says_who_was_asked_or_has_answered(text: str, said: Line) -> None:
    assert read_line(text) == said
    assert read_line(f"{text}\r") == said


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Starting Nmap 7.93 ( https://nmap.org ) at 2026-11-27 22:03 UTC",
        "SENT (0.0139s) ICMPv6 (58) fd77::1 > ff02::1:ff00:3 (type=135/code=0) hopl=255 flow=0 payloadlen=32",
        "RCVD (1.2618s) ICMPv6 (58) fd77::2 > fd77::1 (type=136/code=0) hopl=255 flow=0 payloadlen=32",
        "RCVD (0.1s) ICMP [10.77.0.9 > 10.77.0.1 TTL=0 during transit (type=11/code=0) ] IP [ttl=64 id=1 iplen=56 ]",
        "SENT (0.0s) TCP 10.77.0.1:1 > 10.78.0.129:22 S ttl=59 id=9387 iplen=44  seq=1 win=1024 ",
        "RCVD (0.0s) TCP 10.78.0.2:22 > 10.77.0.1:53902 SA ttl=64 id=0 iplen=40  seq=0 win=0 ",
        "RCVD (0.0s) TCP 10.78.0.2:443 > 10.77.0.1:53902 PA ttl=64 id=0 iplen=40  seq=0 win=0 ",
        "CONN (0.0006s) TCP localhost > 10.78.0.3:443 => Network is unreachable",
        "RCVD (0.0133s) ARP reply 10.77.0.2 is-at 76:4C:D2",
    ],
)
def test_other_lines_say_nothing(text: str) -> None:
    assert read_line(text) is None


@given(st.sampled_from([text for text, _ in LINES]), st.data())
def test_a_line_that_was_damaged_breaks_nothing(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, len(text)))
    said = read_line(text[:start] + data.draw(st.text(max_size=8)) + text[stop:])
    assert said is None or set(said.address) <= set("0123456789abcdef.:")
