"""What is said of filters that libpcap refuses, and where it points to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.workers.capture.expression_error import refusal

MISSING = "syntax error at its end: something is missing"

RIGHT = [
    "tcp port 80 and ( host 10.0.0.1 or net 10.0.0.0 / 24 )",
    "udp and not ( port 53 or port 123 ) and ip [ 8 ] < 5",
    "src host fe80::1 or ether host 1:2:3:4:5:6 and len >= 100",
    "portrange 1000-2000 && ! icmp || tcp [ 13 ] & 7 != 0",
]

NO_TOKEN = ["@", "é", "}", "\x1b"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("tcp and prot 80", 'syntax error at "prot" (column 9)'),
        ("tcp prot 80", 'syntax error at "prot" (column 5)'),
        ("tcp or or udp", 'syntax error at "or" (column 8)'),
        ("tcp)", 'syntax error at ")" (column 4)'),
        ("tcp && (udp || )", 'syntax error at ")" (column 16)'),
        ("and tcp", 'syntax error at "and" (column 1)'),
        ("port 80 porrt 81", 'syntax error at "porrt" (column 9)'),
        ("host 1.2.3.4 5.6.7.8", 'syntax error at "5.6.7.8" (column 14)'),
        ("src tcp", 'syntax error at "tcp" (column 5)'),
        ("tcp; udp", 'syntax error at ";" (column 4)'),
        ("tcp or\nprot", 'syntax error at "prot" (column 8)'),
        ("tcp port 80 and é", 'syntax error at "é" (column 17)'),
        ("(tcp and udp", MISSING),
        ("tcp and", MISSING),
        ("not", MISSING),
        ("ip[1", MISSING),
        ("tcp and udp port", MISSING),
        ("udp port bananas", "unknown port 'bananas' (column 10)"),
        ("tcp port http or udp port bananas", "unknown port 'bananas' (column 27)"),
        ("port 70000", "illegal port number 70000 > 65535 (column 6)"),
        ("host 1.2.3.300", "invalid IPv4 address '1.2.3.300' (column 6)"),
        ("net 10.0.0.1/24", 'non-network bits set in "10.0.0.1/24" (column 5)'),
        ("net 10.0.0.0/33", 'mask length must be <= 32 at "33" (column 14)'),
        ("tcp[99999999999] = 1", "number 99999999999 overflows 32 bits (column 5)"),
        ("ip[0:3] = 1", 'data size must be 1, 2, or 4 at "3" (column 6)'),
        ("vlan 5000", "VLAN tag 5000 greater than maximum 4095 (column 6)"),
        ("1/0 = 0", 'division by zero at "0" (column 3)'),
        ("proto foo", "unknown ip proto 'foo' (column 7)"),
        ("gateway 1.2.3.4", "'gateway' requires a name (column 1)"),
        ("tcp\0 port 80", "a NUL character would cut it short (column 4)"),
    ],
)
def test_the_complaint_about_a_wrong_filter_tells_the_place(text: str, complaint: str) -> None:
    said = refusal(text)
    assert said is not None
    assert said.partition('": ')[2] == complaint
    assert said.startswith('filter "')
    assert said.isprintable()


@pytest.mark.parametrize("text", [*RIGHT, "", "port 80", "inbound"])
def test_there_is_nothing_to_say_about_a_filter_that_compiles(text: str) -> None:
    assert refusal(text) is None


def test_whether_a_word_has_a_meaning_depends_on_the_link_type() -> None:
    assert refusal("ether proto 0x88b5") is None
    raw = 101  # LINKTYPE_RAW: no Ethernet header
    assert "only" in (refusal("wlan type mgt") or "")
    assert refusal("ether host 1:2:3:4:5:6", raw) is not None


@given(st.sampled_from(RIGHT), st.sampled_from(NO_TOKEN), st.data())
def test_what_cannot_stand_anywhere_is_found_wherever_it_is(text: str, bad: str, data: st.DataObject) -> None:
    words = text.split(" ")
    at = data.draw(st.integers(0, len(words)))
    wrong = " ".join([*words[:at], bad, *words[at:]])
    column = len(" ".join(words[:at])) + (1 if at else 0) + 1
    assert (refusal(wrong) or "").endswith(f"(column {column})")


@given(st.text("tcpudporhsn 0123456789.:/[]()&|!<>=-\\'\"é\n", max_size=40))
def test_whatever_is_wrong_is_said_on_one_line(text: str) -> None:
    said = refusal(text)
    assert said is None or said.isprintable()


def test_a_filter_that_would_take_minutes_to_compile_is_not_compiled() -> None:
    assert "characters are too many" in (refusal("host 1.2.3.4 or " * 1000 + "tcp") or "")
