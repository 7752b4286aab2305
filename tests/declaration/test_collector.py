"""Where a collector listens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.declaration.collector import Collector, parse_collector
from agent.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flows.example.org:4739", Collector("flows.example.org", 4739)),
        ("192.0.2.5:9995", Collector("192.0.2.5", 9995)),
        ("[fd00::5]:4739", Collector("fd00::5", 4739)),
        ("[fe80::1%eth0]:65535", Collector("fe80::1%eth0", 65535)),
    ],
)
def test_a_host_and_a_port(text: str, expected: Collector) -> None:
    assert parse_collector(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "host:",
        ":4739",
        "host:0",
        "host:65536",
        "fd00::5:4739",
        "[fd00::5]",
        "a b:1",
        "a:1:2",
        "a:1\n",
        "ä:1",
        "a" * 400 + ":1",
    ],
)
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"^\".*is not a collector; ") as refused:
        parse_collector(text)
    assert "\n" not in str(refused.value)


@given(st.text(max_size=40))
def test_whatever_is_written_it_is_a_collector_or_refused(text: str) -> None:
    try:
        found = parse_collector(text)
    except UsageError:
        return
    assert parse_collector(str(found)) == found
    assert 1 <= found.port <= 65535
